"""Conversations, and with a model their tokens -> lines of text that say what the data is before a run is paid for."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.prepare_dataset.assemble import encode_all
from components.prepare_dataset.cautions import data_cautions, dropped_cautions, token_cautions
from components.prepare_dataset.conversations import Conversation
from components.prepare_dataset.held_out import copies, leaks
from components.prepare_dataset.quality import pieces, places
from components.prepare_dataset.records import RecordFile
from components.prepare_dataset.source import Source
from components.prepare_dataset.tokens import Encoded, Encoder
from components.shared.log import JSON_MARK

_ROW_TOKENS = (256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768)
_SHOWN_CHARACTERS = 1500
_SHOWN_TOKENS = 60


def file_lines(file: RecordFile) -> Iterator[str]:
    """What a file of records is: nothing of a model is needed."""
    yield f"form            {file.form}"
    yield from _conversation_lines(file.conversations)
    yield ""
    yield "The first conversation:"
    yield from _turn_lines(file.conversations[0])
    longest = max(file.conversations, key=_num_characters)
    if longest is not file.conversations[0]:
        yield ""
        yield f"The longest conversation, {longest.where}:"
        yield from _turn_lines(longest)


def dataset_lines(source: Source, row_tokens: int) -> Iterator[str]:
    """What a spec's data is, as its model reads it. Raises DataError where it cannot be trained on."""
    records, encoder = source.records, source.model.encoder
    encoded = encode_all(encoder, (*records.train, *records.held_out), progress=lambda done, total: None)
    yield f"form            {', '.join(dict.fromkeys(records.forms))}"
    yield f"template        {encoder.template.name}"
    yield from _conversation_lines((*records.train, *records.held_out))
    yield f"held out        {len(records.held_out):,} conversations"
    yield from _length_lines(encoded, row_tokens)
    kept = [tokens for tokens in encoded if len(tokens.ids) <= row_tokens]
    dropped = [len(tokens.ids) for tokens in encoded if len(tokens.ids) > row_tokens]
    warnings = list(_warnings(source, encoded, kept, dropped))
    yield from ("", *(f"warning: {line}" for line in warnings)) if warnings else ()
    for name, sample in _chosen(encoded):
        yield ""
        yield f"The {name}, {sample.source.where}, {len(sample.ids):,} tokens, {sample.num_trained:,} trained on (between ⟦ and ⟧):"
        yield from _sample_lines(encoder, sample)


def _conversation_lines(conversations: Sequence[Conversation]) -> Iterator[str]:
    turns = Counter(message.role for each in conversations for message in each.messages)
    with_tools = sum(each.tools is not None for each in conversations)
    reasoning = sum(bool(message.reasoning) or "</think>" in message.content for each in conversations for message in each.messages)
    untrained = sum(message.role == "assistant" and not message.trained for each in conversations for message in each.messages)
    questions = Counter(each.question for each in conversations)
    again = sum(count for count in questions.values() if count > 1)
    characters = sorted(_num_characters(each) for each in conversations)
    yield f"conversations   {len(conversations):,}"
    yield f"turns           {', '.join(f'{count:,} {role}' for role, count in turns.most_common())}"
    yield f"with tools      {with_tools:,} conversations"
    yield f"with reasoning  {reasoning:,} turns"
    yield f"not trained on  {untrained:,} assistant turns"
    yield f"copies          {len(copies(conversations)):,} conversations stand more than once"
    yield f"questions       {len(questions):,} different first ones; {again:,} conversations share theirs with another"
    yield f"characters      {characters[0]:,} to {characters[-1]:,}, half of the conversations up to {characters[len(characters) // 2]:,}"


def _length_lines(encoded: Sequence[Encoded], row_tokens: int) -> Iterator[str]:
    lengths = [len(tokens.ids) for tokens in encoded]
    trained = sum(tokens.num_trained for tokens in encoded)
    yield f"tokens          {sum(lengths):,}, {trained / sum(lengths):.1%} of them trained on; the longest sample has {max(lengths):,}"
    yield ""
    yield "row_tokens   samples that fit   share of all tokens"
    sizes = sorted({*(size for size in _ROW_TOKENS if size < 2 * max(lengths)), row_tokens})
    for size in sizes:
        fitting = [length for length in lengths if length <= size]
        mark = "   <- data.row_tokens" if size == row_tokens else ""
        yield f"{size:>10,}   {len(fitting) / len(lengths):>16.1%}   {sum(fitting) / sum(lengths):>19.1%}{mark}"


def _warnings(source: Source, encoded: Sequence[Encoded], kept: Sequence[Encoded], dropped: Sequence[int]) -> Iterator[str]:
    records, model = source.records, source.model
    copied, leaked = places(copies(records.train)), places(leaks(records.train, records.held_out))
    yield from data_cautions(records, copied, leaked)
    yield from dropped_cautions(dropped, kept)
    yield from token_cautions(model.encoder, encoded, model.resolved.folder, model.config)


def _chosen(encoded: Sequence[Encoded]) -> list[tuple[str, Encoded]]:
    """The first sample, the longest, and the one with the smallest share of trained tokens, each once."""
    longest = max(encoded, key=lambda tokens: len(tokens.ids))
    least = min(encoded, key=lambda tokens: tokens.num_trained / len(tokens.ids))
    named = [("first sample", encoded[0]), ("longest sample", longest), ("least trained sample", least)]
    return [(name, each) for index, (name, each) in enumerate(named) if all(each is not other for _, other in named[:index])]


def _sample_lines(encoder: Encoder, sample: Encoded) -> Iterator[str]:
    """The text with what is trained on between brackets, then the first tokens of the last trained turn by id and border."""
    text = "".join(f"⟦{piece.text}⟧" if piece.trained else piece.text for piece in pieces(encoder.tokenizer, sample))
    yield from _indented(text)
    start, end = sample.trained[-1]
    ids = sample.ids[start : min(end, start + _SHOWN_TOKENS)]
    shown = " ".join(f"{encoder.tokenizer.decode([token], skip_special_tokens=False)!r}={token}" for token in ids)
    yield f"  tokens of the last trained turn, as text=id: {_printable(shown)}"


def _turn_lines(conversation: Conversation) -> Iterator[str]:
    for message in conversation.messages:
        yield f"  {message.role}:"
        yield from _indented(message.content)


def _indented(text: str) -> Iterator[str]:
    """At most 1,500 characters: the first and the last."""
    half = _SHOWN_CHARACTERS // 2
    shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:half]}\n… {len(text) - 2 * half:,} more characters …\n{text[-half:]}"
    return (f"  | {_printable(line)}" for line in shown.removesuffix("\n").split("\n"))


def _printable(line: str) -> str:
    """Without control characters, which a terminal would obey, and never an event, which the command line would read."""
    plain = "".join(char if char.isprintable() or char == "\t" else repr(char)[1:-1] for char in line)
    return plain.replace(JSON_MARK, f"{JSON_MARK[0]}\u200b{JSON_MARK[1:]}")


def _num_characters(conversation: Conversation) -> int:
    return sum(len(message.content) for message in conversation.messages)


def is_spec(path: Path) -> bool:
    """Whether what a person wants to look at is a spec and not a file of records."""
    return path.suffix in (".yaml", ".yml")
