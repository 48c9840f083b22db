"""Model, spec and hardware -> ZeRO stage, offload and micro-batch: the least slowing that fits."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from components.render_config.choose.suggestions import refusal
from components.render_config.choose.zero_options import (
    ORDER,
    Setting,
    cost_of,
    first_fit,
    fits,
    gib,
    job,
    option,
    sensible,
    shown,
)
from components.render_config.cost.hardware import Hardware
from components.render_config.cost.memory import MANY_MICRO_BATCHES, memory, sums_in_fp32
from components.render_config.model.shapes import Architecture
from components.shared.documents.plan import Memory, ZeroOption, ZeroPlan
from components.shared.errors import SpecError
from components.shared.spec.hardware import ZeroSpec

SUMS_IN_FP32 = ZeroPlan(stage=2)


@dataclass(frozen=True)
class Choice:
    zero: ZeroPlan
    micro_batch: int
    memory: Memory
    options: tuple[ZeroOption, ...]
    cautions: tuple[str, ...]
    why_zero: str
    why_micro_batch: str


def choose(architecture: Architecture, setting: Setting, hardware: Hardware) -> Choice:
    """The first of ORDER that the spec allows and the hardware holds, then the largest micro-batch
    that fits.

    Raises:
        SpecError: nothing fits; a line for what is missing, and one for each of the three cheapest
            changes.
    """
    smallest = setting.micro_batch or 1
    zero = first_fit(architecture, setting, hardware, smallest)
    if zero is None:
        raise SpecError(*refusal(architecture, setting, hardware))
    micro_batch = setting.micro_batch or _largest_fit(architecture, setting, hardware, zero)
    why_zero = _why_zero(architecture, setting, hardware, zero, smallest)
    if _gains_by_fp32_sums(architecture, setting, hardware, zero, micro_batch):
        zero = SUMS_IN_FP32
        micro_batch = setting.micro_batch or _largest_fit(architecture, setting, hardware, zero)
        why_zero = (
            f"{zero.name} sums gradients of many micro-batches in fp32, which no ZeRO and ZeRO-1 "
            "do not, and costs no more here"
        )
    found = memory(architecture, job(architecture, setting, hardware, zero, micro_batch))
    return Choice(
        zero=zero,
        micro_batch=micro_batch,
        memory=found,
        options=tuple(_options(architecture, setting, hardware, zero, micro_batch)),
        cautions=(
            *_cautions(architecture, setting, hardware, zero, found),
            *_sum_cautions(setting, hardware, zero, micro_batch),
        ),
        why_zero=why_zero,
        why_micro_batch=_why_micro_batch(setting, hardware, micro_batch),
    )


def _options(
    architecture: Architecture,
    setting: Setting,
    hardware: Hardware,
    chosen: ZeroPlan,
    micro_batch: int,
) -> Iterator[ZeroOption]:
    """Each option with its smallest micro-batch, but the chosen one as it is planned."""
    for zero in shown(setting, hardware):
        size = micro_batch if zero == chosen else setting.micro_batch or 1
        yield option(architecture, setting, hardware, zero, size)


def _sums_badly(setting: Setting, hardware: Hardware, zero: ZeroPlan, micro_batch: int) -> bool:
    """Many micro-batches' gradients are summed in 16 bits."""
    grad_accum = setting.global_batch // (micro_batch * hardware.num_processes)
    many = setting.weight_bytes == 2 and grad_accum >= MANY_MICRO_BATCHES
    return many and not sums_in_fp32(zero, weight_bytes=setting.weight_bytes, grad_accum=grad_accum)


