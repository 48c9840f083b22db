"""How large a probe is, and whether this machine can make it. Takes values, returns values."""

from collections.abc import Iterator

from components.shared.documents.plan import Plan

WARM_UP_STEPS, TIMED_STEPS = 1, 3
LONGEST_STEP_S = 20.0
"""Planned seconds of a step, beyond which it is made of fewer micro-steps."""
GIB = 2**30


def probe_grad_accum(plan: Plan) -> int:
    """Micro-steps of a measured step: all of the plan where they take at most LONGEST_STEP_S, else
    as many as do.

    At least two where the plan has two, so that summed gradients take their memory and their time.
    """
    planned = plan.steps.grad_accum
    fewest = min(planned, 2)
    if plan.time is None:
        return fewest
    micro_step_s = plan.time.seconds_per_step / planned
    return max(fewest, min(planned, int(LONGEST_STEP_S / micro_step_s)))


def num_probe_rows(plan: Plan) -> int:
    """Rows of all processes and steps."""
    per_step = plan.steps.num_processes * plan.steps.micro_batch * probe_grad_accum(plan)
    return (WARM_UP_STEPS + TIMED_STEPS) * per_step


def machine_problems(plan: Plan, *, has_gpu: bool, available_bytes: int | None) -> Iterator[str]:
    """Why this machine cannot make the steps, each with its fix.

    `available_bytes`: of its memory, what is free to use; None where it is not known.
    """
    hardware, memory = plan.hardware, plan.memory
    if plan.on_gpus and not has_gpu:
        gpu = hardware.gpu or "GPUs"
        yield (
            f"--probe: the plan is for {plan.steps.num_processes} x {gpu}, found no GPU on this "
            "machine. Fix: probe on a node that has them, or plan without --probe"
        )
        return
    if hardware.num_nodes > 1:
        yield (
            f"--probe: the plan is for {hardware.num_nodes} nodes, allowed 1, this machine. Fix: "
            "probe one node by --set hardware.num_nodes=1, with its share of training.global_batch"
        )
    if available_bytes is not None and memory.host_bytes > available_bytes:
        yield (
            f"--probe: the plan needs {memory.host_bytes / GIB:.1f} GiB of host memory, found "
            f"{available_bytes / GIB:.1f} GiB available on this machine. Fix: free some, or probe "
            "where the run will train"
        )
