from dataclasses import replace
from pathlib import Path

import pytest

from components.shared.documents.plan import MemoryPlan, MemoryTerm
from components.write_report.against_plan import against_plan, reported
from components.write_report.gather import RunFound
from tests.unit.write_report.example_run import find_example_run


@pytest.fixture
def found(tmp_path: Path) -> RunFound:
    return find_example_run(tmp_path / "store")


def test_each_estimate_stands_beside_what_happened(found: RunFound) -> None:
    figures = {figure.what: reported(figure) for figure in against_plan(found)}
    assert figures["a step"] == {
        "what": "a step",
        "planned": "6.1 s (3.8 s to 15 s)",
        "happened": "5.2 s",
        "difference": "-15%",
    }
    assert figures["optimizer steps"]["difference"] == "as planned"
    assert list(figures)[2:] == [
        "all steps, with held-out loss and saves",
        "memory of a node",
        "a checkpoint",
    ]


def test_what_one_side_does_not_know_is_left_out(found: RunFound) -> None:
    plan = found.plan.model_copy(update={"time": None})
    assert [figure.what for figure in against_plan(replace(found, plan=plan))] == [
        "optimizer steps",
        "memory of a node",
        "a checkpoint",
    ]
    history = found.history.model_copy(update={"peak_node_bytes": None, "seconds_per_step": None})
    whats = [figure.what for figure in against_plan(replace(found, history=history))]
    assert whats == ["optimizer steps", "all steps, with held-out loss and saves", "a checkpoint"]


def test_of_a_gpu_only_what_torch_sees_is_compared(found: RunFound) -> None:
    terms = tuple(
        MemoryTerm(name=name, num_bytes=size, formula="", source="")
        for name, size in (("weights", 6), ("CUDA context and NCCL", 4))
    )
    memory = MemoryPlan(gpu=terms, host=terms, gpu_limit=20, host_limit=20, margin=0.1, options=())
    plan, history = (
        found.plan.model_copy(update={"memory": memory}),
        found.history.model_copy(update={"peak_gpu_bytes": 9}),
    )
    figures = {
        figure.what: figure for figure in against_plan(replace(found, plan=plan, history=history))
    }
    assert (
        figures["memory of a GPU"].planned,
        reported(figures["memory of a GPU"])["difference"],
    ) == (6, "+50%")
