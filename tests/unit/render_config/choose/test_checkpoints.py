from pathlib import Path
from typing import Any

import pytest

from components.render_config import __main__ as program
from components.render_config.planner import Machine, make_plan
from components.render_config.render.files import lifecycle_json
from components.shared.documents.prompts import probe_bytes
from components.shared.spec.results import KeepSpec
from components.shared.store.checkpoints import Checkpoint, reasons_to_keep
from components.shared.store.keeping import num_epochs_kept
from components.shared.store.manifest import FileEntry
from components.shared.store.storage import LocalStore
from tests.unit.render_config.test_planner import CONFIG, DATASET, spec_with
from tests.unit.shared.store.test_checkpoints import checkpoint


@pytest.mark.parametrize(
    "keep", [{}, {"last": 1}, {"last": 3}, {"every": 2}, {"every": 4, "last": 2}, {"last": 20}]
)
@pytest.mark.parametrize("epochs", [1, 5, 9])
def test_the_plan_counts_the_checkpoints_that_will_be_there_at_the_end(
    keep: dict[str, int], epochs: int
) -> None:
    at_the_end = reasons_to_keep(
        [checkpoint(epoch, epoch, 1.0) for epoch in range(1, epochs + 1)], KeepSpec(**keep)
    )
    assert num_epochs_kept(KeepSpec(**keep), epochs) == len(at_the_end)


def test_with_the_best_ones_the_plan_counts_no_fewer_than_there_will_be() -> None:
    losses = (1.0, 2.0, 3.0, 4.0, 5.0)  # the best are none of the last
    checkpoints = [checkpoint(epoch, epoch, loss) for epoch, loss in enumerate(losses, start=1)]
    keep = KeepSpec(last=2, best=2)
    assert num_epochs_kept(keep, 5) == len(reasons_to_keep(checkpoints, keep)) == 4


def plan_with(**fields: Any) -> Any:
    return make_plan(spec_with(**fields), DATASET, CONFIG, machine=Machine())


def test_sigterm_is_answered_by_a_save_only_when_it_fits_into_the_grace() -> None:
    slow = plan_with(checkpoints={"upload_mb_s": 0.001})
    assert plan_with().checkpoints.saves_on_sigterm
    assert not slow.checkpoints.saves_on_sigterm
    assert "do not fit into grace_seconds 30" in slow.reasons["checkpoints.saves_on_sigterm"]


def test_the_node_of_process_0_holds_what_is_not_divided() -> None:
    def checkpoints(num_nodes: int, **fields: Any) -> Any:
        return plan_with(
            hardware={"num_nodes": num_nodes}, training={"global_batch": 8}, **fields
        ).checkpoints

    for zero in ({"stage": 3}, {"stage": 2}, {"stage": 0, "offload_optimizer": "none"}):
        one, four = checkpoints(1, zero=zero), checkpoints(4, zero=zero)
        assert one.node_bytes == one.bytes_each
        num_trainable = plan_with(zero=zero).num_trainable
        divided = {3: 12, 2: 12, 0: 0}[zero["stage"]] * num_trainable
        assert four.node_bytes == pytest.approx(four.bytes_each - divided * 3 / 4, abs=80_000)


@pytest.mark.parametrize(
    ("precision", "stages", "bytes_each"),
    [("bf16", (0, 2, 3), 16), ("fp32", (0, 3), 16), ("fp32", (1, 2), 20)],
)
def test_a_lora_checkpoint_takes_16_bytes_a_parameter_but_in_fp32_with_zero_1_and_2(
    precision: str, stages: tuple[int, ...], bytes_each: int
) -> None:
    for stage in stages:
        plan = plan_with(
            training={"precision": precision}, lora={"rank": 64}, zero={"stage": stage}
        )
        assert plan.checkpoints.bytes_each == pytest.approx(
            bytes_each * plan.num_trainable + probe_bytes(CONFIG["vocab_size"]), abs=25_000
        )


def test_a_divided_checkpoint_of_another_number_of_processes_needs_room_to_be_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_with()
    entry = FileEntry(
        name="a/global_step1/zero_pp_rank_0_mp_rank_00_optim_states.pt", num_bytes=10**9, sha256="0"
    )
    for num_processes, needed in ((1, plan.checkpoints.work_bytes), (2, 2_750_000_000)):
        made = checkpoint(1, 1, 1.0)
        facts = made.manifest.facts | {"num_processes": num_processes}
        newest = Checkpoint(
            made.folder, made.manifest.model_copy(update={"files": (entry,), "facts": facts})
        )
        monkeypatch.setattr(program, "committed_checkpoints", lambda _, newest=newest: [newest])
        assert (
            program.with_room_to_convert(LocalStore(tmp_path), plan).checkpoints.work_bytes
            == needed
        )


def test_a_training_is_the_same_however_its_work_is_spread() -> None:
    one = plan_with(training={"global_batch": 8})
    four = plan_with(
        training={"global_batch": 8, "micro_batch": 2, "gradient_checkpointing": True},
        hardware={"processes_per_node": 4},
        zero={"offload_optimizer": "none"},
        checkpoints={"keep": {"last": 1}},
    )
    assert one.training_digest == four.training_digest
    assert one.training_digest != plan_with(training={"global_batch": 8, "seed": 1}).training_digest


def test_the_lifecycle_rule_names_only_the_run() -> None:
    assert lifecycle_json(spec_with()) is None
    (rule,) = lifecycle_json(spec_with(store="s3://bucket/team/runs"))["Rules"]  # pyright: ignore[reportOptionalSubscript]
    assert rule["Filter"] == {"Prefix": "team/runs/t/"}
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
