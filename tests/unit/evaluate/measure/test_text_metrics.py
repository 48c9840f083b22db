import pytest

from components.evaluate.measure.text_metrics import exact_match, is_json, longest_common, rouge_l, score_of, words_of


@pytest.mark.parametrize(("answer", "reference", "expected"), [("19", " 19\n", 1), ("１９", "19", 1), ("19.", "19", 0), ("", "", 1)])
def test_exact_match_is_of_the_whole_text_by_nfkc(answer: str, reference: str, expected: float) -> None:
    assert exact_match(answer, reference) == expected


@pytest.mark.parametrize(("answer", "expected"), [('{"a": 1}', 1), (" [] \n", 1), ("{'a': 1}", 0), ('```json\n{"a": 1}\n```', 0), ("", 0)])
def test_json_is_the_whole_answer(answer: str, expected: float) -> None:
    assert is_json(answer, "") == expected


def test_words_are_also_found_where_none_has_spaces() -> None:
    assert words_of("GPU は2つ、ですね。") == ["gpu", "は", "2", "つ", "で", "す", "ね"]


def test_longest_common_subsequence_may_have_gaps() -> None:
    assert longest_common("abcbdab", "bdcaba") == 4


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    # Lin 2004, section 3.1: recall 3/4 and precision 3/4 for the first, 2/4 for the second.
    [
        ("police kill the gunman", "police killed the gunman", 0.75),
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("", "a", 0),
    ],
)
def test_rouge_l_gives_the_papers_values(answer: str, reference: str, expected: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(expected)


def test_pattern_is_searched_for_anywhere() -> None:
    assert score_of("pattern", "the answer is 19.", "", pattern=r"\d+\.$") == 1
    assert score_of("pattern", "nineteen", "", pattern=r"\d+") == 0
