"""Tokenizers of published models, from GGUF files without weights -> ids as use has them, and as
training has them.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from components.prepare_dataset.samples.samples import Sample
from components.prepare_dataset.samples.token_places import PlacedTokenizer


@dataclass(frozen=True)
class RealTokenizer:
    name: str
    folder: Path
    """With tokenizer.json and tokenizer_config.json, as transformers saves them."""

    @cached_property
    def _for_use(self) -> Any:
        return AutoTokenizer.from_pretrained(self.folder)

    @cached_property
    def _for_training(self) -> PlacedTokenizer:
        return PlacedTokenizer(Tokenizer.from_file(str(self.folder / "tokenizer.json")))

    @cached_property
    def special_tokens(self) -> frozenset[str]:
        added = self._for_use.added_tokens_decoder.values()
        return frozenset(token.content for token in added if token.special)

    @property
    def eos_token(self) -> str:
        return self._for_use.eos_token

    def knows(self, sample: Sample) -> bool:
        """Whether each answer ends by a token of this tokenizer: else it is of another family."""
        ends = tuple(self.special_tokens)
        return all(sample.text.endswith(ends, start, end) for start, end in sample.spans)

    def fault(self, sample: Sample) -> str | None:
        """What differs between the ids that are trained on and those of use, if something does."""
        (tokens,) = self._for_training.encode([sample.text], [sample.spans])
        ids = tokens.ids.tolist()
        if ids != self._used(sample.text):
            return f"{self.name}: other ids of the text"
        for (start, end), place in zip(sample.spans, tokens.ranges, strict=True):
            if place is None:
                return f"{self.name}: no tokens of {sample.text[start:end]!r}"
            first, last = place
            if ids[:last] != self._used(sample.text[:end]):
                return f"{self.name}: other ids up to the end of {sample.text[start:end]!r}"
            if ids[:first] != self._used(sample.text[:start]) and not tokens.starts_inside_token:
                return f"{self.name}: other ids of the prompt {sample.text[:start][-40:]!r}"
        return None

    def _used(self, text: str) -> list[int]:
        return self._for_use(text, add_special_tokens=False)["input_ids"]


def real_tokenizers(folders: Iterable[Path]) -> list[RealTokenizer]:
    """Of the `*.gguf` files that transformers reads; others are left out, each reported with its
    reason."""
    found: list[RealTokenizer] = []
    for path in sorted(path for folder in folders for path in folder.rglob("*.gguf")):
        saved = Path(tempfile.mkdtemp(prefix=f"{path.stem}-"))
        try:
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        except ValueError as error:
            print(f"{path.name}: left out: {error}")
            continue
        tokenizer.save_pretrained(saved)
        found.append(RealTokenizer(path.stem.removeprefix("ggml-vocab-"), saved))
    return found
