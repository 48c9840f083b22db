"""A base model in 4 bits, loaded for measuring: the same quantized numbers in whatever format it
then computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.shared.documents.plan import Precision
from components.shared.model.folder import OWN_CODE_ONLY
from components.shared.model.quantization import cast_unquantized, compute_in, loading_arguments
from components.shared.model.source import read_config


def load_in_4_bits(
    from_pretrained: Callable[..., Any],
    folder: Path,
    quantized_from: Precision,
    *,
    loaded: Any,
    dtype: Any,
) -> Any:
    """The model, computing in `dtype`. It was quantized from weights in `quantized_from`, which
    `loaded` is for torch, as in training. Raises ModelError for a config.json that cannot be
    read."""
    model = from_pretrained(
        folder,
        dtype=loaded,
        **loading_arguments("nf4", quantized_from, read_config(folder)),
        **OWN_CODE_ONLY,
    )
    compute_in(model, dtype)
    cast_unquantized(model, loaded=loaded, dtype=dtype)
    return model.eval()
