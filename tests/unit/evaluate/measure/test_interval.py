"""The interval holds what it promises: the true mean in about 95 of 100 samples of conversations."""

import random

import pytest

from components.evaluate.measure.interval import mean_score, student_t


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.706), (2, 4.303), (10, 2.228), (11, 2.201), (20, 2.086), (60, 2.000), (9999, 1.960)]
)
def test_students_t_is_that_of_tables(freedom: int, expected: float) -> None:
    assert student_t(freedom) == pytest.approx(expected, abs=2e-3)


def test_mean_weighs_each_token_the_same() -> None:
    assert mean_score([2.0, 9.0], [1, 2]).value == pytest.approx(11 / 3)


def test_equal_conversations_have_an_interval_of_no_width() -> None:
    found = mean_score([2.0, 4.0, 6.0], [1, 2, 3])
    assert (found.low, found.value, found.high) == (2.0, 2.0, 2.0)


def test_one_conversation_has_no_interval() -> None:
    assert mean_score([3.0], [2]).low is None


@pytest.mark.parametrize("number", [4, 30])
def test_the_true_mean_is_inside_in_about_95_of_100_samples(number: int) -> None:
    """Tokens of a conversation share its difficulty: an interval over tokens would hold it in fewer than 40."""
    dice = random.Random(number)
    inside = 0
    for _ in range(2000):
        lengths = [dice.randint(20, 60) for _ in range(number)]
        sums = [length * (2.0 + dice.gauss(0, 0.5)) + dice.gauss(0, length**0.5) for length in lengths]
        found = mean_score(sums, lengths)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 2.0 <= found.high
    assert 0.93 <= inside / 2000 <= 0.97
