"""Every architecture of the registry, as a tiny random model: LoRA attaches, trains a step, is
saved and loaded again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, set_seed

from components.render_config.choose.lora import lora_plan
from components.render_config.model.architectures import architecture_of
from components.render_config.model.targets import lora_targets, num_lora_parameters
from components.render_config.render.files import lora_json
from components.shared.model.registry import ModelFamily, model_families
from components.shared.spec.training import LoraSpec

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
FIELDS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 100, "n_positions": 64},
    "mixtral": {
        **SMALL,
        "num_key_value_heads": 2,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "qwen3_moe": {
        **SMALL,
        "num_key_value_heads": 2,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
    },
    "gpt_oss": {
        **SMALL,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "gemma2": {**SMALL, "num_key_value_heads": 2, "head_dim": 8},
    "mistral": {**SMALL, "num_key_value_heads": 2},
    "qwen2": {**SMALL, "num_key_value_heads": 2},
    "qwen3": {**SMALL, "num_key_value_heads": 2, "head_dim": 8},
}
HERE = [family for family in model_families() if not family.remote]


def config_of(model_type: str) -> dict[str, Any]:
    return {"model_type": model_type, **FIELDS.get(model_type, SMALL), **TOKENS}


@pytest.mark.parametrize("family", HERE, ids=lambda family: family.model_type)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_lora_attaches_trains_a_step_and_comes_back_from_its_files(
    family: ModelFamily, tmp_path: Path
) -> None:
    config = config_of(family.model_type)
    targets = lora_targets("auto", architecture_of(config))
    assert (targets.modules, targets.parameters) == (family.targets, family.parameters)
    plan = lora_plan(LoraSpec(rank=2, alpha=4.0), targets)
    tokens_BT = torch.arange(24).reshape(2, 12)
    model: Any = get_peft_model(random_model(config), LoraConfig(**lora_json(plan)))
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    assert sum(weight.numel() for weight in trainable) == num_lora_parameters(targets, 2)
    before = model(input_ids=tokens_BT, labels=tokens_BT, use_cache=False).loss
    optimizer = torch.optim.AdamW(trainable, lr=1e-2)
    before.backward()
    optimizer.step()
    trained_BTV = model(input_ids=tokens_BT, use_cache=False).logits
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(random_model(config), str(tmp_path))
    assert model(input_ids=tokens_BT, labels=tokens_BT, use_cache=False).loss < before
    torch.testing.assert_close(again(input_ids=tokens_BT, use_cache=False).logits, trained_BTV)


def random_model(config: dict[str, Any]) -> Any:
    """The same weights each time."""
    fields = {key: value for key, value in config.items() if key != "model_type"}
    with torch.random.fork_rng():
        set_seed(0)
        return AutoModelForCausalLM.from_config(
            AutoConfig.for_model(config["model_type"], **fields), dtype=torch.float32
        ).eval()
