import pytest
import torch

from components.shared.errors import RunFailed
from components.shared.spec_file import load_spec
from components.train.__main__ import check_device
from tests.example_plans import ROOT, plan_example


def test_a_plan_for_gpus_is_not_trained_on_the_cores_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpus, on_cpus = (
        plan_example(load_spec(ROOT / "specs" / "plans" / f"{name}.yaml")) for name in ("elyza-7b-lora-1x24gb", "gpt2-medium-full-cpu")
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check_device(on_cpus)
    with pytest.raises(RunFailed, match=r"the plan is for GPUs, but torch .* finds none here") as told:
        check_device(on_gpus)
    assert told.value.exit_code < 128  # final: another try would find none either
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_device(on_gpus)
