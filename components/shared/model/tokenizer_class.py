"""A model's folder -> its tokenizer, by the one rule of training, evaluation and export.

transformers' loaders are arguments, since this package is also loaded where transformers is not.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from components.shared.errors import ModelError
from components.shared.printable import cut

T = TypeVar("T")


def by_class_or_file(folder: Path, by_class: Callable[..., T], by_file: Callable[..., T]) -> T:
    """The tokenizer by its class (`AutoTokenizer.from_pretrained`); where only code that came with the model has
    that class, by tokenizer.json alone (`PreTrainedTokenizerFast.from_pretrained`), as the dataset was made.

    Raises:
        ModelError: neither loads.
    """
    try:
        return _loaded(folder, by_class, by_file)
    except Exception as error:  # each class fails in its own way: ImportError, TypeError, KeyError
        reason = cut(" ".join(str(error).split()) or type(error).__name__, 200)
        raise ModelError(
            f"{folder / 'tokenizer_config.json'}: tokenizer_class: AutoTokenizer cannot load it: {reason}. "
            "Fix: in a copy of the model set tokenizer_class: PreTrainedTokenizerFast there, and train and serve that copy"
        ) from error


def _loaded(folder: Path, by_class: Callable[..., T], by_file: Callable[..., T]) -> T:
    try:
        return by_class(folder, trust_remote_code=False)
    except ValueError:
        return by_file(folder)
