import re
from itertools import product

import pytest

from components.shared.documents.plan import Plan
from components.shared.errors import HaganeError, SpecError
from components.shared.spec.file import load_spec
from tests.support.example_plans import ROOT, plan_example

SMALL = ("hardware.gpu_memory_gib=4", "hardware.gpu_memory_gib=12", "hardware.host_memory_gib=8", "training.micro_batch=8")
ASKED = ("training.method=full", "zero={stage: 0}", "zero={stage: 2, offload_optimizer: none}", "training.gradient_checkpointing=false")


def planned(name: str, *overrides: str) -> Plan:
    return plan_example(load_spec(ROOT / "specs" / "plans" / f"{name}.yaml", overrides))


def suggested(name: str, *overrides: str) -> list[tuple[list[str], str]]:
    """For each suggestion of a refusal, the changes to the spec, as `--set` takes them, and what is then needed."""
    with pytest.raises(SpecError) as caught:
        planned(name, *overrides)
    found: list[tuple[list[str], str]] = []
    for line in caught.value.problems[1:]:
        match = re.fullmatch(r"hardware: fix: (.+?)(?: \(about a third more compute\))?: ((?:no )?ZeRO.*) then needs (.+)", line)
        assert match is not None, line
        found.append(([change.replace(": ", "=", 1) for change in match[1].split(", ")], f"{match[2]}: {match[3]}"))
    return found


@pytest.mark.parametrize("name", ["elyza-7b-lora-1x24gb", "rinna-3-6b-full-4x24gb", "qwen3-30b-a3b-lora-2x80gb"])
def test_whoever_takes_a_suggestion_gets_a_plan(name: str) -> None:
    num_refused = 0
    for small, asked in product(SMALL, (None, *ASKED)):
        overrides = [each for each in (small, asked) if each is not None]
        try:
            planned(name, *overrides)
        except SpecError:
            num_refused += 1
            changes_and_needs = suggested(name, *overrides)
            assert changes_and_needs, overrides
            for changes, _ in changes_and_needs:
                planned(name, *overrides, *changes)
    assert num_refused > 5


def test_no_suggestion_is_what_the_spec_says_already() -> None:
    for changes, _ in suggested("elyza-7b-lora-1x24gb", "hardware.gpu_memory_gib=4", "zero={stage: 0}"):
        assert not {"training.method=lora", "training.gradient_checkpointing=true"} & set(changes)


def test_the_needs_printed_are_those_of_the_plan() -> None:
    (changes, needed), *_ = suggested("elyza-7b-lora-1x24gb", "training.micro_batch=32")
    assert (changes, needed) == (["training.micro_batch=auto"], "no ZeRO: 14.9 GiB of each GPU and 15.6 GiB of a node's memory")


def test_more_gpus_come_with_the_global_batch_that_they_divide() -> None:
    changes_and_needs = suggested("elyza-7b-lora-1x24gb", "hardware.gpu_memory_gib=12", "training.method=full", "training.global_batch=8")
    assert changes_and_needs[-1][0] == ["hardware.num_nodes=4", "hardware.processes_per_node=8", "training.global_batch=32"]


def test_offload_that_the_spec_asks_for_is_planned_on_a_host_that_is_not_stated() -> None:
    plan = planned("elyza-7b-lora-1x24gb", "zero={stage: 3, offload_parameters: cpu}", "hardware.host_memory_gib=null")
    assert plan.zero.offload_parameters
    assert any("hardware.host_memory_gib: not stated; offload needs" in caution for caution in plan.cautions)


def test_a_cpu_refusal_says_how_much_memory_it_needs() -> None:
    (changes, _), *_ = suggested("gpt2-medium-full-cpu", "hardware.host_memory_gib=2")
    assert changes[-1].startswith("hardware.host_memory_gib=")


def test_a_larger_gpu_comes_without_the_memory_that_the_spec_stated() -> None:
    overrides = ("hardware.gpu=rtx4090", "hardware.gpu_memory_gib=10", "hardware.host_memory_gib=20")
    larger = [changes for changes, _ in suggested("elyza-7b-lora-1x24gb", *overrides) if changes[0].startswith("hardware.gpu=")]
    assert larger
    assert all("hardware.gpu_memory_gib=null" in changes for changes in larger)


def test_a_margin_that_alone_prevents_a_fit_is_the_first_suggestion() -> None:
    name, fixed = "llm-jp-13b-v1-lora-1x40gb", ("training.micro_batch=1", "zero={stage: 0}")
    fits = planned(name, *fixed).memory
    assert fits is not None
    full_to_95_percent = f"hardware.gpu_memory_gib={fits.gpu_bytes / 2**30 / 0.955}"
    (changes, _), *_ = suggested(name, *fixed, full_to_95_percent)
    assert changes == ["hardware.memory_margin=0.04"]
    planned(name, *fixed, full_to_95_percent, *changes)


def test_more_memory_than_the_named_gpu_has_is_refused() -> None:
    with pytest.raises(HaganeError, match=r"found 4000, but rtx4090 has 24 GiB"):
        planned("elyza-7b-lora-1x24gb", "hardware.gpu_memory_gib=4000")


def test_a_gpu_of_another_maker_is_refused_with_what_to_set() -> None:
    with pytest.raises(HaganeError, match=r"'mi300x' is not an NVIDIA GPU.*hardware.tflops"):
        planned("elyza-7b-lora-1x24gb", "hardware.gpu=mi300x")


def test_a_gpu_known_by_memory_and_speed_alone_is_planned_and_timed() -> None:
    plan = planned("elyza-7b-lora-1x24gb", "hardware.gpu=null", "hardware.gpu_memory_gib=192", "hardware.tflops=1307")
    assert plan.time is not None
    assert plan.time.price is None
    assert "fits 1 x gpu" in plan.verdict
