"""What two starts of the small run printed -> findings. Takes values and returns values."""

import math
from collections.abc import Iterator
from typing import Any

from components.shared.documents.findings import Finding
from components.shared.documents.plan import Plan
from components.shared.figures import plain
from components.train.gpu_check.groups import Ran
from components.train.gpu_check.small_run import STEPS, SmallRun

TRAINING, SAVE, RESUME, TIMED = "small training", "save", "resume on fewer", "three timed steps"
MOST_RISE = 0.05
"""Nats by which the held-out loss may rise in four steps after a resume: rows are all the same, so
it falls."""


def first_start_findings(
    run: SmallRun, plan: Plan, ran: Ran, history: dict[str, Any]
) -> Iterator[Finding]:
    yield training_finding(run, plan, ran)
    yield save_finding(ran)
    yield timed_finding(run, ran, history)


def training_finding(run: SmallRun, plan: Plan, ran: Ran) -> Finding:
    if plan.method == "full":
        kind = "all parameters"
    else:
        kind = "LoRA"
    how = (
        f"10.5M parameters, {kind}, {plan.precision}, {plan.zero.name}, {_processes(run.processes)}"
    )
    if ran.problem is not None:
        return Finding(check=TRAINING, state="failed", found=f"{how}: {ran.problem}", fix=ran.fix)
    losses = held_out(ran)
    if len(losses) < 2 or not all(map(math.isfinite, losses)) or losses[-1] >= losses[0]:
        fix = (
            "an optimizer or a kernel gives wrong numbers here: see matrix products, attention and "
            "all-reduce"
        )
        return Finding(
            check=TRAINING,
            state="failed",
            found=f"{how}: the loss does not fall ({_shown(losses)})",
            fix=fix,
        )
    return Finding(
        check=TRAINING, state="ok", found=f"{how}: loss {_shown(losses)} in {STEPS} steps"
    )


def save_finding(ran: Ran) -> Finding:
    stored = [event for event in ran.all_of("checkpoint") if event["step"] == STEPS]
    if ran.problem is not None and not stored:
        return Finding(check=SAVE, state="skipped", found=f"{TRAINING} did not come so far")
    if not any(event["committed"] for event in stored):
        failed = [event["problem"] for event in ran.all_of("checkpoint_failed")]
        if failed:
            found = failed[0]
        else:
            found = "the checkpoint was not committed"
        return Finding(
            check=SAVE, state="failed", found=found, fix="see the work folder's disk (HAGANE_WORK)"
        )
    megabytes = sum(event["num_bytes"] for event in stored) / 1e6
    held = next((event["seconds"] for event in ran.all_of("training_held")), None)
    if held is None:
        beside = ""
    else:
        beside = f"; training waited {plain(1000 * held)} ms for it"
    return Finding(
        check=SAVE, state="ok", found=f"{plain(megabytes)} MB in {len(stored)} parts{beside}"
    )


def timed_finding(run: SmallRun, ran: Ran, history: dict[str, Any]) -> Finding:
    seconds = history.get("seconds_per_step")
    if ran.problem is not None or seconds is None:
        return Finding(check=TIMED, state="skipped", found=f"{TRAINING} did not come so far")
    if seconds:
        tokens = run.processes * 128 / seconds
    else:
        tokens = 0
    found = (
        f"{plain(seconds)} s a step of {run.processes} rows of 128 tokens, {plain(tokens)} tokens/s"
    )
    return Finding(check=TIMED, state="ok", found=found)


def resume_finding(run: SmallRun, first: Ran, second: Ran | None) -> Finding:
    """`second`: how the start by fewer processes went; None where there was nothing to resume
    from."""
    if second is None or not any(event["committed"] for event in first.all_of("checkpoint")):
        return Finding(check=RESUME, state="skipped", found="there is no checkpoint to go on from")
    how = f"{_processes(run.processes)} -> {run.fewer}"
    if second.problem is not None:
        return Finding(
            check=RESUME, state="failed", found=f"{how}: {second.problem}", fix=second.fix
        )
    resumed = [event["step"] for event in second.all_of("resumed")]
    if resumed != [STEPS]:
        found = f"{how}: began at step {resumed[0] if resumed else 0} instead of {STEPS}"
        return Finding(
            check=RESUME,
            state="failed",
            found=found,
            fix="report it with the lines above: the checkpoint was there",
        )
    before, after = held_out(first)[-1:], held_out(second)[-1:]
    losses = [*before, *after]
    if len(losses) < 2 or not math.isfinite(losses[1]) or losses[1] > losses[0] + MOST_RISE:
        fix = "report it with the lines above: optimizer state did not come back as it was"
        return Finding(
            check=RESUME, state="failed", found=f"{how}: the loss rose ({_shown(losses)})", fix=fix
        )
    if run.processes == run.fewer:
        same = "; one process cannot be halved, so this is the same number"
    else:
        same = ""
    return Finding(
        check=RESUME, state="ok", found=f"{how} from step {STEPS}, loss {_shown(losses)}{same}"
    )


def held_out(ran: Ran) -> list[float]:
    return [float(event["loss"]) for event in ran.all_of("held_out")]


def _shown(losses: list[float]) -> str:
    return " -> ".join(f"{loss:.3f}" for loss in losses) or "none was measured"


def _processes(number: int) -> str:
    return f"{number} process{'' if number == 1 else 'es'}"
