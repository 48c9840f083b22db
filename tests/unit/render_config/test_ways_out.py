import re
from itertools import product

import pytest

from components.shared.errors import SpecError
from components.shared.plan import Plan
from components.shared.spec_file import load_spec
from tests.example_plans import ROOT, plan_example

SMALL = ("hardware.gpu_memory_gib=4", "hardware.gpu_memory_gib=12", "hardware.host_memory_gib=8", "training.micro_batch=8")
ASKED = ("training.method=full", "zero={stage: 0}", "zero={stage: 2, offload_optimizer: none}", "training.gradient_checkpointing=false")


def planned(name: str, *overrides: str) -> Plan:
    return plan_example(load_spec(ROOT / "specs" / "plans" / f"{name}.yaml", overrides))


def ways_told(name: str, *overrides: str) -> list[tuple[list[str], str]]:
    """For each way out of a refusal, the changes to the spec, as `--set` takes them, and what is said that is then needed."""
    with pytest.raises(SpecError) as caught:
        planned(name, *overrides)
    found: list[tuple[list[str], str]] = []
    for line in caught.value.problems[1:]:
        told = re.fullmatch(r"hardware: way out: (.+?)(?: \(about a third more compute\))?: ((?:no )?ZeRO.*) then needs (.+)", line)
        assert told is not None, line
        found.append(([change.replace(": ", "=", 1) for change in told[1].split(", ")], f"{told[2]}: {told[3]}"))
    return found


def settings(changes: list[str]) -> list[str]:
    named = any(change.startswith("hardware.gpu=") for change in changes)
    return [*changes, *(["hardware.gpu_memory_gib=null"] if named else [])]


@pytest.mark.parametrize("name", ["elyza-7b-lora-1x24gb", "rinna-3-6b-full-4x24gb", "qwen3-30b-a3b-lora-2x80gb"])
def test_whoever_takes_a_way_out_gets_a_plan(name: str) -> None:
    num_refused = 0
    for small, asked in product(SMALL, (None, *ASKED)):
        overrides = [each for each in (small, asked) if each is not None]
        try:
            planned(name, *overrides)
        except SpecError:
            num_refused += 1
            ways = ways_told(name, *overrides)
            assert ways, overrides
            for changes, _ in ways:
                planned(name, *overrides, *settings(changes))
    assert num_refused > 5


def test_no_way_out_is_what_the_spec_says_already() -> None:
    for changes, _ in ways_told("elyza-7b-lora-1x24gb", "hardware.gpu_memory_gib=4", "zero={stage: 0}"):
        assert not {"training.method=lora", "training.gradient_checkpointing=true"} & set(changes)


def test_the_needs_told_are_those_of_the_plan() -> None:
    (changes, needed), *_ = ways_told("elyza-7b-lora-1x24gb", "training.micro_batch=32")
    assert (changes, needed) == (["training.micro_batch=auto"], "no ZeRO: 15.3 GiB of each GPU and 15.8 GiB of a node's memory")


def test_more_gpus_come_with_the_global_batch_that_they_divide() -> None:
    ways = ways_told("elyza-7b-lora-1x24gb", "hardware.gpu_memory_gib=12", "training.method=full", "training.global_batch=8")
    assert ways[-1][0] == ["hardware.num_nodes=4", "hardware.processes_per_node=8", "training.global_batch=32"]


def test_offload_that_the_spec_asks_for_is_planned_on_a_host_that_is_not_stated() -> None:
    plan = planned("elyza-7b-lora-1x24gb", "zero={stage: 3, offload_parameters: cpu}", "hardware.host_memory_gib=null")
    assert plan.zero.offload_parameters
    assert any("hardware.host_memory_gib: not stated; offload needs" in caution for caution in plan.cautions)


def test_a_cpu_is_told_how_much_memory_it_needs() -> None:
    (changes, _), *_ = ways_told("gpt2-medium-full-cpu", "hardware.host_memory_gib=2")
    assert changes[-1].startswith("hardware.host_memory_gib=")
