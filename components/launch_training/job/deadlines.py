"""How long a job may stand where it stands."""

from components.launch_training.job.phases import Phase
from components.shared.documents.plan import Plan
from components.shared.spec.cluster import ClusterSpec

WAITING, STARTING, RUNNING = (
    ("queued", "scheduling"),
    ("pulling", "starting", "restarting"),
    ("running",),
)
EVICTED, PREEMPTED, REQUEUED, ADMITTED = ("evicted",), ("preempted",), ("requeued",), ("admitted",)
GROUPS = (WAITING, EVICTED, PREEMPTED, REQUEUED, ADMITTED, STARTING, RUNNING)

STALL_CLOCK = "stall_timeout_minutes"
"""The setting that ends a training without a step; the job is then made anew while restarts are
left."""


def group_of(phase: Phase) -> tuple[str, ...]:
    """The phases that share a deadline with this one, whose clock goes on from one to the other;
    empty at the end."""
    return next((names for names in GROUPS if phase.name in names), ())


def clock_of(phase: Phase) -> str:
    """The setting that ends this phase; empty at the end."""
    group = group_of(phase)
    if group in (WAITING, EVICTED, PREEMPTED, REQUEUED):
        return "queue_timeout_minutes"
    if group in (ADMITTED, STARTING):
        return "start_timeout_minutes"
    if group == RUNNING:
        return STALL_CLOCK
    return ""


def uploads_s(plan: Plan) -> float:
    """Seconds that training may wait for the store, as the plan estimates them: two checkpoints may
    be on their way before a save, and the end, waits for them. 0 where the plan makes no
    estimate."""
    if plan.time is None:
        return 0.0
    return 2 * plan.time.checkpoint_seconds


def overdue(
    phase: Phase, spec: ClusterSpec, *, waited_s: float, idle_s: float, uploads_s: float
) -> str | None:
    """Which deadline is over, and why the job was not further; None while none is. `waited_s`:
    since the job came to this group of phases; `idle_s`: since a step was made or a checkpoint
    stored; `uploads_s`: how much longer that may take, for uploads."""
    found = phase.detail or "no more is known"
    if clock_of(phase) == "queue_timeout_minutes" and waited_s > 60 * spec.queue_timeout_minutes:
        if phase.name in WAITING:
            where = ""
        else:
            where = f"{phase.name}: "
        return (
            "cluster.queue_timeout_minutes: not all pods had a node after "
            f"{spec.queue_timeout_minutes:g} minutes: {where}{found}"
        )
    if phase.name in ADMITTED and waited_s > 60 * spec.start_timeout_minutes:
        return (
            "cluster.start_timeout_minutes: not all pods were there "
            f"{spec.start_timeout_minutes:g} minutes after the queue admitted the job: {found}"
        )
    if phase.name in STARTING and waited_s > 60 * spec.start_timeout_minutes:
        return (
            f"cluster.start_timeout_minutes: training had not begun {spec.start_timeout_minutes:g} "
            f"minutes after the pods had a node: {phase.name}: {found}"
        )
    if phase.name in RUNNING and idle_s > 60 * spec.stall_timeout_minutes + uploads_s:
        if uploads_s >= 30:
            beside = f", nor in the {uploads_s / 60:.0f} that uploads may take beside"
        else:
            beside = ""
        return (
            f"cluster.stall_timeout_minutes: no step was made for {spec.stall_timeout_minutes:g} "
            f"minutes{beside}"
        )
    return None
