from collections.abc import Sequence
from typing import Any

import pytest

from components.prepare_dataset.packing.row_length import longest_row, row_length
from components.shared.spec.data import DataSpec

CONFIG = {"max_position_embeddings": 8192}


def _tokens(
    lengths: list[int],
    config: dict[str, Any] = CONFIG,
    *,
    packed: bool = True,
    texts: Sequence[int] = (),
    **data: Any,
) -> int:
    return row_length(
        DataSpec(train="x", row_tokens="auto", **data), lengths, config, packed=packed, texts=texts
    ).tokens


@pytest.mark.parametrize(
    ("lengths", "packed", "tokens"),
    [
        ([10, 20, 300], True, 1024),
        ([10, 1024], True, 1024),
        ([10, 1025], True, 2048),
        ([10, 5000], True, 8192),
        ([10, 9000], True, 8192),
        ([10, 20, 300], False, 320),
        ([10, 64], False, 64),
        ([10, 9000], False, 8192),
    ],
)
def test_auto_holds_the_longest_sample_as_far_as_the_model_knows_positions(
    lengths: list[int], packed: bool, tokens: int
) -> None:
    assert _tokens(lengths, packed=packed) == tokens


def test_where_long_samples_may_be_dropped_a_few_do_not_make_rows_long() -> None:
    lengths = [500] * 2000 + [8000]
    assert _tokens(lengths) == 8192
    assert _tokens(lengths, too_long="drop") == 1024
    assert _tokens([500] * 10 + [8000] * 10, too_long="drop") == 8192


def test_a_model_without_a_limit_takes_any_length_and_gpt2_names_it_otherwise() -> None:
    assert _tokens([9000], {}) == 16_384
    assert longest_row({"n_positions": 512}) == 512
    assert _tokens([300], {"n_positions": 512}) == 512


def test_a_stated_length_is_taken_as_it_is() -> None:
    row = row_length(DataSpec(train="x", row_tokens=100), [9000], CONFIG, packed=True)
    assert (row.tokens, row.reason) == (100, "as data.row_tokens says")


def test_the_reason_names_what_decided() -> None:
    spec = DataSpec(train="x", row_tokens="auto", too_long="drop")
    assert (
        row_length(spec, [1500] * 100, CONFIG, packed=True).reason
        == "99% of the tokens are in samples of up to 1,500 tokens, rounded up to a power of two"
    )
    assert row_length(spec, [100] * 9, CONFIG, packed=True).reason.endswith(
        "100 tokens, and rows of 1,024 hold several"
    )
    assert row_length(spec, [9000], CONFIG, packed=True).reason.endswith(
        "9,000 tokens, and the model knows 8,192 positions"
    )


def test_parts_of_texts_are_never_dropped() -> None:
    assert _tokens([100] * 1000, too_long="drop", texts=[4096] * 9) == 4096
    assert _tokens([5000] * 1000, too_long="drop", texts=[4096] * 9) == 8192
    assert _tokens([], too_long="drop", texts=[4096, 10]) == 4096
    spec = DataSpec(train="x", row_tokens="auto", too_long="drop")
    assert row_length(spec, [10], CONFIG, packed=False, texts=[99]).reason.startswith(
        "the longest part of a text has 99 tokens"
    )
