"""How large a probe is, what it is made of, and which machines refuse it."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.shared.documents.plan import Plan
from components.shared.documents.probe_request import probe_request_of
from components.shared.spec.file import load_spec
from components.train.step_probe.probe_files import (
    ROWS,
    vocabulary_of,
    write_probe_files,
    write_random_rows,
)
from components.train.step_probe.probe_size import (
    LONGEST_STEP_S,
    machine_problems,
    num_probe_rows,
    probe_grad_accum,
)
from tests.support.example_plans import ROOT, plan_example

GIB = 2**30


def planned(name: str = "gpt2-medium-full-cpu", *overrides: str) -> Plan:
    return plan_example(load_spec(ROOT / "specs/plans" / f"{name}.yaml", overrides))


def of_seconds(plan: Plan, seconds: float, *, grad_accum: int) -> Plan:
    """The plan with steps of this length and as many micro-steps."""
    assert plan.time is not None
    time = plan.time.model_copy(update={"seconds_per_step": seconds})
    steps = plan.steps.model_copy(update={"grad_accum": grad_accum})
    return plan.model_copy(update={"time": time, "steps": steps})


@pytest.mark.parametrize(
    ("seconds", "grad_accum", "made"),
    [(10, 8, 8), (20, 8, 8), (40, 8, 4), (8000, 8, 2), (8000, 1, 1), (2, 1, 1)],
)
def test_a_step_of_many_seconds_is_made_of_fewer_micro_steps_but_never_of_one_where_gradients_add_up(  # noqa: E501
    seconds: float, grad_accum: int, made: int
) -> None:
    assert LONGEST_STEP_S == 20
    assert probe_grad_accum(of_seconds(planned(), seconds, grad_accum=grad_accum)) == made


def test_a_machine_without_the_plans_gpus_nodes_or_memory_is_refused_with_a_fix() -> None:
    on_gpus = planned("elyza-7b-lora-1x24gb")
    (gpu,) = machine_problems(on_gpus, has_gpu=False, available_bytes=1)
    assert "1 x rtx4090, found no GPU on this machine. Fix: " in gpu
    plan = planned()
    assert plan.memory is not None
    assert not list(machine_problems(plan, has_gpu=False, available_bytes=plan.memory.host_bytes))
    (short,) = machine_problems(plan, has_gpu=False, available_bytes=GIB)
    assert f"needs {plan.memory.host_bytes / GIB:.1f} GiB of host memory, found 1.0 GiB" in short
    many = planned("llama-3-elyza-8b-full-2x8x80gb")
    (nodes,) = machine_problems(many, has_gpu=True, available_bytes=None)
    assert "the plan is for 2 nodes, allowed 1" in nodes


def test_a_probe_has_the_plans_settings_but_four_steps_and_no_checkpoint(tmp_path: Path) -> None:
    plan = of_seconds(planned(), 400, grad_accum=8)
    source, target = tmp_path / "plan", tmp_path / "probe"
    source.mkdir()
    target.mkdir()
    (source / "plan.json").write_text(plan.model_dump_json())
    (source / "deepspeed.json").write_text('{"bf16": {"enabled": true}, "train_batch_size": 8}')
    (source / "training_args.json").write_text('{"learning_rate": 0.1, "max_steps": -1}')
    rows = [{"input_ids": [n], "labels": [n], "lengths": [1]} for n in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    request = probe_request_of(source, label_smoothing=0.0)
    write_probe_files(request, target, rows=tmp_path / "train.parquet")
    arguments = json.loads((target / "training_args.json").read_text())
    deepspeed = json.loads((target / "deepspeed.json").read_text())
    assert (arguments["learning_rate"], arguments["max_steps"], arguments["save_strategy"]) == (
        0.1,
        4,
        "no",
    )
    assert deepspeed["bf16"] == {"enabled": True}
    micro_batch, processes = plan.steps.micro_batch, plan.steps.num_processes
    assert deepspeed["train_batch_size"] == 2 * micro_batch * processes
    used = pq.read_table(target / ROWS)["input_ids"].to_pylist()
    assert len(used) == num_probe_rows(plan) == 4 * 2 * micro_batch * processes
    assert {tokens[0] for tokens in used} == {0, 1, 2, 3}


def test_random_rows_are_of_the_planned_length_and_within_the_vocabulary(tmp_path: Path) -> None:
    plan = planned()
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 8}))
    write_random_rows(plan, tmp_path, tmp_path / ROWS)
    rows = pq.read_table(tmp_path / ROWS).to_pylist()
    length = plan.steps.tokens_per_epoch // plan.steps.num_rows
    assert {row["lengths"][0] for row in rows} == {length}
    assert {token for row in rows for token in row["input_ids"]} == {2, 3, 4, 5}


def test_the_vocabulary_of_a_model_of_text_and_images_is_that_of_its_text() -> None:
    assert vocabulary_of({"text_config": {"vocab_size": 7}, "vocab_size": 9}) == 7
    assert vocabulary_of({"vocab_size": 9}) == 9
    assert vocabulary_of({"text_config": {}, "vocab_size": 9}) == 9
