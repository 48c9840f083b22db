"""The layers as wide as the vocabulary that LoRA trains beside its matrices, as PEFT names them in
an adapter.

Trained whole, they are in its file by their own names (`modules_to_save`); of new tokens alone,
only their rows are (`trainable_token_indices`).
"""

from collections.abc import Sequence
from typing import Any

from components.shared.documents.plan import LoraPlan
from components.shared.documents.prompts import NewToken

ROWS_KEY = "token_adapter.trainable_tokens_delta"
"""Behind a layer's name in an adapter's file: the rows of its new tokens (PEFT 0.21)."""


def layer_names(model: Any) -> tuple[str, str]:
    """Full names of the embeddings and of the head of a model of transformers."""
    names = {id(module): name for name, module in model.named_modules()}
    return names[id(model.get_input_embeddings())], names[id(model.get_output_embeddings())]


def whole_layers(model: Any, lora: LoraPlan) -> list[str]:
    """Names of those that are trained whole."""
    embeddings, head = layer_names(model)
    return [
        name
        for part, name in (("embeddings", embeddings), ("head", head))
        if part in lora.also_train
    ]


def layers_with_rows(model: Any, lora: LoraPlan) -> list[str]:
    """Names of those of which new rows are trained; tied, the embeddings' count for both."""
    if not lora.new_rows:
        return []
    names = list(layer_names(model))
    if is_tied(model):
        return names[:1]
    return names


def is_tied(model: Any) -> bool:
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def peft_fields(model: Any, lora: LoraPlan, new_tokens: Sequence[NewToken]) -> dict[str, Any]:
    """What PEFT's LoraConfig says of them, for this model, before PEFT has wrapped it."""
    whole = whole_layers(model, lora)
    if whole:
        return {"modules_to_save": whole}
    ids = [each.token_id for each in new_tokens]
    rows = dict.fromkeys(layers_with_rows(model, lora), ids)
    if rows:
        return {"trainable_token_indices": rows}
    return {}
