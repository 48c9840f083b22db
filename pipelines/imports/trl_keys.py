"""Keys of a TRL configuration for supervised fine-tuning (SFTConfig, ModelConfig,
ScriptArguments)."""

from typing import Any

from pipelines.imports import converters as to
from pipelines.imports.rules import Rule, derived, lost, no_effect, taken
from pipelines.imports.training_args_keys import DEFAULTS as DEFAULTS_OF_TRAINING_ARGS
from pipelines.imports.training_args_keys import RULES as TRAINING_ARGS

ATTENTION = "training.attention: auto computes each conversation of a row by itself"
QUANTIZED = "hagane holds a base in 4 bits (model.quantization: nf4), or does not quantize it"
FOUR_BITS = taken("model.quantization", to.four_bits, QUANTIZED, False)
EMBEDDINGS_AND_HEAD = "hagane trains embeddings and head whole, no other layer"
MODEL: dict[str, Rule] = {
    "model_name_or_path": taken("model.source"),
    "model_revision": taken("model.revision"),
    "trust_remote_code": lost("hagane runs no code of a model's repository"),
    "load_in_4bit": FOUR_BITS,
    "load_in_8bit": lost(QUANTIZED),
    "bnb_4bit_quant_type": no_effect(QUANTIZED),
    "use_bnb_nested_quant": no_effect(QUANTIZED),
    "attn_implementation": derived(ATTENTION),
    "dtype": no_effect("training.precision"),
    "torch_dtype": no_effect("training.precision"),
    "lora_r": taken("lora.rank", to.whole),
    "lora_alpha": taken("lora.alpha", to.above_zero),
    "lora_dropout": taken("lora.dropout", to.share),
    "lora_target_modules": taken("lora.targets", to.targets),
    "lora_target_parameters": derived("lora.targets: experts' weights are in auto and all"),
    "lora_modules_to_save": taken("lora.also_train", to.vocabulary_layers, EMBEDDINGS_AND_HEAD),
    "use_rslora": taken("lora.rslora", to.yes_or_no),
    "use_dora": taken("lora.dora", to.yes_or_no),
}
DEFAULTS = DEFAULTS_OF_TRAINING_ARGS | {"training.lr_peak": 2e-5}
"""learning_rate is SFTConfig's own (TRL's documentation)."""


def _method(value: Any) -> str | None:
    if not isinstance(value, bool):
        return None
    if value:
        return "lora"
    return "full"


RULES: dict[str, Rule] = {
    **TRAINING_ARGS,
    **MODEL,
    "use_peft": taken("training.method", _method),
    "lora_task_type": no_effect("always a causal language model"),
    "dataset_name": taken("data.train", to.data_place),
    "dataset_config": lost("name the folder or file of that configuration in data.train"),
    "dataset_train_split": lost("use data.train: [{path: …, split: …}]", "train"),
    "dataset_test_split": lost("use data.held_out", "test"),
    "dataset_streaming": no_effect("data of any size is read as a stream"),
    "dataset_num_proc": no_effect("one process for each core"),
    "dataset_text_field": lost("use data.format: text and data.columns", "text"),
    "dataset_kwargs": lost("use data.format and data.columns"),
    "max_length": taken("data.row_tokens", to.whole),
    "max_seq_length": taken("data.row_tokens", to.whole),
    "packing": taken("data.packing", to.yes_or_no),
    "packing_strategy": lost("whole conversations are packed, none is split", "bfd"),
    "eval_packing": no_effect("held-out rows are packed as training rows are"),
    "padding_free": no_effect("hagane's rows are packed or padded to their micro-batch"),
    "pad_token": derived("from the tokenizer"),
    "pad_to_multiple_of": derived("rows on a GPU are padded to a multiple of 64"),
    "eos_token": derived("from the tokenizer and the chat template"),
    "chat_template_path": taken("data.chat_template"),
    "assistant_only_loss": lost("only assistant turns are trained", True),
    "completion_only_loss": lost("only completions are trained", True),
    "loss_type": lost("hagane's loss is that of the next token", "nll"),
    "activation_offloading": lost(
        "use zero.offload_parameters and training.gradient_checkpointing"
    ),
    "shuffle_dataset": no_effect("rows are drawn at random by training.seed"),
}
