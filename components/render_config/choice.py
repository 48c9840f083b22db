"""Model, spec and hardware -> ZeRO stage, offload and micro-batch: the least slowing that fits, or the cheapest ways to make one fit."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from components.render_config.hardware import GIB, Hardware
from components.render_config.memory import Job, memory
from components.render_config.shapes import Architecture
from components.render_config.targets import Targets, num_lora_parameters
from components.shared.errors import SpecError
from components.shared.plan import Memory, ZeroOption, ZeroPlan
from components.shared.spec import ZeroSpec

# In the order in which they slow training. ZeRO-2 with offload comes before ZeRO-3 with it: it gathers no weights.
ORDER = (
    ZeroPlan(stage=0),
    ZeroPlan(stage=1),
    ZeroPlan(stage=2),
    ZeroPlan(stage=3),
    ZeroPlan(stage=2, offload_optimizer=True),
    ZeroPlan(stage=3, offload_optimizer=True),
    ZeroPlan(stage=3, offload_optimizer=True, offload_parameters=True),
)
SHORTEST_ROW = 256


@dataclass(frozen=True)
class Wish:
    """What the spec asks that decides memory, with what is still open."""

    zero: ZeroSpec
    full: bool
    targets: Targets
    rank: int
    weight_bytes: int
    row_tokens: int
    global_batch: int
    micro_batch: int | None
    """None: the most that fits."""
    checkpointing: bool
    dataset_tokens: int

    def num_trainable(self, architecture: Architecture) -> int:
        return architecture.num_parameters if self.full else num_lora_parameters(self.targets, self.rank)


@dataclass(frozen=True)
class Choice:
    zero: ZeroPlan
    micro_batch: int
    memory: Memory
    options: tuple[ZeroOption, ...]
    cautions: tuple[str, ...]
    why_zero: str
    why_micro_batch: str


def choose(architecture: Architecture, wish: Wish, hardware: Hardware) -> Choice:
    """The first of ORDER that the spec allows and the hardware holds, then the largest micro-batch that fits.

    Raises:
        SpecError: nothing fits; a line for what is missing, and one for each of the three cheapest ways out.
    """
    smallest = wish.micro_batch or 1
    zero = _first_fit(architecture, wish, hardware, smallest)
    if zero is None:
        raise SpecError(*_refusal(architecture, wish, hardware))
    micro_batch = wish.micro_batch or _largest_fit(architecture, wish, hardware, zero)
    found = memory(architecture, job(architecture, wish, hardware, zero, micro_batch))
    return Choice(
        zero=zero,
        micro_batch=micro_batch,
        memory=found,
        options=tuple(option(architecture, wish, hardware, each, smallest) for each in sensible(wish, hardware)),
        cautions=tuple(_cautions(architecture, wish, hardware, zero, found)),
        why_zero=_why_zero(architecture, wish, hardware, zero, smallest),
        why_micro_batch=_why_micro_batch(wish, hardware, micro_batch),
    )


def job(architecture: Architecture, wish: Wish, hardware: Hardware, zero: ZeroPlan, micro_batch: int) -> Job:
    n = hardware.num_processes
    return Job(
        zero=zero,
        num_processes=n,
        processes_per_node=hardware.processes_per_node,
        on_gpu=hardware.gpu_bytes is not None,
        weight_bytes=wish.weight_bytes,
        num_trainable=wish.num_trainable(architecture),
        full=wish.full,
        micro_batch=micro_batch,
        row_tokens=wish.row_tokens,
        grad_accum=max(1, wish.global_batch // (micro_batch * n)),
        checkpointing=wish.checkpointing,
        adapted=() if wish.full else wish.targets.linears,
        experts_adapted=not wish.full and bool(wish.targets.experts),
        rank=wish.rank,
        dataset_tokens=wish.dataset_tokens,
    )


def sensible(wish: Wish, hardware: Hardware) -> Iterator[ZeroPlan]:
    """Options that make a difference: on a CPU, offload moves nothing. Full training starts at stage 1, which costs no more than
    none and whose checkpoints a model is put together from."""
    for zero in ORDER:
        if (zero.stage or not wish.full) and (hardware.gpu_bytes is not None or not zero.offload_optimizer):
            yield zero


def allowed(wish: Wish, hardware: Hardware) -> Iterator[ZeroPlan]:
    """Options that the spec leaves open; what it fixes is obeyed, sensible or not."""
    asked = wish.zero
    fixed = asked != ZeroSpec()
    for zero in ORDER if fixed else sensible(wish, hardware):
        offloads = {"auto": None, "none": False, "cpu": True}
        wanted = (None if asked.stage == "auto" else asked.stage, offloads[asked.offload_optimizer], offloads[asked.offload_parameters])
        if all(
            want is None or want == has
            for want, has in zip(wanted, (zero.stage, zero.offload_optimizer, zero.offload_parameters), strict=True)
        ):
            yield zero
    if asked.stage == 1 and asked.offload_optimizer == "cpu":
        yield ZeroPlan(stage=1, offload_optimizer=True)


def fits(found: Memory, hardware: Hardware) -> bool:
    """Within GPU and host memory less the margin. An unstated host is taken to hold everything but offload."""
    on_gpu = hardware.gpu_bytes is None or found.gpu_bytes <= hardware.usable(hardware.gpu_bytes)
    return on_gpu and (hardware.host_bytes is None or found.host_bytes <= hardware.usable(hardware.host_bytes))


def _first_fit(architecture: Architecture, wish: Wish, hardware: Hardware, micro_batch: int) -> ZeroPlan | None:
    for zero in allowed(wish, hardware):
        unstated = zero.offload_optimizer and hardware.gpu_bytes is not None and hardware.host_bytes is None
        if unstated and wish.zero.offload_optimizer != "cpu":
            continue
        if fits(memory(architecture, job(architecture, wish, hardware, zero, micro_batch)), hardware):
            return zero
    return None


def _largest_fit(architecture: Architecture, wish: Wish, hardware: Hardware, zero: ZeroPlan) -> int:
    """The largest divisor of a process's share of the global batch that fits; 1 does."""
    share = max(1, wish.global_batch // hardware.num_processes)
    sizes = [size for size in range(share, 0, -1) if share % size == 0]
    return next((size for size in sizes if fits(memory(architecture, job(architecture, wish, hardware, zero, size)), hardware)), 1)


def option(architecture: Architecture, wish: Wish, hardware: Hardware, zero: ZeroPlan, micro_batch: int) -> ZeroOption:
    found = memory(architecture, job(architecture, wish, hardware, zero, micro_batch))
    return ZeroOption(
        zero=zero,
        gpu_bytes=found.gpu_bytes,
        host_bytes=found.host_bytes,
        fits=fits(found, hardware),
        cost=cost_of(architecture, wish, hardware, zero),
    )


@dataclass(frozen=True)
class Traffic:
    """Bytes that one process sends in one optimizer step."""

    network: float
    pcie: float


def traffic(architecture: Architecture, wish: Wish, hardware: Hardware, zero: ZeroPlan, grad_accum: int) -> Traffic:
    """ZeRO (arXiv 1910.02054) section 7: 2 x the gradients up to stage 2 (all-reduce = reduce-scatter + all-gather); stage 3 gathers
    all weights for the forward and again for the backward pass and reduces gradients once, 3 x in full training.

    Offload moves gradients down and weights up once a step (ZeRO-Offload, arXiv 2101.06840, section 3), parameters twice a pass.
    """
    n, w, trained = hardware.num_processes, wish.weight_bytes, wish.num_trainable(architecture)
    away = (n - 1) / n
    gathered = 2 * architecture.num_parameters * grad_accum + trained if zero.stage == 3 else 2 * trained
    network = away * w * gathered
    pcie = 2.0 * w * trained / n if zero.offload_optimizer else 0.0
    pcie += 2.0 * w * architecture.num_parameters / n * grad_accum if zero.offload_parameters else 0.0
    return Traffic(network, pcie)


def cost_of(architecture: Architecture, wish: Wish, hardware: Hardware, zero: ZeroPlan) -> str:
    """What the option slows, against no ZeRO, at one pass a step."""
    base = traffic(architecture, wish, hardware, ZeroPlan(stage=0), 1)
    sent = traffic(architecture, wish, hardware, zero, 1)
    if hardware.num_processes == 1:
        said = "nothing to divide: one process" if zero.stage and not zero.offload_optimizer else "no communication"
    else:
        said = f"communication {sent.network / base.network:.3g}x ({sent.network / 1e9:.2f} GB a step and GPU)"
    return said + (f"; {sent.pcie / 1e9:.2f} GB over PCIe a step and GPU, and Adam on the host" if zero.offload_optimizer else "")


def gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.1f} GiB"


