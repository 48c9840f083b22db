"""Options that `hagane` has before any command."""

from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from pipelines.cli import app


def test_the_version_is_the_packages() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0
    assert done.output.startswith(f"hagane {version('hagane')}")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_a_shell(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    done = CliRunner().invoke(app, ["--show-completion", shell], prog_name="hagane")
    assert done.exit_code == 0
    assert "_HAGANE_COMPLETE=complete_" + shell in done.output
