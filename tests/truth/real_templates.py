"""Chat templates of published models, from a folder of `*.jinja` -> what transformers renders."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from components.prepare_dataset.records.conversations import Message
from components.prepare_dataset.templates.chat_template import turns_of

_ROLES = ("system", "user", "assistant", "tool", "model", "observation")
_SPECIAL = re.compile(
    r"<[|｜][^<>|｜\s{}'\"]+[|｜]>|<\|[a-z_]+>|<[a-z_]+\|>|\[/?[A-Z_]{3,}\]|<SPECIAL_\d+>"
    r"|</?(?:s|bos|eos|BOS_TOKEN|EOS_TOKEN|(?:start|end)_of_[a-z_]+)>"
)
"""Special tokens as templates write them; `<think>` and `<tool_call>` are plain tokens."""
_FAMILIES = (
    ("<|eot_id|>", "<|begin_of_text|>", "<|eot_id|>"),
    ("<|eot|>", "<|begin_of_text|>", "<|eot|>"),
    ("<end_of_turn>", "<bos>", "<end_of_turn>"),
    ("<turn|>", "<bos>", "<turn|>"),
    ("<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
    ("<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    ("<|return|>", "<|startoftext|>", "<|return|>"),
    ("<|im_end|>", "", "<|im_end|>"),
    ("<|end|>", "<s>", "<|end|>"),
    ("[|endofturn|]", "[BOS]", "[|endofturn|]"),
    ("", "<s>", "</s>"),
)
"""(what the template writes, bos, eos): the tokenizer's, as the models' makers name them."""


@dataclass(frozen=True)
class RealTemplate:
    name: str
    text: str

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        bos, eos = next((bos, eos) for mark, bos, eos in _FAMILIES if mark in self.text)
        return {"bos_token": bos, "eos_token": eos}

    @cached_property
    def end_tokens(self) -> tuple[str, ...]:
        written = set(_SPECIAL.findall(self.text))
        by_role = {f"<|{role}|>" for role in _ROLES}
        return tuple(sorted({*written, *by_role, *filter(None, self.special_tokens.values())}))

    @property
    def has_marks(self) -> bool:
        return "{% generation" in self.text or "{%- generation" in self.text

    def for_use(self, messages: Sequence[Message], tools: Any, *, prompt: bool = False) -> str:
        """What transformers renders. Raises whatever the template raises."""
        special_tokens: dict[str, Any] = dict(self.special_tokens)
        texts, _ = render_jinja_template(
            conversations=[turns_of(self.text, messages)],
            tools=tools,
            chat_template=self.text,
            add_generation_prompt=prompt,
            **special_tokens,
        )
        return texts[0]


def templates_in(folders: Iterable[Path]) -> list[RealTemplate]:
    """One of each text."""
    found: dict[str, RealTemplate] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.jinja")):
            text = path.read_text(encoding="utf-8")
            found.setdefault(text, RealTemplate(str(path.relative_to(folder)), text))
    return list(found.values())
