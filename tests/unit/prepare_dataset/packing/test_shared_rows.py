import random
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from components.prepare_dataset.packing.shared_rows import pack

ROW = 64
LENGTHS = st.lists(st.integers(1, ROW), max_size=200)


@settings(deadline=None)
@given(LENGTHS)
def test_every_conversation_is_in_exactly_one_row(lengths: list[int]) -> None:
    assert sorted(index for row in pack(lengths, ROW) for index in row) == list(range(len(lengths)))


@settings(deadline=None)
@given(LENGTHS)
def test_no_row_is_longer_than_it_may_be_and_none_is_empty(lengths: list[int]) -> None:
    assert all(1 <= sum(lengths[index] for index in row) <= ROW for row in pack(lengths, ROW))


@settings(deadline=None)
@given(LENGTHS)
def test_rows_are_those_of_first_fit_decreasing_done_plainly(lengths: list[int]) -> None:
    plain: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        fits = (row for row in plain if sum(lengths[other] for other in row) + lengths[index] <= ROW)
        row = next(fits, None)
        if row is None:
            plain.append([index])
        else:
            row.append(index)
    assert sorted(pack(lengths, ROW)) == sorted(tuple(row) for row in plain)


def test_the_order_of_rows_is_always_the_same_and_not_that_of_lengths() -> None:
    rng = random.Random(0)
    lengths = [rng.randint(1, ROW) for _ in range(300)]
    rows = pack(lengths, ROW)
    longest = [max(lengths[index] for index in row) for row in rows]
    assert list(rows) == list(pack(lengths, ROW))
    assert longest != sorted(longest, reverse=True)
    assert rows[:3] == [(239, 227, 241), (171, 213), (233, 247)]  # a change here is a change of ROW_ORDER_VERSION


def test_nothing_gives_no_rows() -> None:
    assert len(pack([], ROW)) == 0


def test_packing_30_000_full_rows_takes_no_quadratic_time() -> None:
    start = time.process_time()
    pack([ROW] * 30_000, ROW)
    assert time.process_time() - start < 5  # takes 0.3 s; trying every earlier row would take a minute
