"""What the doctor's pod does with a store, on a real one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.shared.errors import StoreDenied, StoreMissing
from components.shared.events import event_of
from components.shared.store.storage import LocalStore, open_store
from components.train.store_check import refuses_second_writer, use_store
from tests.support.s3_server import S3Server


def test_a_store_is_used_as_a_training_does_and_left_as_it_was(s3_env: S3Server) -> None:
    store = open_store(f"{s3_env.fresh_uri()}/run")
    assert use_store(store) == {"if_absent": True}
    assert list(store.list()) == []
    assert list(store.unfinished()) == []


def test_the_first_thing_that_a_store_refuses_is_raised(
    s3_env: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreMissing, match="no bucket 'none-here'"):
        use_store(open_store("s3://none-here/run"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreDenied, match="does not belong to the access key"):
        use_store(open_store(s3_env.fresh_uri()))


def test_a_store_that_lets_a_second_writer_win_is_kept_apart(tmp_path: Path) -> None:
    class Forgetful(LocalStore):
        """As servers are that pass over If-None-Match."""

        def write_bytes(self, key: str, content: bytes, *, if_absent: bool = False) -> None:
            super().write_bytes(key, content)

    assert refuses_second_writer(LocalStore(tmp_path / "a"), "key")
    assert not refuses_second_writer(Forgetful(tmp_path / "b"), "key")


def test_the_program_tells_names_of_variables_and_never_a_value(s3: S3Server) -> None:
    sources = {"FROM_0_AWS_SECRET_ACCESS_KEY": "do-not-tell", "FROM_0_B": "nor this"}
    command = [
        sys.executable,
        "-m",
        "components.train.store_check",
        "--prefix",
        "FROM_0_",
        "--prefix",
        "FROM_1_",
    ]
    env = {**os.environ, **s3.env, **sources, "HAGANE_LOG": "json"}
    done = subprocess.run(
        [*command, "--store", s3.fresh_uri()], env=env, capture_output=True, text=True, check=True
    )
    events = [event for line in done.stdout.splitlines() if (event := event_of(line))]
    assert [event.get("names") for event in events] == [["AWS_SECRET_ACCESS_KEY", "B"], [], None]
    assert events[-1]["if_absent"] is True
    assert "do-not-tell" not in done.stdout + done.stderr


def test_where_settings_are_files_the_program_has_them_and_tells_names_by_source(
    s3: S3Server, tmp_path: Path
) -> None:
    """As in the pod of a TrainJob, which has no environment from ConfigMaps and Secrets."""
    for folder, values in (("00", {"AWS_REGION": "us-east-1"}), ("01", s3.env)):
        (tmp_path / folder).mkdir()
        for name, value in values.items():
            (tmp_path / folder / name).write_text(value)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    env = {**kept, "HAGANE_ENVIRONMENT": str(tmp_path), "HAGANE_LOG": "json"}
    command = [sys.executable, "-m", "components.train.store_check", "--store", s3.fresh_uri()]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    events = [event for line in done.stdout.splitlines() if (event := event_of(line))]
    assert [event.get("prefix") for event in events] == [
        "HAGANE_SOURCE_0_",
        "HAGANE_SOURCE_1_",
        None,
    ]
    assert events[0]["names"] == ["AWS_REGION"]
    assert events[1]["names"] == sorted(s3.env)
    assert s3.env["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
