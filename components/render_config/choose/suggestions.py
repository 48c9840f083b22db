"""A training that fits nowhere -> what is missing, and the cheapest changes that make it fit, with
what it then needs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from components.render_config.choose.zero_options import Setting, allowed, first_fit, gib, job
from components.render_config.cost.gpus import GPUS
from components.render_config.cost.hardware import GIB, Hardware
from components.render_config.cost.memory import memory
from components.render_config.model.shapes import Architecture
from components.shared.documents.plan import Memory, ZeroPlan
from components.shared.spec.hardware import ZeroSpec

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
    hardware: Hardware

    def also(
        self,
        fields: Mapping[str, object],
        setting: Setting | None = None,
        hardware: Hardware | None = None,
    ) -> "Suggestion":
        return Suggestion(
            {**self.fields, **fields}, setting or self.setting, hardware or self.hardware
        )


def refusal(architecture: Architecture, setting: Setting, hardware: Hardware) -> list[str]:
    """A line for what is missing, then one for each of the three cheapest changes that make it fit,
    or fewer where there are fewer."""
    needs = [
        (zero, _memory(architecture, setting, hardware, zero))
        for zero in allowed(setting, hardware)
    ]
    zero, least = min(needs, key=lambda pair: (pair[1].gpu_bytes, pair[1].host_bytes))
    by = (
        f"by {zero.name}, as the spec's zero section asks,"
        if setting.zero != ZeroSpec()
        else f"even by {zero.name}"
    )
    lines = [f"hardware: the training does not fit: {by} it needs {_against(least, hardware)}"]
    for way in suggestions(architecture, setting, hardware):
        found = first_fit(architecture, way.setting, way.hardware, way.setting.micro_batch or 1)
        assert found is not None
        changes = ", ".join(f"{field}: {_yaml(value)}" for field, value in way.fields.items())
        needed = _needs(_memory(architecture, way.setting, way.hardware, found))
        lines.append(f"hardware: fix: {changes}{_note(way)}: {found.name} then needs {needed}")
    return lines


def suggestions(
    architecture: Architecture, setting: Setting, hardware: Hardware
) -> list[Suggestion]:
    """The three cheapest: a smaller margin and settings first, then LoRA, host memory, shorter
    rows, more GPUs, a larger GPU. Each fits."""
    found: list[Suggestion] = []
    for way in _candidates(architecture, setting, hardware):
        if not any(set(way.fields) >= set(other.fields) for other in found):
            found.append(way)
        if len(found) == MOST_SUGGESTIONS:
            break
    return found


def _candidates(
    architecture: Architecture, setting: Setting, hardware: Hardware
) -> Iterator[Suggestion]:
    start = Suggestion({}, setting, hardware)
    yield from _first(architecture, _smaller_margin(start))
    yield from _first(architecture, _eased(start))
    if setting.full:
        lora = start.also({"training.method": "lora"}, replace(setting, full=False))
        yield from _first(architecture, _eased(lora))
    yield from _first(
        architecture,
        (more for way in _eased(start) for more in _more_host_memory(architecture, way)),
    )
    yield from _first(
        architecture, (short for way in _eased(start) for short in _shorter_rows(way))
    )
    yield from _first(architecture, (more for way in _eased(start) for more in _more_gpus(way)))
    yield from _first(architecture, (large for way in _eased(start) for large in _larger_gpu(way)))
    larger = (
        more
        for way in _eased(start)
        for large in _larger_gpu(way)
        for more in _more_host_memory(architecture, large)
    )
    yield from _first(architecture, larger)


def _first(architecture: Architecture, ways: Iterator[Suggestion]) -> Iterator[Suggestion]:
    for way in ways:
        if (
            way.fields
            and first_fit(architecture, way.setting, way.hardware, way.setting.micro_batch or 1)
            is not None
        ):
            yield way
            return


def _smaller_margin(way: Suggestion) -> Iterator[Suggestion]:
    """The largest margin below the spec's, in whole hundredths, where that alone is what is
    missing."""
    for hundredths in range(round(way.hardware.margin * 100) - 1, LEAST_MARGIN - 1, -1):
        margin = hundredths / 100
        yield way.also(
            {"hardware.memory_margin": margin}, hardware=replace(way.hardware, margin=margin)
        )


def _eased(way: Suggestion) -> Iterator[Suggestion]:
    """The way itself, then with one setting after the other that costs less than what is bought:
    what the spec fixes left to the plan, at last gradient checkpointing."""
    yield way
    if way.setting.zero != ZeroSpec():
        yield way.also({"zero": "auto"}, replace(way.setting, zero=ZeroSpec()))
    if way.setting.micro_batch not in (None, 1):
        yield way.also({"training.micro_batch": "auto"}, replace(way.setting, micro_batch=None))
        way = way.also({"training.micro_batch": "auto"}, replace(way.setting, micro_batch=None))
    if way.setting.zero != ZeroSpec():
        way = way.also({"zero": "auto"}, replace(way.setting, zero=ZeroSpec()))
        yield way
    if not way.setting.checkpointing:
        yield way.also(
            {"training.gradient_checkpointing": True}, replace(way.setting, checkpointing=True)
        )


def _more_host_memory(architecture: Architecture, way: Suggestion) -> Iterator[Suggestion]:
    """The least that a node must have for an option whose GPU part fits."""
    hardware = way.hardware
    found = [
        _memory(architecture, way.setting, hardware, zero)
        for zero in allowed(way.setting, hardware)
    ]
    limit = None if hardware.gpu_bytes is None else hardware.usable(hardware.gpu_bytes)
    needed = [each.host_bytes for each in found if limit is None or each.gpu_bytes <= limit]
    if needed:
        gib_needed = -(-min(needed) // int(GIB * (1 - hardware.margin)))
        if gib_needed * GIB > (hardware.host_bytes or 0):
            yield way.also(
                {"hardware.host_memory_gib": gib_needed},
                hardware=replace(hardware, host_bytes=gib_needed * GIB),
            )


def _shorter_rows(way: Suggestion) -> Iterator[Suggestion]:
    tokens = way.setting.row_tokens
    while tokens > SHORTEST_ROW:
        tokens //= 2
        yield way.also({"data.row_tokens": tokens}, replace(way.setting, row_tokens=tokens))


def _more_gpus(way: Suggestion) -> Iterator[Suggestion]:
    """Twice as many, and again; on CPUs twice as many nodes. The global batch grows where it would
    no longer be divided evenly."""
    old, more = way.hardware, way.hardware
    while more.num_nodes < MOST_NODES:
        if more.gpu_bytes is not None and more.processes_per_node < MOST_GPUS:
            more = replace(more, processes_per_node=min(MOST_GPUS, more.processes_per_node * 2))
        else:
            more = replace(more, num_nodes=more.num_nodes * 2)
        names = ("num_nodes", "processes_per_node")
        fields: dict[str, object] = {
            f"hardware.{name}": getattr(more, name)
            for name in names
            if getattr(more, name) != getattr(old, name)
        }
        at_once = more.num_processes * (way.setting.micro_batch or 1)
        batch = -(-way.setting.global_batch // at_once) * at_once
        if batch != way.setting.global_batch:
            fields["training.global_batch"] = batch
        yield way.also(fields, replace(way.setting, global_batch=batch), more)


def _larger_gpu(way: Suggestion) -> Iterator[Suggestion]:
    if way.hardware.gpu_bytes is None:
        return
    for name, device in sorted(GPUS.items(), key=lambda item: item[1].memory_gib):
        size = int(device.memory_gib * GIB)
        if size > way.hardware.gpu_bytes and device.bf16:
            larger = replace(way.hardware, gpu=name, device=device, gpu_bytes=size)
            yield way.also(_gpu_fields(way.hardware, name), hardware=larger)


def _gpu_fields(old: Hardware, name: str) -> dict[str, object]:
    """What names another GPU, and removes a stated memory, which would win over the new GPU's."""
    fields: dict[str, object] = {"hardware.gpu": name}
    is_stated = old.device is None or old.gpu_bytes != int(old.device.memory_gib * GIB)
    if is_stated:
        fields["hardware.gpu_memory_gib"] = None
    return fields


