"""The last task of a pipeline, however it ended: no job is left at work, and a person reads how it ended and what is safe."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from components.launch_training.notify import notify
from components.shared.button import asked_spec, series_of
from components.shared.checkpoints import committed_checkpoints
from components.shared.errors import ClusterError, HaganeError, SpecError, StoreUnreachable
from components.shared.layout import CHECKPOINTS, DATASET, EVALUATION, MANIFEST, PLAN, REPORT, export_folder
from components.shared.links import store_link
from components.shared.manifest import read_manifest
from components.shared.newest import Newest, asked_of, newest_run
from components.shared.spec import RunSpec
from components.shared.step import Log
from components.shared.storage import Store, open_store

FINISHED = ("SUCCEEDED", "COMPLETE", "CACHED")
"""What KFP tells of a pipeline that passed: SUCCEEDED is kfp.local's, and a server's from kubeflow/pipelines#13986 on. Until then, 2.17
included, a server tells the state of the pipeline's execution in ML Metadata (backend/src/v2/driver/resolve.go, kubeflow/pipelines#11826):
COMPLETE, CACHED, FAILED, CANCELED, and RUNNING for one that was terminated before anybody wrote more."""
HOW = {**dict.fromkeys(FINISHED, "finished"), **dict.fromkeys(("CANCELLED", "CANCELED"), "was stopped"), "FAILED": "failed"}
LOOKS, PAUSE_S = 4, 30.0
"""The task has no second try, which would tell everybody again: what may pass is looked at again here, before anything is told."""
SHOWN = {DATASET: "page.html", PLAN: "page.html", EVALUATION: "evaluation.json", REPORT: "report.html"}
"""Folder -> the file in it that a person opens first; of the others, the manifest."""


@dataclass(frozen=True)
class Ended:
    """What there is to read, and what is still to be mended."""

    page: str
    """Markdown."""
    problems: tuple[str, ...]
    """Empty when no job of this pipeline can be at work any more."""


@dataclass
class _Found:
    """One look at a run's end."""

    title: str
    lines: list[str]
    """In words that a message and the page show alike; links of the page, which hold beside the UI's own, go into `table`."""
    table: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    may_pass: bool = False
    """Whether another look may find no problem, with nothing mended."""


def end(
    tree: Mapping[str, Any],
    overrides: Mapping[str, str | int],
    *,
    kfp_run: str,
    state: str,
    error_message: str,
    notify_when: str,
    log: Log,
) -> Ended:
    """The run's job is gone, if this pipeline was the one that it belonged to, or it is told why not; who wants to know was told, once."""
    how = HOW.get(state, f"ended ({state})")
    try:
        spec = asked_spec(tree, overrides, kfp_run=kfp_run)
    except SpecError as error:
        found = _Found(f"Run {how}: nothing was begun", [f"- {problem}" for problem in error.problems])
    else:
        series = series_of(spec, str(overrides.get("override_run_name", "")))
        found = _looked_at(lambda: _look(spec, series, f"Run {spec.name} {how}", finished=state in FINISHED, kfp_run=kfp_run, log=log), log)
    why = ["", "```", error_message.strip()[:2000], "```"] if error_message else []
    log.info("ended", state=state, title=found.title)
    # A run that passed, but whose job may be at work, is a failure to whoever is to mend it.
    is_failure = state not in FINISHED or bool(found.problems)
    notify(found.title, "\n".join([*found.lines, *why]), state=state, failed=is_failure, when=notify_when, log=log)
    return Ended("\n".join([f"# {found.title}", "", *found.lines, *found.table, *why, ""]), tuple(found.problems))


def _looked_at(look: Callable[[], _Found], log: Log) -> _Found:
    """What is found at last: again after a pause, as long as it may pass, LOOKS times in all."""
    found = look()
    for _ in range(LOOKS - 1):
        if not found.may_pass:
            break
        log.warning("looks_again", problems=found.problems, pause_s=PAUSE_S)
        time.sleep(PAUSE_S)
        found = look()
    return found


def _look(spec: RunSpec, series: str, how: str, *, finished: bool, kfp_run: str, log: Log) -> _Found:
    found = _Found(how, [])
    try:
        store = open_store(spec.run_uri)
        asked = asked_of(store)
        if asked is not None and asked.kfp_run == kfp_run:
            _reap(spec, kfp_run, only_own=False, found=found, log=log)
            found.lines += [f"{_what_is_safe(store)} It is in `{spec.run_uri}`."]
            found.table = ["", *_folders(store, spec)]
        else:
            reaped = _reap(spec, kfp_run, only_own=True, found=found, log=log)
            newest = newest_run(open_store(spec.store), series)
            _tell_of_another(found, spec, reaped, newest if finished else None)
    except HaganeError as error:
        _note(found, spec, error, "what is stored could not be read: ")
    return found


def _tell_of_another(found: _Found, spec: RunSpec, reaped: list[str], newest: Newest | None) -> None:
    """What lies under the run's name is another pipeline's."""
    if reaped:
        found.lines += [f"Another pipeline claimed `{spec.run_uri}`; only job {', '.join(reaped)}, this one's, was deleted."]
    elif newest is not None:
        found.title = f"Nothing was done again: {spec.name}"
        found.lines += [f"Data, spec and images are those of `{newest.run}`, the newest finished run."]
    else:
        found.lines += [f"This pipeline did not come to claim `{spec.run_uri}`; whatever is there was left as it is."]


def _reap(spec: RunSpec, kfp_run: str, *, only_own: bool, found: _Found, log: Log) -> list[str]:
    """Names of the jobs that were deleted. Whoever claimed a run last may delete a job without an owner too."""
    if spec.backend == "local":
        return []
    from components.launch_training.reap import reap_run  # imports kubernetes, 0.3 s that a laptop need not pay

    try:
        return reap_run(spec.run_uri, log, kfp_run=kfp_run, only_own=only_own)
    except HaganeError as error:
        _note(found, spec, error, "")
        return []


def _note(found: _Found, spec: RunSpec, error: HaganeError, what: str) -> None:
    """The problem is told, and fails the task: a job may be at work that nobody follows."""
    problems = [f"{what}{problem}" for problem in error.problems]
    if spec.backend != "local":
        problems.append(f"a job may still be at work; the reaper deletes it, or: hagane reap {spec.run_uri}")
    problems = [problem for problem in problems if problem not in found.problems]
    found.problems += problems
    found.lines += [*(f"- {problem}" for problem in problems), ""]
    found.may_pass = found.may_pass or isinstance(error, (StoreUnreachable, ClusterError))


def _what_is_safe(store: Store) -> str:
    committed = committed_checkpoints(store)
    if read_manifest(store, REPORT) is not None:
        return "All steps are finished; starting it again under this name changes nothing."
    if not committed:
        return "No checkpoint is committed yet. Started again under this name, it goes on after the last finished step."
    return f"{committed[-1].told} is committed. Started again under this name, it goes on from there."


def _folders(store: Store, spec: RunSpec) -> Iterator[str]:
    yield from ("| step's folder | finished | look at |", "|---|---|---|")
    for folder in (DATASET, PLAN, CHECKPOINTS, export_folder(spec.training.method), EVALUATION, REPORT):
        manifest = read_manifest(store, folder)
        link = "" if manifest is None else store_link(f"{spec.run_uri}/{folder}/{SHOWN.get(folder, MANIFEST)}")
        yield f"| {folder} | {'no' if manifest is None else 'yes'} | {link} |"
