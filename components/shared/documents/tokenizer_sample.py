"""A sample of the dataset's texts with their token ids, by which later steps see that they tokenise
as the dataset did.

The dataset is tokenised by tokenizer.json itself. AutoTokenizer (transformers 5), by which models
are evaluated and served, builds some classes of tokenizers anew from code and leaves out what their
tokenizer.json says otherwise, such as a normalizer.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from components.shared.documents.dataset import read_document
from components.shared.documents.fields import FrozenModel
from components.shared.errors import ModelError

TOKENIZER_SAMPLE = "tokenizer_sample.json"
"""Name of the file in dataset/."""

AS_WRITTEN = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of which transformers 5 takes tokenizer.json as it is."""


class SampleText(FrozenModel):
    text: str
    ids: tuple[int, ...]


class TokenizerSample(FrozenModel):
    schema_version: int = 1
    tokenizer_class: str | None
    """Of tokenizer_config.json."""
    texts: tuple[SampleText, ...]

    @property
    def may_differ(self) -> bool:
        """Whether AutoTokenizer may read this tokenizer otherwise than its tokenizer.json says."""
        return self.tokenizer_class not in AS_WRITTEN


def read_tokenizer_sample(dataset: Path) -> TokenizerSample:
    """The sample of a dataset's folder on this machine. Raises DataError where it has none."""
    return read_document(dataset, TOKENIZER_SAMPLE, TokenizerSample, needed_to="compare tokens")


def refuse_other_tokens(
    sample: TokenizerSample, folder: Path, encode: Callable[[str], Sequence[int]]
) -> None:
    """Every text of the sample has, by `encode`, the tokens that the dataset has. `folder` is the
    model's.

    Raises:
        ModelError: one has not: what is trained would not be what is evaluated and served.
    """
    for each in sample.texts:
        found = tuple(encode(each.text))
        if found != each.ids:
            raise ModelError(_difference(each, found, sample.tokenizer_class, folder))


def _difference(
    sample: SampleText, found: tuple[int, ...], tokenizer_class: str | None, folder: Path
) -> str:
    pairs = zip(sample.ids, found, strict=False)
    place = next(
        (index for index, (ours, theirs) in enumerate(pairs) if ours != theirs),
        min(len(sample.ids), len(found)),
    )
    if len(sample.text) <= 80:
        shown = sample.text
    else:
        shown = f"{sample.text[:79]}…"
    return (
        f"{folder / 'tokenizer.json'}: AutoTokenizer ({tokenizer_class}) gives other tokens than "
        f"this file, so the model would be served other tokens than it was trained on: {shown!r} "
        f"has {len(sample.ids)} tokens by the file and {len(found)} by AutoTokenizer, different "
        f"from token {place} on ({list(sample.ids[place : place + 3])}, not "
        f"{list(found[place : place + 3])}). Fix: in a copy of the model set tokenizer_class: "
        "PreTrainedTokenizerFast in tokenizer_config.json, and train and serve that copy"
    )
