"""Runs in KFP as text for a terminal."""

from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from components.shared.documents.run_end import read_end
from components.shared.errors import KfpMissing, SpecError, StoreError
from components.shared.store.storage import open_store
from pipelines.finetune.compiling import compiled_pipeline
from pipelines.kfp_api.active_runs import NO_FOLDER, folder_of
from pipelines.kfp_api.client import KfpClient
from pipelines.kfp_api.failure_reasons import reasons
from pipelines.kfp_api.run_view import EXIT, RunView, StepView, local_time, view_of
from pipelines.kfp_api.versions import find_pipeline
from pipelines.screens.progress import duration
from pipelines.submit.following import LEFT_A_JOB, exit_problems, step_names

NEVER = "-"
RETRIED = (
    "KFP's Retry continued it at {time}. Retry does not run end_run again: its page is of the "
    "first try."
)


def listed_runs(
    kfp: KfpClient, experiment: str | None, limit: int
) -> Iterator[tuple[Any, RunView]]:
    """The newest `limit` runs of this pipeline, as the client gives them and what they say.

    Raises:
        KfpMissing: no experiment of this name.
    """
    pipeline = compiled_pipeline()
    names = step_names(pipeline)
    within: dict[str, Any] = kfp.scope()
    if experiment is not None:
        within = {"experiment_id": kfp.experiment_id(experiment, make=False)}
        if within["experiment_id"] is None:
            raise KfpMissing(
                f"KFP at {kfp.connection.endpoint}: has no experiment {experiment!r}; leave "
                "--experiment out to see all runs"
            )
    kept = find_pipeline(kfp, pipeline.name)
    for run in () if kept is None else islice(_of_pipeline(kfp, kept.pipeline_id, within), limit):
        yield run, view_of(run, names)


def runs_json(kfp: KfpClient, experiment: str | None, limit: int) -> list[dict[str, Any]]:
    """As `runs_screen`, for programs."""
    return [
        {**_facts(view), "at_step": list(view.at_step), "folder": folder_of(run)}
        for run, view in listed_runs(kfp, experiment, limit)
    ]


def run_json(kfp: KfpClient, run_id: str) -> dict[str, Any]:
    """As `run_screen`, for programs. Raises KfpMissing where no run has this id."""
    run, view = look_at_run(kfp, run_id)
    folder = folder_of(run)
    if view.state in ("failed", "cancelled"):
        problems = reasons(kfp, view, None if folder == NO_FOLDER else folder)
    else:
        problems = []
    steps = [
        {
            "step": step.name,
            "state": step.state,
            "started": step.started,
            "finished": step.finished,
            "seconds": step.seconds,
        }
        for step in view.steps
    ]
    return {
        **_facts(view),
        "folder": folder,
        "link": kfp.run_link(run_id),
        "problems": problems,
        "steps": steps,
    }


def _facts(view: RunView) -> dict[str, Any]:
    return {
        "id": view.id,
        "name": view.name,
        "state": _state(view),
        "created": view.created,
        "finished": view.finished,
    }


def runs_screen(kfp: KfpClient, experiment: str | None, limit: int) -> RenderableType:
    """The newest `limit` runs of this pipeline, one a line.

    Raises:
        KfpMissing: no experiment of this name.
    """
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("run", "state", "at step", "started", "finished", "its folder", "id"):
        table.add_column(heading, overflow="fold")
    for run, view in listed_runs(kfp, experiment, limit):
        at_step = ", ".join(view.at_step) or NEVER
        table.add_row(
            view.name,
            _state(view),
            at_step,
            local_time(view.created),
            local_time(view.finished),
            folder_of(run),
            view.id,
        )
    if table.row_count:
        return table
    return Text(f"no runs of {compiled_pipeline().name} yet; hagane submit SPEC starts one")


def run_screen(kfp: KfpClient, run_id: str) -> RenderableType:
    """One run, the state of each of its steps, and why those failed that did. Raises KfpMissing
    where no run has this id."""
    run, view = look_at_run(kfp, run_id)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("step", "state", "started", "finished", "took"):
        table.add_column(heading)
    for step in view.steps:
        table.add_row(
            step.name, step.state, local_time(step.started), local_time(step.finished), _took(step)
        )
    folder = folder_of(run)
    head = Text.assemble(
        (f"run {view.name}", "bold"), f"  {_state(view)}  {folder}\n{kfp.run_link(run_id)}"
    )
    notes = []
    if folder == NO_FOLDER:
        run_uri = None
    else:
        run_uri = folder
    if view.retried_at is not None:
        notes.append(
            Text(RETRIED.format(time=local_time(view.retried_at)) + _said_since(run_uri, view.id))
        )
    if view.state in ("failed", "cancelled"):
        problems = reasons(kfp, view, run_uri)
    else:
        problems = []
    problems += exit_problems(kfp, view, run_uri)
    red = [Text(line, style="red") for line in problems]
    return Group(head, *notes, *red, Text(), table)


def look_at_run(kfp: KfpClient, run_id: str) -> tuple[Any, RunView]:
    """The run as the client gives it, and what it says. Raises KfpMissing where no run has this
    id."""
    run = kfp.ask(f"look at run {run_id}", kfp.runs.run_service_get_run, run_id)
    return run, view_of(run, _names())


@cache
def _names() -> dict[str, str]:
    """Compiling takes a second, and a run that is followed is looked at again and again."""
    return step_names(compiled_pipeline())


def known_step(name: str, view: RunView) -> str:
    """The run's step of this name, which may have hyphens as KFP's own names do. Raises SpecError
    for a word that is no step."""
    known = [step.name for step in view.steps]
    step = name.replace("-", "_")
    if step not in known:
        raise SpecError(f"--log: found {name!r}, allowed {', '.join(known)}. Fix: name one of them")
    return step


def _said_since(run_uri: str | None, run_id: str) -> str:
    """What the steps that ran again wrote of the run's end, where the store can be read from
    here."""
    try:
        if run_uri is None:
            end = None
        else:
            end = read_end(open_store(run_uri), run_id)
    except StoreError:
        return ""
    if end is None:
        return ""
    return f" {end.title}."


def _of_pipeline(kfp: KfpClient, pipeline_id: str, within: dict[str, Any]) -> Any:
    listed = kfp.pages(
        "list runs", kfp.runs.run_service_list_runs, "runs", sort_by="created_at desc", **within
    )
    return (
        run
        for run in listed
        if run.pipeline_version_reference
        and run.pipeline_version_reference.pipeline_id == pipeline_id
    )


def _state(view: RunView) -> str:
    """The run's state; KFP calls a run whose exit task failed a success."""
    if view.is_over and view.step(EXIT).state == "failed":
        return f"{view.state}, {LEFT_A_JOB}"
    return view.state


def _took(step: StepView) -> str:
    if step.seconds is None:
        return NEVER
    return duration(step.seconds)
