"""What a source names -> its files, each as plain bytes on this machine.

A source is a file, a folder, a pattern with `*`, the same below an S3 prefix, or a data set of the
hub. gzip and zstd are unpacked into a temporary file, so that every reader, Parquet's too, has a
file to seek in. pyarrow unpacks both and is here anyway.
"""

import fnmatch
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from components.prepare_dataset.readers.hub_data import SCHEME, hub_files, hub_path
from components.prepare_dataset.readers.splits import of_split
from components.shared.errors import DataError
from components.shared.machine import user_path
from components.shared.spec.named_file import local_file
from components.shared.store.storage import open_store

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt")
"""Of files that are taken from a folder; each also with .gz or .zst behind. Texts count only where
there is nothing else."""

_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes (RFC 1952, RFC 8878) -> pyarrow's name of the codec."""
_DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""What `datasets` writes beside the Arrow files of `save_to_disk`."""


def files_of(source: str, split: str | None = None) -> list[str]:
    """The files that a source names, of the split if one is named, sorted by name.

    Raises:
        StoreError: the store cannot be listed. HubUnreachable: the hub may answer later.
        DataError: no file is there, of several splits none is named, or the source is no name,
            pattern or address that can be read.
    """
    if source.startswith(SCHEME):
        found = _without_notes(hub_files(source, suffixes=SUFFIXES, is_records=is_records))
        return of_split(source, found, split, below=found[0].partition("@")[0])
    if "://" in source:
        found = _objects_of(source)
    else:
        found = _paths_of(source)
    found = _without_notes(found)
    if found == [source] or (_is_pattern(source) and split is None):
        return found
    if "://" in source:
        place = source
    else:
        place = str(user_path(source))
    return of_split(
        source, found, split, below=_before_pattern(place) if _is_pattern(place) else place
    )


def _without_notes(files: list[str]) -> list[str]:
    """Text files beside files of records are licences and notes."""
    records = [name for name in files if kind_of_name(name) != ".txt"]
    return records or files


def _paths_of(source: str) -> list[str]:
    if "\0" in source:
        raise DataError(f"{source}: no name of a file, it holds a NUL character. Fix: take it out")
    path = user_path(source)
    if path.is_file():
        return [source]
    otherwise = _written_otherwise(path)
    if otherwise is not None:
        return _paths_of(str(otherwise))
    if _is_pattern(source):
        found = _matching(source, path)
    elif path.is_dir():
        found = [each for each in path.rglob("*") if each.is_file() and is_records(each.name)]
    else:
        return [source]
    if not found:
        raise DataError(
            f"{source}: holds no file of records; allowed: {', '.join(SUFFIXES)}, each also .gz or "
            ".zst"
        )
    return sorted(map(str, found))


def _written_otherwise(path: Path) -> Path | None:
    """A path that is there and looks the same: macOS writes `が` in a name as two characters (NFD),
    keyboards give one (NFC)."""
    if path.name.isascii() or path.exists() or not path.parent.is_dir():
        return None
    name = unicodedata.normalize("NFC", path.name)
    names = (each for each in path.parent.iterdir())
    return next((each for each in names if unicodedata.normalize("NFC", each.name) == name), None)


def _matching(source: str, pattern: Path) -> list[Path]:
    if pattern.is_absolute():
        root = Path(pattern.anchor)
    else:
        root = Path()
    try:
        return [each for each in root.glob(str(pattern.relative_to(root))) if each.is_file()]
    except ValueError as error:
        raise DataError(
            f"{source}: no pattern of files ({error}). Fix: write * for part of a name, **/ for "
            "any folders"
        ) from None


def is_records(name: str) -> bool:
    """Whether a file of a folder is one of records, by its name."""
    return (
        name not in _DESCRIPTIONS
        and not name.startswith((".", "_"))
        and kind_of_name(name) in SUFFIXES
    )


def kind_of_name(name: str) -> str:
    """The suffix that says what is in the file: `.csv` of `a.csv.gz`."""
    return Path(name.lower().removesuffix(".gz").removesuffix(".zst")).suffix


@contextmanager
def readable_source(name: str) -> Iterator[Path]:
    """A path by which a file of `files_of` can be read inside the block. Raises StoreError,
    DataError."""
    if name.startswith(SCHEME):
        yield hub_path(name)
        return
    with local_file(name) as path:
        yield path


@contextmanager
def unpacked(path: Path, name: str) -> Iterator[Path]:
    """A path by which the file can be read inside the block, gzip and zstd taken off. `name` is for
    messages.

    Raises:
        OSError: the file cannot be read. DataError: it is cut off or damaged.
    """
    with path.open("rb") as stream:
        start = stream.read(4)
    codec = next((codec for magic, codec in _PACKED.items() if start.startswith(magic)), None)
    if codec is None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain"
        _unpack(name, path, plain, codec)
        yield plain


def _unpack(name: str, path: Path, plain: Path, codec: str) -> None:
    try:
        with (
            pa.OSFile(str(path)) as packed,
            pa.CompressedInputStream(packed, codec) as stream,
            plain.open("wb") as target,
        ):
            shutil.copyfileobj(stream, target, 1 << 20)
    except OSError as error:
        if error.errno is not None:  # of the disk, not of the content
            raise
        raise DataError(
            f"{name}: {codec} that cannot be unpacked ({' '.join(str(error).split())}); make or "
            "fetch the file again"
        ) from None


def _is_pattern(source: str) -> bool:
    """A path of this machine that is there is none, whatever is in the names of its folders."""
    has_magic = any(char in source for char in "*?[")
    return has_magic and ("://" in source or not _is_there(user_path(source)))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for the file system
        return False


def _objects_of(source: str) -> list[str]:
    scheme, _, place = source.partition("://")
    if scheme != "s3":
        raise DataError(
            f"{source}: found {scheme}://, allowed: a path, s3://bucket/… or hf://owner/name; "
            "download the file and name it by its path"
        )
    if not (source.endswith("/") or _is_pattern(place)):
        return [source]
    if source.endswith("/"):
        prefix = source
    else:
        prefix = _before_pattern(source)
    keys = [f"{prefix}{each.key}" for each in open_store(prefix.rstrip("/")).list()]
    if _is_pattern(place):
        found = [key for key in keys if fnmatch.fnmatchcase(key, source)]
    else:
        found = [key for key in keys if is_records(key.rpartition("/")[2])]
    if not found:
        raise DataError(
            f"{source}: no object of records is there; allowed: {', '.join(SUFFIXES)}, each also "
            ".gz or .zst"
        )
    return sorted(found)


def _before_pattern(source: str) -> str:
    """The prefix, up to a slash, that all files of the pattern have."""
    first = min(source.index(char) for char in "*?[" if char in source)
    return source[: source.rfind("/", 0, first) + 1]
