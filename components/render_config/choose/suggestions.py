"""A training that fits nowhere -> what is missing, and the cheapest changes that make it fit, with
what it then needs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from components.render_config.choose.zero_options import allowed, first_fit, gib
from components.render_config.cost.gpus import GPUS
from components.render_config.cost.hardware import GIB, Hardware
from components.render_config.cost.memory import memory
from components.render_config.setting import Setting
from components.shared.documents.plan import Memory, ZeroPlan

MOST_SUGGESTIONS = 3
SHORTEST_ROW = 256
LEAST_MARGIN = 2
"""Hundredths of memory that a suggestion leaves free: the allocator's own share is no less."""
MOST_GPUS, MOST_NODES = 8, 64
"""This many GPUs a node before there are more nodes, and no more nodes than that."""


@dataclass(frozen=True)
class Suggestion:
    """Fields of the spec that are changed, and what they come to."""

    fields: Mapping[str, object]
    setting: Setting

    def also(self, fields: Mapping[str, object], setting: Setting) -> "Suggestion":
        return Suggestion({**self.fields, **fields}, setting)

    def with_hardware(self, fields: Mapping[str, object], hardware: Hardware) -> "Suggestion":
        return self.also(fields, replace(self.setting, hardware=hardware))

    def with_training(self, field: str, value: object) -> "Suggestion":
        changes = {f"training.{field}": value}
        return self.also(changes, self.setting.with_spec(changes))

    def with_open_zero(self) -> "Suggestion":
        return self.also({"zero": "auto"}, self.setting.with_open_zero())


Ways = Iterator[Suggestion]


def refusal(setting: Setting) -> list[str]:
    """A line for what is missing, then one for each of the three cheapest changes that make it fit,
    or fewer where there are fewer."""
    needs = [(zero, _memory(setting, zero)) for zero in allowed(setting)]
    zero, least = min(needs, key=lambda pair: (pair[1].gpu_bytes, pair[1].host_bytes))
    by = f"even by {zero.name}"
    if not setting.zero_is_open:
        by = f"by {zero.name}, as the spec's zero section asks,"
    missing = _against(least, setting.hardware)
    lines = [f"hardware: the training does not fit: {by} it needs {missing}"]
    lines += [_line(way, zero) for way, zero in _cheapest(setting)]
    return lines


def _line(way: Suggestion, zero: ZeroPlan) -> str:
    changes = ", ".join(f"{field}: {_yaml(value)}" for field, value in way.fields.items())
    needed = _needs(_memory(way.setting, zero))
    return f"hardware: fix: {changes}{_note(way)}: {zero.name} then needs {needed}"


def _cheapest(setting: Setting) -> list[tuple[Suggestion, ZeroPlan]]:
    """Three changes, and how each then fits: a smaller margin and settings first, then LoRA, host
    memory, shorter rows, more GPUs, a larger GPU."""
    cheapest: list[tuple[Suggestion, ZeroPlan]] = []
    for way, zero in _candidates(setting):
        if any(set(way.fields) >= set(other.fields) for other, _ in cheapest):
            continue
        cheapest.append((way, zero))
        if len(cheapest) == MOST_SUGGESTIONS:
            break
    return cheapest


def _candidates(setting: Setting) -> Iterator[tuple[Suggestion, ZeroPlan]]:
    """Of each kind of change the first that fits."""
    start = Suggestion({}, setting)
    yield from _first_that_fits(_smaller_margin(start))
    yield from _first_that_fits(_eased(start))
    if setting.full:
        yield from _first_that_fits(_eased(start.with_training("method", "lora")))
    for kind in (_more_host_memory, _shorter_rows, _more_gpus, _larger_gpu):
        yield from _first_that_fits(_each(_eased(start), kind))
    larger = _each(_eased(start), _larger_gpu)
    yield from _first_that_fits(_each(larger, _more_host_memory))


def _each(ways: Ways, kind: Callable[[Suggestion], Ways]) -> Ways:
    for way in ways:
        yield from kind(way)


def _first_that_fits(ways: Ways) -> Iterator[tuple[Suggestion, ZeroPlan]]:
    for way in ways:
        if way.fields:
            zero = first_fit(way.setting)
        else:
            zero = None
        if zero is not None:
            yield way, zero
            return


def _smaller_margin(way: Suggestion) -> Ways:
    """The largest margin below the spec's, in whole hundredths, where that alone is what is
    missing."""
    hardware = way.setting.hardware
    for hundredths in range(round(hardware.margin * 100) - 1, LEAST_MARGIN - 1, -1):
        margin = hundredths / 100
        changes = {"hardware.memory_margin": margin}
        yield way.with_hardware(changes, replace(hardware, margin=margin))


def _eased(way: Suggestion) -> Ways:
    """The way itself, then with one setting after the other that costs less than what is bought:
    what the spec fixes left to the plan, at last gradient checkpointing."""
    yield way
    zero_is_open = way.setting.zero_is_open
    if not zero_is_open:
        yield way.with_open_zero()
    if way.setting.micro_batch not in (None, 1):
        way = way.with_training("micro_batch", "auto")
        yield way
    if not zero_is_open:
        way = way.with_open_zero()
        yield way
    if not way.setting.checkpointing:
        yield way.with_training("gradient_checkpointing", True)


