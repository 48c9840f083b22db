"""A model's tokenizer + `data.new_tokens` -> the tokenizer that knows them; refused where a text is
a token already."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from components.shared.documents.prompts import NewToken
from components.shared.errors import ModelError
from components.shared.model.new_tokens import grown_tokenizer
from components.shared.printable import shown


@dataclass(frozen=True)
class Added:
    """What was added to a model's tokenizer."""

    tokenizer: Tokenizer
    """With the new tokens."""
    new_tokens: tuple[NewToken, ...]
    sha256: str
    """Of the text of its tokenizer.json."""


def add_tokens(base: Tokenizer, folder: Path, texts: tuple[str, ...]) -> Added:
    """Raises ModelError for texts that are one token of the base already, or that cannot be
    one; all at once."""
    problems = list(_problems(base, texts))
    if problems:
        raise ModelError(*problems)
    content, ids = grown_tokenizer(folder, texts)
    tokenizer: Any = Tokenizer.from_str(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    other = [
        text for text, number in zip(texts, ids, strict=True) if _is_other(tokenizer, text, number)
    ]
    if other:
        raise ModelError(
            f"data.new_tokens: {shown(other[0])} does not become one token of "
            f"{folder / 'tokenizer.json'}, whose ids leave gaps or whose tokens overlap. Fix: "
            "remove it, or add it to the model's files by hand"
        )
    made = tuple(
        NewToken(text=text, token_id=number, pieces=tuple(_pieces(base, text)))
        for text, number in zip(texts, ids, strict=True)
    )
    return Added(tokenizer, made, hashlib.sha256(content.encode()).hexdigest())


def _problems(base: Tokenizer, texts: tuple[str, ...]) -> Iterator[str]:
    for text in texts:
        pieces = _pieces(base, text)
        found = base.token_to_id(text)
        if found is None and len(pieces) == 1 and base.decode(pieces) == text:
            found = pieces[0]
        if found is not None:
            yield (
                f"data.new_tokens: {shown(text)} is a token of the model already (id {found}). "
                "Fix: remove it"
            )
        elif not pieces:
            yield f"data.new_tokens: the tokenizer sees nothing in {shown(text)}. Fix: remove it"


def _pieces(base: Tokenizer, text: str) -> list[int]:
    return base.encode(text, add_special_tokens=False).ids


def _is_other(tokenizer: Tokenizer, text: str, number: int) -> bool:
    alone = tokenizer.encode(text, add_special_tokens=False).ids
    return tokenizer.token_to_id(text) != number or alone != [number]
