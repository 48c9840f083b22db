"""The compiled pipeline as the KFP UI has it: the button's parameters, what each step shows, its
cache, and how a run ends."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.shared.spec.file import load_spec
from components.shared.store.layout import PLAN, manifest_key
from components.shared.store.storage import LocalStore
from tests.integration.test_pipeline import tiny_spec
from tests.support.command_line import environment, hagane

pytestmark = pytest.mark.slow

PRESS = """
import json, sys, warnings
warnings.simplefilter("ignore")
from kfp import components, local
root = sys.argv[3]
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=f"{root}/runs", enable_caching=True, cache_root=f"{root}/cache")
components.load_component_from_file(sys.argv[1])(**json.loads(sys.argv[2]))
"""  # noqa: E501


@dataclass(frozen=True)
class Pressed:
    """One run that was started by the button."""

    exit_code: int
    output: str
    folder: Path
    """Where KFP keeps its artifacts: `<task>/<artifact>`."""

    @property
    def plain_output(self) -> str:
        """Without the terminal's colors."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.output)

    @property
    def tasks(self) -> set[str]:
        """Those that were started, not taken from the cache."""
        return set(re.findall(r"Executing task .*?'([a-z-]+)'", self.plain_output))

    @property
    def states(self) -> dict[str, str]:
        """Task, and the pipeline itself -> the state in which KFP says that it ended."""
        ended = r"(?:Task|Pipeline) '([a-z-]+)' finished with status (\w+)"
        return dict(re.findall(ended, self.plain_output))

    def text(self, artifact: str) -> str:
        return (self.folder / artifact).read_text()


@dataclass(frozen=True)
class Ui:
    """A folder with the compiled pipeline, a spec, and KFP's cache."""

    folder: Path

    def press(self, **parameters: Any) -> Pressed:
        spec = json.loads(load_spec(self.folder / "spec.yaml").model_dump_json(exclude_none=True))
        arguments = json.dumps({"spec": spec, **parameters})
        runs = self.folder / "kfp/runs"
        before = set(runs.glob("*"))
        command = [
            sys.executable,
            "-c",
            PRESS,
            str(self.folder / "finetune.yaml"),
            arguments,
            str(self.folder / "kfp"),
        ]
        # Made anew for each run, as in pods: what counts must be in the store.
        done = subprocess.run(
            command,
            env=environment(self.folder / "work"),
            capture_output=True,
            text=True,
            check=False,
        )
        (made,) = set(runs.glob("*")) - before
        return Pressed(done.returncode, done.stdout + done.stderr, made)


def _ui(folder: Path, **training: Any) -> Ui:
    assert hagane("compile", folder / "finetune.yaml", work=folder / "work").exit_code == 0
    # Nothing is tried again here: kfp.local would sleep through every pause between two tries.
    yaml_file = folder / "finetune.yaml"
    yaml_file.write_text(re.sub(r"maxRetryCount: \d+", "maxRetryCount: 0", yaml_file.read_text()))
    tiny_spec(folder, epochs=1, precision="fp32", **training)
    return Ui(folder)


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Ui:
    return _ui(tmp_path_factory.mktemp("ui"))


@pytest.fixture(scope="module")
def first(ui: Ui) -> Pressed:
    pressed = ui.press()
    assert pressed.exit_code == 0, pressed.output[-3000:]
    return pressed


def test_every_step_shows_its_page_and_its_numbers(first: Pressed) -> None:
    pages = {
        "prepare-dataset/page": "Dataset of tiny",
        "render-config/page": "<title>Plan of ",
        "launch-training/losses": "<h1>Loss",
        "evaluate/samples": "What is 12 plus 7?",
        "write-report/page": "report of the run",
    }
    for page, words in pages.items():
        text = first.text(page)
        assert words in text, page
        # The UI shows it in an iframe without an origin: nothing that it would have to fetch.
        assert not re.search(r"<(script|link|img|iframe)\b|url\(|@import", text), page
        assert page.startswith(("evaluate", "prepare")) or "<svg" in text, page
    numbers = {
        step: json.loads(first.text(f"{step}/metrics"))
        for step in ("prepare-dataset", "render-config", "launch-training", "evaluate")
    }
    assert numbers["prepare-dataset"]["num_conversations"] == 48
    assert numbers["render-config"]["planned_steps"] == 3
    assert numbers["launch-training"]["held_out_loss"] == pytest.approx(
        numbers["evaluate"]["tuned_loss"], abs=1e-3
    )
    assert numbers["launch-training"]["tokens_per_second"] > 0
    assert numbers["evaluate"]["tuned_loss"] < numbers["evaluate"]["base_loss"]


