"""transformers' configuration classes -> components/shared/model/config_fields.json."""

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, GenerationConfig, PreTrainedConfig
from transformers.activations import ACT2CLS

from components.shared.model.row_packing import known_types

READS = re.compile(r"""config\.([a-z_][a-z0-9_]*)|getattr\([a-z_.]*config, ["']([a-z0-9_]+)["']""")


def document() -> str:
    """The file's text: one line a model type."""
    every = _names(PreTrainedConfig) | set(GenerationConfig().to_dict())
    types = {name: sorted(fields - every) for name, fields in sorted(_fields_of_types().items())}
    lines = [
        f"  {json.dumps(name)}: {json.dumps(' '.join(fields))}" for name, fields in types.items()
    ]
    head = [
        f' "transformers": {json.dumps(transformers.__version__)}',
        f' "every_type": {json.dumps(" ".join(sorted(every)))}',
        f' "activations": {json.dumps(" ".join(sorted(ACT2CLS)))}',
    ]
    types_text = ",\n".join(lines)
    return "{\n" + ",\n".join(head) + ',\n "types": {\n' + types_text + "\n }\n}\n"


def _fields_of_types() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    known = known_types()
    for name in sorted(CONFIG_MAPPING.keys()):
        if name in known:
            for each in _with_parts(CONFIG_MAPPING[name]):
                found[each.model_type] = _names(each) | _read_by_code(
                    Path(inspect.getfile(each)).parent
                )
    return found


@cache
def _read_by_code(folder: Path) -> frozenset[str]:
    """Names that the type's modeling code reads of a config, declared or not (Qwen3-MoE:
    head_dim)."""
    found: set[str] = set()
    for file in folder.glob("modeling_*.py"):
        for plain, quoted in READS.findall(file.read_text(encoding="utf-8")):
            found.add(plain or quoted)
    return frozenset(found)


def _with_parts(kind: Any) -> Iterator[Any]:
    yield kind
    for part in kind.sub_configs.values():
        if hasattr(part, "model_type") and part is not kind and part.model_type:
            yield from _with_parts(part)


def _names(kind: Any) -> set[str]:
    """Fields under each name that is read."""
    own = {field.name for field in dataclasses.fields(kind)}
    return own | set(kind.attribute_map) | set(kind.sub_configs)
