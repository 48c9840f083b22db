"""Chats of made-up words in two languages, of any number of bytes, and a byte-level BPE tokenizer
that was trained on some of them."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 32_000
_TRAINED_ON = 1_000
"""Conversations that the tokenizer is trained on: 3 MB, some seconds."""

CHATML = """{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

_KANA = "かきくけこさしすせそたちつてとなにぬねのまみむめもらりるれろがぎぐげござじずぜぞばびぶべぼ"
_KANJI = (
    "港色青数次答短語文書本車駅町山川海空雨雪花鳥風月人手足目耳口心力時年日週朝昼夜春夏秋冬東西南北"
)


def write_chats(path: Path, num_bytes: int, *, seed: int = 0) -> None:
    """JSONL in OpenAI's form, at least this many bytes: one to four questions, answers of 20 to 400
    words, a third Japanese."""
    with path.open("w", encoding="utf-8") as stream:
        written = 0
        for messages in _chats(seed):
            line = json.dumps({"messages": messages}, ensure_ascii=False) + "\n"
            stream.write(line)
            written += len(line.encode())
            if written >= num_bytes:
                return


def make_tokenizer(folder: Path) -> None:
    """tokenizer.json, tokenizer_config.json and config.json of a model are in the folder."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|bos|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    chats = _chats(seed=1)
    texts = (turn["content"] for _ in range(_TRAINED_ON) for turn in next(chats))
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|im_end|>",
        "chat_template": CHATML,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    config = {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 8192,
        "eos_token_id": 3,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _chats(seed: int) -> Iterator[list[dict[str, str]]]:
    """Without end. Words are as frequent as words are (Zipf): what a tokenizer keeps in its cache
    is as in real text."""
    rng = random.Random(seed)  # noqa: S311
    words = random.Random(7)  # noqa: S311
    english = [
        "".join(words.choices("etaoinshrdlucmfwypvbgk", k=words.randint(2, 9)))
        for _ in range(5_000)
    ]
    japanese = ["".join(words.choices(_KANJI + _KANA, k=words.randint(1, 5))) for _ in range(5_000)]
    weights = [1 / (rank + 2) for rank in range(5_000)]
    cumulative = [sum(weights[:1])]
    for weight in weights[1:]:
        cumulative.append(cumulative[-1] + weight)
    while True:
        is_japanese = rng.random() < 1 / 3
        if is_japanese:
            vocabulary, space = (japanese, "")
        else:
            vocabulary, space = (english, " ")

        def said(
            least: int, most: int, vocabulary: list[str] = vocabulary, space: str = space
        ) -> str:
            chosen = rng.choices(vocabulary, cum_weights=cumulative, k=rng.randint(least, most))
            if space:
                comma, stop = (",", ".")
            else:
                comma, stop = ("、", "。")
            clauses = (space.join(chosen[start : start + 9]) for start in range(0, len(chosen), 9))
            return f"{comma}{space}".join(clauses) + stop

        messages = []
        for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
            messages.append({"role": "user", "content": said(5, 60)})
            messages.append({"role": "assistant", "content": said(20, 400)})
        yield messages
