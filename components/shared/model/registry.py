"""models.yaml -> what is known by name of open models for Japanese: architecture, targets,
tokenizer, template, licence, serving."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from components.shared.documents.fields import FrozenModel
from components.shared.errors import SpecError
from components.shared.model.own_yaml import read_own_yaml


class KnownModel(FrozenModel):
    name: str
    """Hub id."""
    billions: float
    """Parameters."""
    template: Literal["own", "none"]
    """Whether the tokenizer brings a chat template."""
    licence: str
    tokenizer: str = ""
    """What is unusual about it."""
    note: str = ""


class ModelFamily(FrozenModel):
    model_type: str
    """As in config.json."""
    remote: bool = False
    """The architecture is code on the hub, which hagane does not run: it is listed, and cannot be
    trained here."""
    targets: tuple[str, ...] = Field(strict=False)
    """What `lora.targets: auto` gives: linear layers."""
    parameters: tuple[str, ...] = Field(default=(), strict=False)
    """And 3-D parameters of experts."""
    merge: bool
    """vLLM cannot serve an adapter of this architecture beside its base: it must be merged."""
    models: tuple[KnownModel, ...] = Field(strict=False)


@cache
def model_families() -> tuple[ModelFamily, ...]:
    """All families, in the file's order."""
    tree = read_own_yaml(Path(__file__).with_name("models.yaml"))
    return tuple(ModelFamily.model_validate(each) for each in tree["families"])


def known_model(source: str) -> tuple[ModelFamily, KnownModel] | None:
    """What is known of a hub id, or None."""
    found = (
        (family, model)
        for family in model_families()
        for model in family.models
        if model.name.lower() == source.lower()
    )
    return next(found, None)


def matching_families(words: Iterable[str]) -> tuple[ModelFamily, ...]:
    """The families with just those models whose hub id or type has every word. Raises SpecError
    when there are none."""
    wanted = [word.lower() for word in words]
    found: list[ModelFamily] = []
    for family in model_families():
        models = tuple(
            model
            for model in family.models
            if all(word in f"{family.model_type} {model.name}".lower() for word in wanted)
        )
        if models:
            found.append(family.model_copy(update={"models": models}))
    if not found:
        types = ", ".join(family.model_type for family in model_families())
        raise SpecError(
            f"models: none has {' '.join(wanted)!r} in its name; without words all are listed, of "
            f"the types {types}"
        )
    return tuple(found)
