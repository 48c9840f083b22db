"""A model's config.json -> whether several conversations share a row, or each has its own; or why
the model cannot be trained.

What is known of each model type was measured on small random models of it: row_packing.yaml,
written by `make packing`, which also writes docs/packing.md. Training measures the loaded model
again before its first step (components/train/model/apart.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal

from components.shared.documents.fields import FrozenModel
from components.shared.errors import ModelError
from components.shared.model.own_yaml import read_own_yaml
from components.shared.model.registry import model_families
from components.shared.spec.training import Attention

PAGE = "docs/packing.md"


class KnownTypes(FrozenModel):
    """Every causal language model type of one version of transformers, each in one of these."""

    transformers: str
    packed: frozenset[str]
    """Conversations of a row do not see each other."""
    one_conversation: frozenset[str]
    """They do, or packed logits are others than alone: a row must be one conversation, unless the
    type is in `conversations`."""
    decoders: frozenset[str]
    """Of `refused`, those that are right in one conversation a row where config.json says
    `is_decoder: true`."""
    refused: dict[str, str]
    """Type -> why it cannot be trained, as a clause."""
    conversations: frozenset[str] = frozenset()
    """Attention that computes each conversation by itself (components/train/model/attention.py)
    gives packed rows the logits of each conversation alone. Those that are not in `packed` keep
    conversations apart only with it."""
    whole_logits: frozenset[str] = frozenset()
    """Their loss is another one when the output layer works at trained tokens alone."""
    not_measured: frozenset[str]
    """No small model of them could be made."""

    def __contains__(self, model_type: str) -> bool:
        return (
            model_type
            in self.packed | self.one_conversation | self.refused.keys() | self.not_measured
        )


@dataclass(frozen=True)
class RowPacking:
    """What `data.packing` comes to for a model."""

    packed: bool
    """Several conversations a row; else one."""
    reason: str


@cache
def known_types() -> KnownTypes:
    tree = read_own_yaml(Path(__file__).with_name("row_packing.yaml"))
    return KnownTypes.model_validate(tree, strict=False)


def row_packing(
    asked: Literal["auto"] | bool, config: Mapping[str, Any], attention: Attention = "auto"
) -> RowPacking:
    """`asked` is data.packing; without it, packed wherever that was measured to be right with
    training.attention.

    Raises:
        ModelError: a model of this type cannot be trained right, or not in the rows that are asked
            for.
    """
    problem = untrainable(config)
    if problem is not None:
        raise ModelError(problem)
    known, model_type = known_types(), str(config.get("model_type"))
    if model_type in known.packed:
        if asked is False:
            return RowPacking(packed=False, reason="data.packing is false")
        return RowPacking(
            packed=True, reason=f"a {model_type} model keeps conversations of a row apart ({PAGE})"
        )
    if (
        model_type in known.conversations
        and attention in ("auto", "conversations")
        and asked is not False
    ):
        return RowPacking(
            packed=True, reason=f"attention computes each conversation of a row by itself ({PAGE})"
        )
    why = _why_alone(known, model_type)
    if asked is True:
        raise ModelError(
            f"data.packing: found true, but {why}, so allowed are false and auto ({PAGE}). Fix: "
            "remove data.packing"
        )
    return RowPacking(
        packed=False, reason="data.packing is false" if asked is False else f"{why} ({PAGE})"
    )


def _why_alone(known: KnownTypes, model_type: str) -> str:
    if model_type in known.not_measured:
        return f"whether a {model_type} model keeps conversations of a row apart is not known"
    why = f"in a {model_type} model conversations of a row would see each other"
    if model_type in known.conversations:
        return f"{why} without training.attention: conversations"
    return why


def untrainable(config: Mapping[str, Any]) -> str | None:
    """Why a model of this config cannot be trained right in any rows, with how to fix it; None
    where it can."""
    known, model_type = known_types(), str(config.get("model_type"))
    found = f"model.source: found a {model_type} model"
    text = config.get("text_config") or config
    if isinstance(text, Mapping) and text.get("use_bidirectional_attention") in (True, "all"):
        return (
            f"{found} with use_bidirectional_attention, whose tokens see the future; allowed are "
            "models that predict the next token. Fix: name another base model"
        )
    if model_type not in known:
        return _unknown(known, config, model_type)
    is_decoder = model_type in known.decoders and config.get("is_decoder") is True
    if model_type not in known.refused or is_decoder:
        return None
    fix = "name another base model"
    if model_type in known.decoders:
        fix += ", or set is_decoder: true in its config.json if it is a decoder"
    return (
        f"{found}, which cannot be trained right, since {known.refused[model_type]} ({PAGE}). Fix: "
        f"{fix}"
    )


def _unknown(known: KnownTypes, config: Mapping[str, Any], model_type: str) -> str:
    """Why a type that is in no list cannot be trained: what it is, or what it is nearly called."""
    found = f"model.source: found model_type {model_type!r} in config.json"
    parts = [
        name
        for name in ("text_config", "vision_config", "audio_config")
        if isinstance(config.get(name), Mapping)
    ]
    if parts:
        return (
            f"{found}, a model of text and images, audio or video ({', '.join(parts)}), which "
            f"transformers {known.transformers} does not load as a causal language model; hagane "
            f"trains text alone ({PAGE}). Fix: name a text model of that family"
        )
    if _is_remote(model_type):
        return (
            f"{found}, which needs Python code from the model's repository; hagane runs no such "
            f"code. Fix: name a base model whose type transformers {known.transformers} has "
            f"({PAGE})"
        )
    every = known.packed | known.one_conversation | known.not_measured
    same = type_of_class(config, every)
    if same is not None:
        name, own_type = same
        return (
            f"{found}, a name that transformers {known.transformers} does not know; its class "
            f"{name} is that of the type {own_type!r}. Fix: name another base model, or, if the "
            f"weights are of that type, set model_type: {own_type} in a copy of its config.json"
        )
    near = get_close_matches(model_type, sorted(every), n=1, cutoff=0.8)
    if near:
        hint = f"; did you mean {near[0]!r}? Allowed"
    else:
        hint = "; allowed"
    if config.get("auto_map"):
        own = " (auto_map names code of its own, which hagane does not run)"
    else:
        own = ""
    return (
        f"{found}{own}, which transformers {known.transformers} cannot load as a causal language "
        f"model{hint} are the types of {PAGE}. Fix: name another base model"
    )


def type_of_class(config: Mapping[str, Any], types: Iterable[str]) -> tuple[str, str] | None:
    """A class that config.json names (`architectures`, `auto_map`) and the type among these that
    transformers has such a class for; None where there is none.

    Kimi-K2 calls itself kimi_k2, and is a DeepseekV3ForCausalLM.
    """
    by_class = {model_type.replace("_", ""): model_type for model_type in types}
    classes, own = config.get("architectures"), config.get("auto_map")
    if isinstance(classes, list):
        named = list(classes)
    else:
        named = []
    if isinstance(own, Mapping):
        named += own.values()
    for each in named:
        name = str(each).rpartition(".")[2]
        short = name.removesuffix("ForCausalLM")
        if short != name and short.lower() in by_class:
            return name, by_class[short.lower()]
    return None


def _is_remote(model_type: str) -> bool:
    """Whether the list of known models says that such models come with code of their own."""
    return any(family.remote and family.model_type == model_type for family in model_families())
