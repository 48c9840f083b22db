"""A spec -> a run of it in Kubeflow Pipelines, after everything that can be known from here was
asked.

What cannot be known from here is said and left to the pipeline's first steps: a store whose keys
only the cluster has, data that is in a store, a model on a claim. Nothing is sent before a refusal.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from components.shared.errors import HaganeError, KfpExists, SpecError
from components.shared.machine import user_path
from components.shared.model.hub_id import is_hub_id
from components.shared.spec.data import SourceSpec
from components.shared.spec.file import SpecProblems, load_spec
from components.shared.spec.places import nearest_name
from components.shared.spec.run_spec import RunSpec
from pipelines.finetune.compiled import CompiledPipeline
from pipelines.finetune.parameters import parameter_problems
from pipelines.kfp_api.active_runs import active_runs, folder_of
from pipelines.kfp_api.client import KfpClient
from pipelines.kfp_api.limits import account_problems, name_problems
from pipelines.kfp_api.requests import run_of
from pipelines.kfp_api.run_view import RUN_STATES
from pipelines.kfp_api.versions import UploadedVersion, ensure_version
from pipelines.programs.checking import claim_of, image_problems, problems_of, store_problems
from pipelines.programs.planning import plan_of

ROWS_UNKNOWN = 1000
"""Planned for where the data is not here: what a plan refuses (memory, targets, batch sizes) does
not hang on it, only times do."""


@dataclass
class Checked:
    """What is known of a spec before it is sent."""

    spec: RunSpec
    verdict: str = ""
    """Of its plan; empty where none could be made."""
    notes: list[str] = field(default_factory=list)
    """What was not checked from here, and why."""


@dataclass(frozen=True)
class Submitted:
    run_id: str
    run_name: str
    experiment: str
    version: UploadedVersion
    link: str


def check_for_cluster(
    path: Path, overrides: list[str], console: Console, *, with_plan: bool
) -> Checked:
    """The spec, with nothing known against it.

    Raises:
        HaganeError: every problem that can be known from here, the plan's too; one line each.
    """
    try:
        spec = load_spec(path, overrides)
    except SpecProblems as error:
        if error.rest is None:
            rest = []
        else:
            rest = cluster_problems(error.rest)
        raise HaganeError(*error.problems, *rest) from None
    problems = cluster_problems(spec)
    if problems:
        raise HaganeError(*problems)
    checked = Checked(spec)
    unchecked_store = store_problems(spec)
    if unchecked_store:
        checked.notes.append(
            f"the store was not tried from here, the first step will: {unchecked_store[0]}"
        )
    if with_plan:
        _plan(checked, console)
    else:
        checked.notes.append(
            "no plan was made here, as --no-plan asks; the step render_config makes it"
        )
    return checked


def cluster_problems(spec: RunSpec) -> list[str]:
    """One line for each field that names what a cluster does not see (this machine's folders, files
    and processes), or that holds text which Argo Workflows would replace."""
    problems = [*parameter_problems(spec_parameter(spec)), *image_problems(spec)]
    if spec.backend == "local":
        problems.append(
            "backend: got 'local', but the steps' images hold no trainer; must be pytorchjob or "
            "trainjob (--set backend=pytorchjob)"
        )
    if not spec.store.startswith("s3://"):
        problems.append(
            f"store: got folder {nearest_name(spec.store)!r}, but pods of a "
            "cluster share no folder; must be s3://bucket/prefix"
        )
    for name, value in _files(spec).items():
        if "://" in value and not value.startswith(("s3://", "hf://")):
            problems.append(
                f"{name}: {value!r} is no object of an S3 store; put it into the store and name it "
                "s3://…"
            )
        elif "://" not in value and claim_of(spec, value) is None:
            problems.append(
                f"{name}: {nearest_name(value)!r} is a file of this machine, which no "
                "pod sees; put it into the store and name it s3://…"
            )
    source = spec.model.source
    if claim_of(spec, source) is None and (not is_hub_id(source) or user_path(source).is_dir()):
        problems.append(
            f"model.source: {nearest_name(source)!r} is a folder of this machine, which no pod "
            "sees; name a hub id such as org/name, or a folder of a claim in cluster.claims"
        )
    return problems


def submit(
    kfp: KfpClient,
    spec: RunSpec,
    pipeline: CompiledPipeline,
    *,
    experiment: str,
    run_name: str,
    service_account: str,
) -> Submitted:
    """The run is started, from the version of this pipeline's content, which is uploaded where it
    is new.

    Raises:
        SpecError: KFP takes no such name or account; nothing was sent.
        KfpExists: a run of the same folder is active; nothing was sent.
        KfpError: the server did not do it; one line.
    """
    problems = name_problems("run", run_name, where="--run-name")
    problems += name_problems("experiment", experiment, where="--experiment")
    problems += account_problems(service_account, where="--service-account")
    if problems:
        raise SpecError(*problems)
    _refuse_a_second(kfp, spec)
    version = ensure_version(kfp, pipeline)
    request = run_of(
        version,
        name=run_name,
        experiment_id=kfp.experiment_id(experiment),
        parameters={"spec": spec_parameter(spec)},
        service_account=service_account,
    )
    run_id = kfp.ask(f"start run {run_name!r}", kfp.runs.run_service_create_run, request).run_id
    return Submitted(run_id, run_name, experiment, version, kfp.run_link(run_id))


def _refuse_a_second(kfp: KfpClient, spec: RunSpec) -> None:
    """No run of this folder is active: a second one would follow the first one's training job, or
    begin the same one twice."""
    problems = []
    for run in active_runs(kfp):
        if folder_of(run) != spec.run_uri:
            continue
        state = RUN_STATES.get(run.state, "waiting")
        problems.append(
            f"run {run.display_name!r} is {state} and writes to {spec.run_uri} too: "
            f"{kfp.run_link(run.run_id)}; wait for its end, cancel it (hagane runs {run.run_id} "
            "--cancel), or set another name"
        )
    if problems:
        raise KfpExists(*problems)


def spec_parameter(spec: RunSpec) -> dict[str, Any]:
    """The spec as KFP carries it. It has no null: a field left out is null."""
    return json.loads(spec.model_dump_json(exclude_none=True))


def _files(spec: RunSpec) -> dict[str, str]:
    """Fields that name a file, and the file."""
    template = spec.data.chat_template
    named = {
        **_paths("data.train", spec.data.train_sources),
        **_paths("data.held_out", spec.data.held_out_sources),
        "data.chat_template": template,
    }
    return {name: value for name, value in named.items() if value != "model"}


def _paths(field: str, sources: tuple[SourceSpec, ...]) -> dict[str, str]:
    if len(sources) == 1:
        return {field: sources[0].path}
    return {f"{field}[{number}]": source.path for number, source in enumerate(sources)}


def _plan(checked: Checked, console: Console) -> None:
    """The plan's verdict is in `checked`, or a note why none could be made. Raises HaganeError with
    what it refuses."""
    spec = checked.spec
    named = {"model.source": spec.model.source, **_files(spec)}
    for name, value in named.items():
        claim = claim_of(spec, value)
        if claim is not None:
            checked.notes.append(
                f"{name} lies on claim {claim}: KFP's own pods must see it under "
                f"{spec.cluster.claims[claim]} too"
            )
    if not is_hub_id(spec.model.source) and not user_path(spec.model.source).is_dir():
        checked.notes.append(
            "no plan was made here, as the model is not on this machine; the step render_config "
            "makes it"
        )
        return
    try:
        if all(user_path(value).exists() for value in _files(spec).values()):
            problems = problems_of(spec, here=False, in_images=True, console=console)
            if problems:
                raise HaganeError(*problems)
            checked.verdict = plan_of(spec, console).verdict
        else:
            plan = plan_of(spec, console, num_rows=ROWS_UNKNOWN)
            checked.verdict = (
                f"fits with {plan.zero.name}, micro-batch {plan.steps.micro_batch}; steps and "
                "hours once the data is read"
            )
            checked.notes.append("the data was not read here; the step prepare_dataset checks it")
    except HaganeError as error:
        raise HaganeError(*error.problems, *_advice(spec, error.problems)) from None


def _advice(spec: RunSpec, problems: tuple[str, ...]) -> list[str]:
    """A line for what this machine may know less of than the cluster."""
    hardware = spec.hardware
    if any(line.startswith("model.source: ") for line in problems):
        return [
            (
                "plan: if the cluster reaches the model and this machine does not, --no-plan "
                "leaves the plan to the cluster"
            )
        ]
    if (
        hardware.gpu is None
        and hardware.gpu_memory_gib is None
        and hardware.host_memory_gib is None
    ):
        return [
            (
                "hardware: says no size, so this machine's was counted; state "
                "hardware.host_memory_gib or a GPU, or give --no-plan"
            )
        ]
    return []