def _gains_by_fp32_sums(
    architecture: Architecture,
    setting: Setting,
    hardware: Hardware,
    zero: ZeroPlan,
    micro_batch: int,
) -> bool:
    """The spec leaves ZeRO open, and ZeRO-2 fits at no cost worth counting: it reduces gradients in
    each micro-batch, which is nothing in one process and little for LoRA."""
    if setting.zero != ZeroSpec() or not _sums_badly(setting, hardware, zero, micro_batch):
        return False
    cheap = hardware.num_processes == 1 or not setting.full
    return cheap and fits(
        memory(architecture, job(architecture, setting, hardware, SUMS_IN_FP32, micro_batch)),
        hardware,
    )


def _sum_cautions(
    setting: Setting, hardware: Hardware, zero: ZeroPlan, micro_batch: int
) -> Iterator[str]:
    if _sums_badly(setting, hardware, zero, micro_batch):
        grad_accum = setting.global_batch // (micro_batch * hardware.num_processes)
        yield (
            f"zero: with {zero.name}, gradients of {grad_accum} micro-batches are summed in 16 "
            "bits, with an error near 1 %; zero.stage: 2 or 3 sums them in fp32"
        )


def _largest_fit(
    architecture: Architecture, setting: Setting, hardware: Hardware, zero: ZeroPlan
) -> int:
    """The largest divisor of a process's share of the global batch that fits; 1 does."""
    share = max(1, setting.global_batch // hardware.num_processes)
    sizes = [size for size in range(share, 0, -1) if share % size == 0]
    return next(
        (
            size
            for size in sizes
            if fits(
                memory(architecture, job(architecture, setting, hardware, zero, size)), hardware
            )
        ),
        1,
    )


def _why_zero(
    architecture: Architecture,
    setting: Setting,
    hardware: Hardware,
    zero: ZeroPlan,
    micro_batch: int,
) -> str:
    if setting.zero != ZeroSpec():
        return f"as the spec asks: {zero.name}"
    before = [each for each in sensible(setting, hardware) if ORDER.index(each) < ORDER.index(zero)]
    if not before:
        return f"{zero.name} fits, and nothing is faster"
    last = memory(architecture, job(architecture, setting, hardware, before[-1], micro_batch))
    needs = gib(last.gpu_bytes if hardware.gpu_bytes is not None else last.host_bytes)
    return (
        f"the first in the order of slowing that fits; {before[-1].name} would need {needs}; "
        f"{cost_of(architecture, setting, hardware, zero)}"
    )


def _why_micro_batch(setting: Setting, hardware: Hardware, micro_batch: int) -> str:
    if setting.micro_batch is not None:
        return "as the spec asks"
    share = max(1, setting.global_batch // hardware.num_processes)
    whole = (
        "all of it fits"
        if micro_batch == share
        else f"the next larger divisor does not fit with {hardware.margin:.0%} to spare"
    )
    return f"of the {share} rows that a process has of the global batch; {whole}"


def _cautions(
    architecture: Architecture, setting: Setting, hardware: Hardware, zero: ZeroPlan, found: Memory
) -> Iterator[str]:
    free = replace(setting, zero=ZeroSpec())
    better = first_fit(architecture, free, hardware, setting.micro_batch or 1)
    if (
        setting.zero != ZeroSpec()
        and better is not None
        and better in ORDER
        and zero in ORDER
        and ORDER.index(better) < ORDER.index(zero)
    ):
        slow = cost_of(architecture, setting, hardware, zero)
        yield (
            f"zero: {zero.name} is what the spec asks for, but {better.name} fits too and is "
            f"faster ({slow}). Fix: set zero: auto"
        )
    if zero.offload_optimizer and not setting.full:
        saved = 16 * setting.num_trainable(architecture) / hardware.num_processes
        yield (
            f"zero.offload_optimizer: LoRA's optimizer state is {gib(saved)} per GPU: offloading "
            "it saves only that, and slows each step"
        )
    if zero.offload_optimizer and hardware.gpu_bytes is not None and hardware.host_bytes is None:
        yield (
            f"hardware.host_memory_gib: not stated; offload needs {gib(found.host_bytes)} on each "
            "node"
        )
