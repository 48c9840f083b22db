"""The last task of a pipeline, however it ended: no job is left running, and a person reads how it
ended, why, and what is safe.

It may run twice, as when its pod is lost: only the first notifies (shared/run_end.py).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from components.launch_training.ending.notify import address_to_notify, notify
from components.shared.documents.failures import (
    StepFailure,
    failure_of,
    read_failures,
    withdraw_failure,
    write_failure,
)
from components.shared.documents.run_end import RunEnd, read_end, write_end
from components.shared.errors import HaganeError
from components.shared.html.links import store_link
from components.shared.log import recent_lines
from components.shared.spec.overrides import asked_spec, series_of
from components.shared.spec.run_spec import RunSpec
from components.shared.step import Log
from components.shared.store.checkpoints import committed_checkpoints
from components.shared.store.layout import (
    DATASET,
    EVALUATION,
    MANIFEST,
    PLAN,
    REPORT,
    end_key,
    finished_folders,
)
from components.shared.store.manifest import read_manifest
from components.shared.store.patience import waits_no_more
from components.shared.store.series import Newest, asked_of, newest_run
from components.shared.store.storage import Store, open_store
from components.shared.store.writer import given_back, is_held_by_another

FINISHED = ("SUCCEEDED", "COMPLETE", "CACHED")
"""What KFP tells of a pipeline that passed: SUCCEEDED is kfp.local's, and a server's from
kubeflow/pipelines#13986 on. Until then, 2.17 included, a server tells the state of the pipeline's
execution in ML Metadata (backend/src/v2/driver/resolve.go, kubeflow/pipelines#11826): COMPLETE,
CACHED, FAILED, CANCELED, and RUNNING for one that was terminated before anybody wrote more."""
HOW = {
    **dict.fromkeys(FINISHED, "finished"),
    **dict.fromkeys(("CANCELLED", "CANCELED"), "was stopped"),
    "FAILED": "failed",
}
GOES_ON = (
    "If somebody presses Retry in KFP, the run goes on, and KFP neither runs this task again nor "
    "changes this page; `{uri}` then says how it ended."
)
SHOWN = {
    DATASET: "page.html",
    PLAN: "page.html",
    EVALUATION: "evaluation.json",
    REPORT: "report.html",
}
"""Folder -> the file in it that a person opens first; of the others, the manifest."""


@dataclass(frozen=True)
class Ended:
    """What there is to read, and what is still to be fixed."""

    page: str
    """Markdown."""
    problems: tuple[str, ...]
    """Empty when no job of this pipeline can be running any more."""


@dataclass
class _Found:
    """One look at a run's end."""

    title: str
    lines: list[str]
    """In words that a message and the page show alike; links of the page, which hold beside the
    UI's own, go into `table`."""
    table: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    failures: tuple[StepFailure, ...] = ()
    """Why it failed, as the steps say."""


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
    """The run's job is gone, if this pipeline was the one that it belonged to, or it is said why
    not; whoever wants to know was notified, once."""
    how = HOW.get(state, f"ended ({state})")
    store: Store | None = None
    try:
        spec = asked_spec(tree, overrides, kfp_run=kfp_run)
        store = open_store(spec.run_uri)
    except HaganeError as error:
        found = _Found(
            f"Run {how}: nothing was begun", [f"- {problem}" for problem in error.problems]
        )
    else:
        series = series_of(spec, str(overrides.get("override_run_name", "")))
        found = _look(
            spec,
            series,
            f"Run {spec.name} {how}",
            finished=state in FINISHED,
            kfp_run=kfp_run,
            log=log,
        )
        if _is_anothers(store, kfp_run, log):
            store = (
                None  # nothing of a start that was refused is stored beside what another one makes
            )
    if state in FINISHED:
        reasons = []
    else:
        reasons = list(_reasons(found.failures, error_message))
    log.info("ended", state=state, title=found.title)
    # A run that passed, but whose job may be running, is a failure to whoever is to fix it.
    is_failure = state not in FINISHED or bool(found.problems)
    url = address_to_notify(failed=is_failure, when=notify_when, log=log)
    end = RunEnd(
        kfp_run=kfp_run, state=state, title=found.title, notified=bool(url), at=datetime.now(UTC)
    )
    with waits_no_more(bool(found.problems)):
        _keep_own_failure(store, found.problems, kfp_run, log)
        _notify_once(store, end, url, "\n".join([*found.lines, *reasons]), log)
    return Ended("\n".join(_page(found, reasons, store, end)), tuple(found.problems))


def _is_anothers(store: Store, kfp_run: str, log: Log) -> bool:
    """Whether another start works on the run, which this one never claimed. A lock of this one is
    given back."""
    try:
        asked = asked_of(store)
        given_back(store, kfp_run)
        return (asked is None or asked.kfp_run != kfp_run) and is_held_by_another(store, kfp_run)
    except HaganeError as error:
        log.warning("lock_not_given_back", why=error.problems[0])
        return False


def _keep_own_failure(store: Store | None, problems: list[str], kfp_run: str, log: Log) -> None:
    """The run says why its exit task fails, as every step does, or no longer says so."""
    try:
        if store is None:
            return
        if not problems:
            withdraw_failure(store, "end_run")
            return
        error = HaganeError(*problems)
        write_failure(
            store,
            failure_of("end_run", error, recent_lines(), at=datetime.now(UTC), kfp_run=kfp_run),
        )
    except HaganeError as error:
        log.warning("failure_not_kept", why=error.problems[0])


def _notify_once(store: Store | None, end: RunEnd, url: str, text: str, log: Log) -> None:
    if not _is_first(store, end, log) or not url:
        return
    if not notify(url, end.title, text, state=end.state, log=log):
        _write(store, end.model_copy(update={"notified": False}), log)


def _page(found: _Found, reasons: list[str], store: Store | None, end: RunEnd) -> Iterator[str]:
    yield from (f"# {found.title}", "", *found.lines, *reasons)
    for failure in found.failures:
        yield from (
            "",
            f"The end of the log of {failure.step}:",
            "",
            "```",
            *failure.log_tail,
            "```",
        )
    yield from found.table
    if store is not None and end.state not in FINISHED and not _is_of_kfp_local(end):
        yield from ("", GOES_ON.format(uri=f"{store.uri}/{end_key(end.kfp_run)}"))
    yield ""


def _is_first(store: Store | None, end: RunEnd, log: Log) -> bool:
    """Whether nobody was notified of this end before. It is in the store then, so that the next one
    is not the first.

    Without a store, and where it cannot be used, every one is.
    """
    if store is None:
        return True
    try:
        said = read_end(store, end.kfp_run)
    except HaganeError as error:
        log.warning("end_not_kept", why=error.problems[0])
        return True
    if said is not None and said.notified and not said.resumed_by:
        log.info("notified_before", at=said.at.isoformat(timespec="seconds"))
        return False
    _write(store, end, log)
    return True


def _is_of_kfp_local(end: RunEnd) -> bool:
    """Whether kfp.local ran it, whose ids are numbers: it has no Retry, so nothing comes back to
    what was said of the end."""
    return end.kfp_run.isdecimal()


def _write(store: Store | None, end: RunEnd, log: Log) -> None:
    try:
        if store is not None and not _is_of_kfp_local(end):
            write_end(store, end)
    except HaganeError as error:
        log.warning("end_not_kept", why=error.problems[0])


def _reasons(failures: tuple[StepFailure, ...], error_message: str) -> Iterator[str]:
    """Why the run failed: what its steps say, else what KFP says."""
    for failure in failures:
        yield from ("", "```", failure.text, "```")
    if error_message and not failures:
        yield from ("", "```", error_message.strip()[:2000], "```")


def _look(
    spec: RunSpec, series: str, how: str, *, finished: bool, kfp_run: str, log: Log
) -> _Found:
    found = _Found(how, [])
    try:
        store = open_store(spec.run_uri)
        asked = asked_of(store)
        if asked is not None and asked.kfp_run == kfp_run:
            _reap(spec, kfp_run, only_own=False, found=found, log=log)
            found.failures = read_failures(store, kfp_run)
            found.lines += [f"{_what_is_safe(store)} It is in `{spec.run_uri}`."]
            found.table = ["", *_folders(store, spec)]
        else:
            reaped = _reap(spec, kfp_run, only_own=True, found=found, log=log)
            newest = newest_run(open_store(spec.store), series)
            found.failures = read_failures(store, kfp_run)
            _tell_of_another(found, spec, reaped, newest if finished else None)
    except HaganeError as error:
        _note(found, spec, error, "what is stored could not be read: ")
    return found


def _tell_of_another(
    found: _Found, spec: RunSpec, reaped: list[str], newest: Newest | None
) -> None:
    """What lies under the run's name is another pipeline's."""
    if reaped:
        found.lines += [
            (
                f"Another pipeline claimed `{spec.run_uri}`; only job {', '.join(reaped)}, this "
                "one's, was deleted."
            )
        ]
    elif newest is not None:
        found.title = f"Nothing was done again: {spec.name}"
        found.lines += [
            f"Data, spec and images are those of `{newest.run}`, the newest finished run."
        ]
    else:
        found.lines += [
            (
                f"This pipeline did not come to claim `{spec.run_uri}`; whatever is there was left "
                "as it is."
            )
        ]


def _reap(spec: RunSpec, kfp_run: str, *, only_own: bool, found: _Found, log: Log) -> list[str]:
    """Names of the jobs that were deleted. Whoever claimed a run last may delete a job without an
    owner too."""
    if spec.backend == "local":
        return []
    from components.launch_training.reap import (
        reap_run,
    )  # imports kubernetes, 0.3 s that a laptop need not pay

    try:
        return reap_run(spec.run_uri, log, kfp_run=kfp_run, only_own=only_own)
    except HaganeError as error:
        _note(found, spec, error, "")
        return []


def _note(found: _Found, spec: RunSpec, error: HaganeError, what: str) -> None:
    """The problem is reported, and fails the task: a job may be running that nobody follows."""
    problems = [f"{what}{problem}" for problem in error.problems]
    if spec.backend != "local":
        problems.append(
            f"a job may still be running; the reaper deletes it, or: hagane reap {spec.run_uri}"
        )
    problems = [problem for problem in problems if problem not in found.problems]
    found.problems += problems
    found.lines += [*(f"- {problem}" for problem in problems), ""]


def _what_is_safe(store: Store) -> str:
    committed = committed_checkpoints(store)
    if read_manifest(store, REPORT) is not None:
        return "All steps are finished; starting it again under this name changes nothing."
    if not committed:
        return (
            "No checkpoint is committed yet. Started again under this name, it goes on after the "
            "last finished step."
        )
    return (
        f"{committed[-1].title} is committed. Started again under this name, it goes on from there."
    )


def _folders(store: Store, spec: RunSpec) -> Iterator[str]:
    yield from ("| step's folder | finished | look at |", "|---|---|---|")
    for folder in finished_folders(spec.training.method):
        manifest = read_manifest(store, folder)
        if manifest is None:
            link = ""
        else:
            link = store_link(f"{spec.run_uri}/{folder}/{SHOWN.get(folder, MANIFEST)}")
        yield f"| {folder} | {'no' if manifest is None else 'yes'} | {link} |"
