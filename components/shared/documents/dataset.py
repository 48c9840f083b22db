"""A JSON document beside the rows of a dataset -> its model."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from components.shared.errors import DataError

Document = TypeVar("Document", bound=BaseModel)


def read_document(dataset: Path, name: str, kind: type[Document], *, needed_to: str) -> Document:
    """Of a fetched dataset/. Raises DataError where it has none, as one that an earlier version made."""
    path = dataset / name
    if not path.is_file():
        raise DataError(
            f"dataset/{name}: found no such file, needed to {needed_to}. "
            "Fix: an earlier version of hagane prepared this run, so start it again under another name"
        )
    return kind.model_validate_json(path.read_bytes())
