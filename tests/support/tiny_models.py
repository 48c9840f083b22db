"""Real things made small: a byte-level BPE tokenizer, random models, conversations in two languages."""

import json
import random
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

Architecture = Literal[
    "llama", "gpt_neox", "gpt2", "gemma", "qwen3", "qwen3_moe", "mixtral", "gpt_oss", "bloom", "mamba2", "qwen3_next", "mamba"
]  # fmt: skip
BOS, PAD, TURN, END = "<|bos|>", "<|pad|>", "<|im_start|>", "<|im_end|>"

CHATML = """{{ bos_token }}{% if messages[0]['role'] != 'system' %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

_SENTENCES = (
    "You are a helpful assistant. What is 12 plus 7? 12 plus 7 is 19.",
    "system user assistant: The colour of the harbour is blue, and the answer is short.",
    "Which number follows 41? The number after 41 is 42.",
    "12たす7はいくつですか。12たす7は19です。",
    "41の次の数は何ですか。41の次は42です。",
    "港の色は青です。短く答えてください。",
)


def make_tokenizer(folder: Path, *, chat_template: str | None = CHATML) -> Path:
    """`folder` holds tokenizer.json (400 tokens) and tokenizer_config.json; eos is `<|im_end|>`. None: no chat template.

    Like Llama's, the tokenizer writes bos itself when asked for special tokens, so that CHATML can give it twice.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[BOS, PAD, TURN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES * 4, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
    }
    if chat_template is not None:
        config["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return folder


def make_model(
    folder: Path,
    *,
    architecture: Architecture = "llama",
    seed: int = 0,
    hidden: int = 64,
    layers: int = 2,
    chat_template: str | None = CHATML,
    **config_fields: Any,
) -> Path:
    """`folder` holds a random fp32 model in Hugging Face layout and `make_tokenizer`'s tokenizer. Same seed, same bytes.

    `config_fields` go into its config.json.
    """
    import torch  # seconds, and most tests need only the tokenizer
    from transformers import AutoConfig, AutoModelForCausalLM

    make_tokenizer(folder, chat_template=chat_template)
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json"))
    shape = {
        "vocab_size": vocabulary.get_vocab_size(),
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "bos_token_id": vocabulary.token_to_id(BOS),
        "eos_token_id": vocabulary.token_to_id(END),
        "pad_token_id": vocabulary.token_to_id(PAD),
        "tie_word_embeddings": False,
    }
    config = AutoConfig.for_model(architecture, **{**shape, **_own_fields(architecture), **config_fields})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    return folder


def _own_fields(architecture: Architecture) -> dict[str, Any]:
    """What makes a tiny model of this type: its key heads, and four small experts of which a token takes two."""
    if architecture in ("gpt_neox", "bloom", "gpt2"):
        return {}
    if architecture == "mamba2":
        return {"expand": 2, "num_heads": 8, "head_dim": 16, "n_groups": 1, "state_size": 16, "chunk_size": 32}
    if architecture == "mamba":
        return {"state_size": 8}
    grouped = {"num_key_value_heads": 2}
    if architecture == "llama":
        return grouped
    if architecture in ("gemma", "qwen3"):
        return grouped | {"head_dim": 16}
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    if architecture == "mixtral":
        return grouped | experts
    if architecture == "gpt_oss":
        return grouped | experts | {"head_dim": 16, "layer_types": ["sliding_attention", "full_attention"]}
    qwen_experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}
    if architecture == "qwen3_next":
        linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16}
        layers = {"layer_types": ["linear_attention", "full_attention"], "shared_expert_intermediate_size": 32}
        return grouped | qwen_experts | linear | layers
    return grouped | qwen_experts


def write_conversations(path: Path, n: int, seed: int = 0) -> Path:
    """`path` holds `n` different conversations of one or two questions, English and Japanese in turn; at most 9000."""
    pairs = random.Random(seed).sample([(a, b) for a in range(10, 100) for b in range(1, 101)], n)
    lines = [json.dumps({"messages": _conversation(*pair, index)}, ensure_ascii=False) for index, pair in enumerate(pairs)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _conversation(a: int, b: int, index: int) -> list[dict[str, str]]:
    if index % 2:
        turns = [
            (f"{a}たす{b}はいくつですか。", f"{a}たす{b}は{a + b}です。"),
            (f"{a}の次の数は何ですか。", f"{a}の次は{a + 1}です。"),
        ]
    else:
        turns = [
            (f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."),
            (f"Which number follows {a}?", f"The number after {a} is {a + 1}."),
        ]
    system = [{"role": "system", "content": "短く答えてください。" if index % 2 else "The answer is short."}] if index % 5 == 0 else []
    asked = turns[: 1 + index % 3 // 2]
    return system + [
        {"role": role, "content": content} for question, answer in asked for role, content in (("user", question), ("assistant", answer))
    ]
