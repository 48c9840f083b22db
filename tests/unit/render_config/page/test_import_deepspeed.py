import pytest

from components.render_config.page.import_deepspeed import explained_deepspeed, read_deepspeed
from components.shared.errors import SpecError

# As people write it by hand: a comma missing after the offload section, one too many at the end.
BROKEN = """{
  "train_micro_batch_size_per_gpu": "auto",
  "zero_optimization": {
    "stage": 3,
    "offload_optimizer": {
      "device": "cpu",
      "pin_memory": true
    }
    "overlap_comm": true,
    "reduce_bucket_size": 5e8,
  },
  "bf16": {"enabled": true},
  "nonsense": 1
}
"""


def test_a_missing_comma_and_one_too_many_are_reported_with_their_lines() -> None:
    found = read_deepspeed(BROKEN, "old.json")
    assert found.problems == (
        "old.json:8:6: a comma is missing after '}'",
        "old.json:10:30: a comma too many, before what ends here",
    )
    assert found.settings["zero_optimization.offload_optimizer.device"] == "cpu"


def test_each_setting_is_explained_and_set_beside_the_plan() -> None:
    planned = {
        "train_micro_batch_size_per_gpu": 4,
        "zero_optimization": {"stage": 0},
        "bf16": {"enabled": True},
        "gradient_clipping": 1.0,
    }
    lines = explained_deepspeed(read_deepspeed(BROKEN, "old.json"), planned)
    assert any(
        line.startswith('train_micro_batch_size_per_gpu = "auto": ')
        and line.endswith("; the plan: 4")
        for line in lines
    )
    assert any(
        line.startswith("zero_optimization.stage = 3: ")
        and line.endswith("spec: zero.stage; the plan: 0")
        for line in lines
    )
    assert any(
        line.startswith("zero_optimization.overlap_comm")
        and line.endswith("; the plan leaves it out")
        for line in lines
    )
    assert any(
        line.startswith("bf16.enabled") and line.endswith("; the plan keeps it") for line in lines
    )
    assert (
        "nonsense = 1: not known here; DeepSpeed may not know it either; the plan leaves it out"
        in lines
    )
    assert lines[-1] == "the plan also sets gradient_clipping = 1.0"


def test_keys_to_a_service_are_not_printed() -> None:
    text = '{"comet": {"api_key": "SECRET1"}, "x": [{"token": "SECRET2"}]}'
    lines = explained_deepspeed(read_deepspeed(text, "old.json"), None)
    assert lines[0].startswith('comet.api_key = "***": ')
    assert lines[1].startswith('x = [{"token": "***"}]: ')


def test_what_commas_do_not_repair_is_refused_with_its_place() -> None:
    with pytest.raises(SpecError, match=r"old.json:1:2: not JSON: .*; repair it by hand"):
        read_deepspeed("{stage: 3}", "old.json")
    with pytest.raises(SpecError, match="found list, must be a JSON object"):
        read_deepspeed("[1]", "old.json")
