"""What every step does alike: claim or open its run, keep why it failed, skip what is finished."""

import argparse
import hashlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import structlog

from components.shared.documents.failures import failure_of, withdraw_failure, write_failure
from components.shared.documents.run_end import (
    LAST_STEP,
    RunEnd,
    end_of_resumed_run,
    end_taken_back,
    read_end,
)
from components.shared.errors import (
    HaganeError,
    ObjectExists,
    ObjectMissing,
    SpecError,
    StoreUnreachable,
)
from components.shared.log import recent_lines, set_up_log
from components.shared.spec.file import spec_yaml, stored_spec
from components.shared.spec.run_spec import HOW_NOT_WHAT, RunSpec
from components.shared.store.layout import PLAN, SPEC
from components.shared.store.manifest import Manifest, read_manifest
from components.shared.store.patience import waits, waits_no_more
from components.shared.store.series import asked_of
from components.shared.store.storage import Store, open_store
from components.shared.store.writer import (
    OWNER_VARIABLE,
    claim_for_kfp,
    given_back,
    is_held_by_another,
    kfp_run_alive,
    kfp_runs_at,
    kfp_writer,
    owner_of,
)
from components.shared.tree import leaves

Log = structlog.typing.FilteringBoundLogger


@contextmanager
def step_log(component: str) -> Iterator[Log]:
    """The log of a component's process; a HaganeError inside becomes one `failed` event and the
    process's exit code."""
    log = set_up_log(component)
    try:
        yield log
    except HaganeError as error:
        log.error("failed", exit_code=error.exit_code, problems=error.lines)
        sys.exit(error.exit_code)


@contextmanager
def step_of_run(step: str, run_uri: str, *, spec_digest: str = "") -> Iterator[Log]:
    """`step_log` for a step of a claimed run, which waits for a store, a hub or an API server that
    is away.

    When it fails, the run says why (failures.py); when it succeeds, it no longer does. A run whose
    end was said goes on (run_end.py). With `spec_digest`, of the spec that the pipeline was started
    for, nothing is done where another spec was stored since.
    """
    with (
        step_log(step) as log,
        waits(log),
        _started_for(run_uri, spec_digest, log) as of_another,
        failure_kept(step, run_uri, log, of_another=of_another),
    ):
        yield log


@contextmanager
def _started_for(run_uri: str, spec_digest: str, log: Log) -> Iterator[bool]:
    """The pipeline's lock shows signs of life. Yields whether the run of Kubeflow Pipelines that
    claimed this one last is over, and another with the same spec works on: then this step is the
    other's, and no Retry of the one that is over.

    Raises SpecError where the run's spec.yaml is not the one that the pipeline was started for.
    """
    if not spec_digest:
        yield False
        return
    store, spec = open_run(run_uri)
    if spec.digest != spec_digest:
        owner = owner_of(store)
        if owner:
            by = f", stored by {owner}"
        else:
            by = ""
        raise SpecError(
            f"{store.uri}/{SPEC}: found a spec of digest {spec.digest[:12]}{by}, but this run was "
            f"started for {spec_digest[:12]}; nothing was done. Fix: start it again under another "
            "name"
        )
    if os.environ.get(OWNER_VARIABLE):  # `hagane run` shows that it is alive
        yield False
        return
    owner, at_work = _owner(store), kfp_runs_at(store, spec_digest)
    is_over = read_end(store, owner) is not None
    if (
        is_over and not at_work
    ):  # KFP's Retry: the exit task gave the lock back, and does not run again
        claim_for_kfp(store, kfp_writer(owner, spec_digest))

    def lost() -> None:
        log.error("taken_over", by=owner_of(store), why="this run gave no sign of life for an hour")
        os.kill(os.getpid(), signal.SIGTERM)

    with kfp_run_alive(store, spec_digest, on_loss=lost):
        yield is_over and bool(at_work) and owner not in at_work


@contextmanager
def failure_kept(
    step: str, run_uri: str, log: Log, *, kfp_run: str = "", of_another: bool = False
) -> Iterator[None]:
    """An error inside is in the run's folder, for whoever reads why; a block that passes takes back
    an earlier one of its own.

    With `kfp_run` the step is the one that claims the run: it writes into a folder that nobody has
    claimed, and into no other run's. `of_another`: the step is not of the run of Kubeflow Pipelines
    that claimed this one last, whose end stays said.
    """
    ended: RunEnd | None = None
    try:
        store = open_store(run_uri)
        if of_another:
            ended = None
        else:
            ended = end_taken_back(store, step, kfp_run or _owner(store))
        if ended is not None:
            log.warning(
                "goes_on",
                said_before=ended.title,
                why="a step runs after the end of the run was said; KFP has no exit task for it",
            )
        yield
    except Exception as error:
        _keep_failure(step, run_uri, error, ended, log, kfp_run)
        raise
    withdraw_failure(store, step)
    if ended is not None:
        end_of_resumed_run(store, ended, step, failed=False)
        if step == LAST_STEP:
            given_back(store, ended.kfp_run)


