"""Real training on tiny models, stopped and gone on with: by other numbers of processes, after
SIGTERM, damage, a full disk."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from components.shared.store.checkpoints import committed_checkpoints
from components.shared.store.storage import LocalStore
from tests.crash import host_tensors
from tests.crash.killing import Point, server
from tests.crash.training import NEW_TOKENS, WHOLE_LAYERS, TinyRun, tiny_run
from tests.support.pickle_attack import replace_with_attack
from tests.support.trained_run import tie_embeddings

pytestmark = pytest.mark.slow
SAME_ON_ANY_NUMBER = {"lora": {"dropout": 0.0}, "training": {"precision": "fp32"}}
"""Each process draws its own dropout, and bf16, which a CPU may have, rounds each sum."""
TWELVE_ROWS = 52
"""Conversations that make 12 rows: two global batches of 6, so that no number of processes repeats
a row."""
THIRTEEN_ROWS = 56


@pytest.fixture(scope="module")
def forks() -> Any:
    return server("tests.crash.host_tensors", "tests.crash.training")


def finished_run(
    folder: Path, forks: Any, *, method: str, num_processes: int, **settings: Any
) -> TinyRun:
    run = tiny_run(
        folder,
        method=method,
        num_processes=num_processes,
        num_conversations=TWELVE_ROWS,
        **settings,
    )
    run.plan()
    assert set(run.train(forks)) == {0}, log(run)
    return run


def log(run: TinyRun, rank: int = 0) -> str:
    file = run.store.with_name(f"log-{rank}")
    return file.read_text() if file.exists() else ""


def committed(run: TinyRun) -> list[str]:
    return [
        checkpoint.folder.split("/")[1]
        for checkpoint in committed_checkpoints(LocalStore(Path(run.uri)))
    ]


def wait_until(condition: Callable[[], bool], processes: list[Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        assert all(process.exitcode is None for process in processes), "a process ended too early"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("method", "before", "after", "stage"),
    [
        ("lora", 1, 2, 3),
        ("lora", 2, 1, 3),
        ("lora", 2, 3, 3),
        ("full", 2, 1, 3),
        ("full", 1, 2, 3),
        ("full", 2, 1, 2),
        ("lora", 1, 2, 2),
        ("full", 1, 2, 1),
        ("lora", 2, 1, 1),
        ("full", 2, 1, 0),
        ("lora", 1, 2, 0),
    ],
)
def test_another_number_of_processes_goes_on_with_the_same_losses(
    forks: Any, tmp_path: Path, method: str, before: int, after: int, stage: int
) -> None:
    """And no state of the optimizer stays on the host, where the files were read: AdamW on a GPU
    would refuse it."""
    zero = {
        "stage": stage,
        "offload_optimizer": "cpu" if stage else "none",
        "offload_parameters": "cpu" if stage == 3 else "none",
    }
    whole = finished_run(
        tmp_path,
        forks,
        method=method,
        num_processes=before,
        epochs=3,
        zero=zero,
        **SAME_ON_ANY_NUMBER,
    )
    run = whole.copy("other").with_settings(hardware={"processes_per_node": after})
    run.forget("epoch-0002", "epoch-0003", "manifest.json", "history.json", "probe.safetensors")
    run.plan()
    assert set(run.train(forks, program=host_tensors.main)) == {0}, log(run)
    for made, expected in zip(run.history()["steps"], whole.history()["steps"], strict=True):
        # fp32 sums in another order: 5e-7 were seen.
        assert made["loss"] == pytest.approx(expected["loss"], abs=5e-6)
    for made, expected in zip(run.history()["epochs"], whole.history()["epochs"], strict=True):
        assert made["held_out_loss"] == pytest.approx(expected["held_out_loss"], abs=5e-6)


@pytest.mark.parametrize(("stage", "num_processes"), [(0, 1), (2, 2), (3, 2)])
def test_a_base_in_4_bits_goes_on_with_the_losses_of_an_undisturbed_training(
    forks: Any, tmp_path: Path, stage: int, num_processes: int
) -> None:
    model = {"quantization": "nf4"}
    zero = {"stage": stage, "offload_optimizer": "none", "offload_parameters": "none"}
    folder = tmp_path / "run"
    run = tiny_run(folder, method="lora", num_processes=num_processes, num_conversations=52)
    whole = run.with_settings(model=model, zero=zero)
    whole.plan()
    assert set(whole.train(forks)) == {0}, log(whole)
    again = whole.copy("resumed")
    again.forget("epoch-0002", "manifest.json", "history.json", "probe.safetensors")
    assert set(again.train(forks)) == {0}, log(again)
    assert "resumed" in log(again)
    assert losses(again) == losses(whole)


@pytest.mark.parametrize(
    ("data", "lora", "tied", "stage", "before", "after"),
    [
        (NEW_TOKENS, {}, False, 3, 2, 2),
        (NEW_TOKENS, {}, True, 3, 1, 2),
        (NEW_TOKENS, {}, False, 0, 2, 1),
        ({}, WHOLE_LAYERS, True, 3, 2, 2),
        ({}, WHOLE_LAYERS, False, 2, 2, 1),
        (NEW_TOKENS, WHOLE_LAYERS, False, 3, 1, 2),
    ],
)
def test_embeddings_and_new_tokens_go_on_with_the_losses_of_an_undisturbed_training(
    forks: Any,
    tmp_path: Path,
    data: dict[str, Any],
    lora: dict[str, Any],
    tied: bool,
    stage: int,
    before: int,
    after: int,
) -> None:
    zero = {"stage": stage, "offload_optimizer": "none", "offload_parameters": "none"}
    settings = {**SAME_ON_ANY_NUMBER, "lora": {"dropout": 0.0, **lora}}
    run = tiny_run(
        tmp_path / "run", method="lora", num_processes=before, num_conversations=TWELVE_ROWS
    )
    if tied:
        tie_embeddings(run.folder / "model")
    whole = run.with_settings(data=data, zero=zero, **settings)
    whole.plan()
    assert set(whole.train(forks)) == {0}, log(whole)
    again = whole.copy("resumed").with_settings(hardware={"processes_per_node": after})
    again.forget("epoch-0002", "manifest.json", "history.json", "probe.safetensors")
    if after != before:
        again.plan()
    assert set(again.train(forks)) == {0}, log(again)
    assert "resumed" in log(again)
    if after == before:
        assert losses(again) == losses(whole)
    for made, expected in zip(losses(again), losses(whole), strict=True):
        assert made == pytest.approx(expected, abs=5e-6)


def test_lora_plus_goes_on_with_both_learning_rates_on_another_number_of_processes(
    forks: Any, tmp_path: Path
) -> None:
    """DeepSpeed's loader gives all groups of parameters the first one's settings."""
    settings = {**SAME_ON_ANY_NUMBER, "lora": {"dropout": 0.0, "plus_ratio": 8}}
    whole = finished_run(tmp_path, forks, method="lora", num_processes=2, epochs=2, **settings)
    run = whole.copy("other").with_settings(hardware={"processes_per_node": 1})
    run.forget("epoch-0002", "manifest.json", "history.json", "probe.safetensors")
    run.plan()
    assert set(run.train(forks)) == {0}, log(run)
    for made, expected in zip(losses(run), losses(whole), strict=True):
        assert made == pytest.approx(expected, abs=5e-6)


def losses(run: TinyRun) -> list[list[Any]]:
    history = run.history()
    return [
        [step["loss"] for step in history["steps"]],
        [epoch["held_out_loss"] for epoch in history["epochs"]],
    ]


def test_another_zero_stage_is_refused_when_it_is_planned(forks: Any, tmp_path: Path) -> None:
    run = finished_run(tmp_path, forks, method="lora", num_processes=1, epochs=1)
    changed = run.with_settings(zero={"stage": 2, "offload_parameters": "none"})
    with pytest.raises(
        AssertionError,
        match=r"zero.stage: got 2, but checkpoints/epoch-0001 is of stage 3; set zero.stage: 3",
    ):
        changed.plan()


def test_other_steps_an_epoch_are_refused_when_they_are_planned(forks: Any, tmp_path: Path) -> None:
    # 13 rows: in passes of one row 3 steps, and of six rows 2, since the last row alone is then
    # left out.
    rows = {"micro_batch": 1, "drop_last": True}
    run = tiny_run(
        tmp_path,
        method="lora",
        num_processes=1,
        epochs=2,
        num_conversations=THIRTEEN_ROWS,
        training=rows,
    )
    run.plan()
    assert set(run.train(forks)) == {0}, log(run)
    assert run.history()["epochs"][0]["step"] == 3
    run.forget("epoch-0002", "manifest.json", "history.json", "probe.safetensors")
    with pytest.raises(
        AssertionError,
        match=r"training.drop_last: an epoch is 2 steps with micro_batch 6 on 1 processes, but",
    ):
        run.with_settings(training={"micro_batch": 6}).plan()
    run.with_settings(training={"micro_batch": 1}).plan()


def test_a_training_that_max_steps_ended_within_an_epoch_makes_no_step_more(
    forks: Any, tmp_path: Path
) -> None:
    whole = finished_run(
        tmp_path, forks, method="lora", num_processes=1, epochs=4, training={"max_steps": 3}
    )
    assert committed(whole) == ["epoch-0001", "epoch-0002"]
    run = whole.copy("killed-before-its-results")
    run.forget("manifest.json", "history.json", "probe.safetensors")
    assert set(run.train(forks)) == {0}, log(run)
    assert committed(run) == ["epoch-0001", "epoch-0002"]
    assert run.history() == whole.history()


def test_a_killed_uploader_is_reported_and_the_next_checkpoint_is_stored_by_another(
    forks: Any, tmp_path: Path
) -> None:
    run = tiny_run(
        tmp_path, method="lora", num_processes=1, epochs=8, checkpoints={"on_failure": "continue"}
    )
    run.plan()
    processes = run.begin(forks)
    wait_until(lambda: committed(run) != [], processes)
    uploaders = subprocess.run(
        ["pgrep", "--full", f"components.train.checkpoints.uploader {run.uri}"],
        capture_output=True,
        text=True,
        check=True,
    )
    (uploader,) = map(int, uploaders.stdout.split())
    os.kill(uploader, signal.SIGKILL)
    processes[0].join(120)
    assert processes[0].exitcode == 0, log(run)
    assert "the uploading process ended with exit code -9" in log(run)
    assert committed(run)[-1] == "epoch-0008"
    assert list((run.work).rglob("*_states.pt")) == []


def test_sigterm_stores_the_step_and_a_restart_ends_with_the_losses_of_an_undisturbed_run(
    forks: Any, tmp_path: Path
) -> None:
    undisturbed = finished_run(
        tmp_path, forks, method="lora", num_processes=2, epochs=4, training={"global_batch": 2}
    )
    run = undisturbed.copy("stopped")
    run.forget(
        "epoch-0001",
        "epoch-0002",
        "epoch-0003",
        "epoch-0004",
        "manifest.json",
        "history.json",
        "probe.safetensors",
    )
    processes = run.begin(forks)
    wait_until(lambda: '"done":7,' in log(run), processes)
    os.kill(processes[1].pid, signal.SIGTERM)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [143, 143], log(run)
    assert "stopped by SIGTERM after step" in log(run)
    newest = committed(run)[-1]
    assert newest.startswith("step-0000")
    assert set(run.train(forks)) == {0}, log(run)
    assert run.history() == undisturbed.history()
    assert committed(run) == [f"epoch-{epoch:04d}" for epoch in range(1, 5)]


def test_sigterm_is_obeyed_at_once_when_the_plan_says_that_a_checkpoint_does_not_fit(
    forks: Any, tmp_path: Path
) -> None:
    grace = {
        "grace_seconds": 5
    }  # all of which the step under way may take: no time is left to upload
    run = tiny_run(tmp_path, method="lora", num_processes=1, epochs=50, checkpoints=grace)
    run.plan()
    processes = run.begin(forks)
    wait_until(lambda: bool(committed(run)), processes)
    processes[0].terminate()
    processes[0].join(20)
    assert processes[0].exitcode == -signal.SIGTERM
    assert all(name.startswith("epoch-") for name in committed(run))


def test_checkpoints_between_epochs_go_when_a_newer_one_is_there_and_only_the_kept_epochs_stay(
    forks: Any, tmp_path: Path
) -> None:
    checkpoints = {"every_minutes": 1e-6, "keep": {"last": 2, "every": 3}}
    run = finished_run(
        tmp_path, forks, method="lora", num_processes=1, epochs=6, checkpoints=checkpoints
    )
    assert committed(run) == ["epoch-0003", "epoch-0005", "epoch-0006"]
    assert "step-000001" in log(run)
    assert len(run.history()["epochs"]) == 6


def damage(run: TinyRun, epoch: int) -> Path:
    """One byte in the middle of the largest file of an epoch's checkpoint is another."""
    path = max(
        Path(run.uri, f"checkpoints/epoch-{epoch:04d}").rglob("*.pt"),
        key=lambda found: found.stat().st_size,
    )
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("on_damage", ["fail", "previous"])
def test_a_damaged_checkpoint_is_named_and_skipped_only_when_the_spec_allows_it(
    forks: Any, tmp_path: Path, on_damage: str
) -> None:
    undisturbed = finished_run(tmp_path, forks, method="lora", num_processes=2, epochs=3)
    run = undisturbed.copy("damaged").with_settings(resume={"on_damage": on_damage})
    run.forget("epoch-0003", "manifest.json", "history.json", "probe.safetensors")
    run.plan()
    path = damage(run, 2)
    exit_codes = run.train(forks)
    assert f"{path.name}: damaged" in log(run) + log(run, 1)
    if on_damage == "fail":
        assert 0 not in exit_codes
        assert "set resume.on_damage: previous" in log(run) + log(run, 1)
        assert committed(run) == ["epoch-0001", "epoch-0002"]
    else:
        assert set(exit_codes) == {0}, log(run)
        assert run.history() == undisturbed.history()
        assert Path(run.uri, "checkpoints/epoch-0002/damaged.json").is_file()


