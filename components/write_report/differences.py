"""Two answers -> both with marks where they differ."""

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

from markupsafe import Markup, escape

LEAST_ALIKE = 0.25
"""Answers that share less are other texts: marks all over would say nothing."""
_PIECES = re.compile(r"[぀-ヿ㐀-鿿豈-﫿]|\w+|\s+|[^\w\s]")
"""A Japanese or Chinese letter, a word, white space, or another sign."""


@dataclass(frozen=True)
class Marked:
    """HTML, all text escaped."""

    base: Markup
    tuned: Markup


def marked(base: str, tuned: str) -> Marked:
    """`mark` elements around what only one of the answers has; none where they are equal or hardly
    alike."""
    before, after = _PIECES.findall(base), _PIECES.findall(tuned)
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    if base == tuned or matcher.ratio() < LEAST_ALIKE:
        return Marked(escape(base), escape(tuned))
    left, right = Markup(), Markup()
    for kind, from_a, to_a, from_b, to_b in matcher.get_opcodes():
        left += _part(before[from_a:to_a], is_same=kind == "equal")
        right += _part(after[from_b:to_b], is_same=kind == "equal")
    return Marked(left, right)


def _part(pieces: list[str], *, is_same: bool) -> Markup:
    text = escape("".join(pieces))
    if is_same or not text.strip():
        return text
    return Markup("<mark>{}</mark>").format(text)
