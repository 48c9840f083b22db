"""Does AutoTokenizer, by which the model will be served, give the tokens that the dataset has?"""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from components.shared.tokenizer_class import by_class_or_file
from components.shared.tokenizer_sample import read_tokenizer_sample, refuse_other_tokens


def check_tokens(folder: Path, dataset: Path) -> None:
    """The tokenizer in the model's folder gives the tokens of the dataset's sample. Raises ModelError where it does not
    or cannot be loaded."""
    sample = read_tokenizer_sample(dataset)
    if sample.may_differ:
        tokenizer = by_class_or_file(folder, AutoTokenizer.from_pretrained, PreTrainedTokenizerFast.from_pretrained)
        refuse_other_tokens(sample, folder, lambda text: tokenizer.encode(text, add_special_tokens=False))
