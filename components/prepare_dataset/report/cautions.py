"""What is worth a look though nothing is wrong enough to stop: one line each, for the log and the
quality report."""

from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from components.prepare_dataset.packing.stored import Chosen, stored, stored_samples
from components.prepare_dataset.records.held_out import asked_in_both
from components.prepare_dataset.records.near_duplicates import SIMILARITY, NearDuplicates
from components.prepare_dataset.records.texts import TOKENS, is_tokens
from components.prepare_dataset.report.quality import Places
from components.prepare_dataset.samples.samples import (
    EMPTY_REASONING,
    ENDED_BY_EOS,
    HEADER_TRAINED,
    LEFT_OUT,
    REWRITTEN,
)
from components.prepare_dataset.samples.tokens import (
    SPECIAL_IN_WORDS,
    STARTS_INSIDE,
    UNKNOWN_CHARACTER,
    Encoded,
    Encoder,
    begins_without_bos,
)
from components.prepare_dataset.source import Records
from components.shared.errors import DataError
from components.shared.held_out import NOTHING_HELD_OUT
from components.shared.model.source import read_json_object

Noted = Mapping[str, tuple[int, str]]
"""Note -> the number of samples that have it, and the place of the first."""


def data_cautions(records: Records, copies: Places, leaks: Places) -> Iterator[str]:
    if records.train and not records.held_out:
        yield NOTHING_HELD_OUT
    for path in records.unused:
        yield (
            f"{path}: no record of it is trained on, as its repeat or weight is small or all of it "
            "is held out; raise it, or remove it"
        )
    if copies.count:
        yield (
            f"{copies.count} conversations stand more than once in data.train, such as "
            f"{', '.join(copies.first[0][:2])}"
        )
    if leaks.count:
        yield (
            f"{leaks.count} held-out conversations are trained on too, such as "
            f"{' and '.join(leaks.first[0])}: their loss flatters"
        )
    asked = asked_in_both(records.train, records.held_out)
    if asked.count > leaks.count:
        yield (
            f"{asked.count} of {len(records.held_out)} held-out conversations begin with a "
            f"question that is trained on too, such as {' and '.join(asked.first[0])}: their loss "
            "flatters; data.held_out_by: prompt keeps equal first questions on one side, where "
            "enough questions differ"
        )
    kept = stored(records.train)
    empty = sum(
        kept.num_empty_system[number]
        for part in (records.train, records.held_out)
        for number in part.numbers
    )
    if empty:
        yield f"{empty} system turns without text were left out"
    if kept.roles[TOKENS]:
        yield (
            f"{kept.roles[TOKENS]} rows came tokenised: which tokenizer made them cannot be seen; "
            "look whether the samples read as they should"
        )
    unread = sorted(kept.unread)
    if unread:
        yield f"keys of turns that nothing reads: {', '.join(unread[:8])}"


def near_cautions(near: NearDuplicates) -> Iterator[str]:
    alike = f"{SIMILARITY:.0%} of their runs of three tokens are the same"
    if near.train.count:
        yield (
            f"{near.train.count} of {near.num_compared:,} compared conversations are trained to "
            f"give nearly the answers of another one, such as {' and '.join(near.train.first[0])} "
            f"({alike}): leave such out, or they count more than once"
        )
    if near.held_out.count:
        yield (
            f"{near.held_out.count} held-out conversations have nearly the answers of one that is "
            f"trained on, such as {' and '.join(near.held_out.first[0])} ({alike}): their loss "
            "flatters"
        )


def dropped_cautions(dropped_lengths: Sequence[int], kept: Chosen[Encoded]) -> Iterator[str]:
    if dropped_lengths:
        lengths = stored_samples(kept).lengths
        tokens = sum(dropped_lengths) + sum(lengths[number] for number in kept.numbers)
        yield (
            f"{len(dropped_lengths)} conversations longer than data.row_tokens were left out: "
            f"{len(dropped_lengths) / (len(dropped_lengths) + len(kept)):.1%} of all, "
            f"{sum(dropped_lengths) / tokens:.1%} of the tokens"
        )


