"""Measured steps + the plan that they were made of -> the plan with time and price by them."""

import math
import statistics
from collections.abc import Iterator

from components.render_config.choose.checkpoints import SAVE_SECONDS, upload_seconds
from components.render_config.choose.zero_options import gib
from components.render_config.cost.timing import whole_steps
from components.render_config.page.verdict import verdict
from components.shared.documents.plan import Plan, TimePlan
from components.shared.documents.probe import Compared, MeasuredSteps, ProbePlan
from components.shared.figures import time_of
from components.shared.spec.run_spec import RunSpec

SOURCE = (
    "hagane plan --probe: the median of three steps; the range is from the fastest to the slowest"
)


def with_probe(spec: RunSpec, plan: Plan, measured: MeasuredSteps) -> Plan:
    """Time and price follow from the measured steps; verdict and cautions say so."""
    time = measured_time(spec, plan, measured)
    probe = probe_of(plan, measured, time)
    cautions = (*plan.cautions, *probe_cautions(spec, plan, probe))
    probed = plan.model_copy(update={"time": time, "probe": probe, "cautions": cautions})
    return probed.model_copy(update={"verdict": verdict(probed)})


def whole_step_seconds(plan: Plan, measured: MeasuredSteps) -> tuple[float, ...]:
    """Seconds of each measured step, had it been made of all micro-steps of the plan: those that
    were left out take what the others took, the optimizer apart."""
    left_out = plan.steps.grad_accum - measured.grad_accum
    optimizer = measured.optimizer_seconds
    return tuple(
        seconds + left_out * max(0.0, seconds - optimizer) / measured.grad_accum
        for seconds in measured.step_seconds
    )


def measured_time(spec: RunSpec, plan: Plan, measured: MeasuredSteps) -> TimePlan:
    seconds = whole_step_seconds(plan, measured)
    median, low, high = statistics.median(seconds), min(seconds), max(seconds)
    total, steps, hardware = whole_steps(plan.steps), plan.steps, spec.hardware
    upload = upload_seconds(plan.checkpoints.node_bytes, spec)
    hours = (total * median + upload) / 3600
    price = None
    if hardware.price_per_gpu_hour is not None:
        price = hours * hardware.price_per_gpu_hour * steps.num_processes
    made = f"{measured.grad_accum} of {steps.grad_accum} micro-steps in each step"
    return TimePlan(
        seconds_per_step=median,
        low=low,
        high=high,
        parts={
            "optimizer": measured.optimizer_seconds,
            "all else": max(0.0, median - measured.optimizer_seconds),
        },
        hours=hours,
        hours_low=total * low / 3600,
        hours_high=(total * high + len(steps.save_steps) * upload) / 3600,
        checkpoint_seconds=upload,
        price=price,
        currency=hardware.currency,
        formula=f"measured on {measured.num_processes} x {measured.device}, {made}",
        source=SOURCE,
    )


def probe_of(plan: Plan, measured: MeasuredSteps, time: TimePlan) -> ProbePlan:
    estimate, memory, steps = plan.time, plan.memory, plan.steps
    planned_tokens = steps.global_batch * steps.tokens_per_epoch / steps.num_rows
    measured_tokens = steps.global_batch * measured.tokens_per_row
    return ProbePlan(
        steps=measured,
        seconds_per_step=Compared(
            planned=None if estimate is None else estimate.seconds_per_step,
            measured=time.seconds_per_step,
        ),
        planned_range=None if estimate is None else (estimate.low, estimate.high),
        tokens_per_second=Compared(
            planned=None if estimate is None else planned_tokens / estimate.seconds_per_step,
            measured=measured_tokens / time.seconds_per_step,
        ),
        host_bytes=Compared(planned=memory.host_bytes, measured=measured.peak_host_bytes),
        gpu_bytes=Compared(
            planned=memory.gpu_bytes if plan.on_gpus else None,
            measured=measured.peak_gpu_bytes if plan.on_gpus else None,
        ),
    )


def probe_cautions(spec: RunSpec, plan: Plan, probe: ProbePlan) -> Iterator[str]:
    """What a person should know before the run: memory beyond the plan's, a step outside of its
    range or too long to be saved after SIGTERM."""
    margin = plan.memory.margin
    for where, figure in (("node", probe.host_bytes), ("GPU", probe.gpu_bytes)):
        over = figure.difference
        if over is not None and over > margin and figure.measured and figure.planned:
            yield (
                f"probe: peak memory of a {where} was {gib(int(figure.measured))}, the plan has "
                f"{gib(int(figure.planned))}, and its margin is {margin:.0%}"
            )
    measured, bounds = probe.seconds_per_step.measured, probe.planned_range
    if measured is not None and bounds is not None and not bounds[0] <= measured <= bounds[1]:
        yield (
            f"probe: a step took {time_of(measured)}, outside of the estimate's range, "
            f"{time_of(bounds[0])} to {time_of(bounds[1])}"
        )
    save = SAVE_SECONDS + upload_seconds(plan.checkpoints.node_bytes, spec)
    grace = spec.checkpoints.grace_seconds
    if measured is not None and plan.checkpoints.saves_on_sigterm and measured + save > grace:
        yield (
            f"probe: a step of {time_of(measured)} and its save do not fit into "
            f"checkpoints.grace_seconds {grace}, so SIGTERM may end a run without a checkpoint. "
            f"Fix: set checkpoints.grace_seconds: {math.ceil(measured + save)}"
        )
