"""The loaded model and two rows -> whether a trained token sees its own conversation's past, and
nothing else.

Two forward passes, on rows of the same shape that differ in the second half of their first
conversation. Logits of its first half must not move, or the model sees the future. Logits of the
conversation after it must not move, or conversations of a row see each other. The model's own loss
must be that of the next token on the same logits. No random number is drawn.

Shapes: T tokens of the row, V tokens of the vocabulary.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.shared.documents.plan import Plan, Precision
from components.shared.errors import ModelError
from components.shared.step import Log
from components.train.agreement import Agreement
from components.train.loop.rows import (
    NOT_TRAINED,
    Batch,
    PackedRows,
    Row,
    collate,
    inputs_of,
    row_of,
)
from components.train.loop.trainer import HaganeTrainer, evaluating
from components.train.model.output_layer import mean_loss
from components.train.model.own_layers import NO_OWN_LAYERS, OwnLayers

MOST_TOKENS = 128
"""Of each of the two conversations: DeepSeek-V4 and chunked attention look back in blocks of up to
128."""

NUM_ITEMS = 1000
"""Trained tokens of an optimizer step, as given to the model's loss; it is then the sum over the
row's tokens, divided by this."""

MOVE_ALLOWED: dict[Precision, float] = {"fp32": 1e-4, "bf16": 5e-3, "fp16": 5e-3}
"""Standard deviations of the logits. The passes have one shape, so what is masked adds exactly 0 on
a CPU; docs/packing.md says by how much types that mix conversations move at least."""

ATTENTION_ALLOWED: dict[Precision, float] = {"fp32": 1e-3, "bf16": 5e-2, "fp16": 5e-2}
"""Standard deviations of the logits: two kernels round differently, in each layer."""

LOSS_ALLOWED: dict[Precision, float] = {"fp32": 1e-3, "bf16": 1e-2, "fp16": 1e-2}
"""Share of the next-token loss."""


@dataclass(frozen=True)
class Pair:
    """Two rows that differ in the tokens from `half` to the end of the first conversation alone."""

    row: Row
    exchanged: Row
    half: int


@dataclass(frozen=True)
class Looked:
    """What the passes showed; nothing is judged where a logit is no finite number, which ends
    training by its first loss."""

    future: float
    """How far the logits of a token move, by root mean square, when later tokens of the same
    conversation change, in standard deviations of all logits; the largest of the tokens."""
    others: float
    """The same for tokens of another conversation of the row; 0 where a row holds one."""
    own_loss: float
    next_token_loss: float
    in_chunks: bool = False
    """`own_loss` was computed by the output layer at trained tokens alone."""
    attention: float = 0.0
    """How far the logits of the first conversation are from those by the model's own attention,
    where another is used."""

    @property
    def finite(self) -> bool:
        return math.isfinite(self.future + self.others + self.own_loss + self.attention)

    def problem(self, precision: Precision) -> str | None:
        """Why training on such rows would be wrong, as a sentence with its fix, if it would."""
        allowed = MOVE_ALLOWED[precision]
        if not self.finite:
            return None
        if self.future > allowed:
            return (
                f"found tokens that see the future: logits move by {self.future:.2g} standard "
                f"deviations when later tokens change, allowed {allowed:g}. Fix: name a base model "
                "that predicts the next token"
            )
        if self.others > allowed:
            return (
                "found conversations of a row that see each other: logits move by "
                f"{self.others:.2g} standard deviations when another conversation changes, allowed "
                f"{allowed:g}. Fix: set data.packing: false, one conversation a row, and another "
                "name for the run, as its dataset is packed already"
            )
        if self.attention > ATTENTION_ALLOWED[precision]:
            return (
                "found attention of each conversation by itself that is not the model's own: "
                f"logits differ by {self.attention:.2g} standard deviations, allowed "
                f"{ATTENTION_ALLOWED[precision]:g}. Fix: set training.attention: sdpa or eager"
            )
        if (
            abs(self.own_loss - self.next_token_loss)
            > LOSS_ALLOWED[precision] * self.next_token_loss
        ):
            if self.in_chunks:
                fix = "set training.output_layer: all_tokens"
            else:
                fix = "name a base model that is trained on the next token"
            return (
                f"found a model whose own loss is {self.own_loss:.4g} where that of the next token "
                f"is {self.next_token_loss:.4g}, allowed {LOSS_ALLOWED[precision]:.1%} of "
                f"difference. Fix: {fix}"
            )
        return None


