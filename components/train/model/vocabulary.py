"""Embeddings and head that are trained beside LoRA's matrices: whole, or the rows of new tokens
alone.

PEFT keeps a second copy of each such layer (ModulesToSaveWrapper), or makes the whole weight anew
in each pass, on GPUs alone under ZeRO-3 (TrainableTokensLayer, 0.21). Here a whole layer is trained
where it is; rows are a weight of their own, as high as there are new tokens. Both are written to
an adapter's file by PEFT's names, so PEFT loads them.

Shapes: B rows of a micro-batch, T tokens of a row, V tokens of the vocabulary, H hidden size, N new
tokens.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import deepspeed
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import embedding, linear

from components.shared.documents.plan import LoraPlan
from components.shared.documents.prompts import NewToken
from components.shared.model.new_tokens import num_embeddings, set_rows
from components.shared.model.vocabulary import ROWS_KEY, is_tied, layer_names, peft_fields

ROWS = "new_rows"
"""Parameter [N, H] of a layer: what its rows of new tokens are trained to."""
ROW_IDS = "new_row_ids"
"""Buffer [N] beside it: their numbers."""
_PREFIX = "base_model.model."


def grow(model: Any, new_tokens: Sequence[NewToken]) -> None:
    """The model has a row for each new token in embeddings and head, whatever ZeRO divides: the
    mean of its pieces' rows. Every process must call this."""
    if not new_tokens:
        return
    with _whole(model.get_input_embeddings().weight):
        rows = num_embeddings(model.get_input_embeddings().weight.shape[0], new_tokens)
    model.resize_token_embeddings(rows, mean_resizing=False)
    for layer in _layers(model):
        with _whole(layer.weight, modified=True):
            set_rows(layer.weight, new_tokens)


def train_vocabulary(trained: Any, lora: LoraPlan, new_tokens: Sequence[NewToken]) -> None:
    """What the plan trains of embeddings and head gets gradients; `trained` is PEFT's model, whose
    config says so from now on. Every process must call this."""
    if not lora.changes_vocabulary:
        return
    base = trained.get_base_model()
    _in_one_format(trained, base.get_input_embeddings().weight.dtype)
    for name, value in peft_fields(base, lora, new_tokens).items():
        setattr(trained.peft_config["default"], name, value)
    if lora.new_rows:
        _train_rows(base, [each.token_id for each in new_tokens])
        return
    for part, layer in zip(("embeddings", "head"), _both(base), strict=True):
        if part in lora.also_train:
            layer.weight.requires_grad_(True)


def add_vocabulary(file: Path, vocabulary: dict[str, torch.Tensor]) -> None:
    """The adapter's file, as PEFT wrote it, holds `vocabulary` too. May run beside training: it
    reads no layer of the model, which ZeRO-3 would gather on this process alone."""
    if not vocabulary:
        return
    seen: set[int] = set()
    apart: dict[str, torch.Tensor] = {}
    for name, tensor in vocabulary.items():
        if tensor.data_ptr() in seen:
            apart[name] = tensor.clone()
        else:
            apart[name] = tensor
        seen.add(tensor.data_ptr())
    save_file({**load_file(file), **apart}, file, metadata={"format": "pt"})


def vocabulary_tensors(model: Any, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those of `weights` that are of embeddings or head, by PEFT's names. Tied layers trained whole
    are one tensor under both names, as PEFT loads each by its own.

    `model` is PEFT's, `weights` are by the model's own names. Call it between two steps.
    """
    base = model.get_base_model()
    names = layer_names(base)
    found = {
        f"{_PREFIX}{name}.{ROWS_KEY}": weights[f"{_PREFIX}{name}.{ROWS}"]
        for name in names
        if f"{_PREFIX}{name}.{ROWS}" in weights
    }
    whole = [name for name in names if f"{_PREFIX}{name}.weight" in weights]
    found |= {f"{_PREFIX}{name}.weight": weights[f"{_PREFIX}{name}.weight"] for name in whole}
    if whole and is_tied(base):
        shared = weights[f"{_PREFIX}{whole[0]}.weight"]
        found |= {f"{_PREFIX}{name}.weight": shared for name in names if name not in whole}
    return found


def _in_one_format(trained: Any, dtype: torch.dtype) -> None:
    """LoRA's matrices are in the format of embeddings and head: ZeRO-3 puts all that is trained
    into one buffer (DeepSpeed 0.19, stage3.py). What the optimizer changes is fp32 either way."""
    for parameter in trained.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def _train_rows(base: Any, ids: list[int]) -> None:
    """Tied layers share one parameter."""
    embeddings, head = _both(base)
    _give_rows(embeddings, ids, _copied_rows(embeddings, ids))
    if is_tied(base):
        rows = embeddings.new_rows
    else:
        rows = _copied_rows(head, ids)
    _give_rows(head, ids, rows)
    embeddings.forward = _embedding_with_rows(embeddings)
    head.forward = _head_with_rows(head)


def _copied_rows(layer: Any, ids: list[int]) -> torch.nn.Parameter:
    with _whole(layer.weight):
        return torch.nn.Parameter(layer.weight.data[ids].clone())


def _give_rows(layer: Any, ids: list[int], rows: torch.nn.Parameter) -> None:
    layer.register_parameter(ROWS, rows)
    numbers = torch.tensor(ids, device=rows.device)
    layer.register_buffer(ROW_IDS, numbers, persistent=False)


def _embedding_with_rows(layer: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    usual = layer.forward
    places_V = torch.full((int(layer.num_embeddings),), -1)
    places_V[layer.new_row_ids.cpu()] = torch.arange(len(layer.new_row_ids))
    layer.register_buffer("new_row_places", places_V.to(layer.new_row_ids.device), persistent=False)

    def forward(ids_BT: torch.Tensor) -> torch.Tensor:
        places_BT = layer.new_row_places[ids_BT]
        new_BTH = embedding(places_BT.clamp(min=0), layer.new_rows)
        scale = getattr(layer, "embed_scale", None)  # of Gemma 3, in its own forward
        if scale is not None:
            new_BTH = new_BTH * scale.to(new_BTH.dtype)
        return torch.where((places_BT >= 0)[..., None], new_BTH, usual(ids_BT))

    return forward


def _head_with_rows(layer: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    usual = layer.forward

    def forward(hidden_BTH: torch.Tensor) -> torch.Tensor:
        new_BTN = linear(hidden_BTH, layer.new_rows)
        return usual(hidden_BTH).index_copy(-1, layer.new_row_ids, new_BTN)

    return forward


def _both(model: Any) -> tuple[Any, Any]:
    return model.get_input_embeddings(), model.get_output_embeddings()


def _layers(model: Any) -> tuple[Any, ...]:
    """Embeddings and head; tied, they are one."""
    if is_tied(model):
        return (model.get_input_embeddings(),)
    return _both(model)


def _whole(weight: Any, *, modified: bool = False) -> AbstractContextManager[Any]:
    """Inside, the weight is whole on every process; `modified` there, process 0's counts."""
    if not hasattr(weight, "ds_id"):
        return nullcontext()
    return deepspeed.zero.GatheredParameters([weight], modifier_rank=0 if modified else None)
