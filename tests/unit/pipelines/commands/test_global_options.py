"""Options of hagane itself, before and after the command, and the keys of the demo's store."""

import os
from pathlib import Path

import pytest

from pipelines.commands.global_options import (
    DEMO_ENV,
    S3_SETTINGS,
    demo_environment,
    globals_first,
)


@pytest.mark.parametrize(
    ("given", "ordered"),
    [
        (["plan", "a.yaml", "-q"], ["-q", "plan", "a.yaml"]),
        (["-v", "plan", "a.yaml"], ["-v", "plan", "a.yaml"]),
        (["status", "--env-file", "e", "a"], ["--env-file", "e", "status", "a"]),
        (["status", "--env-file=e", "a"], ["--env-file=e", "status", "a"]),
        (["chat", "a", "--", "-q"], ["chat", "a", "--", "-q"]),
        (["status", "--env-file"], ["--env-file", "status"]),
    ],
)
def test_global_options_may_stand_after_the_command(given: list[str], ordered: list[str]) -> None:
    assert globals_first(given) == ordered


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout after `make demo`, not the current folder; nothing is said about S3."""
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/demo.yaml").write_text("name: demo\nstore: s3://hagane/runs\n")
    (tmp_path / DEMO_ENV).parent.mkdir(parents=True)
    (tmp_path / DEMO_ENV).touch()
    for name in S3_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_keys_of_the_demos_store_are_known_for_its_specs(demo: Path) -> None:
    assert demo_environment(["status", f"{demo}/specs/demo.yaml"]) == demo / DEMO_ENV


def test_a_run_by_its_uri_takes_them_from_the_current_folder(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(demo / "specs")
    assert demo_environment(["checkpoints", "s3://hagane/runs/demo"]) == demo / DEMO_ENV


@pytest.mark.parametrize("store", ["s3://mine/runs", "s3://hagane-prod/runs", "runs"])
def test_no_other_store_gets_them(demo: Path, store: str) -> None:
    (demo / "specs/demo.yaml").write_text(f"name: demo\nstore: {store}\n")
    assert demo_environment(["status", f"{demo}/specs/demo.yaml"]) is None


@pytest.mark.parametrize("name", S3_SETTINGS)
def test_settings_of_the_person_win(demo: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(os.environ, name, "x")
    assert demo_environment(["status", f"{demo}/specs/demo.yaml"]) is None
