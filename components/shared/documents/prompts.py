"""prompts.json of dataset/: a few conversations of the data, as text and as token ids, and the base
files that made the ids.

Training records the trained model's logits for them, and the export must give the same ids and
logits.
"""

import hashlib
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from components.shared.documents.dataset import read_document
from components.shared.documents.fields import FrozenModel
from components.shared.model.source import CONFIG_AND_TOKENIZER

PROMPTS: Final = "prompts.json"
NUM_PROMPTS: Final = 4
"""Most prompts of a dataset."""
PROBE: Final = "probe.safetensors"
"""The trained model's logits for the prompts: in each epoch's checkpoint, and beside history.json
those of the end of training."""
PROBE_TOKENS: Final = 256
"""Most tokens of a prompt that pass through the model."""
PROBE_POSITIONS: Final = 8
"""Last positions of a prompt whose logits are kept. Each depends on all tokens before it, so that a
long prompt is tested as a whole; four prompts of a vocabulary of 150,000 tokens are 19 MB."""


def probe_bytes(vocabulary: int) -> int:
    """Most that a probe takes, in fp32."""
    return 4 * NUM_PROMPTS * PROBE_POSITIONS * vocabulary


class Prompt(FrozenModel):
    """One text of the data: a conversation, or the part of one that is trained on at once."""

    messages: tuple[dict[str, Any], ...] = ()
    """Of a whole conversation, its turns as the chat template gets them; none for a part of one."""
    tools: tuple[dict[str, Any], ...] | None = None
    text: str
    """As it was encoded."""
    token_ids: tuple[int, ...]
    """Of `text`, without special tokens that the tokenizer would add by itself."""
    probe_length: int
    """Leading token ids that pass through the model."""
    ends_turn: bool
    """The last of those is the end token of an assistant turn."""

    @property
    def probe_ids(self) -> tuple[int, ...]:
        return self.token_ids[: self.probe_length]


class BaseFile(FrozenModel):
    """A small file of the base model: config, tokenizer, chat template."""

    name: str
    sha256: str


class NewToken(FrozenModel):
    """A text of `data.new_tokens`, which is one token from now on."""

    text: str
    token_id: int
    pieces: tuple[int, ...]
    """Tokens of the base's tokenizer for the text: the mean of their rows is where the new one
    begins."""


class Prompts(FrozenModel):
    schema_version: Literal[1] = 1
    chat_template: str
    """The Jinja text that wrote the training data; empty where the data is texts without turns and
    the model brings none."""
    template_args: dict[str, Any] = Field(default_factory=dict)
    """What else it was given: `data.template_args`."""
    end_token_ids: tuple[int, ...]
    """Tokens with which the assistant turns of these conversations end."""
    base_files: tuple[BaseFile, ...]
    new_tokens: tuple[NewToken, ...] = ()
    tokenizer_sha256: str | None = None
    """Of the base's tokenizer.json with the new tokens in it (shared/model/new_tokens.py); None
    where there are none."""
    prompts: tuple[Prompt, ...]

    @property
    def dated(self) -> bool:
        """The template writes the day's date, so that another day gives another text."""
        return "strftime_now" in self.chat_template

    @property
    def rendered(self) -> tuple[Prompt, ...]:
        """Whole conversations, whose text the template writes the same on any day."""
        if self.dated:
            return ()
        return tuple(prompt for prompt in self.prompts if prompt.messages)


def base_files(folder: Path) -> tuple[BaseFile, ...]:
    """The small files that decide token ids and shapes, as far as the base model has them."""
    present = (folder / name for name in CONFIG_AND_TOKENIZER)
    return tuple(
        BaseFile(name=path.name, sha256=_sha256(path)) for path in present if path.is_file()
    )


def read_prompts(dataset: Path) -> Prompts:
    """Of a fetched dataset/. Raises DataError where it has none."""
    return read_document(dataset, PROMPTS, Prompts, needed_to="verify the export")


def rendered_otherwise(tokenizer: Any, prompts: Prompts) -> tuple[int, int]:
    """(prompts that the tokenizer's chat template writes otherwise than training's text, prompts
    that it wrote).

    `tokenizer` is one of transformers.
    """
    wrong = sum(
        _rendered(tokenizer, prompt, prompts.template_args) != prompt.text
        for prompt in prompts.rendered
    )
    return wrong, len(prompts.rendered)


def _rendered(tokenizer: Any, prompt: Prompt, template_args: dict[str, Any]) -> str:
    if prompt.tools is None:
        tools = None
    else:
        tools = list(prompt.tools)
    return tokenizer.apply_chat_template(
        list(prompt.messages), tools=tools, tokenize=False, **template_args
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
