"""What is worth a look though nothing is wrong enough to stop: one line each, for the log and the quality report."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from components.prepare_dataset.chat_template import mark_trained
from components.prepare_dataset.quality import Places
from components.prepare_dataset.tokens import Encoded, Encoder, begins_without_bos, control_tokens_in_text
from components.shared.model_source import read_json_object


def data_cautions(copies: Places, leaks: Places, *, dropped: int) -> Iterator[str]:
    if copies.count:
        yield f"{copies.count} conversations stand more than once in data.train, such as {', '.join(copies.first[0][:2])}"
    if leaks.count:
        yield f"{leaks.count} held-out conversations are trained on too, such as {' and '.join(leaks.first[0])}: their loss flatters"
    if dropped:
        yield f"{dropped} conversations longer than data.row_tokens were left out"


def token_cautions(encoder: Encoder, encoded: Sequence[Encoded], folder: Path, config: dict[str, Any]) -> Iterator[str]:
    """About the template and the tokenizer; `folder` is the model's, `encoded` its first conversation and all others."""
    template = encoder.template
    if "strftime_now" in template.text:
        yield f"{template.name} writes today's date into conversations: on another day the same data gives other tokens"
    if begins_without_bos(encoder, mark_trained(template, encoded[0].source.messages).text):
        yield f"{template.name} writes no bos token though the tokenizer begins a text with one; the model may expect it"
    inside = [tokens.source.where for tokens in encoded if tokens.starts_inside_token]
    if inside:
        yield (
            f"in {len(inside)} conversations, such as {inside[0]}, an answer begins inside a token that also ends its prompt: "
            f"{template.name} should put the white space at the beginning of the answer"
        )
    faked = control_tokens_in_text(encoder, (tokens.source for tokens in encoded))
    if faked:
        yield f"{len(faked)} conversations, such as {faked[0]}, hold a special token in their own words, which acts as the real one"
    unknown = _with_unknown_characters(encoder, encoded)
    if unknown:
        yield f"in {len(unknown)} conversations, such as {unknown[0]}, some character has no token and reads as unknown"
    longest, limit = max(len(tokens.ids) for tokens in encoded), config.get("max_position_embeddings")
    if isinstance(limit, int) and longest > limit:
        yield f"the longest conversation has {longest} tokens, the model knows positions up to {limit} (max_position_embeddings)"
    yield from _stop_cautions(encoder, encoded, folder, config)


def _with_unknown_characters(encoder: Encoder, encoded: Sequence[Encoded]) -> list[str]:
    """Places of conversations with the unk token; byte-level tokenizers need none and often name their eos so."""
    others = dict(encoder.template.special_tokens)
    unknown = encoder.tokenizer.token_to_id(others.pop("unk_token", ""))
    if unknown is None or encoder.tokenizer.id_to_token(unknown) in others.values():
        return []
    return [tokens.source.where for tokens in encoded if unknown in tokens.ids]


def _stop_cautions(encoder: Encoder, encoded: Sequence[Encoded], folder: Path, config: dict[str, Any]) -> Iterator[str]:
    """Turns that end with a token at which generation does not stop: answers would run on."""
    stops = _stop_ids(folder, config)
    ends = {tokens.ids[end - 1] for tokens in encoded for _, end in tokens.trained}
    for end in sorted(ends - stops) if stops else ():
        name = encoder.tokenizer.id_to_token
        yield (
            f"assistant turns end with {name(end)!r}, but generation stops only at {', '.join(repr(name(i)) for i in sorted(stops))}: "
            "add its id to eos_token_id in the model's generation_config.json, or answers run on"
        )


def _stop_ids(folder: Path, config: dict[str, Any]) -> set[int]:
    """Where transformers' generate ends: eos_token_id of generation_config.json, or where that has none of config.json."""
    path = folder / "generation_config.json"
    settings = read_json_object(path) if path.is_file() else {}
    found = settings.get("eos_token_id", config.get("eos_token_id"))
    listed = found if isinstance(found, list) else [found]
    return {token for token in listed if isinstance(token, int)}
