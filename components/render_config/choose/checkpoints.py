"""Trainable parameters, epochs and the spec's settings -> what checkpoints take, and whether one
fits into the grace after SIGTERM."""

import math

from components.render_config.choose.precision import WEIGHT_BYTES
from components.render_config.cost.timing import StepTime
from components.shared.documents.plan import CheckpointPlan, Precision, StepPlan, ZeroPlan
from components.shared.documents.prompts import probe_bytes
from components.shared.figures import plain
from components.shared.spec.results import KeepSpec
from components.shared.spec.run_spec import RunSpec

PROCESS_BYTES = 20_000
"""What a process adds whatever the model's size: its RNG state, ZeRO's description of its
shards."""
SAVE_SECONDS = 5
"""Of the grace: for the write to the local disk, and for processes to end."""


def plan_checkpoints(
    spec: RunSpec,
    zero: ZeroPlan,
    steps: StepPlan,
    *,
    precision: Precision,
    num_trainable: int,
    vocabulary: int,
    step: StepTime | None,
) -> CheckpointPlan:
    """Bytes of checkpoints. LoRA: optimizer state and the matrices themselves; full: the state,
    which holds the weights.

    Below ZeRO-3 the weights are not divided, so process 0 writes them once more, in training
    precision. It also writes the matrices, and without ZeRO the state, so that its node holds all
    of these; and the trained model's logits for the data's prompts.
    """
    state = state_bytes(zero, precision) * num_trainable
    # DeepSpeed keeps the matrices in training precision below ZeRO-3, and in fp32 there: PEFT's
    # file is of those.
    of_matrix = 4 if zero.stage == 3 else WEIGHT_BYTES[precision]
    of_first = of_matrix * num_trainable if spec.training.method == "lora" else 0
    if zero.stage < 3:
        of_first += WEIGHT_BYTES[precision] * num_trainable
    of_first += probe_bytes(vocabulary)
    of_all = PROCESS_BYTES * steps.num_processes
    bytes_each = state + of_first + of_all
    divided = of_all + (state if zero.stage else 0)
    node_bytes = bytes_each - divided + math.ceil(divided / spec.hardware.num_nodes)
    num_kept = kept_epochs(spec.checkpoints.keep, len(steps.save_steps))
    return CheckpointPlan(
        bytes_each=bytes_each,
        num_kept=num_kept,
        bytes_total=bytes_each * num_kept,
        node_bytes=node_bytes,
        # One checkpoint is written while the one before may still be on its way to the store.
        work_bytes=2 * node_bytes,
        saves_on_sigterm=_step_seconds(step) + SAVE_SECONDS + upload_seconds(node_bytes, spec)
        <= spec.checkpoints.grace_seconds,
    )


def state_bytes(zero: ZeroPlan, precision: Precision) -> int:
    """Optimizer state per trainable parameter: first and second moment, and the fp32 copy that all
    but plain fp32 training has (DeepSpeed bf16_optimizer, stage3)."""
    return 8 if zero.stage == 0 and precision == "fp32" else 12


def kept_epochs(keep: KeepSpec, epochs: int) -> int:
    """Checkpoints in the store at the end; the best ones counted as if none of them stayed for
    another reason."""
    if keep == KeepSpec():
        return epochs
    last = set(range(max(1, epochs - (keep.last or 1) + 1), epochs + 1))
    every = set(range(keep.every, epochs + 1, keep.every)) if keep.every else set()
    return min(epochs, len(last | every) + (keep.best or 0))


def upload_seconds(node_bytes: int, spec: RunSpec) -> float:
    return node_bytes / (spec.checkpoints.upload_mb_s * 1e6)


def _step_seconds(step: StepTime | None) -> float:
    """The step under way when SIGTERM comes may have just begun. Nothing is counted for one of
    unknown length."""
    return 0.0 if step is None else step.seconds


def checkpoint_reasons(
    spec: RunSpec, plan: CheckpointPlan, step: StepTime | None
) -> dict[str, str]:
    """Why as many stay, and why SIGTERM is or is not answered by a save."""
    asked, seconds = spec.checkpoints, upload_seconds(plan.node_bytes, spec)
    kept = (
        "keep is not set: every epoch's stays"
        if asked.keep == KeepSpec()
        else ", ".join(_settings(asked.keep))
    )
    fits = "fit into" if plan.saves_on_sigterm else "do not fit into"
    return {
        "checkpoints.num_kept": kept,
        "checkpoints.saves_on_sigterm": (
            f"{_under_way(step)}, {SAVE_SECONDS} s to write, and {plain(seconds)} s for "
            f"{plan.node_bytes / 1e6:.1f} MB a machine at {asked.upload_mb_s:g} MB/s {fits} "
            f"grace_seconds {asked.grace_seconds}"
        ),
    }


def _under_way(step: StepTime | None) -> str:
    if step is None:
        return "the step under way, whose length is not known"
    return (
        f"the step under way, about {plain(step.seconds)} s ({plain(step.low)} to "
        f"{plain(step.high)})"
    )


def _settings(keep: KeepSpec) -> list[str]:
    return [f"{name} {value}" for name, value in keep.model_dump().items() if value is not None]
