import pytest

from components.write_report.differences import marked


def test_what_only_one_answer_has_is_marked_in_both() -> None:
    found = marked("The answer is 12 apples.", "The answer is 19 apples.")
    assert found.base == "The answer is <mark>12</mark> apples."
    assert found.tuned == "The answer is <mark>19</mark> apples."


@pytest.mark.parametrize(
    ("base", "tuned"),
    [("", "something"), ("wholly other words", "一つも同じでない"), ("the same", "the same")],
)
def test_equal_or_unlike_answers_have_no_marks(base: str, tuned: str) -> None:
    found = marked(base, tuned)
    assert (str(found.base), str(found.tuned)) == (base, tuned)


def test_what_a_model_writes_stays_text() -> None:
    found = marked("say <b>yes</b> now", "say <b>no</b> & <mark>now")
    assert "<b>" not in found.base
    assert found.tuned.count("<mark>") == found.tuned.count("</mark>")
    assert found.tuned.unescape().count("<b>") == 1


def test_japanese_is_compared_letter_by_letter() -> None:
    assert marked("答えは青です。", "答えは赤です。").tuned == "答えは<mark>赤</mark>です。"
