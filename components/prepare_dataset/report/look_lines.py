"""What data is (look.py) -> lines of text for a terminal, or JSON for programs."""

import json
import re
import textwrap
from collections.abc import Iterator

from components.prepare_dataset.report.look import (
    DataLook,
    FileLook,
    RecordCounts,
    ShownRecord,
    shortened,
)
from components.prepare_dataset.report.shown_samples import ShownSample, ShownToken
from components.shared.events import JSON_MARK

_NOT_FOR_TERMINALS = re.compile("[\x7f-\x9f\u2028\u2029]")
"""Control characters that JSON allows unescaped."""


def json_of(look: FileLook | DataLook) -> str:
    text = json.dumps(look.model_dump(), indent=1, ensure_ascii=False)
    return _NOT_FOR_TERMINALS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def lines_of(look: FileLook | DataLook) -> Iterator[str]:
    if isinstance(look, FileLook):
        return _file_lines(look)
    return _data_lines(look)


def _file_lines(look: FileLook) -> Iterator[str]:
    yield f"form            {look.form}"
    yield from _count_lines(look.records)
    yield ""
    yield "The first conversation:"
    yield from _record_lines(look.first)
    if look.longest is not None:
        yield ""
        yield f"The longest conversation, {look.longest.where}:"
        yield from _record_lines(look.longest)


def _data_lines(look: DataLook) -> Iterator[str]:
    yield f"form            {look.form}"
    yield f"template        {look.template}"
    yield from (f"source          {line}" for line in look.sources)
    yield from _count_lines(look.records)
    yield f"held out        {look.held_out_conversations:,} conversations"
    yield f"row_tokens      {look.row_tokens:,}: {look.row_tokens_reason}"
    yield from _length_lines(look)
    if look.warnings:
        yield ""
        yield from (f"warning: {line}" for line in look.warnings)
    for sample in look.samples:
        yield ""
        yield (
            f"The {sample.name}, {sample.where}, {sample.num_tokens:,} tokens, "
            f"{sample.num_trained:,} trained on (between ⟦ and ⟧):"
        )
        yield from _sample_lines(sample)


def _count_lines(counts: RecordCounts) -> Iterator[str]:
    turns = ", ".join(f"{count:,} {role}" for role, count in counts.turns.items())
    sharing = f"{counts.sharing_a_question:,} conversations share theirs with another"
    characters = counts.characters
    yield f"conversations   {counts.conversations:,}"
    yield f"turns           {turns}"
    yield f"with tools      {counts.with_tools:,} conversations"
    yield f"with reasoning  {counts.with_reasoning:,} turns"
    yield f"not trained on  {counts.not_trained_on:,} assistant turns"
    yield f"copies          {counts.copies:,} conversations stand more than once"
    yield f"questions       {counts.different_questions:,} different first ones; {sharing}"
    yield (
        f"characters      {characters.min:,} to {characters.max:,}, half of the conversations up "
        f"to {characters.median:,}"
    )


def _length_lines(look: DataLook) -> Iterator[str]:
    trained = f"{look.num_trained_tokens / look.num_tokens:.1%} of them trained on"
    longest = f"the longest sample has {look.longest_sample_tokens:,}"
    yield f"tokens          {look.num_tokens:,}, {trained}; {longest}"
    yield ""
    yield "row_tokens   samples that fit   share of all tokens"
    for row in look.row_sizes:
        if row.row_tokens == look.row_tokens:
            mark = "   <- data.row_tokens"
        else:
            mark = ""
        yield f"{row.row_tokens:>10,}   {row.samples:>16.1%}   {row.tokens:>19.1%}{mark}"


def _sample_lines(sample: ShownSample) -> Iterator[str]:
    """The text with what is trained on between brackets, then its tokens, each with its id and a
    star where it is trained on.
    """
    parts = (f"⟦{piece.text}⟧" if piece.trained else piece.text for piece in sample.pieces)
    yield from _indented(shortened("".join(parts)))
    yield "  tokens, as text=id, * trained on:"
    half = (len(sample.tokens) + 1) // 2
    first, last = sample.tokens[:half], sample.tokens[half:]
    if sample.num_left_out:
        between = [f"… {sample.num_left_out:,} more …"]
    else:
        between = []
    words = " ".join([*map(_token_word, first), *between, *map(_token_word, last)])
    indent = "    "
    yield from textwrap.wrap(
        words,
        width=110,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
    )


def _token_word(token: ShownToken) -> str:
    text = _printable(token.text.replace("\n", "\\n").replace(" ", "␣"))
    return f"{'*' if token.trained else ''}{text}={token.id}"


def _record_lines(record: ShownRecord) -> Iterator[str]:
    if record.num_tokens is not None:
        yield f"  a row of {record.num_tokens:,} tokens"
    for turn in record.turns:
        yield f"  {turn.role}:"
        yield from _indented(turn.text)


def _indented(text: str) -> Iterator[str]:
    return (f"  | {_printable(line)}" for line in text.removesuffix("\n").split("\n"))


def _printable(line: str) -> str:
    """Without control characters, which a terminal would obey, and never an event, which the
    command line would read.
    """
    allowed = (char if char.isprintable() or char == "\t" else repr(char)[1:-1] for char in line)
    return "".join(allowed).replace(JSON_MARK, f"{JSON_MARK[0]}\u200b{JSON_MARK[1:]}")