def _more_host_memory(way: Suggestion) -> Ways:
    """The least that a node must have for an option whose GPU part fits."""
    hardware = way.setting.hardware
    if hardware.gpu_bytes is None:
        limit = None
    else:
        limit = hardware.usable(hardware.gpu_bytes)
    options = [_memory(way.setting, zero) for zero in allowed(way.setting)]
    needed = [each.host_bytes for each in options if limit is None or each.gpu_bytes <= limit]
    if not needed:
        return
    gib_needed = -(-min(needed) // int(GIB * (1 - hardware.margin)))
    if gib_needed * GIB > (hardware.host_bytes or 0):
        changes = {"hardware.host_memory_gib": gib_needed}
        yield way.with_hardware(changes, replace(hardware, host_bytes=gib_needed * GIB))


def _shorter_rows(way: Suggestion) -> Ways:
    rows = way.setting.rows
    tokens = rows.longest_tokens
    while tokens > SHORTEST_ROW:
        tokens //= 2
        shorter = replace(way.setting, rows=replace(rows, longest_tokens=tokens))
        yield way.also({"data.row_tokens": tokens}, shorter)


def _more_gpus(way: Suggestion) -> Ways:
    """Twice as many, and again; on CPUs twice as many nodes. The global batch grows where it would
    no longer be divided evenly."""
    hardware = way.setting.hardware
    while hardware.num_nodes < MOST_NODES:
        num_gpus = hardware.processes_per_node
        if way.setting.on_gpu and num_gpus < MOST_GPUS:
            hardware = replace(hardware, processes_per_node=min(MOST_GPUS, num_gpus * 2))
        else:
            hardware = replace(hardware, num_nodes=hardware.num_nodes * 2)
        more = way.with_hardware(_processes_changed(way.setting.hardware, hardware), hardware)
        yield _divided_evenly(more)


def _processes_changed(old: Hardware, new: Hardware) -> dict[str, object]:
    changes: dict[str, object] = {}
    if new.num_nodes != old.num_nodes:
        changes["hardware.num_nodes"] = new.num_nodes
    if new.processes_per_node != old.processes_per_node:
        changes["hardware.processes_per_node"] = new.processes_per_node
    return changes


def _divided_evenly(way: Suggestion) -> Suggestion:
    """With the least global batch that its processes divide."""
    asked = way.setting.spec.training.global_batch
    at_once = way.setting.num_processes * way.setting.least_micro_batch
    global_batch = -(-asked // at_once) * at_once
    if global_batch == asked:
        return way
    return way.with_training("global_batch", global_batch)


def _larger_gpu(way: Suggestion) -> Ways:
    hardware = way.setting.hardware
    if hardware.gpu_bytes is None:
        return
    for name, device in sorted(GPUS.items(), key=lambda item: item[1].memory_gib):
        size = int(device.memory_gib * GIB)
        if size > hardware.gpu_bytes and device.bf16:
            larger = replace(hardware, gpu=name, device=device, gpu_bytes=size)
            yield way.with_hardware(_gpu_fields(hardware, name), larger)


def _gpu_fields(old: Hardware, name: str) -> dict[str, object]:
    """What names another GPU, and removes a stated memory, which would win over the new GPU's."""
    fields: dict[str, object] = {"hardware.gpu": name}
    is_stated = old.device is None or old.gpu_bytes != int(old.device.memory_gib * GIB)
    if is_stated:
        fields["hardware.gpu_memory_gib"] = None
    return fields


def _memory(setting: Setting, zero: ZeroPlan) -> Memory:
    return memory(setting, zero, setting.least_micro_batch)


def _yaml(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _note(way: Suggestion) -> str:
    recomputes = "training.gradient_checkpointing" in way.fields
    if recomputes:
        return " (about a third more compute)"
    return ""


def _against(needed: Memory, hardware: Hardware) -> str:
    parts: list[str] = []
    if hardware.gpu_bytes is not None:
        usable = gib(hardware.usable(hardware.gpu_bytes))
        parts.append(
            f"{gib(needed.gpu_bytes)} of each GPU ({usable} usable of {gib(hardware.gpu_bytes)})"
        )
    of_node = f"{gib(needed.host_bytes)} of a node's memory"
    if hardware.host_bytes is not None:
        usable = gib(hardware.usable(hardware.host_bytes))
        parts.append(f"{of_node} ({usable} usable of {gib(hardware.host_bytes)})")
    elif hardware.gpu_bytes is not None:
        parts.append(f"{of_node}, which is not stated: offload is not counted on")
    return " and ".join(parts)


def _needs(needed: Memory) -> str:
    if needed.gpu:
        of_gpu = f"{gib(needed.gpu_bytes)} of each GPU and "
    else:
        of_gpu = ""
    return f"{of_gpu}{gib(needed.host_bytes)} of a node's memory"
