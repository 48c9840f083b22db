"""Commands about what a run ends with: what they refuse before they read or write anything."""

from collections.abc import Callable
from pathlib import Path

import pytest

from components.shared.errors import SpecError
from pipelines.result_commands import publish, published, rollback

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
