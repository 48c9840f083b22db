"""Setting -> which ways to divide and offload there are, what each costs, and which fit."""

from collections.abc import Iterator

from components.render_config.cost.hardware import GIB, Hardware
from components.render_config.cost.memory import memory
from components.render_config.cost.terms import by_kind
from components.render_config.cost.traffic import cost_of
from components.render_config.setting import Setting
from components.shared.documents.plan import Memory, ZeroOption, ZeroPlan
from components.shared.spec.hardware import ZeroSpec

# In the order in which they slow training. ZeRO-2 with offload comes before ZeRO-3 with it: it
# gathers no weights.
ORDER = (
    ZeroPlan(stage=0),
    ZeroPlan(stage=1),
    ZeroPlan(stage=2),
    ZeroPlan(stage=3),
    ZeroPlan(stage=2, offload_optimizer=True),
    ZeroPlan(stage=3, offload_optimizer=True),
    ZeroPlan(stage=3, offload_optimizer=True, offload_parameters=True),
)
OFFLOADS = {"none": False, "cpu": True}


def lowest_stage(setting: Setting) -> int:
    """ZeRO stage that the plan takes without being asked to, at least.

    Full training starts at stage 1, which costs no more than none, and whose checkpoints hold the
    fp32 weights. So does fp16: without ZeRO, DeepSpeed 0.19 divides gradients by a loss scale that
    it never multiplied the loss by (engine.py, backward).
    """
    if setting.full or setting.precision == "fp16":
        return 1
    return 0


def sensible(setting: Setting) -> Iterator[ZeroPlan]:
    """Options that make a difference: on a CPU, offload moves nothing."""
    for zero in ORDER:
        moves = setting.on_gpu or not zero.offload_optimizer
        if moves and zero.stage >= lowest_stage(setting):
            yield zero


def shown_options(setting: Setting) -> Iterator[ZeroPlan]:
    """Options for the picture: the sensible ones, and full training without ZeRO, which all others
    are measured against."""
    if setting.full:
        yield ORDER[0]
    yield from sensible(setting)


def allowed(setting: Setting) -> Iterator[ZeroPlan]:
    """Options that the spec leaves open; what it fixes is obeyed, sensible or not."""
    if setting.zero_is_open:
        yield from sensible(setting)
        return
    asked = setting.spec.zero
    for zero in ORDER:
        too_low = asked.stage == "auto" and zero.stage < lowest_stage(setting)
        if not too_low and _is_as_asked(zero, asked):
            yield zero
    if asked.stage == 1 and asked.offload_optimizer == "cpu":
        yield ZeroPlan(stage=1, offload_optimizer=True)


def _is_as_asked(zero: ZeroPlan, asked: ZeroSpec) -> bool:
    if asked.stage not in ("auto", zero.stage):
        return False
    offloads = (
        (asked.offload_optimizer, zero.offload_optimizer),
        (asked.offload_parameters, zero.offload_parameters),
    )
    return all(wanted == "auto" or OFFLOADS[wanted] == has for wanted, has in offloads)


def fits(needed: Memory, hardware: Hardware) -> bool:
    """Within GPU and host memory less the margin. An unstated host is taken to hold everything but
    offload."""
    limits = (
        (needed.gpu_bytes, hardware.gpu_bytes),
        (needed.host_bytes, hardware.host_bytes),
    )
    return all(limit is None or used <= hardware.usable(limit) for used, limit in limits)


def it_fits(setting: Setting, zero: ZeroPlan, micro_batch: int) -> bool:
    return fits(memory(setting, zero, micro_batch), setting.hardware)


def first_fit(setting: Setting) -> ZeroPlan | None:
    """The first option in the order of slowing that the spec allows and the hardware holds with the
    least micro-batch. Offload to a host whose memory is not stated is not counted on, unless the
    spec asks for it."""
    host_is_unstated = setting.on_gpu and setting.hardware.host_bytes is None
    zero_spec = setting.spec.zero
    asks_for_offload = "cpu" in (zero_spec.offload_optimizer, zero_spec.offload_parameters)
    for zero in allowed(setting):
        if zero.offload_optimizer and host_is_unstated and not asks_for_offload:
            continue
        if it_fits(setting, zero, setting.least_micro_batch):
            return zero
    return None


def option(setting: Setting, zero: ZeroPlan, micro_batch: int) -> ZeroOption:
    needed = memory(setting, zero, micro_batch)
    return ZeroOption(
        zero=zero,
        gpu_bytes=needed.gpu_bytes,
        host_bytes=needed.host_bytes,
        gpu_kinds=by_kind(needed.gpu),
        host_kinds=by_kind(needed.host),
        fits=fits(needed, setting.hardware),
        cost=cost_of(setting, zero),
    )


def gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.1f} GiB"
