"""Keys of a LLaMA-Factory YAML for supervised fine-tuning (its hparams), beside
TrainingArguments."""

from pipelines.imports import converters as to
from pipelines.imports.rules import Rule, derived, lost, no_effect, taken
from pipelines.imports.training_args_keys import DEFAULTS as DEFAULTS_OF_TRAINING_ARGS
from pipelines.imports.training_args_keys import RULES as TRAINING_ARGS
from pipelines.imports.trl_keys import ATTENTION, EMBEDDINGS_AND_HEAD, MODEL, QUANTIZED

METHODS = {"lora": "lora", "full": "full"}
TEMPLATE = "hagane takes the model's own; where this is another, set data.chat_template"
OTHER_LORA = "hagane starts LoRA as Hu et al. do"
DEFAULTS = DEFAULTS_OF_TRAINING_ARGS | {"lora.rank": 8, "data.row_tokens": 2048}
"""lora_rank and cutoff_len are LLaMA-Factory's own (its hparams)."""
RULES: dict[str, Rule] = {
    **TRAINING_ARGS,
    **MODEL,
    "stage": lost("hagane trains on the next token: sft, or pt with data.format: text", "sft"),
    "finetuning_type": taken("training.method", to.one_of(METHODS), "hagane has lora and full"),
    "lora_rank": taken("lora.rank", to.whole),
    "lora_target": taken("lora.targets", to.targets),
    "additional_target": taken("lora.also_train", to.vocabulary_layers, EMBEDDINGS_AND_HEAD),
    "loraplus_lr_ratio": taken("lora.plus_ratio", to.above_zero),
    "loraplus_lr_embedding": no_effect("no LoRA is put beside embeddings"),
    "pissa_init": lost(OTHER_LORA),
    "pissa_iter": no_effect(OTHER_LORA),
    "pissa_convert": no_effect(OTHER_LORA),
    "create_new_adapter": no_effect("a run always trains a new adapter"),
    "adapter_name_or_path": lost("a run starts from the base model; merge the adapter first"),
    "freeze_trainable_layers": lost("hagane has lora and full"),
    "freeze_trainable_modules": lost("hagane has lora and full"),
    "freeze_extra_modules": lost("hagane has lora and full"),
    "use_galore": lost("hagane trains with AdamW"),
    "use_apollo": lost("hagane trains with AdamW"),
    "use_badam": lost("hagane trains with AdamW"),
    "use_adam_mini": lost("hagane trains with AdamW"),
    "use_muon": lost("hagane trains with AdamW"),
    "use_llama_pro": lost("hagane has lora and full"),
    "quantization_bit": taken("model.quantization", to.four_bits, QUANTIZED),
    "quantization_method": no_effect(QUANTIZED),
    "quantization_type": no_effect(QUANTIZED),
    "double_quantization": no_effect(QUANTIZED),
    "upcast_layernorm": lost("hagane has no such setting"),
    "upcast_lmhead_output": lost("hagane has no such setting"),
    "flash_attn": derived(ATTENTION),
    "shift_attn": lost("hagane has no shifted attention"),
    "rope_scaling": lost("set rope_scaling in the model's config.json"),
    "enable_liger_kernel": lost("hagane computes the loss of trained tokens in chunks instead"),
    "use_unsloth": lost("hagane has its own kernels and torch's"),
    "use_unsloth_gc": lost("use training.gradient_checkpointing"),
    "disable_gradient_checkpointing": taken("training.gradient_checkpointing", to.unless),
    "resize_vocab": lost("hagane adds no tokens"),
    "new_special_tokens": lost("hagane adds no tokens"),
    "use_fast_tokenizer": no_effect("hagane reads tokenizer.json"),
    "dataset": taken("data.train", hint="a name of dataset_info.json: set data.train to its file"),
    "eval_dataset": taken(
        "data.held_out", hint="a name of dataset_info.json: set data.held_out to its file"
    ),
    "dataset_dir": derived("paths of the spec count from where hagane runs"),
    "media_dir": no_effect("hagane trains text alone"),
    "template": lost(TEMPLATE),
    "default_system": lost("put the system turn into the data, or use data.template_args"),
    "enable_thinking": lost("use data.template_args: {enable_thinking: …}"),
    "cutoff_len": taken(
        "data.row_tokens", to.whole, hint="longer conversations are refused: data.too_long"
    ),
    "max_samples": lost("name a smaller file in data.train"),
    "packing": taken("data.packing", to.yes_or_no),
    "neat_packing": no_effect("conversations of a row never see each other"),
    "train_on_prompt": lost(
        "only assistant turns are trained; data.format: text trains on all tokens"
    ),
    "mask_history": lost("every assistant turn is trained"),
    "val_size": taken("data.held_out_share", to.share, "a count: set data.held_out_share, a share"),
    "streaming": no_effect("data of any size is read as a stream"),
    "mix_strategy": lost("use weight or repeat of the sources in data.train", "concat"),
    "interleave_probs": lost("use weight of the sources in data.train"),
    "overwrite_cache": no_effect("the dataset is made anew when anything of it changes"),
    "preprocessing_num_workers": no_effect("one process for each core"),
    "preprocessing_batch_size": no_effect("no result changes with it"),
    "buffer_size": no_effect("no result changes with it"),
    "tokenized_path": no_effect("the dataset is a folder of the run"),
    "cache_dir": no_effect("HF_HOME names the hub's cache"),
    "plot_loss": no_effect("the report has the curves"),
    "compute_accuracy": no_effect("token accuracy is measured before and after"),
    "predict_with_generate": lost("use evaluation.metrics"),
    "include_effective_tokens_per_second": no_effect("the log has tokens per second"),
    "ray_run_name": no_effect("hagane runs on Kubernetes or here"),
    "ray_num_workers": derived("hardware.num_nodes x hardware.processes_per_node"),
    "infer_backend": no_effect("no setting of training"),
    "print_param_status": no_effect("prints only"),
    "low_cpu_mem_usage": no_effect("hagane always loads so"),
    "hf_hub_token": lost("HF_TOKEN in the environment"),
}
