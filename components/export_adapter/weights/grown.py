"""A base's config -> that of the same model with rows for the new tokens."""

from collections.abc import Sequence
from typing import Any

from components.shared.documents.prompts import NewToken
from components.shared.model.new_tokens import num_embeddings


def grown(config: Any, new_tokens: Sequence[NewToken]) -> Any:
    """`config` is transformers' and is changed, as `resize_token_embeddings` changes it."""
    text = config.get_text_config()
    text.vocab_size = num_embeddings(text.vocab_size, new_tokens)
    return config