def pair_of(conversations: list[list[int]]) -> Pair:
    """One conversation, or two packed; each is cut at MOST_TOKENS. Tokens are exchanged for others
    of the same conversations."""
    cut = [tokens[:MOST_TOKENS] for tokens in conversations]
    first, *others = cut
    half = max(1, len(first) // 2)
    known = sorted({token for tokens in cut for token in tokens})
    following = dict(zip(known, known[1:] + known[:1], strict=True))
    exchanged = first[:half] + [following[token] for token in first[half:]]
    return Pair(row_of([first, *others]), row_of([exchanged, *others]), half)


def pair_from(rows: PackedRows) -> Pair:
    """Of the first conversations of the file; two, if any of its rows holds several."""
    found: list[list[int]] = []
    for index in range(min(2, len(rows))):
        found += conversations_of(rows[index])
    if not rows.several:
        return pair_of(found[:1])
    return pair_of([found[0], found[min(1, len(found) - 1)]])


def conversations_of(row: Row) -> list[list[int]]:
    """The tokens of each conversation of a row."""
    found: list[list[int]] = []
    start = 0
    for length in row["lengths"]:
        found.append(row["input_ids"][start : start + length])
        start += length
    return found


def look(
    model: Any,
    pair: Pair,
    *,
    device: torch.device,
    loss_kwargs: dict[str, Any],
    own: OwnLayers = NO_OWN_LAYERS,
) -> Looked:
    """The model is called as in training, but in evaluation mode and without gradients.

    `loss_kwargs` are what its loss takes beside labels. Of `own`, the output layer's loss is judged
    in place of the model's.
    """
    batch, exchanged = collate([pair.row]), collate([pair.exchanged])
    if own.output_layer is None:
        with own.rows_of(batch):
            output = model(**_on(device, batch), **loss_kwargs)
        own_loss, one_TV = output.loss, output.logits[0].float()
    else:
        with own.losses_of(batch):
            at_trained_tokens = model(**inputs_of(batch, device))
        own_loss = mean_loss(
            at_trained_tokens, batch["labels"], loss_kwargs.get("num_items_in_batch")
        )
        one_TV = _logits(model, own, batch, device)
    other_TV = _logits(model, own, exchanged, device)
    moved_T = (one_TV - other_TV).square().mean(dim=1).sqrt() / one_TV.std()
    targets_T = batch["labels"][0, 1:].to(device)
    loss_sum = torch.nn.functional.cross_entropy(
        one_TV[:-1], targets_T, ignore_index=NOT_TRAINED, reduction="sum"
    )
    num_items = loss_kwargs.get("num_items_in_batch", (targets_T != NOT_TRAINED).sum())
    after_first = moved_T[pair.row["lengths"][0] :]
    return Looked(
        future=float(moved_T[: pair.half].max()),
        others=float(after_first.max()) if len(after_first) else 0.0,
        own_loss=float(own_loss),
        next_token_loss=float(loss_sum / num_items),
        in_chunks=own.output_layer is not None,
        attention=_from_own_attention(model, own, pair.row, one_TV, device),
    )


def _logits(model: Any, own: OwnLayers, batch: Batch, device: torch.device) -> torch.Tensor:
    """[T, V], fp32, of the batch's one row."""
    with own.rows_of(batch):
        return model(**inputs_of(batch, device)).logits[0].float()


def _from_own_attention(
    model: Any, own: OwnLayers, row: Row, logits_TV: torch.Tensor, device: torch.device
) -> float:
    """How far the first conversation's logits are from those that the model's own attention gives
    it alone."""
    if own.attention is None:
        return 0.0
    first = conversations_of(row)[0]
    with own.attention.left_out():
        alone_TV = model(**inputs_of(collate([row_of([first])]), device)).logits[0].float()
    moved_T = (logits_TV[: len(first)] - alone_TV).square().mean(dim=1).sqrt() / logits_TV.std()
    return float(moved_T.max())


def _on(device: torch.device, batch: Batch) -> dict[str, torch.Tensor]:
    return {"labels": batch["labels"].to(device), **inputs_of(batch, device)}


def look_at(trainer: HaganeTrainer, rows: PackedRows) -> Looked:
    """Of the model as it is trained, on the trainer's rows. Every process must call this under
    ZeRO-3."""
    engine: Any = trainer.model_wrapped
    device = next(engine.parameters()).device
    loss_kwargs: dict[str, Any] = {}
    if trainer.model_accepts_loss_kwargs:
        # No real count: a model that leaves it out of its loss, as a mean would, is found.
        loss_kwargs["num_items_in_batch"] = torch.tensor(NUM_ITEMS, device=device)
    with evaluating(engine):
        return look(
            engine,
            pair_from(rows),
            device=device,
            loss_kwargs=loss_kwargs,
            own=trainer.own,
        )


class ProveRows(TrainerCallback):
    """Stops training before its first step, on a resume too, where the model would not train on
    what the rows say.

    Raises:
        ModelError: with what was measured. On all processes, whichever found it.
    """

    def __init__(
        self, measure: Callable[[], Looked], plan: Plan, agreement: Agreement, log: Log
    ) -> None:
        self._measure = measure
        self._plan = plan
        self._agreement = agreement
        self._log = log

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        start = time.monotonic()
        looked = self._measure()
        seconds = round(time.monotonic() - start, 2)
        problem = looked.problem(self._plan.precision)
        (anywhere,) = self._agreement.anywhere(problem is not None)
        if anywhere:
            where = f"training: model.source, a {self._plan.model.model_type} model"
            of_another = "another process found rows that cannot be trained on; see its message"
            raise ModelError(f"{where}: {problem or of_another}")
        if not state.is_world_process_zero:
            return
        if looked.finite:
            moved = {
                "others": looked.others,
                "future": looked.future,
                "attention": looked.attention,
            }
            self._log.info("rows_proved", packed=self._plan.packed, **moved, seconds=seconds)
        else:
            self._log.warning(
                "rows_not_proved",
                reason="logits of the first rows are no finite numbers",
                seconds=seconds,
            )
