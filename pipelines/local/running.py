"""A spec -> a finished run on this machine, followed on the screen."""

import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from rich.console import Console

from components.shared.errors import HaganeError, Preempted, RunFailed, SpecError
from components.shared.job.images import read_images
from components.shared.job.threads import SPINS
from components.shared.processes import start_child, stop_passed_on
from components.shared.spec.run_spec import RunSpec
from components.shared.step import work_folder
from components.shared.store.storage import open_store
from components.shared.store.writer import OWNER_VARIABLE, held_run, this_writer
from pipelines.finetune.parameters import texts_of
from pipelines.finetune.steps import STEPS
from pipelines.local.temporary_folder import LOCK, temporary_folder
from pipelines.screens.progress import Outcome, Screen, follow


def run_locally(spec: RunSpec, console: Console, *, container_uid: int | None = None) -> None:
    """All steps of the run are finished: in containers as `container_uid` when that is given, else
    as processes.

    Raises:
        SpecError: another process works on this run, here or on another machine, or kfp.local would
            garble the spec. RunFailed, HaganeError: what the failing step said.
        Preempted: SIGTERM or Ctrl-C ended it, with that signal's exit code.
    """
    _refuse_what_kfp_garbles(spec)
    folder = work_folder(spec.run_uri, "pipeline")
    store = open_store(spec.run_uri)
    ask_to_end = partial(os.kill, os.getpid(), signal.SIGTERM)
    with (
        _alone(folder / LOCK, spec.name),
        held_run(store, this_writer(), on_loss=ask_to_end) as held,
        temporary_folder(folder) as temporary,
    ):
        environment = {OWNER_VARIABLE: held.writer.owner, "TMPDIR": str(temporary)}
        log_file = folder / "pipeline.log"
        spec_file = folder / "spec.json"
        spec_file.write_text(
            spec.model_dump_json(exclude_none=True)
        )  # KFP has no null; a field left out is null
        with Screen(console, STEPS) as screen:
            try:
                outcome, exit_code, stopped_by = _run_pipeline(
                    spec_file, log_file, screen, container_uid, environment
                )
            except KeyboardInterrupt:
                raise _given_up(spec) from None
    if held.lost_to is not None:
        raise RunFailed(
            f"name: run {spec.name!r} was taken over by {held.lost_to}, as this process gave no "
            "sign of life; follow it there"
        )
    if stopped_by:
        raise _stopped(stopped_by, outcome)
    # KFP takes a container that was gone before it looked for one that succeeded.
    if exit_code or outcome.problems:
        error = RunFailed(
            *(
                outcome.problems
                or [f"pipeline: ended with exit code {exit_code}: {outcome.last_line}"]
            ),
            f"log: {log_file}",
        )
        error.exit_code = outcome.exit_code or 1
        raise error


def _stopped(by: set[signal.Signals], outcome: Outcome) -> RunFailed:
    error = Preempted(
        *(
            outcome.problems
            or ["pipeline: stopped; the same command goes on from the last finished step"]
        )
    )
    error.exit_code = 128 + min(by)
    return error


def _given_up(spec: RunSpec) -> RunFailed:
    left = "its processes are killed"
    if spec.backend != "local":
        left += f"; its job in the cluster may still run: hagane reap {spec.run_uri}"
    error = Preempted(f"pipeline: given up; {left}")
    error.exit_code = 128 + signal.SIGINT
    return error


def run_in_containers(spec: RunSpec, console: Console, *, uid: int | None) -> None:
    """All steps of the run are finished, each in its own image, as user `uid`.

    Raises:
        HaganeError: no engine answers, an image is not here, or the spec cannot run in containers;
            one line each. SpecError, RunFailed: as `run_locally`.
    """
    from pipelines.local.containers import container_problems, default_uid
    from pipelines.local.engine import docker_api, find_engine

    if uid is None:
        uid = default_uid()
    engine = find_engine()
    problems = container_problems(spec, read_images(), engine, uid=uid)
    if problems:
        raise HaganeError(*problems)
    with docker_api(engine) as address:
        os.environ["DOCKER_HOST"] = address
        run_locally(spec, console, container_uid=uid)


def _run_pipeline(
    spec_file: Path,
    log_file: Path,
    screen: Screen,
    container_uid: int | None,
    environment: dict[str, str],
) -> tuple[Outcome, int, set[signal.Signals]]:
    """What the events reported, the exit code, and the signals that came: the first asks all steps
    to end, a third Ctrl-C kills them."""
    command = [sys.executable, "-m", "pipelines.local.program", str(spec_file)]
    if container_uid is not None:
        command.append(str(container_uid))
    its_own = {"HAGANE_LOG": "json", "PYTHONUNBUFFERED": "1", **environment}
    # Warnings of libraries for their own future: nothing that a reader of the log can change.
    unless_set = {"PYTHONWARNINGS": "ignore::FutureWarning", "GOMP_SPINCOUNT": SPINS}
    process = start_child(command, {**unless_set, **os.environ, **its_own})
    assert process.stdout is not None

    def ask_to_end() -> None:
        screen.say(
            "stopping; a training in progress stores a checkpoint first, and its job in a cluster "
            "is deleted"
        )
        os.killpg(process.pid, signal.SIGTERM)

    def say_still() -> None:
        screen.say(
            "still stopping: waiting for the step in progress to end (Ctrl-C again: give up, which "
            "may leave a job in a cluster)"
        )

    try:
        with stop_passed_on(
            process, ask_to_end, signal.SIGTERM, signal.SIGINT, still=say_still
        ) as stopped_by:
            outcome = follow(process.stdout, log_file, screen)
            return outcome, process.wait(), stopped_by
    except KeyboardInterrupt:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise


@contextmanager
def _alone(lock_file: Path, run: str) -> Iterator[None]:
    with lock_file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise SpecError(
                f"name: run {run!r} is being worked on by process {lock.read().strip()}; wait for "
                "it, or set another name"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _refuse_what_kfp_garbles(spec: RunSpec) -> None:
    """kfp.local 2.17 replaces the text `python3` by the interpreter's path in all that it hands to
    a step."""
    garbled = [
        f"{key}: {value!r}"
        for key, value in texts_of(json.loads(spec.model_dump_json()))
        if "python3" in value
    ]
    if garbled:
        raise SpecError(
            *(
                (
                    f"{line} contains 'python3', which kfp.local would change; use another path or "
                    "wording"
                )
                for line in garbled
            )
        )
