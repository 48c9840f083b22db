"""Batch sizes and rows -> what to change where an epoch has few optimizer steps."""

from collections.abc import Iterator

from components.shared.documents.plan import StepPlan
from components.shared.figures import plural
from components.shared.spec.run_spec import RunSpec

FEWEST_STEPS = 50
"""Below it a training is warned of: with 3 % of warm-up, one or two steps of it."""


def step_cautions(spec: RunSpec, steps: StepPlan, *, row_tokens: int) -> Iterator[str]:
    """A batch that is larger than the data; few optimizer steps, unless `max_steps` asks for
    them."""
    if spec.training.global_batch > steps.num_rows:
        yield (
            f"training.global_batch: {spec.training.global_batch:,} is more than the "
            f"{steps.num_rows:,} rows there are, so each epoch is one optimizer step; "
            f"{_smaller_batch(spec, steps)}"
        )
    if steps.total_steps >= FEWEST_STEPS or spec.training.max_steps is not None:
        return
    changes = [f"more training.epochs (now {spec.training.epochs})"]
    if spec.training.global_batch > _least_batch(spec, steps):
        changes.append(f"a smaller training.global_batch (now {spec.training.global_batch})")
    if steps.num_rows < FEWEST_STEPS:
        changes.append(
            f"shorter rows, as {row_tokens:,} tokens each make only {steps.num_rows} "
            "(data.row_tokens)"
        )
    yield (
        f"training: {plural(steps.total_steps, 'optimizer step')}, fewer than {FEWEST_STEPS}, "
        f"may change the model little; more data gives more of them, or {', or '.join(changes)}"
    )


def _least_batch(spec: RunSpec, steps: StepPlan) -> int:
    """The least global batch that the spec takes with these processes."""
    micro = spec.training.micro_batch
    return steps.num_processes * (micro if isinstance(micro, int) else 1)


def _smaller_batch(spec: RunSpec, steps: StepPlan) -> str:
    """A batch of about an eighth of the rows, where the spec takes one."""
    least = _least_batch(spec, steps)
    wanted = max(least, steps.num_rows // 8 // least * least)
    if wanted <= steps.num_rows:
        if least == 1:
            smaller = "or less"
        else:
            smaller = f"or a smaller multiple of {least}"
        if wanted > least:
            also = f" {smaller}"
        else:
            also = ""
        return f"set training.global_batch to {wanted}{also}"
    ways = ["more data"]
    if steps.num_processes > 1:
        ways.append("fewer processes (hardware.num_nodes, hardware.processes_per_node)")
    if spec.training.micro_batch not in ("auto", 1):
        ways.append("a smaller training.micro_batch, and global_batch with it")
    return f"the least batch of these processes is {least}: use {', or '.join(ways)}"
