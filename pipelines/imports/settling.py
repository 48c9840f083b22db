"""Keys of one file, each resolved by itself -> the spec of all of them, and what must be said of
it. Where keys contradict each other, one counts and the others are said to be without effect."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from components.shared.printable import shown
from components.shared.spec.data import DataSpec
from components.shared.spec.training import LoraSpec, TrainingSpec
from pipelines.imports.converters import number, whole
from pipelines.imports.rules import Key

Tree = dict[str, Any]
Keys = tuple[Key, ...]
STRONGER = frozenset({"lora_target_linear", "disable_gradient_checkpointing"})
"""Keys that count beside another of their field, wherever they stand."""
MIN_SHARE, SCHEDULE = "training.lr_min_share", "training.lr_schedule"
WITH_MINIMUM = "cosine_with_min_lr"
METHOD = "training.method"
SECTIONS = {"training": TrainingSpec, "lora": LoraSpec, "data": DataSpec}


def settle(keys: Keys, *, full_unless: str = "") -> tuple[Keys, Tree, tuple[str, ...]]:
    """(keys with what became of them, sections of the spec, remarks). `full_unless` is the key
    without which the tool trains every parameter, empty where it does not."""
    keys = _one_a_field(keys)
    keys = _schedule_with_minimum(keys)
    method, remarks = _method(keys, full_unless)
    if method == "full":
        keys = tuple(_without_lora(key) for key in keys)
    spec: Tree = {}
    for key in keys:
        if key.fate == "taken":
            put(spec, key.spec_field, key.spec_value)
    if method is not None:
        put(spec, METHOD, method)
    if "lr_min_share" in spec.get("training", {}):
        put(spec, SCHEDULE, WITH_MINIMUM)
    values = {key.name: key.value for key in keys}
    _set_nodes(spec, values)
    remarks += _set_batch(spec, values)
    return keys, spec, remarks


def put(spec: Tree, field: str, value: Any) -> None:
    *sections, last = field.split(".")
    branch = spec
    for section in sections:
        branch = branch.setdefault(section, {})
    branch[last] = value


def differences(keys: Keys, spec: Tree, *, defaults: Mapping[str, Any], tool: str) -> Iterator[str]:
    """One line of the fields that the file does not set and whose defaults differ."""
    full = spec.get("training", {}).get("method") == "full"
    named = {key.spec_field for key in keys if key.spec_field and key.fate in ("taken", "lost")}
    found: list[str] = []
    for field, there in defaults.items():
        here = _default(field)
        unused = full and field.startswith("lora.")
        if field not in named and not unused and here != there:
            found.append(f"{field} is {here} here, {there} there")
    if found:
        yield f"defaults that differ from those of a {tool}: {'; '.join(found)}"


def _default(field: str) -> Any:
    section, _, name = field.partition(".")
    return SECTIONS[section].model_fields[name].default


def _one_a_field(keys: Keys) -> Keys:
    """Of several keys for one field, the last that is set counts: in transformers 0 warm-up steps
    leave the ratio as it is."""
    return tuple(_beside(key, _winner(key, keys)) for key in keys)


def _winner(key: Key, keys: Keys) -> Key:
    if key.fate != "taken":
        return key
    rivals = [each for each in keys if each.spec_field == key.spec_field]
    named = [each for each in rivals if each.fate == "taken" or _is_set(each)]
    return max(named, key=lambda each: (_is_set(each), each.name in STRONGER, named.index(each)))


def _is_set(key: Key) -> bool:
    if key.fate not in ("taken", "lost"):
        return False
    return key.value is not False and number(key.value) != 0


def _beside(key: Key, winner: Key) -> Key:
    if winner.name == key.name or (winner.fate == "lost" and _is_set(key)):
        return key
    return replace(key, fate="without effect", note=f"{winner.name} counts")


def _schedule_with_minimum(keys: Keys) -> Keys:
    """A least learning rate is that of `cosine_with_min_lr`; other schedules have none."""
    minimum = next((key for key in keys if _is_taken(key, MIN_SHARE)), None)
    if minimum is None:
        return keys
    schedule = next((key for key in keys if _is_taken(key, SCHEDULE)), None)
    if schedule is None:
        return keys
    if schedule.spec_value in ("cosine", WITH_MINIMUM):
        with_minimum = replace(schedule, spec_value=WITH_MINIMUM, note=f"as {minimum.name} asks")
        return tuple(with_minimum if key is schedule else key for key in keys)
    note = f"{schedule.name}: {schedule.value} has no least learning rate"
    off = replace(minimum, fate="without effect", note=note)
    return tuple(off if key is minimum else key for key in keys)


def _is_taken(key: Key, field: str) -> bool:
    return key.fate == "taken" and key.spec_field == field


def _method(keys: Keys, full_unless: str) -> tuple[str | None, tuple[str, ...]]:
    """(the method, None where neither file nor tool decides; a remark where the file does not name
    one that hagane has)."""
    named = [key for key in keys if key.spec_field == METHOD and key.fate in ("taken", "lost")]
    if named and named[-1].fate == "taken":
        return named[-1].spec_value, ()
    if named:
        key = named[-1]
        return "lora", (
            f"{METHOD}: lora, in place of {key.name} = {shown(key.value)}; or set full",
        )
    if full_unless:
        return "full", (f"{METHOD}: full, since the file does not say {full_unless}; or set lora",)
    return None, ()


def _without_lora(key: Key) -> Key:
    if key.fate == "taken" and key.spec_field.startswith("lora."):
        return replace(key, fate="without effect", note=f"{METHOD} is full")
    return key


def _set_nodes(spec: Tree, values: Tree) -> None:
    processes, nodes = whole(values.get("num_processes")), spec.get("hardware", {})
    num_nodes = nodes.get("num_nodes", 1)
    if processes is not None and processes % num_nodes == 0:
        put(spec, "hardware.processes_per_node", processes // num_nodes)


def _set_batch(spec: Tree, values: Tree) -> tuple[str, ...]:
    """The batch of all processes follows from the others where the file has none."""
    training, hardware = spec.get("training", {}), spec.get("hardware", {})
    micro = training.get("micro_batch")
    if micro is None or "global_batch" in training:
        return ()
    rounds = whole(values.get("gradient_accumulation_steps")) or 1
    processes = hardware.get("num_nodes", 1) * hardware.get("processes_per_node", 1)
    training["global_batch"] = micro * rounds * processes
    if "processes_per_node" in hardware:
        return ()
    return (
        f"training.global_batch: {micro * rounds * processes}, counted for {processes} GPU, as the "
        "file names no number of GPUs; multiply it by yours",
    )
