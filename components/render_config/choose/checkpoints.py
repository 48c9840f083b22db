"""Trainable parameters, epochs and the spec's settings -> what checkpoints take, and whether one
fits into the grace after SIGTERM."""

import math

from components.render_config.cost.timing import StepTime
from components.render_config.decision import Section
from components.render_config.setting import Setting
from components.shared.documents.plan import CheckpointPlan, Precision, StepPlan, ZeroPlan
from components.shared.documents.prompts import probe_bytes
from components.shared.figures import plain
from components.shared.spec.results import KeepSpec
from components.shared.spec.run_spec import RunSpec
from components.shared.store.keeping import num_epochs_kept

PROCESS_BYTES = 20_000
"""What a process adds whatever the model's size: its RNG state, ZeRO's description of its
shards."""
SAVE_SECONDS = 5
"""Of the grace: for the write to the local disk, and for processes to end."""


def plan_checkpoints(
    setting: Setting, zero: ZeroPlan, steps: StepPlan, *, step: StepTime | None
) -> Section[CheckpointPlan]:
    """What checkpoints take in the store and on a node, and whether SIGTERM is answered by one.

    `step`: how long an optimizer step takes; None where that is not known.
    """
    spec = setting.spec
    of_first, of_all = _bytes_of_first(setting, zero), PROCESS_BYTES * steps.num_processes
    state = state_bytes(zero, setting.precision) * setting.num_trainable
    bytes_each = state + of_first + of_all
    divided = of_all + (state if zero.stage else 0)
    node_bytes = bytes_each - divided + math.ceil(divided / spec.hardware.num_nodes)
    num_kept = num_epochs_kept(spec.checkpoints.keep, len(steps.save_steps))
    # The step in progress when SIGTERM comes may have just begun.
    if step is None:
        in_progress = 0.0
    else:
        in_progress = step.seconds
    answer_seconds = in_progress + SAVE_SECONDS + upload_seconds(node_bytes, spec)
    plan = CheckpointPlan(
        bytes_each=bytes_each,
        num_kept=num_kept,
        bytes_total=bytes_each * num_kept,
        node_bytes=node_bytes,
        # One checkpoint is written while the one before may still be on its way to the store.
        work_bytes=2 * node_bytes,
        saves_on_sigterm=answer_seconds <= spec.checkpoints.grace_seconds,
    )
    reasons = {
        "checkpoints.bytes_each": _why_bytes(setting, zero),
        "checkpoints.num_kept": _why_kept(spec.checkpoints.keep),
        "checkpoints.saves_on_sigterm": _why_saves(spec, plan, step),
    }
    return Section(plan, reasons)


def _bytes_of_first(setting: Setting, zero: ZeroPlan) -> int:
    """What process 0 writes beside its share of the optimizer state.

    Below ZeRO-3 the weights are not divided, so process 0 writes them once more, in training
    precision. It also writes LoRA's matrices, and the trained model's logits for the data's
    prompts.
    """
    num_bytes = probe_bytes(setting.architecture.vocabulary)
    if not setting.full:
        num_bytes += setting.matrix_bytes(zero) * setting.num_trainable  # PEFT's file
        if setting.architecture.tied and setting.also.whole:
            num_bytes += setting.weight_bytes * setting.also.num_parameters  # under both names
    if zero.stage < 3:
        num_bytes += setting.weight_bytes * setting.num_trainable
    return num_bytes


def state_bytes(zero: ZeroPlan, precision: Precision) -> int:
    """Optimizer state per trainable parameter: first and second moment, and the fp32 copy that all
    but plain fp32 training has (DeepSpeed bf16_optimizer, stage3)."""
    if zero.stage == 0 and precision == "fp32":
        return 8
    return 12


def upload_seconds(node_bytes: int, spec: RunSpec) -> float:
    return node_bytes / (spec.checkpoints.upload_mb_s * 1e6)


def _why_bytes(setting: Setting, zero: ZeroPlan) -> str:
    state = f"{state_bytes(zero, setting.precision)} bytes of optimizer state"
    why = f"{state} a parameter"
    if not setting.full:
        why = f"{state} + 4 of the matrix itself a trainable parameter; no frozen weight"
    if zero.stage < 3:
        why += f"; with {zero.name} the trained weights once more"
    megabytes = probe_bytes(setting.architecture.vocabulary) / 1e6
    return f"{why}; {megabytes:.2g} MB of logits, by which its export is verified"


def _why_kept(keep: KeepSpec) -> str:
    if keep == KeepSpec():
        return "keep is not set: every epoch's stays"
    return ", ".join(
        f"{name} {value}" for name, value in keep.model_dump().items() if value is not None
    )


def _why_saves(spec: RunSpec, plan: CheckpointPlan, step: StepTime | None) -> str:
    asked, seconds = spec.checkpoints, upload_seconds(plan.node_bytes, spec)
    if plan.saves_on_sigterm:
        fits = "fit into"
    else:
        fits = "do not fit into"
    return (
        f"{_under_way(step)}, {SAVE_SECONDS} s to write, and {plain(seconds)} s for "
        f"{plan.node_bytes / 1e6:.1f} MB a machine at {asked.upload_mb_s:g} MB/s {fits} "
        f"grace_seconds {asked.grace_seconds}"
    )


def _under_way(step: StepTime | None) -> str:
    if step is None:
        return "the step under way, whose length is not known"
    between = f"{plain(step.low)} to {plain(step.high)}"
    return f"the step under way, about {plain(step.seconds)} s ({between})"
