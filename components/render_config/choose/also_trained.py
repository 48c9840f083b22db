"""Spec + shapes -> what LoRA trains of embeddings and head: nothing, the rows of new tokens, or
whole layers; and what does not go together."""

from collections.abc import Iterator, Mapping
from typing import Any

from components.render_config.dataset_facts import DatasetFacts
from components.render_config.decision import Section
from components.render_config.model.shapes import Architecture
from components.render_config.setting import AlsoTrained
from components.shared.errors import ModelError
from components.shared.model.new_tokens import grown_config, vocabulary_of
from components.shared.spec.run_spec import RunSpec

FIELDS = ("lora.also_train", "lora.new_rows")


def with_new_tokens(
    spec: RunSpec, config: Mapping[str, Any], dataset: DatasetFacts
) -> Mapping[str, Any]:
    """The model's config with rows for the new tokens: as many as the dataset counted, or else one
    for each."""
    if not spec.data.new_tokens:
        return config
    rows = dataset.num_embeddings
    if rows is None:
        rows = (vocabulary_of(dict(config)) or 0) + len(spec.data.new_tokens)
    return grown_config(dict(config), rows)


def choose_also_trained(spec: RunSpec, architecture: Architecture) -> Section[AlsoTrained]:
    """Raises ModelError with all that the model does not allow."""
    if spec.training.method == "full":
        if architecture.head_bias and spec.data.new_tokens:
            raise ModelError(_head_bias("data.new_tokens", architecture))
        return Section(AlsoTrained())
    problems = list(_problems(spec, architecture))
    if problems:
        raise ModelError(*problems)
    num_new = len(spec.data.new_tokens)
    if spec.lora.also_train != "auto":
        whole = spec.lora.also_train
        num_layers = 1 if architecture.tied else len(whole)
        size = architecture.vocabulary * architecture.embedding_size
        also = AlsoTrained(whole=whole, num_parameters=num_layers * size)
        why = "as lora.also_train asks; each is trained whole, at the plan's learning rate"
        return Section(also, dict.fromkeys(FIELDS, why))
    if not num_new:
        why = "hagane's default: embeddings and head stay as they are"
        return Section(AlsoTrained(), dict.fromkeys(FIELDS, why))
    num_layers = 1 if architecture.tied else 2
    rows = num_layers * num_new * architecture.embedding_size
    also = AlsoTrained(new_rows=num_new, num_parameters=rows, num_added=rows)
    why = (
        f"data.new_tokens has {num_new:,}: only their rows are trained, which is "
        f"{rows:,} parameters; lora.also_train: [embeddings, head] trains all rows"
    )
    return Section(also, dict.fromkeys(FIELDS, why))


def _problems(spec: RunSpec, architecture: Architecture) -> Iterator[str]:
    asked, num_new = spec.lora.also_train, len(spec.data.new_tokens)
    if architecture.head_bias and (num_new or (asked != "auto" and "head" in asked)):
        field = "lora.also_train" if asked != "auto" else "data.new_tokens"
        yield _head_bias(field, architecture)
    if asked == "auto" or len(asked) == 2:
        return
    if architecture.tied:
        yield (
            f"lora.also_train: found {list(asked)}, but embeddings and head of this "
            f"{architecture.model_type} model are one weight. Fix: write [embeddings, head]"
        )
    elif num_new:
        yield (
            f"lora.also_train: found {list(asked)}, but data.new_tokens need rows of both layers. "
            "Fix: write [embeddings, head], or remove it to train only the new rows"
        )


def _head_bias(field: str, architecture: Architecture) -> str:
    return (
        f"{field}: the head of a {architecture.model_type} model has a bias, which an adapter "
        "cannot hold. Fix: remove the field"
    )
