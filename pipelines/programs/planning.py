"""A spec -> its plan, by running the first two steps of the pipeline into a folder that is thrown
away."""

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from rich.console import Console

from components.shared.documents.plan import Plan
from components.shared.errors import HaganeError
from components.shared.job.images import read_images
from components.shared.spec.file import spec_yaml
from components.shared.spec.run_spec import RunSpec
from components.shared.store.layout import DATASET, PLAN, job_file
from pipelines.programs.component_program import output_of, require_installed
from pipelines.screens.progress import Screen, follow

PLANNING = ("prepare_dataset", "render_config")
ProbePlace = Literal["here", "pod"]
"""Where `--probe` and `--probe-pod` make their steps: this machine, or a pod of the cluster."""
MEASURED = "measured.json"


def plan_of(
    spec: RunSpec,
    console: Console,
    *,
    keep: Path | None = None,
    num_rows: int | None = None,
    probe: ProbePlace | None = None,
) -> Plan:
    """The plan that a run of this spec would have. Its files are copied to `keep` when given, with
    the job that the run would send.

    With `num_rows`, for this many full rows: no data, no tokenizer, only the model's config is
    read. With `probe`, three steps are made there, and time and price are theirs.

    Raises:
        HaganeError: what either step refused, or the machine or the cluster that probes.
    """
    with tempfile.TemporaryDirectory(prefix="hagane-plan-") as folder:
        scratch = spec.model_copy(update={"store": folder})
        file, made = Path(folder) / "scratch.yaml", Path(scratch.run_uri) / PLAN
        file.write_text(spec_yaml(scratch))
        asked = Path(folder) / "asked.yaml"
        asked.write_text(spec_yaml(spec))
        job_of: tuple[str, ...] = ()
        if keep is not None or probe == "pod":
            job_of = ("--job-of", str(asked))
        with Screen(console, PLANNING if num_rows is None else PLANNING[1:]) as screen:
            if num_rows is None:
                _plan_dataset(file, scratch.run_uri, job_of, Path(folder), screen)
            else:
                rows = ["--rows", str(num_rows), "--out", str(made), *job_of]
                if keep is not None:
                    page = []
                else:
                    page = ["--no-page"]
                _run_program(
                    ["components.render_config", "--spec", str(file), *rows, *page],
                    Path(folder),
                    screen,
                )
            if probe == "here":
                rows_file = None
                if num_rows is None:
                    rows_file = Path(scratch.run_uri) / DATASET / "train.parquet"
                measured = _probe_here(spec, made, rows_file, Path(folder), screen)
                _plan_by(measured, file, made, screen)
            if probe == "pod":
                measured = _probe_in_pod(spec, asked, made, Path(folder), screen)
                _plan_by(measured, file, made, screen)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for path in made.iterdir():
                (keep / path.name).write_bytes(path.read_bytes())
        return Plan.model_validate_json((made / "plan.json").read_bytes())


def _plan_dataset(
    file: Path, run: str, job_of: tuple[str, ...], folder: Path, screen: Screen
) -> None:
    """The dataset of the run and its plan are made; where tokenizers may differ, that is checked
    too."""
    from components.shared.documents.tokenizer_sample import (
        read_tokenizer_sample,
    )  # structlog, which --rows does without

    _run_program(["components.prepare_dataset", "--spec", str(file)], folder, screen)
    _run_program(["components.render_config", "--run", run, *job_of], folder, screen)
    if (
        read_tokenizer_sample(Path(run) / DATASET).may_differ
        and find_spec("transformers") is not None
    ):
        _run_program(["components.evaluate.same_tokens", "--run", run], folder, screen)


def _probe_here(spec: RunSpec, plan: Path, rows: Path | None, folder: Path, screen: Screen) -> Path:
    """The file with what three steps on this machine took."""
    require_installed("components.train.step_probe.__main__", "torch.distributed.run")
    measured = folder / MEASURED
    if rows is None:
        from_dataset = []
    else:
        from_dataset = ["--rows", str(rows)]
    _run_program(
        [
            *("components.train.step_probe", "--plan", str(plan), *from_dataset),
            *("--label-smoothing", str(spec.training.label_smoothing), "--out", str(measured)),
        ],
        folder,
        screen,
    )
    return measured


def _probe_in_pod(spec: RunSpec, file: Path, plan: Path, folder: Path, screen: Screen) -> Path:
    """The file with what three steps in a pod of the cluster took. `file`: the spec, as asked."""
    measured = folder / MEASURED
    image = read_images().training(on_gpus=spec.hardware.names_gpu)
    _run_program(
        [
            *("components.launch_training.step_probe", "--spec", str(file), "--image", image),
            *("--manifest", str(plan / job_file(spec.backend)), "--plan", str(plan)),
            *("--out", str(measured)),
        ],
        folder,
        screen,
    )
    return measured


def _plan_by(measured: Path, file: Path, plan: Path, screen: Screen) -> None:
    """The plan in its folder has the measured steps."""
    by = ("--measured", str(measured), "--out", str(plan))
    _run_program(["components.render_config", "--spec", str(file), *by], measured.parent, screen)
    # It holds the sums of the plan as it was before.
    (plan / "manifest.json").unlink(missing_ok=True)


def _run_program(module: list[str], folder: Path, screen: Screen) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        env={**os.environ, "HAGANE_LOG": "json", "HAGANE_WORK": str(folder / "work")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process:
        outcome = follow(process.stdout, folder / "log", screen)
    if process.returncode:
        if not outcome.problems:
            raise RuntimeError(
                f"{module[0]} ended with exit code "
                f"{process.returncode}:\n{(folder / 'log').read_text()}"
            )
        error = HaganeError(*outcome.problems)
        error.exit_code = outcome.exit_code
        raise error


def explain_deepspeed(file: Path, plan: Path | None) -> str:
    """What is wrong in a hand-written deepspeed.json, and a line for each setting, beside that of
    the plan in a folder.

    Raises:
        HaganeError: it cannot be read.
    """
    if plan is not None:
        beside = ["--out", str(plan)]
    else:
        beside = []
    return output_of("components.render_config", "--import-deepspeed", str(file), *beside)