@pytest.mark.parametrize("on_damage", ["fail", "previous"])
def test_a_manifest_that_cannot_be_read_is_named_and_set_aside_only_when_the_spec_allows_it(
    forks: Any, tmp_path: Path, on_damage: str
) -> None:
    undisturbed = finished_run(tmp_path, forks, method="lora", num_processes=1, epochs=3)
    run = undisturbed.copy("damaged").with_settings(resume={"on_damage": on_damage})
    run.forget("epoch-0003", "manifest.json", "history.json", "probe.safetensors")
    run.plan()
    manifest = Path(run.uri, "checkpoints/epoch-0002/manifest.json")
    manifest.write_bytes(manifest.read_bytes()[:100])
    exit_codes = run.train(forks)
    assert "epoch-0002/manifest.json: is no manifest" in log(run)
    if on_damage == "fail":
        assert exit_codes == [2]
        assert "set resume.on_damage: previous" in log(run)
    else:
        assert exit_codes == [0], log(run)
        assert run.history() == undisturbed.history()
        assert committed(run) == ["epoch-0001", "epoch-0002", "epoch-0003"]
        assert (manifest.parent / "damaged.json").stat().st_size == 100


@pytest.mark.parametrize(
    ("name_ends", "stage"),
    [
        ("mp_rank_00_model_states.pt", 0),
        ("mp_rank_00_optim_states.pt", 2),
        ("rng_state.pth", 2),
        ("scheduler.pt", 2),
    ],
)
def test_a_checkpoint_that_asks_for_code_stops_the_run_with_its_name(
    forks: Any, tmp_path: Path, name_ends: str, stage: int
) -> None:
    zero = {"stage": stage, "offload_optimizer": "none", "offload_parameters": "none"}
    run = finished_run(tmp_path, forks, method="full", num_processes=1, epochs=2, zero=zero)
    run.forget("epoch-0002", "manifest.json", "history.json", "probe.safetensors")
    path = replace_with_attack(
        Path(run.uri), "checkpoints/epoch-0001", name_ends, tmp_path / "called"
    )
    assert run.train(forks) == [1]
    (problem,) = problems_of(log(run))
    assert f"{path.name}: asks for posix.system, which is not opened" in problem
    assert not (tmp_path / "called").exists()
    assert committed(run) == ["epoch-0001"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, until: Callable[[], bool], *, leave: int) -> Path:
    """A file that takes what the disk has free, and again what uploads free by removing what they
    have stored."""
    filler = disk / "filler"
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end, "filled in vain"
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        with suppress(OSError), filler.open("ab") as file:  # training may have been faster
            file.write(b"x" * max(0, free - leave))
        time.sleep(0.01)
    return filler


