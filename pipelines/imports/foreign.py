"""A file of another tool -> a spec with what hagane has of it, and what became of each of its keys.

What the file leaves open is hagane's default, not the other tool's; a remark names those that
differ.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.shared.errors import SpecError
from components.shared.printable import cut
from components.shared.spec.yaml_text import YamlProblem, parse_yaml
from pipelines.imports import (
    accelerate_keys,
    axolotl_keys,
    deepspeed_keys,
    llama_factory_keys,
    training_args_keys,
    trl_keys,
)
from pipelines.imports.rules import Key, Rule, flat, left_out, resolve
from pipelines.imports.settling import Tree, differences, settle

MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Kind:
    """A tool's kind of file."""

    name: str
    rules: Mapping[str, Rule]
    sections: tuple[str, ...] = ()
    full_unless: str = ""
    """The key without which the tool trains every parameter; empty where it does not decide."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Field of the spec -> what the tool takes where its file does not say it."""


DEEPSPEED = Kind("DeepSpeed configuration", deepspeed_keys.RULES, deepspeed_keys.SECTIONS)
ACCELERATE = Kind("Accelerate configuration", accelerate_keys.RULES, accelerate_keys.SECTIONS)
AXOLOTL = Kind("Axolotl configuration", axolotl_keys.RULES, full_unless="adapter: lora")
LLAMA_FACTORY = Kind(
    "LLaMA-Factory configuration",
    llama_factory_keys.RULES,
    defaults=llama_factory_keys.DEFAULTS,
)
TRL = Kind(
    "TRL configuration",
    trl_keys.RULES,
    full_unless="use_peft: true",
    defaults=trl_keys.DEFAULTS,
)
TRAINING_ARGS = Kind(
    "transformers TrainingArguments",
    training_args_keys.RULES,
    defaults=training_args_keys.DEFAULTS,
)
MARKS: tuple[tuple[Kind, frozenset[str]], ...] = (
    (
        DEEPSPEED,
        frozenset(
            {"zero_optimization", "train_micro_batch_size_per_gpu", "zero_allow_untested_optimizer"}
        ),
    ),
    (ACCELERATE, frozenset({"compute_environment", "distributed_type", "mixed_precision"})),
    (AXOLOTL, frozenset({"base_model", "micro_batch_size", "sequence_len"})),
    (LLAMA_FACTORY, frozenset({"finetuning_type", "cutoff_len", "template", "lora_rank"})),
    (
        TRL,
        frozenset({"dataset_name", "use_peft", "max_seq_length", "lora_r", "model_name_or_path"}),
    ),
    (TRAINING_ARGS, frozenset({"per_device_train_batch_size", "num_train_epochs", "output_dir"})),
)
"""In this order: the first kind of which one key is there."""
SPEC_MARKS = frozenset({"store", "model", "data", "training", "backend"})


@dataclass(frozen=True)
class Imported:
    kind: str
    keys: tuple[Key, ...]
    spec: Tree
    """Fields of the spec; without those that the file does not say."""
    remarks: tuple[str, ...] = ()
    """What hagane chose where the file leaves it open."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Fields that a spec must have and that the file does not say."""
        known = {"model.source": "model", "data.train": "data"}
        return tuple(
            name
            for name, section in known.items()
            if name.partition(".")[2] not in self.spec.get(section, {})
        )


def kind_of(tree: Mapping[str, Any]) -> Kind | None:
    """The tool whose file it is; None for a spec of hagane and for what is not recognised."""
    if SPEC_MARKS & tree.keys() and "base_model" not in tree:
        return None
    return next((kind for kind, marks in MARKS if marks & tree.keys()), None)


def read_foreign(file: Path) -> Imported | None:
    """The file as a spec; None where it is a spec of hagane.

    Raises:
        SpecError: it cannot be read, or is the file of no tool that hagane knows.
    """
    tree = _tree(file)
    kind = kind_of(tree)
    if kind is None and SPEC_MARKS & tree.keys():
        return None
    if kind is None:
        known = ", ".join(each.name for each, _ in MARKS)
        keys = ", ".join(cut(str(key)) for key in list(tree)[:6]) or "nothing"
        raise SpecError(
            f"{file}: found the keys {keys}, must be a spec of hagane or a file of one of: {known}"
        )
    keys, sections, remarks = settle(_keys(tree, kind), full_unless=kind.full_unless)
    spec: Tree = {"name": run_name(file), "store": "runs", **sections}
    remarks += tuple(differences(keys, spec, defaults=kind.defaults, tool=kind.name))
    return Imported(kind.name, keys, spec, remarks)


def _keys(tree: Tree, kind: Kind) -> tuple[Key, ...]:
    """Each key of the file, and each part of one that the spec cannot say."""
    found: list[Key] = []
    for name, value in flat(tree, kind.sections).items():
        key = resolve(name, value, kind.rules)
        found.append(key)
        if key.fate == "taken":
            found += left_out(name, value, kind.rules)
    return tuple(found)


def _tree(file: Path) -> Tree:
    try:
        text = file.read_bytes()[: MOST_BYTES + 1].decode("utf-8")
        if len(text) > MOST_BYTES:
            raise SpecError(
                f"{file}: has more than {MOST_BYTES:,} bytes, which no configuration has"
            )
        if file.suffix == ".json":
            tree = json.loads(text)
        else:
            tree = parse_yaml(text).tree
    except FileNotFoundError:
        raise SpecError(f"{file}: no such file; name a spec, or a file of another tool") from None
    except YamlProblem as error:
        raise SpecError(f"{file}: {error.problems[0]}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(f"{file}: cannot be read: {cut(str(error), 200)}") from None
    if not isinstance(tree, dict):
        raise SpecError(f"{file}: found {type(tree).__name__}, must be a mapping of fields")
    return {str(key): value for key, value in tree.items()}


def run_name(file: Path) -> str:
    """The file's name as that of a run: small letters, digits, hyphens."""
    name = re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-")[:50].strip("-")
    if name[:1].isalpha():
        return name
    return f"run-{name}"[:50].strip("-")
