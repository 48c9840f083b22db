import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from components.prepare_dataset.packing.stored import Chosen
from components.prepare_dataset.records.conversations import Conversation
from components.prepare_dataset.records.held_out import Split, asked_in_both, copies, leaks, set_aside
from components.prepare_dataset.report.quality import Places
from components.shared.errors import DataError
from tests.unit.prepare_dataset.conftest import conversation, kept


def _many(n: int) -> tuple[Conversation, ...]:
    return tuple(conversation(f"question {k}", "answer", where=f"x:{k}") for k in range(n))


def _sides(split: Split) -> tuple[Chosen[Conversation], Chosen[Conversation]]:
    return split.train, split.held_out


def test_about_the_asked_share_is_set_aside() -> None:
    train, held_out = _sides(set_aside(kept(*_many(2000)), 0.1))
    assert len(train) + len(held_out) == 2000
    assert 150 < len(held_out) < 250


@settings(deadline=None)
@given(st.permutations(range(40)), st.floats(0.01, 0.4))
def test_the_split_depends_on_neither_the_order_nor_the_number_of_others(order: list[int], share: float) -> None:
    everything = _many(40)
    held_out = {found.where for found in set_aside(kept(*everything), share).held_out}
    shuffled = set_aside(kept(*(everything[index] for index in order)), share).held_out
    fewer = set_aside(kept(*everything[:30]), share).held_out
    assert {found.where for found in shuffled} == held_out
    assert {found.where for found in fewer} <= held_out or len(fewer) == 1


def test_at_least_one_is_set_aside_however_small_the_share() -> None:
    train, held_out = _sides(set_aside(kept(*_many(3)), 0.0001))
    assert (len(train), len(held_out)) == (2, 1)


def test_copies_of_a_conversation_are_on_one_side() -> None:
    train, held_out = _sides(set_aside(kept(*_many(50), *_many(50)), 0.2))
    assert not leaks(train, held_out).count


def test_a_split_that_leaves_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match=r"data.held_out_share: 0.1 of 2 conversations"):
        set_aside(kept(conversation("q", "a"), conversation("q", "a")), 0.1)


def test_copies_and_leaks_are_told_by_their_places() -> None:
    first, second, other = (conversation("q", "a", where=f"x:{k}") for k in (1, 2, 3))
    alone = conversation("q", "b", where="x:4")
    assert copies(kept(first, alone, second)) == Places(count=1, first=(("x:1", "x:2"),))
    everything = kept(first, alone, other)
    assert leaks(everything.of([0, 1]), everything.of([2])) == Places(count=1, first=(("x:1", "x:3"),))


def test_of_many_copies_the_first_20_places_are_listed_and_a_repeated_source_is_none() -> None:
    everything = kept(*(conversation("q", "a", where=f"x:{number}") for number in range(50)))
    (places,) = copies(everything).first
    assert places == tuple(f"x:{number}" for number in range(20))
    assert copies(everything.of([3, 3, 3])).count == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 9)), min_size=20, max_size=60), st.floats(0.05, 0.4))
def test_by_prompt_no_question_is_on_both_sides(pairs: list[tuple[int, int]], share: float) -> None:
    talks = tuple(conversation(f"question  {q}", f"answer {a}", where=f"x:{n}") for n, (q, a) in enumerate(pairs))
    assume(len({talk.digest for talk in talks}) > 10)
    split = set_aside(kept(*talks), share)
    assert len(split.train) + len(split.held_out) == len(talks)
    assert split.by == "conversation" or not asked_in_both(split.train, split.held_out).count


def test_one_question_with_many_answers_is_split_by_conversation() -> None:
    split = set_aside(kept(*(conversation("q", f"answer {k}") for k in range(40))), 0.1)
    assert split.by == "conversation"
    assert 0 < len(split.held_out) < 20
    assert asked_in_both(split.train, split.held_out).count == len(split.held_out)


def test_white_space_makes_no_other_question() -> None:
    one, other = conversation("What  is\n12?", "a"), conversation("What is 12?", "b")
    assert one.question == other.question
    assert one.digest != other.digest
