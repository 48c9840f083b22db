"""A spec -> every problem that can be known before anything is begun, from all components at
once."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from components.shared.errors import HaganeError
from components.shared.events import event_of
from components.shared.job.images import read_images
from components.shared.machine import machine_flags, user_path
from components.shared.spec.file import spec_yaml, stored_spec
from components.shared.spec.places import nearest_name
from components.shared.spec.run_spec import RunSpec
from components.shared.store.layout import REPORT, SPEC
from components.shared.store.manifest import read_manifest
from components.shared.store.storage import open_store
from pipelines.programs.component_program import require_installed
from pipelines.screens.progress import Screen

CHECKS: dict[str, tuple[str, ...]] = {
    "prepare_dataset": ("components.prepare_dataset", "--check"),
    "render_config": ("components.render_config", "--check"),
}
"""Component -> its program, which gets `--spec FILE` too."""
TASKS_CHECK: dict[str, tuple[str, ...]] = {"evaluate": ("components.evaluate.known_tasks",)}
NO_LM_EVAL = (
    "evaluation.lm_eval.tasks: needs the Python package lm_eval, which the image of evaluate does "
    "not hold. Fix: make an image that does, and say has_lm_eval: true in images/images.yaml "
    "(docs/result.md, Benchmarks)"
)
HERE_ALONE = "`hagane run` evaluates on this machine; `hagane submit` refuses this spec"


def problems_of(
    spec: RunSpec,
    *,
    here: bool = True,
    in_images: bool = False,
    console: Console | None = None,
) -> list[str]:
    """One line a problem of the data, the model, its LoRA targets, the batch sizes, the tasks of
    lm-evaluation-harness; where it is to run `here`, of the store and this machine too. Nothing is
    kept anywhere. How far the check of the data is, is shown on the console.

    `in_images`: each step runs in its image, which may hold other packages than this environment:
    the tasks are not looked up here, and what the images hold is for image_problems.

    Components are asked as programs, at the same time, since each brings libraries of its own.

    Raises:
        HaganeError: a component is not installed here, as in an image that holds the command line
            only.
    """
    require_installed(*(f"{program}.__main__" for program, *_ in CHECKS.values()))
    checks = dict(CHECKS)
    problems = tracker_problems(spec)
    if here:
        problems += [*store_problems(spec), *machine_problems(spec), *pod_problems(spec)]
    if spec.evaluation.lm_eval.tasks and not in_images:
        require_installed(TASKS_CHECK["evaluate"][0])
        checks |= TASKS_CHECK
    with (
        tempfile.TemporaryDirectory() as folder,
        Screen(console or Console(quiet=True), (), title="checking every record") as screen,
    ):
        file = Path(folder) / "spec.yaml"
        file.write_text(spec_yaml(spec))
        programs = {
            component: _started(component, command, file) for component, command in checks.items()
        }
        for component, program in programs.items():
            reported = _problems_reported(
                component, program, screen, errors=file.with_name(component)
            )
            problems += [problem for problem in reported if problem not in problems]
    return problems


def has_report(spec: RunSpec) -> bool:
    """Whether a run of just this spec has its report. Then nothing would be begun that could be
    checked
    before: each step finds its work done, or says what has changed since."""
    store = open_store(spec.run_uri)
    try:
        claimed = stored_spec(store.read_bytes(SPEC), f"{store.uri}/{SPEC}")
        return claimed == spec and read_manifest(store, REPORT) is not None
    except HaganeError:  # no such run, or a store that cannot be read, which the checks tell
        return False


def _started(component: str, command: Sequence[str], spec: Path) -> "subprocess.Popen[str]":
    """The component's check, whose errors are in a file beside the spec: nobody reads them while it
    runs."""
    with spec.with_name(component).open("w") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", *command, "--spec", str(spec)],
            env={**os.environ, "HAGANE_LOG": "json"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


def _problems_reported(
    component: str, program: "subprocess.Popen[str]", screen: Screen, *, errors: Path
) -> list[str]:
    """What the program has to say, once it has ended; its progress was shown."""
    assert program.stdout is not None
    problems: list[str] = []
    with program:
        for event in filter(None, map(event_of, program.stdout)):
            if event["event"] == "progress":
                screen.show(event)
            elif event["event"] == "failed":
                problems += event["problems"]
    if program.returncode and not problems:
        raise RuntimeError(
            f"the check of components.{component} ended with exit code "
            f"{program.returncode}:\n{errors.read_text()}"
        )
    return problems


def store_problems(spec: RunSpec) -> list[str]:
    try:
        open_store(spec.store).check()
    except HaganeError as error:
        return list(error.problems)
    return []


def tracker_problems(spec: RunSpec) -> list[str]:
    """Whether the service's package of `training.report_to` is where training runs: here, or in the
    workers' image."""
    service = spec.training.report_to
    if service == "none":
        return []
    found = f"training.report_to: found {service}, whose Python package {service}"
    if spec.backend != "local" and service not in read_images().trackers:
        return [
            f"{found} is not in the workers' image. Fix: make an image that holds it, and say "
            f"trackers: [{service}] in images/images.yaml; or set none"
        ]
    if spec.backend == "local" and find_spec(service) is None:
        return [f"{found} is not installed here. Fix: pip install {service}, or set none"]
    return []


def image_cautions(spec: RunSpec) -> list[str]:
    """For a plan whose training is in a cluster: the other steps may be here or there."""
    if spec.backend == "local":
        return []
    return [f"{HERE_ALONE}: {problem}" for problem in image_problems(spec)]


def image_problems(spec: RunSpec) -> list[str]:
    """Whether the steps' images hold what the spec asks for."""
    if spec.evaluation.lm_eval.tasks and not read_images().has_lm_eval:
        return [NO_LM_EVAL]
    return []


def claim_of(spec: RunSpec, path: str) -> str | None:
    """The claim of `cluster.claims` on which a path lies."""
    return next(
        (
            claim
            for claim, folder in spec.cluster.claims.items()
            if Path(path).is_relative_to(folder)
        ),
        None,
    )


def pod_problems(spec: RunSpec) -> list[str]:
    """What the workers' pods would not find. A patch of the job may bring a volume, so nothing is
    said where there is one."""
    source, cluster = spec.model.source, spec.cluster
    if spec.backend == "local" or cluster.patch or cluster.pod_patch:
        return []
    if not user_path(source).is_dir() or claim_of(spec, source) is not None:
        return []
    return [
        f"model.source: {nearest_name(source)!r} is a folder of this machine, which the workers' "
        "pods do not see; name a hub id such as org/name, or a folder of a claim in cluster.claims "
        "(docs/how-to/models-on-pvc.md)"
    ]


def machine_problems(spec: RunSpec) -> list[str]:
    if spec.backend == "local" and spec.hardware.names_gpu and "cuda" not in machine_flags():
        return [
            (
                "hardware: names a GPU, but this machine has none (/dev/nvidia0); leave it out to "
                "train on the CPU, or set another backend"
            )
        ]
    return []
