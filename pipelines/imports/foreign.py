"""A file of another tool -> the spec that says the same, and what became of each of its keys."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
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
from pipelines.imports.rules import Key, Rule, flat, resolve

Tree = dict[str, Any]
MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Kind:
    """A tool's kind of file."""

    name: str
    rules: Mapping[str, Rule]
    sections: tuple[str, ...] = ()


DEEPSPEED = Kind("DeepSpeed configuration", deepspeed_keys.RULES, deepspeed_keys.SECTIONS)
ACCELERATE = Kind("Accelerate configuration", accelerate_keys.RULES, accelerate_keys.SECTIONS)
AXOLOTL = Kind("Axolotl configuration", axolotl_keys.RULES)
LLAMA_FACTORY = Kind("LLaMA-Factory configuration", llama_factory_keys.RULES)
TRL = Kind("TRL configuration", trl_keys.RULES)
TRAINING_ARGS = Kind("transformers TrainingArguments", training_args_keys.RULES)
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

    @property
    def missing(self) -> tuple[str, ...]:
        """Fields that a spec must have and that the file does not say."""
        known = {"model.source": "model", "data.train": "data"}
        return tuple(
            field
            for field, section in known.items()
            if field.partition(".")[2] not in self.spec.get(section, {})
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
    keys = tuple(
        resolve(name, value, kind.rules) for name, value in flat(tree, kind.sections).items()
    )
    return Imported(kind.name, keys, _spec(file, keys))


def _tree(file: Path) -> Tree:
    try:
        text = file.read_bytes()[: MOST_BYTES + 1].decode("utf-8")
        if len(text) > MOST_BYTES:
            raise SpecError(
                f"{file}: has more than {MOST_BYTES:,} bytes, which no configuration has"
            )
        tree = json.loads(text) if file.suffix == ".json" else parse_yaml(text).tree
    except FileNotFoundError:
        raise SpecError(f"{file}: no such file; name a spec, or a file of another tool") from None
    except YamlProblem as error:
        raise SpecError(f"{file}: {error.problems[0]}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(f"{file}: cannot be read: {cut(str(error), 200)}") from None
    if not isinstance(tree, dict):
        raise SpecError(f"{file}: found {type(tree).__name__}, must be a mapping of fields")
    return {str(key): value for key, value in tree.items()}


def _spec(file: Path, keys: tuple[Key, ...]) -> Tree:
    """Later keys win; the batch of all processes follows from the others where the file has
    none."""
    spec: Tree = {"name": run_name(file), "store": "runs"}
    for key in keys:
        if key.fate == "taken":
            _put(spec, key.spec_field, key.spec_value)
    values = {key.name: key.value for key in keys}
    _set_nodes(spec, values)
    _set_batch(spec, values)
    _set_method(spec, values)
    return spec


def run_name(file: Path) -> str:
    """The file's name as that of a run: small letters, digits, hyphens."""
    name = re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-")[:50].strip("-")
    return name if name[:1].isalpha() else f"run-{name}"[:50].strip("-")


def _put(spec: Tree, field: str, value: Any) -> None:
    *sections, last = field.split(".")
    branch = spec
    for section in sections:
        branch = branch.setdefault(section, {})
    branch[last] = value


def _set_nodes(spec: Tree, values: Tree) -> None:
    processes, nodes = values.get("num_processes"), spec.get("hardware", {}).get("num_nodes", 1)
    if isinstance(processes, int) and processes >= 1 and processes % nodes == 0:
        _put(spec, "hardware.processes_per_node", processes // nodes)


def _set_batch(spec: Tree, values: Tree) -> None:
    training, hardware = spec.setdefault("training", {}), spec.get("hardware", {})
    micro, accum = training.get("micro_batch"), values.get("gradient_accumulation_steps")
    if micro is None or "global_batch" in training:
        return
    rounds = accum if isinstance(accum, int) and accum >= 1 else 1
    processes = hardware.get("num_nodes", 1) * hardware.get("processes_per_node", 1)
    training["global_batch"] = micro * rounds * processes


def _set_method(spec: Tree, values: Tree) -> None:
    """Full training where the file is one of a tool that trains so unless it names an adapter."""
    training = spec["training"]
    trains_full = "base_model" in values or "use_peft" in values
    if trains_full and "method" not in training:
        training["method"] = "full"
    if training.get("method") == "full":
        spec.pop("lora", None)
    if not training:
        del spec["training"]
