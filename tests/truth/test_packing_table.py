"""What is known of every model type's rows is still so."""

import pytest

from components.shared.model.row_packing import known_types
from components.train.model.apart import MOVE_ALLOWED
from tests.truth.packing_table import DATA, DOCS, Measured, data, document, measure_all

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def found() -> list[Measured]:
    return measure_all()


def test_no_conversation_sees_another_in_any_type_that_is_packed(found: list[Measured]) -> None:
    packed = [each for each in found if each.model_type in known_types().packed]
    leaking = [each for each in packed if any(moves > MOVE_ALLOWED["fp32"] for moves in each.others.values())]
    assert leaking == []
    assert len(packed) > 100


def test_training_would_find_every_type_that_mixes_conversations(found: list[Measured]) -> None:
    mixing = [each for each in found if each.verdict == "one conversation"]
    assert [each for each in mixing if not all(moves > MOVE_ALLOWED["bf16"] for moves in each.others.values())] == []


def test_the_table_and_its_page_are_as_measured(found: list[Measured]) -> None:
    assert data(found) == DATA.read_text(encoding="utf-8")
    assert document(found) == DOCS.read_text(encoding="utf-8")
