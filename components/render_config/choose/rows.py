"""Spec, model and dataset -> how many tokens a row has, and whether conversations share one."""

from collections.abc import Mapping
from typing import Any

from components.render_config.dataset_facts import DatasetFacts
from components.render_config.decision import Section
from components.render_config.setting import Rows
from components.shared.errors import DataError, ModelError
from components.shared.model.positions import known_positions
from components.shared.model.row_packing import row_packing
from components.shared.spec.run_spec import RunSpec

ROW_TOKENS_UNKNOWN = 1024
"""What a plan without data counts for `data.row_tokens: auto`, the least that packed rows get."""


def choose_rows(spec: RunSpec, config: Mapping[str, Any], dataset: DatasetFacts) -> Section[Rows]:
    """Raises ModelError as `row_packing`; DataError when the dataset's rows are of the other kind,
    as an older hagane made them."""
    packing = row_packing(spec.data.packing, config, spec.training.attention)
    if dataset.packed not in (None, packing.packed):
        if dataset.packed:
            rows = "packed rows"
        else:
            rows = "one conversation a row"
        raise DataError(
            f"dataset: found {rows}, allowed data.packing {str(packing.packed).lower()}, since "
            f"{packing.reason}. Fix: prepare it again, in a run of another name"
        )
    most_tokens = row_tokens_of(spec, dataset, config)
    longest, mean = most_tokens, float(most_tokens)
    if dataset.packed is False:
        mean = dataset.num_tokens / dataset.num_rows
        if dataset.longest_conversation is not None:
            longest = dataset.longest_conversation
    cautions: tuple[str, ...] = ()
    if spec.data.packing == "auto" and not packing.packed:
        cautions = (
            f"data.packing: each row holds one conversation, since {packing.reason}; "
            f"training.global_batch {spec.training.global_batch} counts conversations",
        )
    return Section(
        Rows(packing.packed, most_tokens, longest, mean), {"packed": packing.reason}, cautions
    )


def row_tokens_of(spec: RunSpec, dataset: DatasetFacts, config: Mapping[str, Any]) -> int:
    """Most tokens of a row. Where auto is not decided yet, for want of data, ROW_TOKENS_UNKNOWN, as
    far as the model knows positions."""
    if spec.data.row_tokens != "auto":
        return spec.data.row_tokens
    if dataset.row_tokens:
        return dataset.row_tokens
    known = known_positions(config)
    if known is None:
        return ROW_TOKENS_UNKNOWN
    return min(ROW_TOKENS_UNKNOWN, known[1])


def unknown_rows_caution(spec: RunSpec, dataset: DatasetFacts) -> tuple[str, ...]:
    """That the plan counts a row length which the data will decide, where it does."""
    if spec.data.row_tokens != "auto" or dataset.row_tokens is not None:
        return ()
    return (
        "data.row_tokens: auto is decided by the data, which was not read: this plan counts "
        f"{ROW_TOKENS_UNKNOWN:,} tokens a row",
    )


def check_row_tokens(spec: RunSpec, config: Mapping[str, Any]) -> None:
    """Raises ModelError where a row would have more tokens than the model knows positions."""
    known, asked = known_positions(config), spec.data.row_tokens
    if known is not None and asked != "auto" and asked > known[1]:
        raise ModelError(
            f"data.row_tokens: got {asked}, the model's {known[0]} allows at most {known[1]}"
        )


def held_out_rows(spec: RunSpec, dataset: DatasetFacts) -> int:
    """Held-out rows; without a dataset, the share of all rows that is set aside."""
    if not spec.data.holds_out:
        return 0
    if dataset.num_held_out is not None:
        return dataset.num_held_out
    share = spec.data.held_out_share
    return max(1, round(dataset.num_rows * share / (1 - share)))
