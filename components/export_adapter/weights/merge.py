"""Base model + adapter -> a whole model in the base's number format, written part by part.

W' = W + scale * B A (Hu et al. 2021, arXiv 2106.09685, section 4.1), computed in fp32 and rounded
once; with DoRA, each output's row of W' then has its trained length (arXiv 2402.09353, equation 5).
Needs memory for one part of PART_BYTES, the adapter, and one weight in fp32, however large the
model is.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from components.shared.documents.plan import LoraPlan
from components.shared.documents.prompts import NewToken
from components.shared.errors import RunFailed
from components.shared.model.new_tokens import (
    grown_config,
    grown_weight,
    num_embeddings,
    vocabulary_of,
)
from components.shared.model.source import read_config
from components.shared.model.vocabulary import ROWS_KEY

PART_BYTES = 2_000_000_000
_PREFIX = "base_model.model."
_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8, "I64": 8, "I32": 4}


@dataclass(frozen=True)
class Stored:
    """One weight of the base, by name."""

    name: str
    file: Path
    num_bytes: int
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Update:
    """What an adapter holds of one weight, of I inputs and O outputs."""

    down: torch.Tensor
    """A [R, I]."""
    up: torch.Tensor
    """B [O, R]."""
    lengths: torch.Tensor | None
    """Of DoRA [O]."""


def merge(
    base: Path,
    adapter: Path,
    lora: LoraPlan,
    local: Path,
    *,
    new_tokens: Sequence[NewToken] = (),
    part_bytes: int = PART_BYTES,
) -> torch.dtype:
    """`local` holds the merged weights and the base's config. Returns the number format of the
    merged weights.

    Raises:
        RunFailed: the base has no weight of a layer that the adapter changes.
    """
    stored = list(stored_weights(base))
    tensors, names = (
        load_file(adapter / "adapter_model.safetensors"),
        [each.name for each in stored],
    )
    updates = updates_by_weight(tensors, names)
    rows = vocabulary_of(read_config(base))
    wide = [each.name for each in stored if len(each.shape) == 2 and each.shape[0] == rows]
    vocabulary = VocabularyUpdates.of(tensors, wide, new_tokens)
    groups = list(parts(stored, part_bytes))
    index: dict[str, str] = {}
    dtypes: set[torch.dtype] = set()
    for number, group in enumerate(groups, 1):
        if len(groups) > 1:
            name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        else:
            name = "model.safetensors"
        weights = {
            each.name: vocabulary.applied(
                each.name, merged_weight(each, updates.get(each.name), lora)
            )
            for each in group
        }
        dtypes |= {weights[weight].dtype for weight in weights if weight in updates}
        save_file(weights, local / name, metadata={"format": "pt"})
        index |= dict.fromkeys(weights, name)
    if len(groups) > 1:
        total = sum(each.num_bytes for each in stored)
        tree = {"metadata": {"total_size": total}, "weight_map": index}
        (local / "model.safetensors.index.json").write_text(
            json.dumps(tree, indent=1, sort_keys=True) + "\n"
        )
    _write_config(base, local, new_tokens)
    return min(dtypes, key=lambda dtype: dtype.itemsize)


@dataclass(frozen=True)
class VocabularyUpdates:
    """What an adapter holds of embeddings and head, by the base's name of the weight."""

    whole: dict[str, torch.Tensor]
    rows: dict[str, torch.Tensor]
    """Of the new tokens alone."""
    new_tokens: Sequence[NewToken]

    @classmethod
    def of(
        cls, adapter: Mapping[str, torch.Tensor], names: list[str], new_tokens: Sequence[NewToken]
    ) -> "VocabularyUpdates":
        """`names` are the base's weights that are as high as its vocabulary. A head that the base
        ties to its embeddings is in no file, and needs none."""
        tensors = {
            key.removeprefix(_PREFIX): tensor
            for key, tensor in adapter.items()
            if ".lora_" not in key
        }
        of_rows = {key for key in tensors if key.endswith(f".{ROWS_KEY}")}
        layers = {key: key.removesuffix(f".{ROWS_KEY}").removesuffix(".weight") for key in tensors}
        named = _by_base_name(layers, names)
        return cls(
            whole={name: tensors[key] for name, key in named.items() if key not in of_rows},
            rows={name: tensors[key] for name, key in named.items() if key in of_rows},
            new_tokens=new_tokens,
        )

    def applied(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """The base's weight as it was trained, in its own number format."""
        if name in self.whole:
            return self.whole[name].to(weight.dtype)
        if name not in self.rows:
            return weight
        grown_VH = grown_weight(weight, self.new_tokens)
        ids = [each.token_id for each in self.new_tokens]
        grown_VH[ids] = self.rows[name].to(weight.dtype)
        return grown_VH


def _by_base_name(layers: Mapping[str, str], names: list[str]) -> dict[str, str]:
    """Name of a base's weight -> the adapter's key for it. Files may call a head by another name
    than transformers does (GPT-NeoX: embed_out): it is the one that is left."""
    named: dict[str, str] = {}
    others: list[str] = []
    for key, layer in layers.items():
        name = weight_name(layer, names)
        if name is None:
            others.append(key)
        else:
            named[name] = key
    left = [name for name in names if name not in named]
    if len(others) == len(left) == 1:
        named[left[0]] = others[0]
    return named


def _write_config(base: Path, local: Path, new_tokens: Sequence[NewToken]) -> None:
    """The base's, with as many rows of embeddings as the merged model has."""
    if not new_tokens:
        shutil.copyfile(base / "config.json", local / "config.json")
        return
    config = read_config(base)
    rows = num_embeddings(vocabulary_of(config) or 0, new_tokens)
    text = json.dumps(grown_config(config, rows), indent=2, sort_keys=True, ensure_ascii=False)
    (local / "config.json").write_text(f"{text}\n", encoding="utf-8")


def stored_weights(base: Path) -> Iterator[Stored]:
    """Every weight of the base's files, without reading one."""
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - no mapping
                found = weights.get_slice(name)
                shape = tuple(found.get_shape())
                num_bytes = prod(shape) * _BYTES.get(found.get_dtype(), 1)
                yield Stored(name, file, num_bytes, shape)


def parts(stored: list[Stored], part_bytes: int) -> Iterator[list[Stored]]:
    """The weights in their order, each part of at most `part_bytes` or of one weight."""
    group: list[Stored] = []
    for each in stored:
        if group and sum(other.num_bytes for other in group) + each.num_bytes > part_bytes:
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def updates_by_weight(adapter: Mapping[str, torch.Tensor], names: list[str]) -> dict[str, Update]:
    """Name of a base's weight -> its update. Raises RunFailed for a layer that the base's files do
    not name."""
    updates: dict[str, Update] = {}
    absent: list[str] = []
    for key in adapter:
        layer, found, _ = key.partition(".lora_A.")
        if not found:
            continue
        weight = weight_name(layer.removeprefix(_PREFIX), names)
        if weight is None:
            absent.append(layer)
        else:
            updates[weight] = Update(
                down=adapter[key],
                up=adapter[key.replace(".lora_A.", ".lora_B.")],
                lengths=adapter.get(f"{layer}.lora_magnitude_vector"),
            )
    if absent:
        raise RunFailed(
            f"merged: the base's files name no weight of {len(absent)} layers, such as "
            f"{absent[0]}. Fix: set export.merge: false"
        )
    return updates


def weight_name(layer: str, names: list[str]) -> str | None:
    """The layer's weight in the base's files, which may leave out the outer module's name, as
    GPT-2's do."""
    wanted = f"{layer}.weight"
    if wanted in names:
        return wanted
    shorter = [name for name in names if wanted.endswith(f".{name}")]
    if len(shorter) == 1:
        return shorter[0]
    return None


def merged_weight(stored: Stored, update: Update | None, lora: LoraPlan) -> torch.Tensor:
    """The weight with its update, in its own number format."""
    with safe_open(stored.file, framework="pt") as weights:
        weight = weights.get_tensor(stored.name)
    if update is None:
        return weight
    merged_OI = weight.float()
    if lora.fan_in_fan_out:
        merged_OI = merged_OI.T
    merged_OI = merged_OI + lora.scale * (update.up.float() @ update.down.float())
    if update.lengths is not None:
        lengths_O = update.lengths.float() / torch.linalg.norm(merged_OI, dim=1)
        merged_OI *= lengths_O[:, None]
    if lora.fan_in_fan_out:
        merged_OI = merged_OI.T
    return merged_OI.to(weight.dtype).contiguous()
