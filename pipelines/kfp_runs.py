"""Runs in KFP as text for a terminal."""

from itertools import islice
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from components.shared.errors import KfpMissing
from pipelines.active_runs import folder_of
from pipelines.compiling import compiled_pipeline
from pipelines.kfp_client import KfpClient
from pipelines.kfp_following import failures, step_names, tasks_of
from pipelines.kfp_versions import find_pipeline

NEVER = "-"


def runs_screen(kfp: KfpClient, experiment: str | None, limit: int) -> RenderableType:
    """The newest `limit` runs of this pipeline, one a line.

    Raises:
        KfpMissing: no experiment of this name.
    """
    pipeline = compiled_pipeline()
    names = step_names(pipeline)
    within: dict[str, Any] = kfp.scope()
    if experiment is not None:
        within = {"experiment_id": kfp.experiment_id(experiment, make=False)}
        if within["experiment_id"] is None:
            raise KfpMissing(f"KFP at {kfp.connection.endpoint}: has no experiment {experiment!r}; leave --experiment out to see all runs")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("run", "state", "at step", "started", "finished", "its folder", "id"):
        table.add_column(heading, overflow="fold")
    kept = find_pipeline(kfp, pipeline.name)
    for run in () if kept is None else islice(_of_pipeline(kfp, kept.pipeline_id, within), limit):
        table.add_row(
            run.display_name,
            run.state,
            _at_step(run, names),
            _time(run.created_at),
            _time(run.finished_at) if run.finished_at else NEVER,
            folder_of(run),
            run.run_id,
        )
    return table if table.row_count else Text(f"no runs of {pipeline.name} yet; hagane submit SPEC starts one")


def run_screen(kfp: KfpClient, run_id: str) -> RenderableType:
    """One run, and the state of each of its steps. Raises KfpMissing where no run has this id."""
    names = step_names(compiled_pipeline())
    run = kfp.ask(f"look at run {run_id}", kfp.runs.run_service_get_run, run_id)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("step", "state", "started", "finished"):
        table.add_column(heading)
    for task in sorted(tasks_of(run), key=lambda each: str(each.create_time)):
        step = names.get(task.display_name)
        if step is not None:
            ended = _time(task.end_time) if task.end_time else NEVER
            table.add_row(step, task.state, _time(task.start_time) if task.start_time else NEVER, ended)
    head = Text.assemble((f"run {run.display_name}", "bold"), f"  {run.state}  {folder_of(run)}\n{kfp.run_link(run_id)}")
    problems = [Text(line, style="red") for line in failures(run, names)] if run.state in ("FAILED", "CANCELED") else []
    return Group(head, *problems, Text(), table)


def _of_pipeline(kfp: KfpClient, pipeline_id: str, within: dict[str, Any]) -> Any:
    listed = kfp.pages("list runs", kfp.runs.run_service_list_runs, "runs", sort_by="created_at desc", **within)
    return (run for run in listed if run.pipeline_version_reference and run.pipeline_version_reference.pipeline_id == pipeline_id)


def _at_step(run: Any, names: dict[str, str]) -> str:
    at_work = [names[task.display_name] for task in tasks_of(run) if task.state == "RUNNING" and task.display_name in names]
    return ", ".join(at_work) or NEVER


def _time(moment: Any) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment is not None else NEVER
