import pytest

from components.shared.figures import plain, plural


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (0.0000123, "0.000012"),
        (0.026, "0.026"),
        (8.24, "8.2"),
        (9.96, "10"),
        (10.4, "10"),
        (943.4, "943"),
        (3750.2, "3,750"),
    ],
)
def test_no_number_is_written_with_an_exponent(number: float, text: str) -> None:
    assert plain(number) == text


def test_a_noun_has_an_s_where_it_is_not_one() -> None:
    assert (plural(1, "epoch"), plural(1200, "step")) == ("1 epoch", "1,200 steps")
