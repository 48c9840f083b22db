"""Attention of each conversation of a row by itself, without a mask of T x T.

For packed rows transformers makes one mask of T x T truth values, and torch turns it into numbers
in every block and keeps them for the backward pass: 32 MiB a block for 4,096 tokens in bf16. Here
the queries of a conversation meet its own keys alone. Conversations then cannot see each other in
any model that calls transformers' attention interface, also in one whose mask ignores position_ids.

Which tokens of its conversation a token sees stays the model's to say. Its mask function (causal, a
sliding window, chunks) is evaluated on the square of each conversation.

Shapes: B rows of a micro-batch, T tokens of a row, L tokens of a conversation, A heads of queries,
K heads of keys and values, D numbers of a head.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import sdpa_mask

from components.shared.errors import ModelError

NAME = "conversations"
"""Under which transformers knows this attention, `attn_implementation`."""

Span = tuple[int, int]
"""Of one conversation: its first token in the row, and the token after its last."""

ROWS_LOOKED_AT = 64
"""Of a conversation's mask, to know whether it is the causal one. Every window of transformers
looks back equally far everywhere."""

_HARMLESS = frozenset(
    {"position_ids", "position_embeddings", "cache_position", "num_items_in_batch"}
)
"""Tensors that models hand on to their attention, which reads none of them."""


@dataclass(frozen=True)
class Masks:
    """What a model hands on to its attention in place of a mask: by row and conversation, true
    where a query [L, ...] sees a key [..., L]; None where it sees all keys up to its own."""

    of: tuple[tuple[torch.Tensor | None, ...], ...]


class ConversationAttention:
    """The attention of `model`, each conversation by itself.

    Inside `conversations_of` a row is split where its conversations begin. Elsewhere it is one
    conversation.
    """

    def __init__(self, model: Any) -> None:
        """
        Raises:
            ModelError: the model's code does not call transformers' attention interface.
        """
        AttentionInterface.register(NAME, self._attend)
        AttentionMaskInterface.register(NAME, self._masks)
        self._spans: list[list[Span]] | None = None
        if hasattr(model, "get_base_model"):
            self._base = model.get_base_model()
        else:
            self._base = model
        self._replaced: str = self._base.config._attn_implementation
        try:
            self._base.set_attn_implementation(NAME)
        except ValueError as error:
            raise _not_possible(str(error)) from error
        if self._base.config._attn_implementation != NAME:
            raise _not_possible("it keeps an attention of its own")

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Passes inside use the attention that the model takes by itself."""
        self._base.set_attn_implementation(self._replaced)
        try:
            yield
        finally:
            self._base.set_attn_implementation(NAME)

    @contextmanager
    def conversations_of(self, position_ids_BT: torch.Tensor | None) -> Iterator[None]:
        """Forward and backward passes inside see conversations that begin where positions are 0.
        None: each row is one conversation."""
        if position_ids_BT is None:
            self._spans = None
        else:
            self._spans = spans_of(position_ids_BT)
        try:
            yield
        finally:
            self._spans = None

    def _spans_for(self, num_rows: int, num_tokens: int) -> list[list[Span]]:
        spans = self._spans or [[(0, num_tokens)]] * num_rows
        if len(spans) != num_rows or spans[0][-1][1] != num_tokens:
            raise _not_possible(
                f"it attends {num_rows} x {num_tokens} tokens, others than those of its rows"
            )
        return spans

    def _masks(
        self,
        batch_size: int,
        q_length: int,
        kv_length: int,
        *,
        mask_function: Callable[..., Any],
        attention_mask: torch.Tensor | None = None,
        use_vmap: bool = False,
        device: torch.device | str = "cpu",
        **_: Any,
    ) -> Masks:
        if attention_mask is not None or q_length != kv_length:
            raise _not_possible("it is given a mask of its own")
        spans = self._spans_for(batch_size, q_length)
        squares = [
            _Square(mask_function, row, span, device)
            for row, of_row in enumerate(spans)
            for span in of_row
        ]
        if use_vmap:
            plain = [False] * len(squares)
        else:
            plain = _are_plain(squares)
        masks = iter(
            [
                None if causal else each.mask(use_vmap=use_vmap)
                for each, causal in zip(squares, plain, strict=True)
            ]
        )
        return Masks(tuple(tuple(next(masks) for _ in of_row) for of_row in spans))

    def _attend(
        self,
        module: torch.nn.Module,
        query_BATD: torch.Tensor,
        key_BKTD: torch.Tensor,
        value_BKTD: torch.Tensor,
        attention_mask: Masks | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        softcap: float | None = None,
        s_aux: torch.Tensor | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        """As transformers asks of an attention function: [B, T, A, D], and no weights."""
        _refuse_unknown(others)
        if is_causal is None:
            causal = getattr(module, "is_causal", True)
        else:
            causal = is_causal
        if attention_mask is None and not causal:
            raise _not_possible("it looks at tokens that follow")
        num_rows, _, num_tokens, _ = query_BATD.shape
        if key_BKTD.shape[2] != num_tokens:
            raise _not_possible("it attends keys that are not its row's")
        exact = softcap is not None or s_aux is not None
        if exact:
            attend = _Exactly(softcap, s_aux)
        else:
            attend = _fused
        rows = []
        for row, spans in enumerate(self._spans_for(num_rows, num_tokens)):
            parts = []
            for number, (start, end) in enumerate(spans):
                part_ALD = attend(
                    query_BATD[row : row + 1, :, start:end],
                    key_BKTD[row : row + 1, :, start:end],
                    value_BKTD[row : row + 1, :, start:end],
                    None if attention_mask is None else attention_mask.of[row][number],
                    dropout=dropout,
                    scaling=scaling,
                )
                parts.append(part_ALD.transpose(1, 2))
            rows.append(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
        return (rows[0] if len(rows) == 1 else torch.cat(rows)).contiguous(), None


def spans_of(position_ids_BT: torch.Tensor) -> list[list[Span]]:
    """Of each row; a conversation begins where the position is 0. At a row's end padding without a
    conversation has positions of its own."""
    num_rows, num_tokens = position_ids_BT.shape
    starts: list[list[int]] = [[] for _ in range(num_rows)]
    for row, start in (position_ids_BT == 0).nonzero().tolist():  # the device is asked once
        starts[row].append(start)
    return [list(zip(of_row, [*of_row[1:], num_tokens], strict=True)) for of_row in starts]


@dataclass(frozen=True)
class _Square:
    """Which tokens of one conversation see which."""

    function: Callable[..., Any]
    """Of transformers: (row, head, query, key) -> whether the query sees the key, places counted in
    the row."""
    row: int
    span: Span
    device: torch.device | str

    def mask(self, *, use_vmap: bool) -> torch.Tensor | None:
        """[1, 1, L, L]."""
        start, end = self.span
        return sdpa_mask(
            1,
            end - start,
            end - start,
            q_offset=start,
            kv_offset=start,
            mask_function=lambda row, *places: self.function(row + self.row, *places),
            allow_is_causal_skip=False,
            use_vmap=use_vmap,
            device=self.device,
        )

    def is_plain(self) -> torch.Tensor:
        """Whether ROWS_LOOKED_AT queries, the first and the last among them, see all keys up to
        their own and no other: a window, a chunk and a look ahead show there, and L x L numbers are
        never made."""
        start, end = self.span
        places = torch.arange(start, end, device=self.device)
        count = min(len(places), ROWS_LOOKED_AT)
        queries = places[
            torch.linspace(0, len(places) - 1, count, device=self.device).round().long()
        ]
        head = torch.zeros(1, 1, 1, 1, dtype=torch.long, device=self.device)
        seen = self.function(
            head + self.row, head, queries[None, None, :, None], places[None, None, None, :]
        )
        return (seen == (places[None, :] <= queries[:, None])).all()


def _are_plain(squares: list[_Square]) -> list[bool]:
    """For which torch's causal kernel will do; the device is asked once."""
    return torch.stack([each.is_plain() for each in squares]).tolist()


def _fused(
    query_ALD: torch.Tensor,
    key_KLD: torch.Tensor,
    value_KLD: torch.Tensor,
    mask_LL: torch.Tensor | None,
    *,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """torch's own; keys and values are repeated for their queries where its kernels cannot share
    them."""
    groups = query_ALD.shape[1] // key_KLD.shape[1]
    shared = mask_LL is None and key_KLD.shape[-1] == value_KLD.shape[-1]
    if groups > 1 and not shared:
        key_KLD, value_KLD = repeat_kv(key_KLD, groups), repeat_kv(value_KLD, groups)
    return torch.nn.functional.scaled_dot_product_attention(
        query_ALD,
        key_KLD,
        value_KLD,
        attn_mask=mask_LL,
        dropout_p=dropout,
        scale=scaling,
        is_causal=mask_LL is None,
        enable_gqa=groups > 1 and shared,
    )


@dataclass(frozen=True)
class _Exactly:
    """With the whole square of scores, for what torch's kernels do not know."""

    softcap: float | None
    """Scores are softcap * tanh(scores / softcap) (Gemma 2)."""
    sinks: torch.Tensor | None
    """[A], a score of each head that takes a share of attention and gives nothing (GPT-OSS)."""

    def __call__(
        self,
        query_ALD: torch.Tensor,
        key_KLD: torch.Tensor,
        value_KLD: torch.Tensor,
        mask_LL: torch.Tensor | None,
        *,
        dropout: float,
        scaling: float | None,
    ) -> torch.Tensor:
        groups = query_ALD.shape[1] // key_KLD.shape[1]
        key_ALD, value_ALD = repeat_kv(key_KLD, groups), repeat_kv(value_KLD, groups)
        if scaling is None:
            scale = query_ALD.shape[-1] ** -0.5
        else:
            scale = scaling
        scores_ALL = torch.matmul(query_ALD, key_ALD.transpose(2, 3)) * scale
        if self.softcap is not None:
            scores_ALL = torch.tanh(scores_ALL / self.softcap) * self.softcap
        if mask_LL is None:
            seen_LL = torch.ones_like(scores_ALL[:, :1], dtype=torch.bool).tril()
        else:
            seen_LL = mask_LL
        scores_ALL = scores_ALL.masked_fill(~seen_LL, torch.finfo(scores_ALL.dtype).min)
        if self.sinks is not None:
            sinks_AL1 = self.sinks.reshape(1, -1, 1, 1).expand(*scores_ALL.shape[:3], 1)
            scores_ALL = torch.cat([scores_ALL, sinks_AL1.to(scores_ALL.dtype)], dim=-1)
        weights = torch.softmax(scores_ALL, dim=-1, dtype=torch.float32).to(query_ALD.dtype)
        weights_ALL = weights[..., : key_ALD.shape[2]]
        return torch.nn.functional.dropout(weights_ALL, dropout) @ value_ALD


def _refuse_unknown(others: dict[str, Any]) -> None:
    """Of a tensor that shapes attention in a way that is not known here nothing may be left out."""
    unknown = [
        name
        for name, value in others.items()
        if isinstance(value, torch.Tensor) and name not in _HARMLESS
    ]
    if unknown:
        raise _not_possible(f"it gives its attention {', '.join(sorted(unknown))}")


def _not_possible(why: str) -> ModelError:
    return ModelError(
        f"training.attention: this model cannot attend each conversation by itself: {why}. Fix: "
        "set training.attention: sdpa or eager"
    )