def _memory(
    architecture: Architecture, setting: Setting, hardware: Hardware, zero: ZeroPlan
) -> Memory:
    return memory(
        architecture, job(architecture, setting, hardware, zero, setting.micro_batch or 1)
    )


def _yaml(value: object) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _note(way: Suggestion) -> str:
    return (
        " (about a third more compute)" if "training.gradient_checkpointing" in way.fields else ""
    )


def _against(found: Memory, hardware: Hardware) -> str:
    parts: list[str] = []
    if hardware.gpu_bytes is not None:
        usable = gib(hardware.usable(hardware.gpu_bytes))
        parts.append(
            f"{gib(found.gpu_bytes)} of each GPU ({usable} usable of {gib(hardware.gpu_bytes)})"
        )
    if hardware.host_bytes is not None:
        usable = gib(hardware.usable(hardware.host_bytes))
        parts.append(
            f"{gib(found.host_bytes)} of a node's memory ({usable} usable of "
            f"{gib(hardware.host_bytes)})"
        )
    elif hardware.gpu_bytes is not None:
        parts.append(
            f"{gib(found.host_bytes)} of a node's memory, which is not stated: offload is not "
            "counted on"
        )
    return " and ".join(parts)


def _needs(found: Memory) -> str:
    of_gpu = f"{gib(found.gpu_bytes)} of each GPU and " if found.gpu else ""
    return f"{of_gpu}{gib(found.host_bytes)} of a node's memory"
