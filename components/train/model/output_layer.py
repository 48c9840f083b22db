"""The output layer and the loss at those tokens alone that are trained, a few at a time.

transformers makes the logits of every token of a row, and keeps some 14 bytes of each through the
backward pass: for a vocabulary of 128,000 and 4,096 tokens that is 7.3 GB. Here the output layer's
input at the tokens with a label is taken in chunks; of each chunk the logits give the loss and its
gradient, and are thrown away. Only a gradient as large as the input is kept.

The work is done inside the output layer's own call, so DeepSpeed's hooks bring its weight there
under ZeRO-3 as for any other layer.

Shapes: B rows of a micro-batch, T tokens of a row, N tokens with a label, C tokens of a chunk, H
hidden size, V vocabulary, R rows of new tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from components.shared.errors import ModelError
from components.train.loop.rows import NOT_TRAINED
from components.train.model.vocabulary import ROW_IDS, ROWS

SOFT_CAP = "final_logit_softcapping"
"""Of Gemma's config: logits are cap * tanh(logits / cap)."""
FACTORS = ("logit_scale", "lm_head_multiplier")
"""By which Cohere and Falcon H1 multiply their logits."""
DIVISORS = ("logits_scaling",)
"""By which Granite divides them."""


_WORDS_AT_ONCE = 8192
"""Of a trained output layer's gradient: the product of a chunk would otherwise be as large as the
layer, in 16 bits and, on a CPU, in fp32 too."""


@dataclass(frozen=True)
class Curve:
    """What a model makes of its output layer's numbers: cap * tanh(scale * number / cap); and what
    of a label is spread over the vocabulary."""

    scale: float = 1.0
    cap: float | None = None
    smoothing: float = 0.0


class OutputLayer:
    """The output layer of `model`, which inside `losses_of` gives a sum of losses instead of
    logits.

    Its call then returns one number as a tensor [1, 1, 1]: the sum over all tokens with a label of
    -log p(token), in nats and fp32. Elsewhere it returns logits [B, T, V] as before.

    Raises:
        ModelError: the model has no plain output layer.
    """

    def __init__(self, model: Any, *, chunk_tokens: int, label_smoothing: float = 0.0) -> None:
        if hasattr(model, "get_base_model"):
            base = model.get_base_model()
        else:
            base = model
        layer = base.get_output_embeddings()
        if type(layer) is not torch.nn.Linear:
            raise ModelError(
                f"training.output_layer: a {base.config.model_type} model has no plain linear "
                f"layer as its output layer, but {type(layer).__name__}. Fix: set all_tokens"
            )
        self._layer = layer
        self._chunk_tokens = chunk_tokens
        self._cap = _take_soft_cap(base.config)
        self._scale = _logit_scale(base.config)
        self._label_smoothing = label_smoothing
        self._smoothed = 0.0
        self._labels_BT: torch.Tensor | None = None
        self._kept_tokens: int | None = None
        layer.forward = self._forward  # pyright: ignore[reportAttributeAccessIssue] - another name

    @contextmanager
    def losses_of(self, labels_BT: torch.Tensor, *, to_train: bool = False) -> Iterator[None]:
        """Calls inside give the sum of losses for these labels; one that is NOT_TRAINED has no
        loss. Labels are smoothed only `to_train`."""
        self._labels_BT = labels_BT
        if to_train:
            self._smoothed = self._label_smoothing
        else:
            self._smoothed = 0.0
        try:
            yield
        finally:
            self._labels_BT = None

    @contextmanager
    def last_logits_alone(self, num_tokens: int) -> Iterator[None]:
        """Calls inside give logits of each row's last `num_tokens` tokens alone."""
        self._kept_tokens = num_tokens
        try:
            yield
        finally:
            self._kept_tokens = None

    def _forward(self, hidden_BTH: torch.Tensor) -> torch.Tensor:
        weight_VH, bias_V = self._layer.weight, self._layer.bias
        rows = NewRows.of(self._layer)
        if rows is not None:
            rows.put_into(weight_VH)
        if self._labels_BT is None:
            if self._kept_tokens is not None:
                hidden_BTH = hidden_BTH[:, -self._kept_tokens :]
            return _capped(torch.nn.functional.linear(hidden_BTH, weight_VH, bias_V), self._cap)
        targets_BT = self._labels_BT[:, 1:].to(hidden_BTH.device)
        trained_BT = targets_BT != NOT_TRAINED
        loss_sum: Any = _SumOfLosses.apply(
            hidden_BTH[:, :-1][trained_BT],
            weight_VH,
            bias_V,
            None if rows is None else rows.weight,
            None if rows is None else rows.ids,
            targets_BT[trained_BT],
            self._chunk_tokens,
            Curve(self._scale, self._cap, self._smoothed),
            torch.is_grad_enabled(),
        )
        # The model multiplies what it takes for logits by its scale.
        return (loss_sum / self._scale).reshape(1, 1, 1)


