"""A question -> a model's greedy answer, through the tokenizer's chat template."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from components.shared.errors import DataError
from components.shared.model.tokenizer_class import by_class_or_file
from components.shared.spec.named_file import local_file


def load_tokenizer(folder: Path, chat_template: str) -> PreTrainedTokenizerBase:
    """The folder's tokenizer with the template that `data.chat_template` chose.

    Raises:
        DataError: that file is missing. ModelError: the tokenizer cannot be loaded.
    """
    tokenizer: PreTrainedTokenizerBase = by_class_or_file(
        folder, AutoTokenizer.from_pretrained, PreTrainedTokenizerFast.from_pretrained
    )
    if chat_template != "model":
        try:
            with local_file(chat_template) as path:
                tokenizer.chat_template = path.read_text(encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"data.chat_template: {chat_template!r} cannot be read: {error.strerror}"
            ) from None
    return tokenizer


def answer(
    model: Any,
    tokenizer: Any,
    question: str,
    *,
    answer_tokens: int,
    template_args: Mapping[str, Any] | None = None,
) -> str:
    """The model's own turn after the question, without special tokens; ends at an end-of-sequence
    token or `answer_tokens`. Without a chat template it is how the model continues the question, as
    a text.

    The chat template gets `template_args` as it did for the training data.
    """
    turns = [{"role": "user", "content": question}]
    return reply(
        model,
        tokenizer=tokenizer,
        turns=turns,
        answer_tokens=answer_tokens,
        template_args=template_args,
    )


def reply(
    model: Any,
    *,
    tokenizer: Any,
    turns: Sequence[Mapping[str, str]],
    answer_tokens: int,
    template_args: Mapping[str, Any] | None = None,
) -> str:
    """As `answer`, after all turns so far, of which the last one is a user's. Without a chat
    template a model continues that one."""
    prompt = _prompt(tokenizer, list(turns), template_args or {}).to(model.device)
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=answer_tokens,
        eos_token_id=end_tokens(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id
        if tokenizer.pad_token_id is not None
        else tokenizer.eos_token_id,
    )
    tokens_T = model.generate(
        input_ids=prompt["input_ids"],
        attention_mask=prompt["attention_mask"],
        generation_config=greedy,
    )[0]
    return tokenizer.decode(
        tokens_T[prompt["input_ids"].shape[1] :], skip_special_tokens=True
    ).strip()


def _prompt(
    tokenizer: Any, turns: list[Mapping[str, str]], template_args: Mapping[str, Any]
) -> Any:
    if not tokenizer.chat_template:
        return tokenizer(turns[-1]["content"], return_tensors="pt")
    arguments = {
        **template_args,
        "add_generation_prompt": True,
        "return_dict": True,
        "return_tensors": "pt",
    }
    return tokenizer.apply_chat_template(turns, **arguments)


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Ids that end an answer: the tokenizer's, and those in the model's generation_config (a chat
    model may have several)."""
    own = model.generation_config.eos_token_id
    if isinstance(own, list):
        ids = own
    else:
        ids = [own]
    return sorted({int(i) for i in (*ids, tokenizer.eos_token_id) if i is not None})
