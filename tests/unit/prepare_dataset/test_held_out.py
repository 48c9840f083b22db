import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.prepare_dataset.held_out import copies, leaks, set_aside
from components.prepare_dataset.records import Conversation
from components.shared.errors import DataError
from tests.unit.prepare_dataset.conftest import conversation


def _many(n: int) -> tuple[Conversation, ...]:
    return tuple(conversation(f"question {k}", "answer", where=f"x:{k}") for k in range(n))


def test_about_the_asked_share_is_set_aside() -> None:
    train, held_out = set_aside(_many(2000), 0.1)
    assert len(train) + len(held_out) == 2000
    assert 150 < len(held_out) < 250


@settings(deadline=None)
@given(st.permutations(range(40)), st.floats(0.01, 0.4))
def test_the_split_depends_on_neither_the_order_nor_the_number_of_others(order: list[int], share: float) -> None:
    everything = _many(40)
    held_out = {found.where for found in set_aside(everything, share)[1]}
    shuffled = set_aside(tuple(everything[index] for index in order), share)[1]
    fewer = set_aside(everything[:30], share)[1]
    assert {found.where for found in shuffled} == held_out
    assert {found.where for found in fewer} <= held_out or len(fewer) == 1


def test_at_least_one_is_set_aside_however_small_the_share() -> None:
    train, held_out = set_aside(_many(3), 0.0001)
    assert (len(train), len(held_out)) == (2, 1)


def test_copies_of_a_conversation_are_on_one_side() -> None:
    train, held_out = set_aside(_many(50) + _many(50), 0.2)
    assert not leaks(train, held_out)


def test_a_split_that_leaves_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match=r"data.held_out_share: 0.1 of 2 conversations"):
        set_aside((conversation("q", "a"), conversation("q", "a")), 0.1)


def test_copies_and_leaks_are_told_by_their_places() -> None:
    first, second, other = (conversation("q", "a", where=f"x:{k}") for k in (1, 2, 3))
    alone = conversation("q", "b", where="x:4")
    assert copies([first, alone, second]) == [("x:1", "x:2")]
    assert leaks([first, alone], [other]) == [("x:1", "x:3")]
