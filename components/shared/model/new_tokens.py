"""Texts that become tokens of their own (`data.new_tokens`): in the tokenizer's files, and as rows
of the model's embeddings and head.

The tokenizer splits a text at its new tokens first, exactly as they are written. They
are no special tokens: answers show them.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from components.shared.documents.prompts import NewToken
from components.shared.errors import ModelError
from components.shared.model.source import CONFIG_AND_TOKENIZER, read_json_object

TOKENIZER: Final = "tokenizer.json"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"
_AS_WRITTEN: Final = {
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": False,
}


def grown_tokenizer(base: Path, texts: Sequence[str]) -> tuple[str, tuple[int, ...]]:
    """The text of the base's tokenizer.json with these tokens in it, and their ids: the next ones
    behind all that there are.

    Raises:
        ModelError: the file is no tokenizer.
    """
    tree = _read_tree(base / TOKENIZER)
    first = 1 + max(_ids(tree), default=-1)
    ids = tuple(range(first, first + len(texts)))
    tree["added_tokens"] = [
        *tree.get("added_tokens", ()),
        *(
            {"id": number, "content": text, **_AS_WRITTEN}
            for number, text in zip(ids, texts, strict=True)
        ),
    ]
    return json.dumps(tree, ensure_ascii=False, indent=1) + "\n", ids


def _read_tree(path: Path) -> dict[str, Any]:
    """Raises ModelError where it is no JSON. A tokenizer of a large vocabulary has more bytes than
    any other JSON file of a model."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(tree, dict):
        raise ModelError(f"{path}: found {type(tree).__name__}, must be a JSON object")
    return tree


def _ids(tree: dict[str, Any]) -> Iterator[int]:
    """Of every token of a tokenizer.json; a Unigram model lists its tokens in the order of ids."""
    model = tree.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), (dict, list)):
        raise ModelError(f"{TOKENIZER}: holds no model with a vocab, so it cannot get new tokens")
    if isinstance(model["vocab"], dict):
        yield from model["vocab"].values()
    else:
        yield from range(len(model["vocab"]))
    yield from (each["id"] for each in tree.get("added_tokens", ()))


def write_tokenizer_files(base: Path, local: Path, new_tokens: Sequence[NewToken]) -> None:
    """`local` holds the base's config and tokenizer files, with the new tokens in the tokenizer's.
    Raises ModelError for files that are no JSON."""
    local.mkdir(parents=True, exist_ok=True)
    for name in CONFIG_AND_TOKENIZER:
        if (base / name).is_file():
            shutil.copyfile(base / name, local / name)
    grow_tokenizer_files(base, local, new_tokens)


def grow_tokenizer_files(base: Path, local: Path, new_tokens: Sequence[NewToken]) -> None:
    """The tokenizer files in `local`, copies of the base's, have the new tokens in them."""
    if not new_tokens:
        return
    text, _ = grown_tokenizer(base, [each.text for each in new_tokens])
    (local / TOKENIZER).write_text(text, encoding="utf-8")
    settings = read_json_object(local / TOKENIZER_CONFIG)
    if "added_tokens_decoder" not in settings:
        return
    settings["added_tokens_decoder"] |= {
        str(each.token_id): {"content": each.text, **_AS_WRITTEN} for each in new_tokens
    }
    (local / TOKENIZER_CONFIG).write_text(
        json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def tokenizer_folder(base: Path, new_tokens: Sequence[NewToken], work: Path) -> Path:
    """A folder whose tokenizer knows the new tokens: the base's own where there are none, else
    `work`, which is made."""
    if not new_tokens:
        return base
    write_tokenizer_files(base, work, new_tokens)
    return work


def num_embeddings(vocabulary: int, new_tokens: Sequence[NewToken]) -> int:
    """Rows that embeddings and head need, of a base with `vocabulary` rows: many a base has rows to
    spare behind its last token."""
    return max([vocabulary, *(each.token_id + 1 for each in new_tokens)])


def grown_config(config: dict[str, Any], rows: int) -> dict[str, Any]:
    """A config.json with this many rows of embeddings."""
    text = config.get("text_config")
    if isinstance(text, dict) and "vocab_size" in text:
        return {**config, "text_config": {**text, "vocab_size": rows}}
    return {**config, "vocab_size": rows}


def vocabulary_of(config: dict[str, Any]) -> int | None:
    """Rows of the embeddings, by config.json or its text part; None where neither says."""
    return config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")


def grow_model(model: Any, new_tokens: Sequence[NewToken]) -> None:
    """A model of transformers, loaded whole, has a row for each new token in embeddings and head:
    the mean of its pieces' rows."""
    if not new_tokens:
        return
    rows = num_embeddings(model.get_input_embeddings().weight.shape[0], new_tokens)
    model.resize_token_embeddings(rows, mean_resizing=False)
    set_rows(model.get_input_embeddings().weight, new_tokens)
    if model.get_output_embeddings() is not None:
        set_rows(model.get_output_embeddings().weight, new_tokens)


def set_rows(weight_VH: Any, new_tokens: Sequence[NewToken]) -> None:
    """The rows of the new tokens begin as the mean of their pieces' rows."""
    for each in new_tokens:
        mean_H = weight_VH.data[list(each.pieces)].float().mean(dim=0)
        weight_VH.data[each.token_id] = mean_H.to(weight_VH.dtype)


def grown_weight(weight_VH: Any, new_tokens: Sequence[NewToken]) -> Any:
    """A weight of embeddings or head as `grow_model` makes it, from the base's file."""
    rows = num_embeddings(weight_VH.shape[0], new_tokens)
    grown_VH = weight_VH.new_zeros((rows, weight_VH.shape[1]))
    grown_VH[: weight_VH.shape[0]] = weight_VH
    set_rows(grown_VH, new_tokens)
    return grown_VH
