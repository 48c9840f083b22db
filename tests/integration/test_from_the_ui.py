"""docs/from-the-ui.md and docs/schedules.md: every command, as it stands there, in order; and pages
in the UI's frame."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.shared.job.images import IN_THE_REPOSITORY, read_images
from components.shared.store.storage import open_store
from images.push import write_digests
from tests.support.kfp import KfpServer, kfp_server
from tests.support.s3_server import S3Server
from tests.support.tiny_models import make_model
from tests.support.ui_frame import find_browser, screenshot

ROOT = Path(__file__).parents[2]
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


def commands_of(page: str) -> list[str]:
    """The indented lines of a page that are commands."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [
        found.partition("   # ")[0].strip()
        for found in re.findall(r"(?m)^ {4}((?:hagane|curl) .*)$", text)
    ]


@pytest.fixture
def server() -> Iterator[KfpServer]:
    with kfp_server() as running:
        yield running


@pytest.fixture
def place(tmp_path: Path, server: KfpServer, s3: S3Server) -> dict[str, str]:
    """The environment of someone in a clone of the repository, with a store, KFP, pinned images,
    and the hub's model fetched before."""
    for name in ("specs", "images"):
        shutil.copytree(ROOT / name, tmp_path / name)
    pinned = dict.fromkeys(read_images(IN_THE_REPOSITORY).components.values(), "sha256:" + "1" * 64)
    write_digests(tmp_path / "images/images.yaml", "registry.example.com/hagane", pinned)
    cached = tmp_path / f"hub/hub/models--{HUB_ID.replace('/', '--')}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("0" * 40)
    make_model(cached / "snapshots" / ("0" * 40))
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/hagane"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -W ignore -m pipelines.cli "$@"\n')
    program.chmod(0o755)
    return {
        **os.environ,
        **s3.env,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "hub"),
        "HAGANE_WORK": str(tmp_path / "work"),
        "HAGANE_IMAGES": str(tmp_path / "images/images.yaml"),
        "HAGANE_KFP_ENDPOINT": server.endpoint,
        "COLUMNS": "200",
    }


def run_all(commands: list[str], folder: Path, env: dict[str, str]) -> dict[str, str]:
    """What each printed; every one succeeded."""
    printed: dict[str, str] = {}
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        printed[command.split(" specs")[0]] = done.stdout
    return printed


@pytest.mark.skipif(
    shutil.which("curl") is None,
    reason="needs curl, with which the tutorial puts data into the store",
)
def test_the_tutorial_does_what_it_says(
    place: dict[str, str], tmp_path: Path, server: KfpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = commands_of("from-the-ui.md")
    assert [command.split()[0] for command in commands].count("hagane") == len(commands) - 1 == 7
    printed = run_all(commands, tmp_path, place)
    assert (tmp_path / "build/finetune.yaml").is_file()
    assert "fits" in printed["hagane plan"]
    for key, value in place.items():
        monkeypatch.setenv(key, value)
    assert (
        open_store("s3://hagane/data").read_bytes("train.jsonl")
        == (ROOT / "specs/data/hagane.train.jsonl").read_bytes()
    )
    assert len(server.runs) == 1
    assert "from-the-ui" in printed["hagane runs"]
    assert "2 schedules; 2 changes made" in printed["hagane schedules apply"]
    assert re.search(r"weekly +0 0 18 \* \* 0 +yes", printed["hagane schedules list"])
    assert re.search(r"nightly-trial +0 30 1 \* \* \* +no", printed["hagane schedules list"])


def test_the_page_on_schedules_does_what_it_says(
    place: dict[str, str], tmp_path: Path, server: KfpServer
) -> None:
    commands = commands_of("schedules.md")
    assert len(commands) == 4
    run_all(commands, tmp_path, place)
    assert {each["display_name"] for each in server.recurring_runs.values()} == {
        "weekly",
        "nightly-trial",
    }


@pytest.mark.skipif(
    find_browser() is None, reason="needs Chromium, which shows a page as the KFP UI does"
)
def test_a_page_in_the_uis_frame_is_drawn_and_reaches_for_nothing(tmp_path: Path) -> None:
    browser = find_browser()
    assert browser is not None
    page = (ROOT / "tests/golden/report.html").read_text()
    said = screenshot(browser, page, tmp_path / "report.png", width=900, height=1200)
    assert said == []
    blank = screenshot(
        browser,
        "<!doctype html><title>nothing</title>",
        tmp_path / "blank.png",
        width=900,
        height=1200,
    )
    assert blank == []
    assert (tmp_path / "report.png").stat().st_size > 10 * (tmp_path / "blank.png").stat().st_size
    reaching = page.replace("</body>", '<script>localStorage.setItem("a", "b")</script></body>')
    (line,) = screenshot(browser, reaching, tmp_path / "reaching.png", width=900, height=1200)
    assert "sandboxed" in line  # so the frame is the UI's: without an origin
