"""Entries in several registries: each is tried, and each that fails is named."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.shared.errors import HaganeError, ObjectMissing, RunFailed, SpecError
from components.shared.store.storage import LocalStore, Store
from pipelines.registries.entries import check_all, entries_of

VERSION: Any = SimpleNamespace(name="support", label="v1")


@dataclass
class Made:
    """A registry that raises what it is given."""

    place: str
    check_error: HaganeError | None = None
    error: HaganeError | None = None
    entered: list[str] = field(default_factory=list)

    def check(self, store: Store) -> None:
        if self.check_error is not None:
            raise self.check_error

    def enter(self, version: Any, work: Path) -> str:
        if self.error is not None:
            raise self.error
        self.entered.append(version.label)
        return f"{self.place}: made"


@pytest.mark.parametrize("kind", [SpecError, ObjectMissing])
def test_no_error_of_one_stops_the_next_and_the_exit_code_is_1(
    kind: type[HaganeError], tmp_path: Path
) -> None:
    first, last = Made("http://one", error=kind("it is gone")), Made("http://two")
    lines: list[str] = []
    with pytest.raises(RunFailed) as failed:
        lines.extend(entries_of(VERSION, [first, last], tmp_path))
    assert last.entered == ["v1"]
    assert failed.value.exit_code == 1
    assert failed.value.problems == (
        "http://one: no entry for support v1, which is published: it is gone. Fix: run the same "
        "command again when that is repaired; it makes the entry alone",
    )


def test_all_checks_are_made_before_any_is_reported(tmp_path: Path) -> None:
    registries = [
        Made("one", check_error=SpecError("one: no")),
        Made("two"),
        Made("three", check_error=SpecError("three: no")),
    ]
    with pytest.raises(SpecError) as refused:
        check_all(registries, LocalStore(tmp_path))
    assert refused.value.problems == ("one: no", "three: no")
