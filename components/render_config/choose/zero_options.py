"""Model, spec and hardware -> which ways to divide and offload there are, what each costs, and
which fit."""

from collections.abc import Iterator
from dataclasses import dataclass

from components.render_config.cost.hardware import GIB, Hardware
from components.render_config.cost.memory import Job, by_kind, memory
from components.render_config.model.shapes import Architecture
from components.render_config.model.targets import Targets, num_lora_parameters
from components.shared.documents.plan import Memory, ZeroOption, ZeroPlan
from components.shared.figures import size_of
from components.shared.spec.hardware import ZeroSpec

GPU_MULTIPLE = 64
"""Tokens; components/train/loop/rows.py has the same."""
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


@dataclass(frozen=True)
class Setting:
    """What the spec asks that decides memory, with what is still open."""

    zero: ZeroSpec
    full: bool
    targets: Targets
    rank: int
    weight_bytes: int
    row_tokens: int
    """Of the longest row."""
    mean_row_tokens: float
    """The same where rows are packed; else of a row of one conversation, without padding."""
    global_batch: int
    micro_batch: int | None
    """None: the most that fits."""
    checkpointing: bool
    loss_chunk_tokens: int | None = None
    """Tokens whose logits are made at a time; None: of all tokens at once."""
    masked_attention: bool = True
    """See `Pass`."""
    fp16: bool = False
    on_gpu: bool = False
    num_quantized: int = 0
    """Parameters of the frozen base that are held in 4 bits."""
    largest_quantized: int = 0
    """Of the largest weight in 4 bits."""

    @property
    def lowest_stage(self) -> int:
        """ZeRO stage that the plan takes without being asked to, at least.

        Full training starts at stage 1, which costs no more than none, and whose checkpoints hold
        the fp32 weights. So does fp16: without ZeRO, DeepSpeed 0.19 divides gradients by a loss
        scale that it never multiplied the loss by (engine.py, backward).
        """
        return 1 if self.full or self.fp16 else 0

    def padded_tokens(self, micro_batch: int) -> float:
        """Tokens of a row with its padding to the longest of its micro-batch; several are taken to
        hold the longest of all. A GPU's row is padded to a multiple of GPU_MULTIPLE, on average by
        half of it, and never beyond the longest."""
        if micro_batch > 1:
            return self.row_tokens
        padding = GPU_MULTIPLE / 2 if self.on_gpu else 0
        return min(self.mean_row_tokens + padding, self.row_tokens)

    def num_trainable(self, architecture: Architecture) -> int:
        return (
            architecture.num_parameters
            if self.full
            else num_lora_parameters(self.targets, self.rank)
        )


