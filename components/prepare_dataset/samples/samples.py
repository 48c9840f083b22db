"""A conversation and a chat template -> the texts to train on, with the spans that the model learns
to write.

An assistant turn is trained on as it is asked for in use: behind the prompt that the template
writes for the turns before it. Where a template only ever adds text, one text serves all turns of a
conversation. Where it writes earlier turns otherwise (Qwen3 and gpt-oss leave out their reasoning),
each such turn gets a text of its own, up to its end.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from components.prepare_dataset.records.conversations import Conversation, Message
from components.prepare_dataset.templates.chat_template import ChatTemplate
from components.shared.errors import DataError

_THINKING = re.compile(r"<think>\s*</think>")
_LAST_TAG = re.compile(r"(<(/?)([^<>\s/]{1,40})>|\[(/?)([A-Z_]{1,40})\])$")
"""`<think>` or `[THINK]` at the end of a prompt, white space aside."""
_LONGEST_TAG = 43

# Notes: what the warnings count. A role that was left out is noted as `left out: system`.
EMPTY_REASONING = "empty reasoning"
REWRITTEN = "rewritten"
HEADER_TRAINED = "header trained"
ENDED_BY_EOS = "ended by eos"
LEFT_OUT = "left out: "

_NEXT_QUESTION = "And then?"


@dataclass(frozen=True, slots=True)
class Sample:
    text: str
    spans: tuple[tuple[int, int], ...]
    """[start, end) in characters of what is trained on, each with its end-of-turn token."""
    notes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Turn:
    """One assistant turn behind its prompt."""

    prompt: str
    completion: str
    notes: frozenset[str]

    @property
    def text(self) -> str:
        return self.prompt + self.completion


def samples_of(
    template: ChatTemplate, conversation: Conversation, end_tokens: tuple[str, ...]
) -> tuple[Sample, ...]:
    """The texts of a conversation in the order of their last turns; each trained turn is in exactly
    one.

    Raises:
        DataError: the template refuses the conversation, leaves out part of an answer, or ends a
            turn by no token.
    """
    rendered = _Rendered(template, conversation, end_tokens)
    left = [
        index
        for index, message in enumerate(conversation.messages)
        if message.role == "assistant" and message.trained
    ]
    samples: list[Sample] = []
    while left:
        last = left.pop()
        turn = rendered.turn(last)
        spans = [(len(turn.prompt), len(turn.text))]
        notes = set(turn.notes)
        for index in reversed(left.copy()):
            span = rendered.span_within(turn.text, index)
            if span is not None:
                spans.append(span)
                notes |= rendered.notes_of_completion(index, turn.text[span[0] : span[1]])
                left.remove(index)
        marked = rendered.marked(last, turn.text, sorted(spans))
        notes.update(rendered.left_out(last, turn.text))
        if marked:
            samples.append(
                Sample(rendered.with_tail(last, turn.text), tuple(marked), frozenset(notes))
            )
    if not samples:
        raise DataError(
            f"{template.name} marks no assistant turn by generation, so nothing would be learned"
        )
    return tuple(reversed(samples))


@dataclass
class _Rendered:
    """The texts of one conversation, each rendered once."""

    template: ChatTemplate
    conversation: Conversation
    end_tokens: tuple[str, ...]
    _through: dict[int, str] = field(default_factory=dict)
    _prompts: dict[int, str] = field(default_factory=dict)

    @property
    def _messages(self) -> tuple[Message, ...]:
        return self.conversation.messages

    def through(self, index: int) -> str:
        """The text of the turns up to this one and with it."""
        if index not in self._through:
            self._through[index] = self._render(self._messages[: index + 1])
        return self._through[index]

    def prompt(self, index: int) -> str:
        """The text by which this turn is asked for in use."""
        if index not in self._prompts:
            self._prompts[index] = self._render(self._messages[:index], add_generation_prompt=True)
        return self._prompts[index]

    def _render(self, messages: tuple[Message, ...], *, add_generation_prompt: bool = False) -> str:
        tools = self.conversation.tools
        return self.template.render(
            messages, tools=tools, add_generation_prompt=add_generation_prompt
        )

    def turn(self, index: int) -> _Turn:
        """The turn as the last one of its text. Raises DataError where it cannot be trained on."""
        prompt, through = self.prompt(index), self.through(index).rstrip()
        notes: set[str] = set()
        if through.startswith(prompt):
            completion = through[len(prompt) :]
        else:
            completion = _behind_prompt(prompt, through, "")
            notes.add(REWRITTEN)
        if not self._has_reasoning(index, prompt, completion):
            completion = _behind_prompt(prompt, through, _reasoning_of(self._messages[index]))
            notes.add(REWRITTEN)
        lost = self._lost(index, prompt, completion)
        if lost is not None:
            raise DataError(
                f"{self.template.name} leaves out {lost} of assistant turn messages[{index}], so "
                "it would not be learned; correct a copy of the template and name it in "
                "data.chat_template, or take that part out of the record"
            )
        if not completion.endswith(self.end_tokens):
            ending = self._ended_by_next(index, completion)
            if ending is None:
                ending = self._eos()
                notes.add(ENDED_BY_EOS)
            completion += ending
        return _Turn(
            prompt, completion, frozenset(notes | self.notes_of_completion(index, completion))
        )

    def with_tail(self, index: int, text: str) -> str:
        """The text with the white space that the template puts behind it, so that it is the
        template's own."""
        through = self.through(index)
        if through.rstrip() == text:
            return through
        return text

    def span_within(self, text: str, index: int) -> tuple[int, int] | None:
        """[start, end) of an earlier turn in a later one's text, if it stands there as it is asked
        for in use."""
        prompt, through = self.prompt(index), self.through(index).rstrip()
        if not text.startswith(prompt) or not through.startswith(prompt):
            return None
        end = self._end_within(text, through, start=len(prompt))
        if end is None:
            return None
        completion = text[len(prompt) : end]
        if self._lost(index, prompt, completion) or not self._has_reasoning(
            index, prompt, completion
        ):
            return None
        return len(prompt), end

    def _end_within(self, text: str, through: str, *, start: int) -> int | None:
        """Where the turn that ends `through` ends in a later turn's text, which may part from it
        behind the turn."""
        if not text.startswith(through):  # Phi-3 writes eos behind the last turn alone
            end = _last_token_end(text, start, _common_prefix(text, through), self.end_tokens)
            if end is None:
                rest = ""
            else:
                rest = through[end:]
            for token in self.end_tokens:
                rest = rest.replace(token, "")
            if rest.strip():
                return None
            return end
        if through.endswith(self.end_tokens):
            return len(through)
        token = self._next_token(text, len(through))  # GLM ends a turn by the role of the next one
        if token is None:
            return None
        return text.index(token, len(through)) + len(token)

    def marked(self, last: int, text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The spans, as far as `{% generation %}` marks of the template agree: a turn without mark
        is not trained on."""
        if not self.template.has_marks or not text.startswith(self.through(last).rstrip()):
            return spans
        marks = self.template.marks(self._messages[: last + 1], tools=self.conversation.tools)
        found: list[tuple[int, int]] = []
        for start, end in spans:
            inside = [
                mark_start
                for mark_start, mark_end in marks
                if mark_start < end and mark_end > start
            ]
            if inside:
                found.append((max(start, min(inside)), end))
        return found

    def left_out(self, last: int, text: str) -> Iterator[str]:
        """A note for each role that has a turn whose words are not in the text."""
        for message in self._messages[:last]:
            if (
                message.role != "assistant"
                and message.content not in text
                and not _written_otherwise(message.content, text)
            ):
                yield f"{LEFT_OUT}{message.role}"

    def notes_of_completion(self, index: int, completion: str) -> set[str]:
        notes: set[str] = set()
        opened = _last_tag(self.prompt(index))
        begins_closed = opened is not None and completion.lstrip().startswith(_closing(opened))
        if _THINKING.search(completion) or begins_closed:
            notes.add(EMPTY_REASONING)
        answer = self._messages[index].content.strip()
        header = completion[: max(0, completion.rfind(answer))]
        if any(token in header for token in self.end_tokens) and self._ignores_generation_prompt:
            notes.add(HEADER_TRAINED)
        return notes

    @cached_property
    def _ignores_generation_prompt(self) -> bool:
        """Whether the first assistant turn is asked for by no text of its own."""
        first = next(
            index for index, message in enumerate(self._messages) if message.role == "assistant"
        )
        try:
            return self.prompt(first) == self._render(self._messages[:first])
        except DataError:
            return False

    def _has_reasoning(self, index: int, prompt: str, completion: str) -> bool:
        reasoning = _reasoning_of(self._messages[index])
        return reasoning in completion or _letters(reasoning) in _letters(
            prompt[-200:] + completion
        )

    def _lost(self, index: int, prompt: str, completion: str) -> str | None:
        """What of an answer's words or calls is not in its completion."""
        message = self._messages[index]
        if message.content in completion and not message.tool_calls:
            return None
        written = _letters(completion)
        words = _letters(message.content.split("</think>")[-1])
        if words not in written and not _begun_by(prompt, words, written):
            return "part"
        for call in message.tool_calls:
            if _letters(call["function"]["name"]) not in written:
                return f"the call of {call['function']['name']!r}"
        return None

    def _ended_by_next(self, index: int, completion: str) -> str | None:
        """What the template puts behind the turn when a user's turn follows, through the first
        special token."""
        try:
            text = self._render((*self._messages[: index + 1], Message("user", _NEXT_QUESTION)))
        except DataError:
            return None
        last_words = completion.split("</think>")[-1].strip()[-40:]
        end = text.find(_NEXT_QUESTION)
        while last_words and (end := text.rfind(last_words, 0, end)) >= 0:
            behind = end + len(last_words)
            token = self._next_token(text, behind)
            if token is not None:
                return text[behind : text.index(token, behind) + len(token)]
        return None

    def _eos(self) -> str:
        """The token that ends every text of this model. Raises DataError where it has none."""
        eos = self.template.special_tokens.get("eos_token", "")
        if eos not in self.end_tokens:
            raise DataError(
                f"{self.template.name} ends assistant turns without an end-of-turn token, and the "
                "tokenizer names no eos_token, so the model would never stop; name eos_token in "
                "tokenizer_config.json, or write it in a copy of the template"
            )
        return eos

    def _next_token(self, text: str, position: int) -> str | None:
        """The special token that follows at once, white space aside."""
        rest = text[position : position + 200].lstrip()
        return max(
            (token for token in self.end_tokens if rest.startswith(token)), key=len, default=None
        )


def _behind_prompt(prompt: str, through: str, reasoning: str) -> str:
    """What a model writes behind the prompt, of a turn that the template writes otherwise
    afterwards.

    DeepSeek-R1's prompt opens `<think>`, and the finished turn has neither that nor the reasoning:
    so what is written is the reasoning, the closing tag, and the turn as the template has it.
    """
    position = _shared_end(prompt, through)
    begun, written = prompt[position:], through[position:]
    opened = _last_tag(begun)
    if opened is not None and not (opened.group(2) or opened.group(4)):
        if reasoning:
            thoughts = f"{reasoning}\n"
        else:
            thoughts = "\n"
        return f"{thoughts}{_closing(opened)}\n\n{written.lstrip()}"
    written = _without_begun(begun, written)
    if reasoning:
        return f"<think>\n{reasoning}\n</think>\n\n{written.lstrip()}"
    return written


def _shared_end(prompt: str, through: str) -> int:
    """Where the two part, or where the prompt's tag begins, if they part inside one."""
    position = _common_prefix(prompt, through)
    opens = max(prompt.rfind("<", 0, position), prompt.rfind("[", 0, position))
    closes = max(prompt.rfind(">", 0, position), prompt.rfind("]", 0, position))
    if opens > closes:
        return opens
    return position


def _without_begun(begun: str, written: str) -> str:
    """`written` without what the prompt has begun already, white space aside."""
    letters = _letters(begun)
    if not letters or not _letters(written).startswith(letters):
        return written
    count = 0
    for index, char in enumerate(written):
        if count == len(letters):
            return written[index:]
        count += not char.isspace()
    return ""


def _begun_by(prompt: str, words: str, written: str) -> bool:
    """Whether the answer's words begin with the tag at the prompt's end, and go on in what is
    written."""
    opened = _last_tag(prompt)
    if opened is not None:
        tag = opened.group(1)
    else:
        tag = ""
    return bool(tag) and words.startswith(tag) and words[len(tag) :] in written


def _last_tag(text: str) -> "re.Match[str] | None":
    return _LAST_TAG.search(text.rstrip()[-_LONGEST_TAG:])


def _closing(opened: "re.Match[str]") -> str:
    if opened.group(3):
        return f"</{opened.group(3)}>"
    return f"[/{opened.group(5)}]"


def _reasoning_of(message: Message) -> str:
    """The turn's reasoning, by its key or between think tags of its text."""
    if message.reasoning:
        return message.reasoning
    thoughts, closed, _ = message.content.rpartition("</think>")
    if closed:
        return thoughts.split("<think>")[-1].strip("\n")
    return ""


def _last_token_end(text: str, start: int, stop: int, tokens: tuple[str, ...]) -> int | None:
    """Where the last of the tokens between the two places ends."""
    ends = [
        place + len(token) for token in tokens if (place := text.rfind(token, start, stop)) >= 0
    ]
    return max(ends, default=None)


def _common_prefix(one: str, other: str) -> int:
    """How many characters the two begin with alike; compares halves, as Python compares whole
    strings fast."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _written_otherwise(words: str, text: str) -> bool:
    """Whether the words are in the text but for white space, or as JSON, as some templates write
    the results of tools."""
    written = _letters(text)
    return (
        _letters(words) in written
        or _letters(json.dumps(words, ensure_ascii=False)[1:-1]) in written
    )


def _letters(text: str) -> str:
    """The text without white space, which templates trim and add at will."""
    return "".join(text.split())
