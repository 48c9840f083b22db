import fcntl
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipelines.local.temporary_folder import LOCK, RECORD, temporary_folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this machine has its temporary files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def pipeline(tmp_path: Path, run: str) -> Path:
    folder = tmp_path / "work" / run / "pipeline"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def killed_run(tmp_path: Path, place: Path, run: str) -> None:
    program = (
        "import os, sys, tempfile\nfrom pathlib import Path\nfrom pipelines.local.temporary_folder import temporary_folder\n"
        "tempfile.tempdir = sys.argv[2]\nfolder = temporary_folder(Path(sys.argv[1]))\n"
        "(folder.__enter__() / 'part').write_text('x')\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, pipeline(tmp_path, run), place], check=False)
    assert done.returncode == -9


def test_it_is_gone_at_the_end_with_all_that_is_in_it(tmp_path: Path, place: Path) -> None:
    with temporary_folder(pipeline(tmp_path, "a")) as folder:
        (folder / "torchelastic").mkdir()
        assert folder.parent == place
    assert list(place.iterdir()) == []
    assert not (pipeline(tmp_path, "a") / RECORD).exists()


@pytest.mark.parametrize("next_run", ["a", "b"])
def test_what_a_killed_run_left_is_gone_at_the_next_start_of_any_run(next_run: str, tmp_path: Path, place: Path) -> None:
    killed_run(tmp_path, place, "a")
    assert len(list(place.iterdir())) == 1
    with temporary_folder(pipeline(tmp_path, next_run)) as folder:
        assert list(place.iterdir()) == [folder]


def test_that_of_a_run_which_is_still_there_stays(tmp_path: Path, place: Path) -> None:
    with temporary_folder(pipeline(tmp_path, "a")) as folder, (pipeline(tmp_path, "a") / LOCK).open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with temporary_folder(pipeline(tmp_path, "b")):
            assert folder.is_dir()


@pytest.mark.parametrize("where", ["elsewhere/hagane-run-x", "tmp/other"])
def test_a_record_of_a_folder_that_no_run_made_removes_nothing(where: str, tmp_path: Path, place: Path) -> None:
    kept = tmp_path / where
    kept.mkdir(parents=True)
    (pipeline(tmp_path, "a") / RECORD).write_text(str(kept))
    with temporary_folder(pipeline(tmp_path, "a")):
        assert kept.is_dir()
