"""Host memory of a node with GPUs, against what loading, saving and resuming take of it one after
the other."""

import pytest

from components.render_config.cost.host_memory import PINNED_BUFFER
from components.render_config.render.pod import node_memory
from components.shared.documents.plan import Plan
from components.shared.spec.file import load_spec
from components.shared.spec.run_spec import RunSpec
from components.train.checkpoints import device_copy
from tests.support.example_plans import ROOT, plan_example, planned_examples

GIB = 2**30


def planned(name: str, *overrides: str) -> tuple[RunSpec, Plan]:
    spec = load_spec(ROOT / "specs" / "plans" / f"{name}.yaml", overrides)
    return spec, plan_example(spec)


def transient(plan: Plan) -> dict[str, int]:
    return {term.name: term.num_bytes for term in plan.memory.transient}


def test_a_save_of_zero_3_counts_the_largest_tensor_of_each_process() -> None:
    """Loading, 7.4 GB once a node, is less than the copies of the four flat shares of 4 B a
    parameter."""
    spec, plan = planned(
        "rinna-3-6b-full-4x24gb",
        "zero={stage: 3, offload_optimizer: none, offload_parameters: none}",
    )
    found = transient(plan)
    share = 4 * plan.num_trainable // 4
    assert found["saving a checkpoint"] == pytest.approx(4 * (share + 2 * PINNED_BUFFER), abs=4)
    assert found["loading the weights"] == 2 * plan.model.num_parameters
    assert found["resuming"] == 0
    (counted,) = [term for term in plan.memory.host if term.name in found]
    assert counted.name == "saving a checkpoint"
    assert node_memory(spec, plan) > plan.memory.host_bytes


def test_process_0_has_the_flat_weights_of_stages_1_and_2_in_a_tensors_place() -> None:
    _, plan = planned("elyza-7b-full-8x80gb")
    trained = plan.num_trainable
    assert plan.zero.stage == 1
    assert transient(plan)["saving a checkpoint"] == pytest.approx(
        8 * (4 * trained / 8 + 2 * PINNED_BUFFER) + 2 * trained - 4 * trained / 8, abs=8
    )


def test_every_example_has_room_for_the_largest_of_the_three() -> None:
    num_plans = 0
    for example, spec, plan in planned_examples():
        steady = sum(
            term.num_bytes for term in plan.memory.host if term.name not in transient(plan)
        )
        for name, num_bytes in transient(plan).items():
            limit = node_memory(spec, plan)
            print(
                f"{example}: limit {limit / GIB:.1f} GiB; {name}: {(steady + num_bytes) / GIB:.1f} "
                "GiB"
            )
            assert steady + num_bytes < limit
        num_plans += 1
    assert num_plans > 10


def test_the_plan_and_the_copy_agree_on_the_pinned_buffers() -> None:
    assert device_copy.BUFFER_BYTES == PINNED_BUFFER
    assert device_copy.NUM_BUFFERS == 2
