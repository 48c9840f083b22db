"""An answer and what the data has in its place -> numbers from 0 to 1."""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence

from components.shared.spec.gate import MeasuredOnAnswers

_PIECES = re.compile(r"[^\W_]+")
_WITHOUT_SPACES = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Kana and Han, which are written without spaces."""


def score_of(
    metric: MeasuredOnAnswers, answer: str, reference: str, *, pattern: str | None
) -> float:
    """Of one answer."""
    if metric == "pattern":
        assert pattern is not None
        return float(re.search(pattern, answer) is not None)
    return _SCORES[metric](answer, reference)


def exact_match(answer: str, reference: str) -> float:
    """1 where both are equal, by Unicode's NFKC and but for white space at the ends."""
    return float(
        unicodedata.normalize("NFKC", answer).strip()
        == unicodedata.normalize("NFKC", reference).strip()
    )


def is_json(answer: str, reference: str) -> float:
    """1 where the whole answer is one JSON value."""
    try:
        json.loads(answer)
    except (ValueError, RecursionError):
        return 0.0
    return 1.0


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004, ROUGE, section 3; beta 1)."""
    words, expected = words_of(answer), words_of(reference)
    common = longest_common(words, expected)
    if common:
        return 2 * common / (len(words) + len(expected))
    return 0.0


def words_of(text: str) -> list[str]:
    """Words in small letters, and each Japanese or Chinese letter as a word: `GPU は2つ` -> gpu,
    は,
    2, つ."""
    folded = unicodedata.normalize("NFKC", text).lower()
    return _PIECES.findall(_WITHOUT_SPACES.sub(lambda found: f" {found[0]} ", folded))


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    lengths = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for place, other in enumerate(second, start=1):
            above = lengths[place]
            if word == other:
                lengths[place] = before + 1
            else:
                lengths[place] = max(above, lengths[place - 1])
            before = above
    return lengths[-1]


_SCORES: dict[MeasuredOnAnswers, Callable[[str, str], float]] = {
    "exact_match": exact_match,
    "rouge_l": rouge_l,
    "json": is_json,
}
