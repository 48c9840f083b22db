"""How long a job may stand where it stands."""

from components.launch_training.phases import Phase
from components.shared.plan import Plan
from components.shared.spec import ClusterSpec

WAITING, STARTING, RUNNING = ("queued", "scheduling"), ("pulling", "starting", "restarting"), ("running",)


def group_of(phase: Phase) -> tuple[str, ...]:
    """The phases that share a deadline with this one, whose clock goes on from one to the other; empty at the end."""
    return next((names for names in (WAITING, STARTING, RUNNING) if phase.name in names), ())


def uploads_s(plan: Plan) -> float:
    """Seconds that training may wait for the store, as the plan estimates them: two checkpoints may be on their way before a save, and
    the end, waits for them. 0 where the plan makes no estimate."""
    return 0.0 if plan.time is None else 2 * plan.time.checkpoint_seconds


def overdue(phase: Phase, spec: ClusterSpec, *, waited_s: float, idle_s: float, uploads_s: float) -> str | None:
    """Which deadline is over, and why the job was not further; None while none is. `waited_s`: since the job came to this group of phases;
    `idle_s`: since a step was made or a checkpoint stored; `uploads_s`: how much longer that may take, for uploads."""
    found = phase.detail or "no more is known"
    if phase.name in WAITING and waited_s > 60 * spec.queue_timeout_minutes:
        return f"cluster.queue_timeout_minutes: not all pods had a node after {spec.queue_timeout_minutes:g} minutes: {found}"
    if phase.name in STARTING and waited_s > 60 * spec.start_timeout_minutes:
        return (
            f"cluster.start_timeout_minutes: training had not begun {spec.start_timeout_minutes:g} minutes after the pods had a node: "
            f"{phase.name}: {found}"
        )
    if phase.name in RUNNING and idle_s > 60 * spec.stall_timeout_minutes + uploads_s:
        beside = f", nor in the {uploads_s / 60:.0f} that uploads may take beside" if uploads_s >= 30 else ""
        return f"cluster.stall_timeout_minutes: no step was made for {spec.stall_timeout_minutes:g} minutes{beside}"
    return None