def test_the_end_tells_where_everything_is(first: Pressed, ui: Ui) -> None:
    assert "adapter_model.safetensors" in first.text("export-adapter/where")
    summary = first.text("end-run/summary")
    assert summary.startswith("# Run tiny finished\n")
    assert summary.count("| yes |") == 6
    assert f"`{ui.folder}/store/tiny/report/report.html`" in summary


def test_the_cache_is_used_only_where_the_folder_it_stands_for_is_there(
    first: Pressed, ui: Ui
) -> None:
    cached = {"prepare-dataset", "render-config"}
    assert cached < first.tasks
    # the first start that sees finished folders: they are not done again, and now the cache knows
    # them
    second = ui.press()
    assert cached < second.tasks
    third = ui.press()
    assert (third.exit_code, third.tasks & cached) == (0, set())
    assert {"claim-run", "launch-training", "write-report", "end-run"} < third.tasks
    store = LocalStore(ui.folder / "store/tiny")
    store.delete(manifest_key(PLAN))
    assert ui.press().tasks & cached == {"render-config"}
    assert store.read_bytes(manifest_key(PLAN))


def test_what_is_set_at_the_button_overrides_the_spec_with_the_errors_of_set(
    ui: Ui, first: Pressed
) -> None:
    pressed = ui.press(override_epochs=-1, override_run_name="Other")
    assert pressed.exit_code != 0
    lines = [
        "override_run_name=Other: name: got 'Other', must be 1 to 50 small letters, digits and "
        "hyphens, the first a letter, the last no hyphen",
        "override_epochs=-1: training.epochs: got -1, must be at least 1",
    ]
    summary = pressed.text("end-run/summary")
    assert summary.startswith("# Run failed: nothing was begun\n")
    assert all(f"- {line}\n" in summary for line in lines)
    assert sorted(path.name for path in (ui.folder / "store").iterdir()) == [".newest", "tiny"]


def test_a_failed_run_tells_what_is_safe_and_another_run_of_its_name_is_left_alone(
    tmp_path: Path,
) -> None:
    ui = _ui(tmp_path)
    for weights in (tmp_path / "model").glob("*.safetensors"):
        weights.unlink()
    pressed = ui.press(override_run_name="weak-{run}")
    assert pressed.exit_code != 0
    assert "holds no weights" in pressed.output
    summary = pressed.text("end-run/summary")
    assert re.match(
        r"# Run weak-[0-9]{1,8} failed\n", summary
    )  # the id that kfp.local makes of a run: a random number below 10^8
    assert (
        "No checkpoint is committed yet. Started again under this name, it goes on after the "
        "last finished step."
    ) in summary
    assert summary.count("| yes |") == 2
    (name,) = [path.name for path in (tmp_path / "store").iterdir()]
    other = ui.press(override_run_name=name, override_epochs=2)
    assert (
        f"training.epochs: got 2, but run '{name}' was begun with 1; set another name"
        in other.output
    )
    assert "did not come to claim" in other.text("end-run/summary")


def test_a_spec_that_makes_the_model_worse_ends_as_failed_in_kfp_and_publishes_nothing(
    tmp_path: Path,
) -> None:
    """The learning rate is far too high. The gate is the default one."""
    ui = _ui(tmp_path, lr_peak=0.3)
    spec = ui.folder / "spec.yaml"
    spec.write_text(spec.read_text() + "publish: {name: support}\n")
    pressed = ui.press()
    run = LocalStore(ui.folder / "store/tiny")
    losses = json.loads(run.read_bytes("evaluation/evaluation.json"))
    assert losses["tuned"]["loss"] > losses["base"]["loss"]
    assert pressed.exit_code != 0
    assert pressed.states["export-adapter"] == "SUCCESS"
    assert pressed.states["evaluate"] == pressed.states["hagane-finetune"] == "FAILURE"
    assert "write-report" not in pressed.tasks
    assert "gate: held-out loss must fall below" in pressed.text("end-run/summary")
    assert not (ui.folder / "store/published").exists()
    here = hagane("run", spec, work=ui.folder / "work")
    assert here.exit_code == 1
    assert "gate: held-out loss must fall below" in here.problems[0]
    assert not (ui.folder / "store/published").exists()