def token_cautions(
    encoder: Encoder, encoded: Chosen[Encoded], folder: Path, config: dict[str, Any]
) -> Iterator[str]:
    """About the template and the tokenizer; `folder` is the model's, `encoded` its first
    conversation and all others."""
    template, samples = encoder.template, stored_samples(encoded)
    if "strftime_now" in template.text:
        yield (
            f"{template.name} writes today's date into conversations: on another day the same data "
            "gives other tokens"
        )
    noted = samples.noted(encoded.numbers)
    found = {note: (count, samples.where(number)) for note, (count, number) in noted.items()}
    yield from _template_cautions(template.name, found)
    (first,) = encoder.samples_of([encoded[0].source])
    if (
        not is_tokens(encoded[0].source)
        and not isinstance(first, DataError)
        and begins_without_bos(encoder, first[0].text)
    ):
        yield (
            f"{template.name} writes no bos token though the tokenizer begins a text with one; the "
            "model may expect it"
        )
    yield from _word_cautions(template.name, found)
    longest, limit = (
        max(samples.lengths[number] for number in encoded.numbers),
        config.get("max_position_embeddings"),
    )
    if isinstance(limit, int) and longest > limit:
        yield (
            f"the longest conversation has {longest} tokens, the model knows positions up to "
            f"{limit} (max_position_embeddings)"
        )
    yield from _stop_cautions(encoder, samples.ends, folder, config)


def _word_cautions(name: str, found: Noted) -> Iterator[str]:
    """What tokens.py noted."""
    if STARTS_INSIDE in found:
        count, first = found[STARTS_INSIDE]
        yield (
            f"in {count} conversations, such as {first}, an answer begins inside a token that also "
            f"ends its prompt: {name} should put the white space at the beginning of the answer"
        )
    if SPECIAL_IN_WORDS in found:
        count, first = found[SPECIAL_IN_WORDS]
        yield (
            f"{count} conversations, such as {first}, hold a special token in their own words, "
            "which acts as the real one"
        )
    if UNKNOWN_CHARACTER in found:
        count, first = found[UNKNOWN_CHARACTER]
        yield (
            f"in {count} conversations, such as {first}, some character has no token and reads as "
            "unknown"
        )


def _template_cautions(name: str, found: Noted) -> Iterator[str]:
    """What samples.py noted."""
    for note in sorted(found):
        count, first = found[note]
        if note.startswith(LEFT_OUT):
            role = note.removeprefix(LEFT_OUT)
            yield (
                f"{name} leaves out {role} turns, or words of them, in {count} conversations, such "
                f"as {first}: the model never reads them"
            )
        elif note == EMPTY_REASONING:
            yield (
                f"{count} answers, such as in {first}, are trained with empty reasoning: the model "
                "learns not to think; set data.template_args, such as {enable_thinking: false}, "
                "or give the answers their reasoning"
            )
        elif note == HEADER_TRAINED:
            yield (
                f"{name} does not answer to add_generation_prompt, so in {count} conversations, "
                f"such as {first}, the header of the answer is trained on: in use the model has to "
                "write it; add the generation prompt to a copy of the template"
            )
        elif note == ENDED_BY_EOS:
            yield (
                f"{name} ends {count} answers, such as in {first}, by no token: they are trained "
                "with eos behind them, so that the model stops"
            )
        elif note == REWRITTEN:
            yield (
                f"{name} writes {count} answers, such as in {first}, otherwise than its prompt "
                "begins them: they are trained as they are asked for, the prompt and then the "
                "answer"
            )


def _stop_cautions(
    encoder: Encoder, ends: Set[int], folder: Path, config: dict[str, Any]
) -> Iterator[str]:
    """Turns that end with a token at which generation does not stop: answers would run on."""
    stops = _stop_ids(folder, config)
    for end in sorted(ends - stops) if stops else ():
        name = encoder.tokenizer.id_to_token
        yield (
            f"assistant turns end with {name(end)!r}, but generation stops only at "
            f"{', '.join(repr(name(i)) for i in sorted(stops))}: add its id to eos_token_id in the "
            "model's generation_config.json, or answers run on"
        )


def _stop_ids(folder: Path, config: dict[str, Any]) -> set[int]:
    """Where transformers' generate ends: eos_token_id of generation_config.json, or where that has
    none of config.json."""
    path = folder / "generation_config.json"
    if path.is_file():
        settings = read_json_object(path)
    else:
        settings = {}
    found = settings.get("eos_token_id", config.get("eos_token_id"))
    if isinstance(found, list):
        listed = found
    else:
        listed = [found]
    return {token for token in listed if isinstance(token, int)}
