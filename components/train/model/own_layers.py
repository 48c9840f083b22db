"""The parts of a model that hagane computes itself: its output layer and its attention."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from components.train.model.attention import ConversationAttention
from components.train.model.output_layer import OutputLayer


@dataclass(frozen=True)
class OwnLayers:
    """None where the model's own code computes that part."""

    output_layer: OutputLayer | None = None
    attention: ConversationAttention | None = None

    @contextmanager
    def rows_of(self, batch: Mapping[str, Any]) -> Iterator[None]:
        """Forward and backward passes inside are of this batch."""
        attention = self.attention
        with (
            nullcontext()
            if attention is None
            else attention.conversations_of(batch.get("position_ids"))
        ):
            yield

    @contextmanager
    def losses_of(self, batch: Mapping[str, Any], *, to_train: bool = False) -> Iterator[None]:
        """The same, and the output layer gives the losses of the batch's labels."""
        layer = self.output_layer
        if layer is None:
            losses = nullcontext()
        else:
            losses = layer.losses_of(batch["labels"], to_train=to_train)
        with self.rows_of(batch), losses:
            yield

    @contextmanager
    def last_logits_alone(self, num_tokens: int) -> Iterator[None]:
        """Passes inside, of rows of one conversation, may give logits of the last tokens alone."""
        layer = self.output_layer
        with nullcontext() if layer is None else layer.last_logits_alone(num_tokens):
            yield


NO_OWN_LAYERS = OwnLayers()
