"""Commands about what a run ends with: what they refuse before they read or write anything."""

from collections.abc import Callable
from pathlib import Path

import pytest

from components.evaluate.chat import main as chat_program
from components.shared.errors import HaganeError, RunFailed, SpecError
from components.shared.spec.file import parse_spec, spec_yaml
from components.shared.spec.run_spec import RunSpec
from components.shared.store import publishing
from components.shared.store.layout import SPEC
from components.shared.store.storage import LocalStore
from pipelines.commands.results import chat, compare, export, logs, publish, published, rollback
from pipelines.commands.stored import checkpoints, gc, status
from pipelines.programs import component_program

COMMANDS: dict[str, Callable[[str, str], None]] = {
    "publish": lambda name, store: publish(f"{store}/run", name=name),
    "published": lambda name, store: published(name, store=store),
    "rollback": lambda name, store: rollback(name, store=store),
}


@pytest.mark.parametrize(
    "name", ["../other", "Support", "a/b", "", "a b", "support\n", "$(id)", "a" * 51]
)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_name_is_refused_before_the_store_is_asked(
    command: str, name: str, tmp_path: Path
) -> None:
    with pytest.raises(
        SpecError, match=r"(NAME|--name): got .*, must be 1 to 50 small letters, digits and hyphens"
    ):
        COMMANDS[command](name, str(tmp_path / "store"))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    """A run of which nothing is finished but that it was claimed."""
    monkeypatch.setenv("HAGANE_WORK", str(tmp_path / "work"))
    spec = parse_spec(
        {
            "name": "r",
            "store": str(tmp_path / "store"),
            "model": {"source": "m"},
            "data": {"train": "t"},
        }
    )
    LocalStore(Path(spec.run_uri)).write_bytes(SPEC, spec_yaml(spec).encode())
    return spec


NEED_A_RUN: dict[str, Callable[[str], None]] = {
    "status": status,
    "checkpoints": checkpoints,
    "gc": gc,
    "logs": logs,
    "chat": chat,
    "export": lambda run: export(run, out=Path(f"{run}-export")),
    "publish": lambda run: publish(run, name="support"),
    "compare": lambda run: compare([run, run]),
}
NEED_ITS_END = ("chat", "export", "publish", "compare")


@pytest.mark.parametrize("command", NEED_A_RUN)
def test_a_run_that_is_not_there_is_one_line_with_what_to_do(
    command: str, begun: RunSpec, capfd: pytest.CaptureFixture[str]
) -> None:
    nowhere = f"{begun.store}/nowhere"
    with pytest.raises(HaganeError) as raised:
        NEED_A_RUN[command](nowhere)
    (line,) = raised.value.problems
    assert line.startswith(f"{nowhere}: no run is here (no spec.yaml). Fix: check store and name")
    assert raised.value.exit_code == 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("command", NEED_ITS_END)
def test_a_run_that_is_not_finished_is_one_line_with_what_to_do(
    command: str, begun: RunSpec, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(HaganeError) as raised:
        NEED_A_RUN[command](begun.run_uri)
    (line,) = raised.value.problems
    assert "not finished (no manifest.json). Fix: finish the run by hagane run SPEC" in line
    assert raised.value.exit_code == 2
    assert capfd.readouterr() == ("", "")


def test_chat_refuses_before_it_starts_a_program(
    begun: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(component_program, "talk_to", lambda module, *_: started.append(module))
    with pytest.raises(HaganeError, match="not finished"):
        chat(begun.run_uri)
    assert started == []


def test_the_program_of_chat_prints_an_error_as_a_person_reads_it(
    begun: RunSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = f"{begun.store}/nowhere"
    monkeypatch.setattr("sys.argv", ["chat", "--run", nowhere])
    with pytest.raises(SystemExit) as ended:
        chat_program()
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith(f"error: {nowhere}: no run is here")
    assert printed.err.count("\n") == 1


def test_publishing_works_in_the_work_folder_and_leaves_nothing_there(
    begun: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Path] = []

    def refuse(*_: object, work: Path, **__: object) -> None:
        (work / "weights").write_bytes(b"large")
        used.append(work)
        raise RunFailed("its gate is not met")

    monkeypatch.setattr(publishing, "publish_run", refuse)
    with pytest.raises(RunFailed, match="its gate is not met"):
        publish(begun.run_uri, name="support")
    assert [work.is_relative_to(tmp_path / "work") for work in used] == [True]
    assert not used[0].exists()