def _keep_failure(
    step: str, run_uri: str, error: Exception, ended: RunEnd | None, log: Log, kfp_run: str
) -> None:
    """The failure is written, or the log says why not: the error itself is what counts."""
    try:
        with waits_no_more(isinstance(error, StoreUnreachable)):
            store = open_store(run_uri)
            owner = _owner(store)
            if kfp_run and (owner not in ("", kfp_run) or is_held_by_another(store, kfp_run)):
                return
            if not kfp_run and not _is_claimed(store):
                return
            failure = failure_of(
                step, error, recent_lines(), at=datetime.now(UTC), kfp_run=kfp_run or owner
            )
            write_failure(store, failure)
            if ended is not None:
                end_of_resumed_run(store, ended, step, failed=True)
                given_back(store, ended.kfp_run)
    except HaganeError as problem:
        log.warning("failure_not_kept", why=problem.problems[0])


def _owner(store: Store) -> str:
    """KFP's id of the run that claimed this one last; empty where none did."""
    asked = asked_of(store)
    if asked is None:
        return ""
    return asked.kfp_run


def _is_claimed(store: Store) -> bool:
    try:
        store.read_bytes(SPEC)
    except ObjectMissing:
        return False
    return True


def open_run(run_uri: str) -> tuple[Store, RunSpec]:
    """The run's folder and its spec. Raises SpecError where no run was claimed under this URI."""
    store = open_store(run_uri)
    try:
        text = store.read_bytes(SPEC)
    except ObjectMissing:
        raise SpecError(
            f"{run_uri}: no run is here (no {SPEC}). Fix: check store and name, or begin the run "
            "by hagane run SPEC"
        ) from None
    return store, stored_spec(text, f"{store.uri}/{SPEC}")


def claim_run(spec: RunSpec) -> Store:
    """The run's folder, with this spec written in it. Once a plan was made from one, a name stands
    for what that spec asks; how the work is done (HOW_NOT_WHAT) may change.

    Raises:
        SpecError: a run of this name has a plan made from a spec that asks something else; tells
            the fields that differ.
    """
    store = open_store(spec.run_uri)
    try:
        store.write_bytes(SPEC, spec_yaml(spec).encode(), if_absent=True)
        return store
    except ObjectExists:
        _, claimed = open_run(spec.run_uri)
    if claimed != spec:
        differences = spec_differences(claimed, spec)
        if differences and read_manifest(store, PLAN) is not None:
            raise SpecError(*(f"{line}; set another name" for line in differences))
        store.write_bytes(SPEC, spec_yaml(spec).encode())
    return store


def spec_differences(old: RunSpec, new: RunSpec) -> list[str]:
    """One line for each field of what is asked that differs between the spec a run was begun with
    and the one at hand."""
    before, after = dict(leaves(old.model_dump())), dict(leaves(new.model_dump()))
    return [
        f"{key}: got {after.get(key)!r}, but run {old.name!r} was begun with {before.get(key)!r}"
        for key in before | after
        if before.get(key) != after.get(key)
        and not any(f"{key}.".startswith(f"{field}.") for field in HOW_NOT_WHAT)
    ]


def finished(store: Store, folder: str, inputs: dict[str, str], log: Log) -> Manifest | None:
    """The manifest of a folder that was already made from just these inputs, which is reported;
    None when it has to be made."""
    manifest = read_manifest(store, folder)
    if manifest is None or manifest.inputs != inputs:
        return None
    log.info("already_done", folder=f"{store.uri}/{folder}")
    return manifest


def run_argument(component: str, about: str | None, *, must_be_finished: str) -> str:
    """The URI given by `--run`, the whole command line of a step that needs nothing else."""
    parser = argparse.ArgumentParser(prog=f"python -m components.{component}", description=about)
    parser.add_argument(
        "--run",
        metavar="URI",
        required=True,
        help=(
            f"the run's folder, such as s3://bucket/runs/demo; its {must_be_finished} must be "
            "finished"
        ),
    )
    return parser.parse_args().run


def work_folder(run_uri: str, step: str) -> Path:
    """A folder of this machine for the step's files, kept between tries: `$HAGANE_WORK/<run
    name>-<hash of its URI>/<step>`."""
    root = Path(os.environ.get("HAGANE_WORK", ".hagane/work"))
    name = run_uri.rstrip("/").rsplit("/", 1)[-1]
    folder = root / f"{name}-{hashlib.sha256(run_uri.encode()).hexdigest()[:8]}" / step
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()