@dataclass(frozen=True)
class NewRows:
    """Rows of new tokens that are trained beside a frozen output layer (vocabulary.py)."""

    weight: torch.Tensor
    """[R, H]."""
    ids: torch.Tensor
    """[R]: where they are in the layer."""

    @classmethod
    def of(cls, layer: torch.nn.Module) -> "NewRows | None":
        rows = getattr(layer, ROWS, None)
        if rows is None:
            return None
        return cls(rows, getattr(layer, ROW_IDS))

    def put_into(self, weight_VH: torch.Tensor) -> None:
        """The layer's frozen weight has the rows as they are now: nobody else reads these, and
        logits need no copy of the layer."""
        weight_VH.data[self.ids] = self.weight.data.to(weight_VH.dtype)


def mean_loss(output: Any, labels_BT: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """A call inside `losses_of` -> its loss per token, in nats: Trainer's `compute_loss_func`.

    `num_items_in_batch` is the number of trained tokens of the whole optimizer step, if it is
    known.
    """
    if num_items_in_batch is None:
        num_items_in_batch = (labels_BT[:, 1:] != NOT_TRAINED).sum()
    return output.logits.reshape(()) / num_items_in_batch


class _SumOfLosses(torch.autograd.Function):
    """Tokens' hidden states and labels -> the sum of their losses; gradients are made on the
    way."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - torch's own way
        ctx: Any,
        hidden_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        bias_V: torch.Tensor | None,
        rows_RH: torch.Tensor | None,
        row_ids_R: torch.Tensor | None,
        targets_N: torch.Tensor,
        chunk_tokens: int,
        curve: Curve,
        with_gradients: bool,
    ) -> torch.Tensor:
        wanted = [with_gradients and each for each in ctx.needs_input_grad[:4]]
        gradients = _Gradients.of(hidden_NH, weight_VH, bias_V, wanted)
        if wanted[3] and rows_RH is not None:
            gradients.begin_rows(rows_RH, row_ids_R)
        losses_N = hidden_NH.new_empty(len(targets_N), dtype=torch.float32)
        for start in range(0, len(targets_N), chunk_tokens):
            part = slice(start, start + chunk_tokens)
            linear_CV = torch.nn.functional.linear(hidden_NH[part], weight_VH, bias_V)
            losses_N[part], gradient_CV = _losses_and_gradient(linear_CV, targets_N[part], curve)
            if with_gradients:
                gradients.add(part, gradient_CV.to(hidden_NH.dtype), hidden_NH[part], weight_VH)
        ctx.gradients = gradients
        return losses_N.sum()

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        made, ctx.gradients = ctx.gradients, None  # freed now, and not scaled twice
        if made is None:
            raise RuntimeError("the gradients of the output layer were taken already")
        return (*made.taken(scale), None, None, None, None, None)


class _Gradients:
    """Sums over chunks of the gradients that are asked for; those of weight and bias in fp32."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.hidden_NH: torch.Tensor | None = None
        self.weight_VH: torch.Tensor | None = None
        self.bias_V: torch.Tensor | None = None
        self.rows_RH: torch.Tensor | None = None
        self._row_ids_R: torch.Tensor | None = None
        self._rows_dtype = dtype

    def begin_rows(self, rows_RH: torch.Tensor, row_ids_R: torch.Tensor | None) -> None:
        """Rows of new tokens have a gradient too."""
        self.rows_RH = torch.zeros_like(rows_RH, dtype=torch.float32)
        self._row_ids_R, self._rows_dtype = row_ids_R, rows_RH.dtype

    @classmethod
    def of(
        cls,
        hidden_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        bias_V: torch.Tensor | None,
        wanted: list[bool],
    ) -> "_Gradients":
        made = cls(hidden_NH.dtype)
        if wanted[0]:
            made.hidden_NH = torch.empty_like(hidden_NH)
        if wanted[1]:
            made.weight_VH = torch.zeros_like(weight_VH, dtype=torch.float32)
        if wanted[2] and bias_V is not None:
            made.bias_V = torch.zeros_like(bias_V, dtype=torch.float32)
        return made

    def taken(self, scale: torch.Tensor) -> list[torch.Tensor | None]:
        """Of hidden states, weight, bias and new rows, times `scale`; none of them stays here."""
        given = [self.hidden_NH, self.weight_VH, self.bias_V]
        rows_RH = _times(self.rows_RH, scale, self._rows_dtype)
        self.hidden_NH = self.weight_VH = self.bias_V = self.rows_RH = None
        return [*(_times(given.pop(0), scale, self.dtype) for _ in range(len(given))), rows_RH]

    def add(
        self,
        part: slice,
        gradient_CV: torch.Tensor,
        hidden_CH: torch.Tensor,
        weight_VH: torch.Tensor,
    ) -> None:
        if self.hidden_NH is not None:
            self.hidden_NH[part] = gradient_CV @ weight_VH
        if self.weight_VH is not None:
            for start in range(0, len(self.weight_VH), _WORDS_AT_ONCE):
                words = slice(start, start + _WORDS_AT_ONCE)
                self.weight_VH[words] += gradient_CV[:, words].T @ hidden_CH
        if self.bias_V is not None:
            self.bias_V += gradient_CV.float().sum(dim=0)
        if self.rows_RH is not None:
            self.rows_RH += gradient_CV[:, self._row_ids_R].T @ hidden_CH


def _times(
    gradient: torch.Tensor | None, scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor | None:
    if gradient is None:
        return None
    return gradient.mul_(scale).to(dtype)


def _losses_and_gradient(
    linear_CV: torch.Tensor, targets_C: torch.Tensor, curve: Curve
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses [C] in fp32, and their sum's gradient by the layer's output [C, V] in fp32.

    The gradient is softmax - 1 at the target, times the scale, and with a soft cap times
    1 - (logits / cap)². Written over the logits: 4 bytes a number beside the layer's output.
    With smoothing s the target has the share 1 - s + s / V, each other word s / V.
    """
    logits_CV = linear_CV.float()  # nobody else's: it may be written over
    if curve.scale != 1:
        logits_CV.mul_(curve.scale)
    slope_CV = None
    if curve.cap is not None:
        logits_CV.div_(curve.cap).tanh_()
        slope_CV = logits_CV.square().neg_().add_(1)
        logits_CV.mul_(curve.cap)
    targets_C1 = targets_C[:, None]
    largest_C1 = logits_CV.amax(dim=1, keepdim=True)
    smoothing = curve.smoothing
    at_target_C1 = logits_CV.gather(1, targets_C1)
    if smoothing:
        at_target_C1 = (1 - smoothing) * at_target_C1 + smoothing * logits_CV.mean(
            dim=1, keepdim=True
        )
    exponentials_CV = logits_CV.sub_(largest_C1).exp_()
    sums_C1 = exponentials_CV.sum(dim=1, keepdim=True)
    losses_C = (sums_C1.log() + largest_C1 - at_target_C1)[:, 0]
    gradient_CV = exponentials_CV.div_(sums_C1)
    gradient_CV.scatter_add_(1, targets_C1, torch.full_like(sums_C1, smoothing - 1))
    if smoothing:
        gradient_CV.sub_(smoothing / gradient_CV.shape[1])
    if slope_CV is not None:
        gradient_CV.mul_(slope_CV)
    if curve.scale != 1:
        gradient_CV.mul_(curve.scale)
    return losses_C, gradient_CV


def _capped(logits: torch.Tensor, cap: float | None) -> torch.Tensor:
    if cap is None:
        return logits
    return torch.tanh(logits / cap) * cap


def _take_soft_cap(config: Any) -> float | None:
    """The config's soft cap, which the output layer applies from now on and the model no longer."""
    for part in _parts(config):
        cap = vars(part).get(SOFT_CAP)
        if cap is not None:
            vars(part)[SOFT_CAP] = None  # a config that checks its fields may not take None
            return float(cap)
    return None


def _logit_scale(config: Any) -> float:
    """By what the model multiplies its output layer's numbers."""
    for part in _parts(config):
        for name in (*FACTORS, *DIVISORS):
            value = vars(part).get(name)
            if isinstance(value, float | int):
                if name in DIVISORS:
                    return 1 / float(value)
                return float(value)
    return 1.0


def _parts(config: Any) -> tuple[Any, Any]:
    return config, config.get_text_config(decoder=True)
