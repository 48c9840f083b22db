"""What a registry is given as the settings of a run: what trained it, and no `auto`."""

from typing import Any

import pytest

from components.shared.documents.plan import ZeroPlan
from components.shared.spec.file import parse_spec
from components.shared.spec.run_spec import RunSpec
from pipelines.registries.settings import settings
from tests.support.made_plan import make_plan


def spec(**sections: Any) -> RunSpec:
    tree = {"name": "tiny", "store": "/store", "model": {"source": "org/model"}}
    return parse_spec({**tree, "data": {"train": "train.jsonl"}, **sections})


def test_each_auto_of_the_spec_is_what_the_plan_chose() -> None:
    asked = spec()
    plan = make_plan(asked, revision="c" * 40)
    zero = ZeroPlan(stage=2, offload_optimizer=True)
    steps = plan.steps.model_copy(update={"micro_batch": 4, "grad_accum": 2})
    more = {"zero": zero, "steps": steps, "learning_rate": 1e-4, "precision": "bf16"}
    found = settings(asked, plan.model_copy(update=more))
    assert "auto" not in found.values()
    expected = {
        "model.revision": "c" * 40,
        "training.lr_peak": "0.0001",
        "training.micro_batch": "4",
        "training.global_batch": "8",
        "training.precision": "bf16",
        "training.output_layer": "all_tokens",
        "zero.stage": "2",
        "zero.offload_optimizer": "cpu",
        "zero.offload_parameters": "none",
        "plan.grad_accum": "2",
        "lora.targets": "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj",
        "lora.rank": "16",
    }
    assert expected.items() <= found.items()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_without_the_plan_the_spec_is_all_there_is(method: str) -> None:
    found = settings(spec(training={"method": method}), None)
    assert found["training.lr_peak"] == "auto"
    assert ("lora.rank" in found) == (method == "lora")
    assert not [key for key in found if key.startswith("plan.")]
