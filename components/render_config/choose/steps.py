"""Rows, batch sizes and processes -> the optimizer steps that transformers' Trainer will make, and
where it saves."""

import math
from dataclasses import dataclass

from components.render_config.choose.batch_advice import step_cautions
from components.render_config.dataset_facts import DatasetFacts
from components.render_config.decision import Section
from components.render_config.setting import Setting
from components.shared.documents.plan import StepPlan
from components.shared.errors import SpecError
from components.shared.figures import plural
from components.shared.spec.run_spec import RunSpec


def choose_steps(setting: Setting, dataset: DatasetFacts, micro_batch: int) -> Section[StepPlan]:
    """Raises SpecError as `grad_accum_steps` and `epoch_of`."""
    spec = setting.spec
    batching = Batching(
        num_processes=setting.num_processes,
        micro_batch=micro_batch,
        grad_accum=grad_accum_of(spec, micro_batch),
        epochs=spec.training.epochs,
        drop_last=spec.training.drop_last,
        max_steps=spec.training.max_steps,
    )
    warmup_share = spec.training.warmup_share
    steps = plan_steps(
        dataset.num_rows, batching, warmup_share=warmup_share, num_tokens=dataset.num_tokens
    )
    reasons = _reasons(setting, steps)
    if dataset.packed and dataset.num_conversations is not None:
        alone = plan_steps(
            dataset.num_conversations,
            batching,
            warmup_share=warmup_share,
            num_tokens=dataset.num_tokens,
        )
        reasons["steps.num_rows"] = _in_conversations(dataset.num_conversations, steps, alone)
    cautions = step_cautions(spec, steps, row_tokens=setting.rows.most_tokens)
    return Section(steps, reasons, tuple(cautions))


def _reasons(setting: Setting, steps: StepPlan) -> dict[str, str]:
    training = setting.spec.training
    if training.drop_last:
        counted = "left out"
    else:
        counted = "counted"
    if setting.rows.packed:
        rows = "packed rows"
    else:
        rows = "rows of one conversation"
    processes = f"{steps.num_processes} process{'es' if steps.num_processes != 1 else ''}"
    each, epochs = plural(steps.steps_per_epoch, "step"), f"{training.epochs} epoch"
    if training.epochs != 1:
        epochs += "s"
    total = f"{each} x {epochs}"
    if training.max_steps is not None:
        total = f"the fewer of max_steps {training.max_steps} and {total}"
    return {
        "steps.grad_accum": (
            f"global_batch {steps.global_batch} / (micro_batch {steps.micro_batch} x {processes})"
        ),
        "steps.steps_per_epoch": (
            f"{steps.num_rows} {rows} in batches of {steps.global_batch}, a last short one "
            f"{counted}"
        ),
        "steps.total_steps": total,
        "steps.save_steps": f"a checkpoint at the end of each epoch: every {each}",
        "steps.warmup_steps": (
            f"{training.warmup_share:g} of {plural(steps.total_steps, 'step')}, rounded up"
        ),
    }


def _in_conversations(num_conversations: int, packed: StepPlan, alone: StepPlan) -> str:
    """Steps of packed rows, and what they would be with one conversation per row, as the data's
    owner counts."""
    return (
        f"{plural(num_conversations, 'conversation')} in {plural(packed.num_rows, 'packed row')}: "
        f"{plural(packed.total_steps, 'step')}, a checkpoint every {packed.steps_per_epoch:,}; "
        f"with one conversation per row (data.packing: false) {plural(alone.total_steps, 'step')}, "
        f"a checkpoint every {alone.steps_per_epoch:,}"
    )


def grad_accum_of(spec: RunSpec, micro_batch: int) -> int:
    """Raises SpecError as `grad_accum_steps`."""
    return grad_accum_steps(
        global_batch=spec.training.global_batch,
        micro_batch=micro_batch,
        num_processes=spec.hardware.num_nodes * spec.hardware.processes_per_node,
    )


def grad_accum_steps(*, global_batch: int, micro_batch: int, num_processes: int) -> int:
    """Forward passes per optimizer step.

    Raises:
        SpecError: `global_batch` is no multiple of what one pass of all processes covers; tells the
            nearest that are.
    """
    at_once = micro_batch * num_processes
    if global_batch % at_once:
        below = global_batch // at_once * at_once
        near = " or ".join(str(n) for n in (below, below + at_once) if n)
        raise SpecError(
            f"training.global_batch: got {global_batch}, must be a multiple of micro_batch "
            f"{micro_batch} x {num_processes} processes = {at_once}; the nearest: {near}"
        )
    return global_batch // at_once


@dataclass(frozen=True)
class Batching:
    """How rows become optimizer steps."""

    num_processes: int
    micro_batch: int
    grad_accum: int
    epochs: int
    drop_last: bool = False
    max_steps: int | None = None

    @property
    def global_batch(self) -> int:
        return self.micro_batch * self.grad_accum * self.num_processes


@dataclass(frozen=True)
class Epoch:
    """What one pass over the rows comes to."""

    steps: int
    rows: int
    """Rows that all processes see: those that fill up a last round count again, those that
    drop_last leaves out do not."""


def epoch_of(num_rows: int, batching: Batching) -> Epoch:
    """As transformers 5.23 counts steps (trainer.py, `set_initial_training_values`) over the
    batches that accelerate deals out (data_loader.py, `BatchSamplerShard`): in turn, a last round
    filled from the start so that all have equally many, or left out by drop_last. A last, short
    accumulation counts as a step. One process alone fills nothing up.

    Raises:
        SpecError: drop_last leaves no batch for a process.
    """
    size, n = batching.micro_batch, batching.num_processes
    batches, each = num_rows // size, num_rows // size // n
    if not batching.drop_last:
        batches = math.ceil(num_rows / size)
        each = math.ceil(batches / n)
    if each == 0:
        raise SpecError(
            f"training.drop_last: {num_rows} rows in micro-batches of {size} are {batches}, fewer "
            f"than the {n} processes, so nothing would be trained; set drop_last: false"
        )
    fills_up = n > 1 or batching.drop_last
    if fills_up:
        rows = each * size * n
    else:
        rows = num_rows
    return Epoch(steps=math.ceil(each / batching.grad_accum), rows=rows)


def plan_steps(
    num_rows: int, batching: Batching, *, warmup_share: float, num_tokens: int
) -> StepPlan:
    """198 rows, one process, batch 1, 5 epochs: 198 steps an epoch, 990 in all, saves after 198,
    396, 594, 792, 990.

    A training that `max_steps` ends in the middle of an epoch saves there too. Raises as
    `epoch_of`.
    """
    epoch = epoch_of(num_rows, batching)
    total_steps = batching.epochs * epoch.steps
    if batching.max_steps is not None:
        total_steps = min(batching.max_steps, total_steps)
    whole_epochs, rest = divmod(total_steps, epoch.steps)
    ends = [number * epoch.steps for number in range(1, whole_epochs + 1)]
    if rest:
        ends.append(total_steps)
    rows_seen = whole_epochs * epoch.rows + rest * batching.global_batch
    return StepPlan(
        num_rows=num_rows,
        num_processes=batching.num_processes,
        micro_batch=batching.micro_batch,
        grad_accum=batching.grad_accum,
        global_batch=batching.global_batch,
        steps_per_epoch=epoch.steps,
        total_steps=total_steps,
        warmup_steps=math.ceil(warmup_share * total_steps),
        save_steps=tuple(ends),
        tokens_per_epoch=num_tokens,
        tokens_total=round(rows_seen * num_tokens / num_rows),
    )
