"""The merged model, put together part by part, gives what peft gives: base + adapter, and peft's
own merge."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from components.export_adapter.weights.merge import merge, parts, stored_weights
from components.export_adapter.weights.merge_decision import merge_decision
from components.shared.documents.plan import LoraPlan, Plan
from components.shared.errors import RunFailed
from components.shared.spec.file import parse_spec
from components.shared.spec.results import ExportSpec
from tests.support.made_plan import TARGETS, make_plan
from tests.support.tiny_models import make_model

# peft 0.21.2 asks transformers 5.23 by an old name
pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)

TOKENS = torch.arange(5, 25)[None]


def make_gpt2(folder: Path) -> Path:
    from transformers import GPT2Config

    config = GPT2Config(
        vocab_size=400,
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_positions=128,
        bos_token_id=0,
        eos_token_id=3,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def make_adapter(base: Path, folder: Path, lora: LoraPlan) -> Path:
    """Random matrices, B included."""
    torch.manual_seed(0)
    model: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(**lora.peft_config)
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05)
        if "lora_magnitude_vector" in name:
            parameter.data *= 1.1
    model.save_pretrained(folder)
    return folder


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=TOKENS, use_cache=False).logits[0].float()


@pytest.mark.parametrize(
    ("architecture", "rslora", "dora"),
    [
        ("llama", False, False),
        ("llama", True, False),
        ("gpt_neox", False, False),
        ("gpt2", False, False),
        ("llama", False, True),
        ("gpt2", False, True),
    ],
)
def test_merged_equals_base_and_adapter(
    tmp_path: Path, architecture: Any, rslora: bool, dora: bool
) -> None:
    gpt2 = architecture == "gpt2"
    base = (
        make_gpt2(tmp_path / "base")
        if gpt2
        else make_model(tmp_path / "base", architecture=architecture)
    )
    targets = ("c_attn", "c_proj", "c_fc") if gpt2 else TARGETS[architecture]
    lora = LoraPlan(
        rank=4,
        alpha=16,
        rslora=rslora,
        dora=dora,
        dropout=0.0,
        target_modules=targets,
        fan_in_fan_out=gpt2,
    )
    adapter = make_adapter(base, tmp_path / "adapter", lora)
    (tmp_path / "merged").mkdir()
    assert merge(base, adapter, lora, tmp_path / "merged", part_bytes=100_000) == torch.float32
    merged = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
    tuned: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    expected = logits(tuned)
    assert float((expected - logits(AutoModelForCausalLM.from_pretrained(base))).abs().max()) > 0.01
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(merged, logits(tuned.merge_and_unload()), rtol=0, atol=1e-5)


def test_parts_hold_all_weights_once_and_are_no_larger_than_asked(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    stored = list(stored_weights(base))
    made = list(parts(stored, 100_000))
    assert [each.name for part in made for each in part] == [each.name for each in stored]
    assert all(len(part) == 1 or sum(each.num_bytes for each in part) <= 100_000 for part in made)
    assert sum(each.num_bytes for each in stored) == 4 * sum(
        p.numel() for p in AutoModelForCausalLM.from_pretrained(base).parameters()
    )


def test_the_index_names_every_part(tmp_path: Path) -> None:
    base, lora = (
        make_model(tmp_path / "base"),
        LoraPlan(rank=4, alpha=8, dropout=0, target_modules=("q_proj",)),
    )
    (tmp_path / "merged").mkdir()
    merge(
        base,
        make_adapter(base, tmp_path / "adapter", lora),
        lora,
        tmp_path / "merged",
        part_bytes=100_000,
    )
    index = json.loads((tmp_path / "merged/model.safetensors.index.json").read_bytes())
    files = {path.name for path in (tmp_path / "merged").glob("*.safetensors")}
    assert set(index["weight_map"].values()) == files
    assert len(files) > 1


def test_a_layer_that_the_base_does_not_name_is_refused(tmp_path: Path) -> None:
    base, other = make_model(tmp_path / "base"), make_model(tmp_path / "other", layers=3)
    lora = LoraPlan(rank=4, alpha=8, dropout=0, target_modules=("q_proj",))
    adapter = make_adapter(other, tmp_path / "adapter", lora)
    (tmp_path / "merged").mkdir()
    with pytest.raises(RunFailed, match=r"no weight of 1 layers, such as .*layers\.2\..*q_proj"):
        merge(base, adapter, lora, tmp_path / "merged")


def plan_of(architecture: str, method: str = "lora", **lora: Any) -> Plan:
    tree = {
        "name": "r",
        "store": "s",
        "model": {"source": "b"},
        "data": {"train": "t"},
        "training": {"method": method},
    }
    plan = make_plan(parse_spec(tree))
    update = {"model": plan.model.model_copy(update={"model_type": architecture})}
    changed = plan.lora and plan.lora.model_copy(update=lora)
    return plan.model_copy(update={**update, "lora": changed})


@pytest.mark.parametrize(
    ("asked", "plan", "merges", "reason"),
    [
        ("auto", plan_of("gpt_neox"), True, "vLLM loads no adapter of gpt_neox"),
        ("auto", plan_of("llama"), False, "vLLM loads an adapter of llama"),
        (True, plan_of("llama"), True, "export.merge is true"),
        (False, plan_of("gpt_neox"), False, "export.merge is false"),
        (True, plan_of("llama", method="full"), False, "full training has no adapter"),
        (
            "auto",
            plan_of("mixtral", target_parameters=("mlp.experts.gate_up_proj",)),
            False,
            "experts' weights",
        ),
    ],
)
def test_auto_merges_where_vllm_loads_no_adapter(
    asked: Any, plan: Plan, merges: bool, reason: str
) -> None:
    decision = merge_decision(ExportSpec(merge=asked), plan)
    assert decision.merges == merges
    assert reason in decision.reason


def test_experts_weights_cannot_be_merged_on_request() -> None:
    with pytest.raises(
        RunFailed, match=r"export.merge: found true, but the adapter changes experts' weights"
    ):
        merge_decision(
            ExportSpec(merge=True),
            plan_of("mixtral", target_parameters=("mlp.experts.gate_up_proj",)),
        )