def job(
    architecture: Architecture,
    setting: Setting,
    hardware: Hardware,
    zero: ZeroPlan,
    micro_batch: int,
) -> Job:
    n = hardware.num_processes
    return Job(
        zero=zero,
        num_processes=n,
        processes_per_node=hardware.processes_per_node,
        on_gpu=hardware.gpu_bytes is not None,
        weight_bytes=setting.weight_bytes,
        num_trainable=setting.num_trainable(architecture),
        full=setting.full,
        micro_batch=micro_batch,
        row_tokens=setting.row_tokens,
        grad_accum=max(1, setting.global_batch // (micro_batch * n)),
        checkpointing=setting.checkpointing,
        adapted=() if setting.full else setting.targets.linears,
        experts_adapted=not setting.full and bool(setting.targets.experts),
        rank=setting.rank,
        loss_chunk_tokens=setting.loss_chunk_tokens,
        masked_attention=setting.masked_attention,
        num_quantized=setting.num_quantized,
        largest_quantized=setting.largest_quantized,
    )


def sensible(setting: Setting, hardware: Hardware) -> Iterator[ZeroPlan]:
    """Options that make a difference: on a CPU, offload moves nothing."""
    for zero in ORDER:
        if zero.stage >= setting.lowest_stage and (
            hardware.gpu_bytes is not None or not zero.offload_optimizer
        ):
            yield zero


def shown(setting: Setting, hardware: Hardware) -> Iterator[ZeroPlan]:
    """Options for the picture: the sensible ones, and full training without ZeRO, which all others
    are measured against."""
    if setting.full:
        yield ORDER[0]
    yield from sensible(setting, hardware)


def allowed(setting: Setting, hardware: Hardware) -> Iterator[ZeroPlan]:
    """Options that the spec leaves open; what it fixes is obeyed, sensible or not."""
    asked = setting.zero
    fixed = asked != ZeroSpec()
    for zero in ORDER if fixed else sensible(setting, hardware):
        if asked.stage == "auto" and zero.stage < setting.lowest_stage:
            continue
        offloads = {"auto": None, "none": False, "cpu": True}
        wanted = (
            None if asked.stage == "auto" else asked.stage,
            offloads[asked.offload_optimizer],
            offloads[asked.offload_parameters],
        )
        if all(
            want is None or want == has
            for want, has in zip(
                wanted, (zero.stage, zero.offload_optimizer, zero.offload_parameters), strict=True
            )
        ):
            yield zero
    if asked.stage == 1 and asked.offload_optimizer == "cpu":
        yield ZeroPlan(stage=1, offload_optimizer=True)


def fits(found: Memory, hardware: Hardware) -> bool:
    """Within GPU and host memory less the margin. An unstated host is taken to hold everything but
    offload."""
    on_gpu = hardware.gpu_bytes is None or found.gpu_bytes <= hardware.usable(hardware.gpu_bytes)
    return on_gpu and (
        hardware.host_bytes is None or found.host_bytes <= hardware.usable(hardware.host_bytes)
    )


def first_fit(
    architecture: Architecture, setting: Setting, hardware: Hardware, micro_batch: int
) -> ZeroPlan | None:
    """The first option in the order of slowing that the spec allows and the hardware holds. Offload
    to a host whose memory is not stated is not counted on, unless the spec asks for it."""
    for zero in allowed(setting, hardware):
        unstated = (
            zero.offload_optimizer
            and hardware.gpu_bytes is not None
            and hardware.host_bytes is None
        )
        if unstated and "cpu" not in (
            setting.zero.offload_optimizer,
            setting.zero.offload_parameters,
        ):
            continue
        if fits(
            memory(architecture, job(architecture, setting, hardware, zero, micro_batch)), hardware
        ):
            return zero
    return None


def option(
    architecture: Architecture,
    setting: Setting,
    hardware: Hardware,
    zero: ZeroPlan,
    micro_batch: int,
) -> ZeroOption:
    found = memory(architecture, job(architecture, setting, hardware, zero, micro_batch))
    return ZeroOption(
        zero=zero,
        gpu_bytes=found.gpu_bytes,
        host_bytes=found.host_bytes,
        gpu_kinds=by_kind(found.gpu),
        host_kinds=by_kind(found.host),
        fits=fits(found, hardware),
        cost=cost_of(architecture, setting, hardware, zero),
    )


@dataclass(frozen=True)
class Traffic:
    """Bytes that one process sends in one optimizer step."""

    network: float
    pcie: float


def traffic(
    architecture: Architecture,
    setting: Setting,
    hardware: Hardware,
    zero: ZeroPlan,
    grad_accum: int,
) -> Traffic:
    """ZeRO (arXiv 1910.02054) section 7: 2 x the gradients up to stage 2 (all-reduce =
    reduce-scatter + all-gather); stage 3 gathers all weights for the forward and again for the
    backward pass and reduces gradients once, 3 x in full training.

    Offload moves gradients down and weights up (ZeRO-Offload, arXiv 2101.06840, section 3). With
    gradient accumulation each micro-step after the first also brings the summed gradient back to
    the GPU (DeepSpeed 0.19.8, stage_1_and_2.py and stage3.py): 2g - 1 copies of it, and one of the
    weights. Offloaded parameters move twice a micro-step.
    """
    n, w, trained = (
        hardware.num_processes,
        setting.weight_bytes,
        setting.num_trainable(architecture),
    )
    away = (n - 1) / n
    gathered = (
        2 * architecture.num_parameters * grad_accum + trained if zero.stage == 3 else 2 * trained
    )
    network = away * w * gathered
    pcie = 2.0 * grad_accum * w * trained / n if zero.offload_optimizer else 0.0
    pcie += (
        2.0 * w * architecture.num_parameters / n * grad_accum if zero.offload_parameters else 0.0
    )
    return Traffic(network, pcie)


def cost_of(
    architecture: Architecture, setting: Setting, hardware: Hardware, zero: ZeroPlan
) -> str:
    """What the option slows, against no ZeRO, at one pass a step."""
    base = traffic(architecture, setting, hardware, ZeroPlan(stage=0), 1)
    sent = traffic(architecture, setting, hardware, zero, 1)
    each = "GPU" if hardware.gpu_bytes is not None else "process"
    if hardware.num_processes == 1:
        said = (
            "nothing to divide: one process"
            if zero.stage and not zero.offload_optimizer
            else "no communication"
        )
    else:
        said = (
            f"communication {sent.network / base.network:.3g}x ({size_of(sent.network)} per step "
            f"and {each})"
        )
    if not zero.offload_optimizer:
        return said
    moved = (
        f"{size_of(sent.pcie)} over PCIe per step and GPU"
        if hardware.gpu_bytes is not None
        else "no copy, as all is in host memory"
    )
    return f"{said}; {moved}; the optimizer computes on the host"


def gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.1f} GiB"
