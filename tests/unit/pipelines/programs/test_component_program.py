"""What a command says where the packages that train are not installed."""

import pytest

from components.shared.errors import HaganeError
from pipelines.commands.run import run
from pipelines.programs import component_program
from pipelines.programs.component_program import require_training
from tests.support.example_plans import ROOT

NOT_THERE = "nothing_of_this_name"


def test_what_is_not_installed_is_named_with_a_fix_that_fits_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(component_program, "TRAINING", ("json", NOT_THERE))
    with pytest.raises(HaganeError) as chat:
        require_training()
    (line,) = chat.value.problems
    assert line.startswith(f"this machine: {NOT_THERE} not installed")
    assert line.endswith("Fix: pip install 'hagane[train]'")
    with pytest.raises(HaganeError, match=r"Fix: pip install .*\[train\]', or elsewhere$"):
        require_training(otherwise=", or elsewhere")


@pytest.mark.parametrize("backend", ["local", "pytorchjob"])
def test_run_names_the_command_that_runs_all_steps_in_a_cluster(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """With `hagane run` the steps are here whatever the backend is."""
    monkeypatch.setattr(component_program, "TRAINING", (NOT_THERE,))
    with pytest.raises(HaganeError, match=r"in a cluster: hagane submit SPEC$"):
        run(ROOT / "specs/demo.yaml", [f"backend={backend}"], "process")
