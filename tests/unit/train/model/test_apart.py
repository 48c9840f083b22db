from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from components.render_config.model.families import FAMILIES
from components.shared.errors import ModelError
from components.shared.log import set_up_log
from components.shared.model.row_packing import known_types
from components.shared.spec.file import spec_from_parameter
from components.train.loop.rows import PackedRows
from components.train.model.apart import (
    MOVE_ALLOWED,
    NUM_ITEMS,
    Looked,
    ProveRows,
    look,
    pair_from,
    pair_of,
)
from tests.support.made_plan import make_plan
from tests.support.small_models import VOCABULARY, small_model

SPEC = {"name": "t", "store": "s3://b/r", "model": {"source": "m"}, "data": {"train": "s3://b/d"}}
FIRST, SECOND = list(range(3, 45)), list(range(20, VOCABULARY))
RIGHT = Looked(future=0.0, others=0.0, own_loss=2.0, next_token_loss=2.0)


def looked_at(model: Any, *conversations: list[int]) -> Looked:
    with torch.no_grad():
        return look(
            model,
            pair_of(list(conversations)),
            device=torch.device("cpu"),
            loss_kwargs={"num_items_in_batch": torch.tensor(NUM_ITEMS)},
        )


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
@pytest.mark.parametrize(
    ("dtype", "precision"), [(torch.float32, "fp32"), (torch.bfloat16, "bf16")]
)
def test_every_counted_family_is_trained_as_its_rows_say(
    model_type: str, dtype: torch.dtype, precision: Any
) -> None:
    model = small_model(model_type, dtype=dtype)
    packed = looked_at(model, FIRST, SECOND)
    assert (packed.problem(precision) is None) == (model_type in known_types().packed)
    assert looked_at(model, FIRST).problem(precision) is None


@pytest.mark.parametrize(
    "model_type", ["bloom", "opt", "mamba", "lfm2", "qwen3_next", "granitemoehybrid"]
)
def test_a_model_that_mixes_conversations_is_found_and_takes_one_a_row(model_type: str) -> None:
    model = small_model(model_type)
    problem = looked_at(model, FIRST, SECOND).problem("fp32")
    assert problem is not None
    assert "conversations of a row that see each other" in problem
    assert "set data.packing: false" in problem
    assert looked_at(model, FIRST).problem("fp32") is None


@pytest.mark.parametrize(
    ("model_type", "found"),
    [
        ("bert", "tokens that see the future"),
        ("trocr", "a model whose own loss is"),
        ("xlnet", "see the future"),
    ],
)
def test_a_model_that_would_learn_something_else_is_found(model_type: str, found: str) -> None:
    assert found in (looked_at(small_model(model_type), FIRST).problem("fp32") or "")


def test_a_loss_that_leaves_out_the_number_of_trained_tokens_is_found() -> None:
    model = small_model("llama")

    def mean_loss(num_items_in_batch: Any = None, **inputs: Any) -> Any:
        return model(**inputs)

    assert "a model whose own loss is" in (looked_at(mean_loss, FIRST).problem("fp32") or "")


def test_a_part_that_keeps_its_cache_would_mix_conversations_and_is_reported_not_to() -> None:
    model = small_model("fuyu")
    assert looked_at(model, FIRST, SECOND).others == 0
    model.config.text_config.use_cache = True
    assert looked_at(model, FIRST, SECOND).others > MOVE_ALLOWED["fp32"]


@pytest.mark.parametrize("fields", [{"future": float("nan")}, {"own_loss": float("inf")}])
def test_of_logits_that_are_no_numbers_nothing_is_judged_but_that_is_logged(
    fields: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    prove(lambda: Looked(**{**vars(RIGHT), **fields}))
    assert "event=rows_not_proved" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "lengths"),
    [
        ([[[5, 6, 7], [8, 9]], [[4, 3]]], [3, 2]),
        ([[[5, 6, 7]], [[8, 9], [4, 3]]], [3, 2]),
        ([[[5, 6, 7]], [[8, 9]]], [3]),
        ([[[5] * 200 + [6], [8, 9]]], [128, 2]),
    ],
    ids=["packed row", "packed row later", "one conversation a row", "long"],
)
def test_the_rows_looked_at_are_of_the_datas_own_conversations(
    rows: list[list[list[int]]], lengths: list[int], tmp_path: Path
) -> None:
    tokens = [[token for each in row for token in each] for row in rows]
    columns = {
        "input_ids": tokens,
        "labels": tokens,
        "lengths": [[len(each) for each in row] for row in rows],
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    pair = pair_from(PackedRows(tmp_path / "rows.parquet"))
    one, other = pair.row["input_ids"], pair.exchanged["input_ids"]
    assert pair.row["lengths"] == pair.exchanged["lengths"] == lengths
    assert (one[: pair.half], one[lengths[0] :]) == (other[: pair.half], other[lengths[0] :])


class Alone:
    """An Agreement of one process."""

    def anywhere(self, *flags: bool) -> tuple[bool, ...]:
        return flags


def prove(measure: Callable[[], Looked]) -> None:
    agreement: Any = Alone()
    proof = ProveRows(measure, make_plan(spec_from_parameter(SPEC)), agreement, set_up_log("train"))
    state: Any = SimpleNamespace(is_world_process_zero=True)
    nothing: Any = None
    proof.on_train_begin(nothing, state, nothing)


def test_training_starts_when_nothing_moves(capsys: pytest.CaptureFixture[str]) -> None:
    prove(lambda: RIGHT)
    assert "event=rows_proved" in capsys.readouterr().out


def test_training_stops_before_its_first_step_and_says_how_to_go_on() -> None:
    with pytest.raises(
        ModelError,
        match=(
            r"training: model\.source, a llama model: found conversations .* Fix: set "
            r"data\.packing: false"
        ),
    ):
        prove(lambda: Looked(future=0.0, others=0.3, own_loss=2.0, next_token_loss=2.0))
