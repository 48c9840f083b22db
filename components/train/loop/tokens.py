"""Does AutoTokenizer, by which the model will be served, give the tokens and the texts that the dataset has?"""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from components.shared.documents.prompts import Prompts, rendered_otherwise
from components.shared.documents.tokenizer_sample import read_tokenizer_sample, refuse_other_tokens
from components.shared.errors import ModelError
from components.shared.model.tokenizer_class import by_class_or_file
from components.shared.printable import cut


def check_tokens(folder: Path, dataset: Path) -> None:
    """The tokenizer in the model's folder gives the tokens of the dataset's sample. Raises ModelError where it does not
    or cannot be loaded."""
    sample = read_tokenizer_sample(dataset)
    if sample.may_differ:
        tokenizer = by_class_or_file(folder, AutoTokenizer.from_pretrained, PreTrainedTokenizerFast.from_pretrained)
        refuse_other_tokens(sample, folder, lambda text: tokenizer.encode(text, add_special_tokens=False))


def check_template(folder: Path, prompts: Prompts) -> None:
    """transformers renders the chat template as the dataset was written; an export of another text would be refused.

    Raises:
        ModelError: it does not, or the tokenizer cannot be loaded.
    """
    if not prompts.rendered:
        return
    tokenizer = by_class_or_file(folder, AutoTokenizer.from_pretrained, PreTrainedTokenizerFast.from_pretrained)
    tokenizer.chat_template = prompts.chat_template
    try:
        wrong, num_rendered = rendered_otherwise(tokenizer, prompts)
    except Exception as error:  # whatever an expression of the template raises
        reason = cut(" ".join(str(error).split()) or type(error).__name__, 200)
        raise ModelError(_template_problem(f"cannot render it: {reason}")) from error
    if wrong:
        raise ModelError(_template_problem(f"writes {wrong} of {num_rendered} prompts of the dataset differently"))


def _template_problem(what: str) -> str:
    return (
        f"data.chat_template: transformers, by which the model will be served, {what}. "
        "Fix: set another data.chat_template, or other data.template_args"
    )