@pytest.mark.parametrize(
    "leave", [0, 100_000], ids=["nothing is free", "less than one checkpoint is free"]
)
def test_a_full_disk_ends_training_with_one_line_and_the_last_checkpoint_is_good(
    forks: Any, tmp_path: Path, small_disk: Path, leave: int
) -> None:
    undisturbed = finished_run(tmp_path, forks, method="full", num_processes=2, epochs=20)
    run = on_small_disk(undisturbed, small_disk, on_failure="stop")
    processes = run.begin(forks)
    wait_until(lambda: committed(run) != [], processes)
    filler = fill(
        small_disk, lambda: any(process.exitcode is not None for process in processes), leave=leave
    )
    for process in processes:
        process.join(60)
    assert all(process.exitcode == 1 for process in processes), log(run)
    (problem,) = set(problems_of(log(run) + log(run, 1)))
    assert "is not written" in problem
    assert "free some or set HAGANE_WORK to another disk" in problem
    filler.unlink()
    assert set(run.train(forks)) == {0}, log(run)
    assert run.history() == undisturbed.history()


def test_a_write_that_fails_halfway_in_one_process_ends_all_with_its_one_line(
    forks: Any, tmp_path: Path
) -> None:
    run = tiny_run(tmp_path, method="full", num_processes=2)
    run.plan()
    assert run.train(forks, killed_rank=1, point=Point(longest_file=300_000)) == [1, 1]
    (problem,) = problems_of(log(run) + log(run, 1))
    assert "checkpoint of step 2 is not written: File too large" in problem
    assert committed(run) == []


