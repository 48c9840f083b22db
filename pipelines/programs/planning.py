"""A spec -> its plan, by running the first two steps of the pipeline into a folder that is thrown away."""

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from components.shared.documents.plan import Plan
from components.shared.documents.tokenizer_sample import read_tokenizer_sample
from components.shared.errors import HaganeError
from components.shared.spec.file import spec_yaml
from components.shared.spec.run_spec import RunSpec
from components.shared.store.layout import DATASET, PLAN
from pipelines.programs.component_program import output_of
from pipelines.screens.progress import Screen, follow

PLANNING = ("prepare_dataset", "render_config")


def plan_of(spec: RunSpec, console: Console, *, keep: Path | None = None, num_rows: int | None = None) -> Plan:
    """The plan that a run of this spec would have. Its files are copied to `keep` when given, with the job that the run would send.

    With `num_rows`, for so many full rows: no data, no tokenizer, only the model's config is read.

    Raises:
        HaganeError: what either step refused.
    """
    with tempfile.TemporaryDirectory(prefix="hagane-plan-") as folder:
        scratch = spec.model_copy(update={"store": folder})
        file, asked = Path(folder) / "scratch.yaml", Path(folder) / "asked.yaml"
        file.write_text(spec_yaml(scratch))
        asked.write_text(spec_yaml(spec))
        made = Path(scratch.run_uri) / PLAN
        with Screen(console, PLANNING if num_rows is None else PLANNING[1:]) as screen:
            if num_rows is None:
                _run_program(["components.prepare_dataset", "--spec", str(file)], Path(folder), screen)
                _run_program(["components.render_config", "--run", scratch.run_uri, "--job-of", str(asked)], Path(folder), screen)
                if read_tokenizer_sample(Path(scratch.run_uri) / DATASET).may_differ and find_spec("transformers") is not None:
                    _run_program(["components.evaluate.same_tokens", "--run", scratch.run_uri], Path(folder), screen)
            else:
                rows = ("--rows", str(num_rows), "--out", str(made))
                _run_program(["components.render_config", "--spec", str(file), "--job-of", str(asked), *rows], Path(folder), screen)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for path in made.iterdir():
                (keep / path.name).write_bytes(path.read_bytes())
        return Plan.model_validate_json((made / "plan.json").read_bytes())


def _run_program(module: list[str], folder: Path, screen: Screen) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        env={**os.environ, "HAGANE_LOG": "json", "HAGANE_WORK": str(folder / "work")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    outcome = follow(process.stdout, folder / "log", screen)
    if process.wait():
        if not outcome.problems:
            raise RuntimeError(f"{module[0]} ended with exit code {process.returncode}:\n{(folder / 'log').read_text()}")
        raise HaganeError(*outcome.problems)


def explain_deepspeed(file: Path, plan: Path | None) -> str:
    """What is wrong in a hand-written deepspeed.json, and a line for each setting, beside that of the plan in a folder.

    Raises:
        HaganeError: it cannot be read.
    """
    beside = ["--out", str(plan)] if plan is not None else []
    return output_of("components.render_config", "--import-deepspeed", str(file), *beside)
