"""Options of hagane itself, before and after the command, and the keys of the demo's store."""

import os
from pathlib import Path

import boto3
import pytest

from pipelines.commands.global_options import (
    DEMO_ENV,
    S3_SETTINGS,
    demo_environment,
    globals_first,
    use_env_file,
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


@pytest.mark.parametrize("name", ["specs/from-the-ui.yaml", "other/demo.yaml"])
def test_another_spec_in_a_bucket_of_the_same_name_gets_none(
    demo: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (demo / "other").mkdir()
    (demo / name).write_text("name: demo\nstore: s3://hagane/runs\n")
    monkeypatch.chdir(demo)
    assert demo_environment(["status", name]) is None


@pytest.mark.parametrize("uri", ["s3://hagane/runs/mine", "s3://hagane/runs", "s3://hagane/a/demo"])
def test_another_run_in_a_bucket_of_the_same_name_gets_none(
    demo: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.chdir(demo)
    assert demo_environment(["checkpoints", uri]) is None


@pytest.mark.parametrize("option", [["--set", "store=s3://mine"], ["--set=store=s3://mine"]])
def test_a_store_of_the_command_line_gets_none(demo: Path, option: list[str]) -> None:
    assert demo_environment(["run", f"{demo}/specs/demo.yaml", *option]) is None


def test_an_env_file_replaces_the_keys_of_the_environment_and_what_belongs_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*S3_SETTINGS, "AWS_SESSION_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "mine")
    file = tmp_path / "env"
    file.write_text("AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\nAWS_ENDPOINT_URL_S3=http://c\n")
    use_env_file(file)
    found = boto3.Session().get_credentials()
    assert found is not None
    assert (found.access_key, found.secret_key, found.token) == ("a", "b", None)
    assert boto3.client("s3", region_name="us-east-1").meta.endpoint_url == "http://c"


def test_an_env_file_without_keys_leaves_those_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("HAGANE_TEST_A", "before")
    (tmp_path / "env").write_text("HAGANE_TEST_A=after\n")
    use_env_file(tmp_path / "env")
    assert (os.environ["AWS_PROFILE"], os.environ["HAGANE_TEST_A"]) == ("mine", "after")


@pytest.mark.parametrize("store", ["s3://mine/runs", "s3://hagane-prod/runs", "runs"])
def test_no_other_store_gets_them(demo: Path, store: str) -> None:
    (demo / "specs/demo.yaml").write_text(f"name: demo\nstore: {store}\n")
    assert demo_environment(["status", f"{demo}/specs/demo.yaml"]) is None


@pytest.mark.parametrize("name", S3_SETTINGS)
def test_settings_of_the_person_win(demo: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(os.environ, name, "x")
    assert demo_environment(["status", f"{demo}/specs/demo.yaml"]) is None