def _why_zero(architecture: Architecture, wish: Wish, hardware: Hardware, zero: ZeroPlan, micro_batch: int) -> str:
    if wish.zero != ZeroSpec():
        return f"as the spec asks: {zero.name}"
    before = [each for each in sensible(wish, hardware) if ORDER.index(each) < ORDER.index(zero)]
    if not before:
        return f"{zero.name} fits, and nothing is faster"
    last = memory(architecture, job(architecture, wish, hardware, before[-1], micro_batch))
    needs = gib(last.gpu_bytes if hardware.gpu_bytes is not None else last.host_bytes)
    return (
        f"the first in the order of slowing that fits; {before[-1].name} would need {needs}; {cost_of(architecture, wish, hardware, zero)}"
    )


def _why_micro_batch(wish: Wish, hardware: Hardware, micro_batch: int) -> str:
    if wish.micro_batch is not None:
        return "as the spec asks"
    share = max(1, wish.global_batch // hardware.num_processes)
    whole = "all of it fits" if micro_batch == share else f"the next larger divisor does not fit with {hardware.margin:.0%} to spare"
    return f"of the {share} rows that a process has of the global batch; {whole}"


def _cautions(architecture: Architecture, wish: Wish, hardware: Hardware, zero: ZeroPlan, found: Memory) -> Iterator[str]:
    free = replace(wish, zero=ZeroSpec())
    better = _first_fit(architecture, free, hardware, wish.micro_batch or 1)
    if wish.zero != ZeroSpec() and better is not None and better in ORDER and zero in ORDER and ORDER.index(better) < ORDER.index(zero):
        slow = cost_of(architecture, wish, hardware, zero)
        yield f"zero: {zero.name} is obeyed, but {better.name} fits too and is faster ({slow}); zero: auto would take it"
    if zero.offload_optimizer and not wish.full:
        saved = 16 * wish.num_trainable(architecture) / hardware.num_processes
        yield f"zero.offload_optimizer: LoRA's optimizer state is {gib(saved)} a GPU: offloading it saves only that, and slows each step"
    if zero.offload_optimizer and hardware.gpu_bytes is not None and hardware.host_bytes is None:
        yield f"hardware.host_memory_gib: not stated; offload needs {gib(found.host_bytes)} on each node"


def _refusal(architecture: Architecture, wish: Wish, hardware: Hardware) -> list[str]:
    """What is missing, and the cheapest ways out with their numbers."""
    tried = list(allowed(wish, hardware))
    needs = [(zero, memory(architecture, job(architecture, wish, hardware, zero, wish.micro_batch or 1))) for zero in tried]
    zero, least = min(needs, key=lambda pair: (pair[1].gpu_bytes, pair[1].host_bytes))
    asked = "the memory that the spec's zero section" if wish.zero != ZeroSpec() else "the least memory, by"
    lines = [f"hardware: the training does not fit: {asked} {zero.name}, needs {_against(least, hardware)}"]
    for way, found in _ways_out(architecture, wish, hardware):
        lines.append(f"hardware: way out: {way}: {found}")
        if len(lines) == 4:
            break
    return lines


def _against(found: Memory, hardware: Hardware) -> str:
    parts: list[str] = []
    if hardware.gpu_bytes is not None:
        usable = gib(hardware.usable(hardware.gpu_bytes))
        parts.append(f"{gib(found.gpu_bytes)} of each GPU ({usable} usable of {gib(hardware.gpu_bytes)})")
    if hardware.host_bytes is not None:
        usable = gib(hardware.usable(hardware.host_bytes))
        parts.append(f"{gib(found.host_bytes)} of a node's memory ({usable} usable of {gib(hardware.host_bytes)})")
    elif hardware.gpu_bytes is not None:
        parts.append("with a host whose memory is not stated, so that offload is not counted on")
    return " and ".join(parts)


def _ways_out(architecture: Architecture, wish: Wish, hardware: Hardware) -> Iterator[tuple[str, str]]:
    """Changes that make the training fit, cheapest first: settings, then what is learned from, then hardware."""
    free = replace(wish, zero=ZeroSpec())
    changes: list[tuple[str, Wish]] = [
        ("zero: auto", free),
        ("training.micro_batch: auto", replace(wish, micro_batch=None)),
        ("training.gradient_checkpointing: true (about a third more compute)", replace(free, checkpointing=True)),
        ("training.method: lora with gradient checkpointing, instead of full", replace(free, full=False, checkpointing=True)),
    ]
    for way, changed in changes:
        if changed != wish:
            yield from _if_it_fits(way, architecture, changed, hardware)
    yield from _more_host_memory(architecture, replace(free, checkpointing=True), hardware)
    tokens = wish.row_tokens
    while tokens > SHORTEST_ROW:
        tokens //= 2
        shorter = replace(free, row_tokens=tokens, checkpointing=True)
        found = list(_if_it_fits(f"data.row_tokens: {tokens} with gradient checkpointing", architecture, shorter, hardware))
        if found:
            yield found[0]
            break
    yield from _more_gpus(architecture, replace(free, checkpointing=True), hardware)


def _if_it_fits(way: str, architecture: Architecture, wish: Wish, hardware: Hardware) -> Iterator[tuple[str, str]]:
    zero = _first_fit(architecture, wish, hardware, wish.micro_batch or 1)
    if zero is not None:
        found = memory(architecture, job(architecture, wish, hardware, zero, wish.micro_batch or 1))
        yield way, f"{zero.name} then needs {_needs(found, hardware)}"


def _needs(found: Memory, hardware: Hardware) -> str:
    of_gpu = f"{gib(found.gpu_bytes)} of each GPU and " if hardware.gpu_bytes is not None else ""
    return f"{of_gpu}{gib(found.host_bytes)} of a node's memory"


def _more_host_memory(architecture: Architecture, wish: Wish, hardware: Hardware) -> Iterator[tuple[str, str]]:
    """What a node must have for the first option whose GPU part fits."""
    if hardware.gpu_bytes is None:
        found = memory(architecture, job(architecture, wish, hardware, next(sensible(wish, hardware)), wish.micro_batch or 1))
        yield _host_memory(found, hardware)
        return
    for zero in sensible(wish, hardware):
        found = memory(architecture, job(architecture, wish, hardware, zero, wish.micro_batch or 1))
        if found.gpu_bytes <= hardware.usable(hardware.gpu_bytes) and not fits(
            found, replace(hardware, host_bytes=hardware.host_bytes or 1)
        ):
            way, said = _host_memory(found, hardware)
            yield way, f"{zero.name} then needs {said}"
            return


def _host_memory(found: Memory, hardware: Hardware) -> tuple[str, str]:
    needed = -(-found.host_bytes // int(GIB * (1 - hardware.margin)))
    return f"hardware.host_memory_gib: {needed} or more, with gradient checkpointing", _needs(found, hardware)


def _more_gpus(architecture: Architecture, wish: Wish, hardware: Hardware) -> Iterator[tuple[str, str]]:
    """Twice as many GPUs, and again, up to eight a node and 64 nodes."""
    if hardware.gpu_bytes is None:
        return
    more = hardware
    while more.num_nodes < 64:
        grown = {"processes_per_node": more.processes_per_node * 2} if more.processes_per_node < 8 else {"num_nodes": more.num_nodes * 2}
        more = replace(more, **grown)
        changed = (key for key in ("num_nodes", "processes_per_node") if getattr(more, key) != getattr(hardware, key))
        fields = ", ".join(f"hardware.{key}: {getattr(more, key)}" for key in changed)
        found = list(_if_it_fits(f"{fields} with gradient checkpointing", architecture, wish, more))
        if found:
            yield found[0]
            return
