"""Commands about what a run ends with: what they refuse before they read or write anything."""

from collections.abc import Callable
from pathlib import Path

import pytest

from components.shared.errors import RunFailed, SpecError
from components.shared.spec.file import parse_spec, spec_yaml
from components.shared.store import publishing
from components.shared.store.layout import SPEC
from components.shared.store.storage import LocalStore
from pipelines.commands.results import publish, published, rollback

COMMANDS: dict[str, Callable[[str, str], None]] = {
    "publish": lambda name, store: publish(f"{store}/run", name=name),
    "published": lambda name, store: published(name, store=store),
    "rollback": lambda name, store: rollback(name, store=store),
}


@pytest.mark.parametrize("name", ["../other", "Support", "a/b", "", "a b", "support\n", "$(id)", "a" * 51])
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_name_is_refused_before_the_store_is_asked(command: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"(NAME|--name): got .*, must be 1 to 50 small letters, digits and hyphens"):
        COMMANDS[command](name, str(tmp_path / "store"))
    assert list(tmp_path.iterdir()) == []


def test_publishing_works_in_the_work_folder_and_leaves_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Path] = []

    def refuse(*_: object, work: Path, **__: object) -> None:
        (work / "weights").write_bytes(b"large")
        used.append(work)
        raise RunFailed("its gate is not met")

    monkeypatch.setattr(publishing, "publish_run", refuse)
    monkeypatch.setenv("HAGANE_WORK", str(tmp_path / "work"))
    spec = parse_spec({"name": "r", "store": str(tmp_path / "store"), "model": {"source": "m"}, "data": {"train": "t"}})
    LocalStore(Path(spec.run_uri)).write_bytes(SPEC, spec_yaml(spec).encode())
    with pytest.raises(RunFailed, match="its gate is not met"):
        publish(spec.run_uri, name="support")
    assert [work.is_relative_to(tmp_path / "work") for work in used] == [True]
    assert not used[0].exists()