def test_a_full_disk_is_reported_and_training_goes_on_when_the_spec_says_so(
    forks: Any, tmp_path: Path, small_disk: Path
) -> None:
    undisturbed = finished_run(tmp_path, forks, method="full", num_processes=2, epochs=20)
    run = on_small_disk(undisturbed, small_disk, on_failure="continue")
    processes = run.begin(forks)
    wait_until(lambda: committed(run) != [], processes)
    fill(small_disk, lambda: "checkpoint_failed" in log(run) + log(run, 1), leave=0).unlink()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0], log(run)
    assert run.history() == undisturbed.history()
    assert committed(run)[-1] == "epoch-0020"
    assert len(committed(run)) < 20


def on_small_disk(undisturbed: TinyRun, disk: Path, **checkpoints: Any) -> TinyRun:
    """The run from its beginning, with its scratch files on the small disk."""
    run = undisturbed.copy("full-disk").with_settings(checkpoints=checkpoints)
    run.forget(*(path.name for path in Path(run.uri, "checkpoints").iterdir()))
    run.plan()
    return TinyRun(run.folder, run.store, disk, run.spec)


def problems_of(lines: str) -> list[str]:
    events = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    return [
        problem
        for event in events
        if event.get("event") == "failed"
        for problem in event["problems"]
    ]
