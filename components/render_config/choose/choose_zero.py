"""Setting -> ZeRO stage, offload and micro-batch: the least slowing that fits."""

from collections.abc import Iterator
from dataclasses import dataclass

from components.render_config.choose.suggestions import refusal
from components.render_config.choose.zero_options import (
    ORDER,
    first_fit,
    gib,
    it_fits,
    option,
    sensible,
    shown_options,
)
from components.render_config.cost.memory import memory
from components.render_config.cost.traffic import cost_of
from components.render_config.decision import Decision, Section
from components.render_config.setting import Setting
from components.shared.documents.plan import Memory, MemoryPlan, ZeroPlan
from components.shared.errors import SpecError

SUMS_IN_FP32 = ZeroPlan(stage=2)


@dataclass(frozen=True)
class Choice:
    zero: ZeroPlan
    micro_batch: int
    memory: MemoryPlan
    """Of this way, beside what the others would take."""


def choose(setting: Setting) -> Section[Choice]:
    """The first of ORDER that the spec allows and the hardware holds, then the largest micro-batch
    that fits.

    Raises:
        SpecError: nothing fits; a line for what is missing, and one for each of the three cheapest
            changes.
    """
    zero = _choose_stage(setting)
    micro_batch = _choose_micro_batch(setting, zero.value)
    if _gains_by_fp32_sums(setting, zero.value, micro_batch.value):
        zero = Decision(
            SUMS_IN_FP32,
            f"{SUMS_IN_FP32.name} sums gradients of many micro-batches in fp32, which no ZeRO and "
            "ZeRO-1 do not, and costs no more here",
        )
        micro_batch = _choose_micro_batch(setting, zero.value)
    needed = memory(setting, zero.value, micro_batch.value)
    cautions = (
        *_cautions(setting, zero.value, needed),
        *_sum_cautions(setting, zero.value, micro_batch.value),
    )
    return Section(
        Choice(
            zero.value,
            micro_batch.value,
            _memory_plan(setting, zero.value, micro_batch.value, needed),
        ),
        {"zero": zero.reason, "steps.micro_batch": micro_batch.reason},
        cautions,
    )


def _choose_stage(setting: Setting) -> Decision[ZeroPlan]:
    zero = first_fit(setting)
    if zero is None:
        raise SpecError(*refusal(setting))
    if not setting.zero_is_open:
        return Decision(zero, f"as the spec asks: {zero.name}")
    faster = [each for each in sensible(setting) if _slows_less(each, zero)]
    if not faster:
        return Decision(zero, f"{zero.name} fits, and nothing is faster")
    next_faster = faster[-1]
    needed = memory(setting, next_faster, setting.least_micro_batch)
    needs = gib(needed.gpu_bytes if setting.on_gpu else needed.host_bytes)
    return Decision(
        zero,
        f"the first in the order of slowing that fits; {next_faster.name} would need {needs}; "
        f"{cost_of(setting, zero)}",
    )


def _slows_less(one: ZeroPlan, other: ZeroPlan) -> bool:
    return ORDER.index(one) < ORDER.index(other)


def _choose_micro_batch(setting: Setting, zero: ZeroPlan) -> Decision[int]:
    """The largest divisor of a process's rows of the global batch that fits; 1 does."""
    if setting.micro_batch is not None:
        return Decision(setting.micro_batch, "as the spec asks")
    rows = setting.rows_of_process
    micro_batch = 1
    for size in range(rows, 0, -1):
        if rows % size == 0 and it_fits(setting, zero, size):
            micro_batch = size
            break
    of_rows = f"of the {rows} rows that a process has of the global batch"
    if micro_batch == rows:
        return Decision(micro_batch, f"{of_rows}; all of it fits")
    spare = f"{setting.hardware.margin:.0%} to spare"
    return Decision(micro_batch, f"{of_rows}; the next larger divisor does not fit with {spare}")


def _memory_plan(setting: Setting, zero: ZeroPlan, micro_batch: int, needed: Memory) -> MemoryPlan:
    """Each option with its smallest micro-batch, but the chosen one as it is planned."""
    hardware = setting.hardware
    options = [
        option(setting, each, micro_batch if each == zero else setting.least_micro_batch)
        for each in shown_options(setting)
    ]
    return MemoryPlan(
        gpu=needed.gpu,
        host=needed.host,
        transient=needed.transient,
        gpu_limit=hardware.gpu_bytes,
        host_limit=hardware.host_bytes,
        margin=hardware.margin,
        options=tuple(options),
    )


def _sums_badly(setting: Setting, zero: ZeroPlan, micro_batch: int) -> bool:
    """Many micro-batches' gradients are summed in 16 bits."""
    return setting.sums_many(micro_batch) and not setting.sums_in_fp32(zero, micro_batch)


def _gains_by_fp32_sums(setting: Setting, zero: ZeroPlan, micro_batch: int) -> bool:
    """The spec leaves ZeRO open, and ZeRO-2 fits at no cost worth counting: it reduces gradients in
    each micro-batch, which is nothing in one process and little for LoRA."""
    if not setting.zero_is_open or not _sums_badly(setting, zero, micro_batch):
        return False
    is_cheap = setting.num_processes == 1 or not setting.full
    return is_cheap and it_fits(setting, SUMS_IN_FP32, micro_batch)


def _sum_cautions(setting: Setting, zero: ZeroPlan, micro_batch: int) -> Iterator[str]:
    if _sums_badly(setting, zero, micro_batch):
        yield (
            f"zero: with {zero.name}, gradients of {setting.grad_accum(micro_batch)} micro-batches "
            "are summed in 16 bits, with an error near 1 %; zero.stage: 2 or 3 sums them in fp32"
        )


def _cautions(setting: Setting, zero: ZeroPlan, needed: Memory) -> Iterator[str]:
    if setting.zero_is_open:
        better = None
    else:
        better = first_fit(setting.with_open_zero())
    if better is not None and zero in ORDER and _slows_less(better, zero):
        slow = cost_of(setting, zero)
        yield (
            f"zero: {zero.name} is what the spec asks for, but {better.name} fits too and is "
            f"faster ({slow}). Fix: set zero: auto"
        )
    if zero.offload_optimizer and not setting.full:
        saved = 16 * setting.num_trainable / setting.num_processes
        yield (
            f"zero.offload_optimizer: LoRA's optimizer state is {gib(saved)} per GPU: offloading "
            "it saves only that, and slows each step"
        )
    hardware = setting.hardware
    if zero.offload_optimizer and setting.on_gpu and hardware.host_bytes is None:
        yield (
            f"hardware.host_memory_gib: not stated; offload needs {gib(needed.host_bytes)} on each "
            "node"
        )
