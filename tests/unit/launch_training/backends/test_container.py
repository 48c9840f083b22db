"""The other side of the folder is played by a thread that writes files as `hagane run` does; the real one is in tests/images."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components.launch_training.backends.container import run_beside
from components.shared.errors import RunFailed
from components.shared.job.training_job import TrainingJob, write_whole
from components.shared.log import set_up_log

JOB = TrainingJob(image="hagane/train:1", run="s3://b/runs/demo", num_processes=2, environment={"OMP_NUM_THREADS": "1"})


def answered(folder: Path, answer: Callable[[Path], None]) -> threading.Thread:
    def play() -> None:
        while not (asked := [path for path in folder.glob("*.json") if not path.name.startswith(".")]):
            time.sleep(0.01)
        answer(asked[0])

    thread = threading.Thread(target=play)
    thread.start()
    return thread


def test_what_is_asked_arrives_whole_and_events_are_passed_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(asked: Path) -> None:
        assert TrainingJob.model_validate_json(asked.read_text()) == JOB
        with asked.with_suffix(".log").open("w") as log:
            for part in ('{"event":"progress","compo', 'nent":"train","done":1}\n', "some library says hel", "lo"):
                log.write(part)
                log.flush()
                time.sleep(0.05)
        write_whole(asked.with_suffix(".exit_code"), "0")

    thread = answered(tmp_path, answer)
    run_beside(JOB, tmp_path, set_up_log("launch_training"))
    thread.join()
    printed = capsys.readouterr().out
    assert "event=progress component=train done=1" in printed
    assert "some library says hello" in printed
    assert list(tmp_path.glob("*.cancel")) == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"event":"failed","component":"train","problems":["store: is full"],"exit_code":1}\n', "store: is full"),
        ("training container: no such image\n", "ended with exit code 125; its last line: training container: no such image"),
    ],
)
def test_a_job_that_fails_says_why(line: str, told: str, tmp_path: Path) -> None:
    def answer(asked: Path) -> None:
        asked.with_suffix(".log").write_text(line)
        write_whole(asked.with_suffix(".exit_code"), "125")

    thread = answered(tmp_path, answer)
    with pytest.raises(RunFailed, match=told):
        run_beside(JOB, tmp_path, set_up_log("launch_training"))
    thread.join()


def test_a_job_that_never_began_is_told_though_it_printed_nothing(tmp_path: Path) -> None:
    thread = answered(tmp_path, lambda asked: write_whole(asked.with_suffix(".exit_code"), "125"))
    with pytest.raises(RunFailed, match="ended with exit code 125"):
        run_beside(JOB, tmp_path, set_up_log("launch_training"))
    thread.join()


def test_leaving_before_its_end_cancels_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("components.launch_training.backends.container.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_beside(JOB, tmp_path, set_up_log("launch_training"))
    assert len(list(tmp_path.glob("*.cancel"))) == 1
