"""`hf://owner/name@revision/path` -> the files of a data set of the hub, in the hub's cache on this
machine.

The client is the one that fetches models. Only files of records are fetched, and read by the
readers of every other
file: `datasets` would need 100 MB more in the image, and its own copy of the data on disk.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from components.shared.errors import DataError, HubUnreachable
from components.shared.model.source import (
    broke_off_for_now,
    cause_of,
    may_come_back,
    not_given_for_now,
)
from components.shared.store.patience import patiently

SCHEME = "hf://"
_FORM = "hf://owner/name, hf://owner/name@revision or hf://owner/name@revision/folder/*.parquet"
_ADDRESS = re.compile(
    r"hf://(?:datasets/)?(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<path>.*))?"
)


@dataclass(frozen=True)
class HubAddress:
    name: str
    """`owner/name`."""
    revision: str | None
    path: str
    """A file, folder or pattern in the data set; empty for all of it."""


def hub_address(source: str) -> HubAddress:
    """Raises DataError where the source is no address of a data set."""
    found = _ADDRESS.fullmatch(source)
    if found is None:
        raise DataError(f"{source}: no address of a data set of the hub, must be such as {_FORM}")
    return HubAddress(found["name"], found["revision"], (found["path"] or "").strip("/"))


def hub_files(
    source: str, *, suffixes: Iterable[str], is_records: Callable[[str], bool]
) -> list[str]:
    """The files of records that an address names, `hf://owner/name@commit/path` each, fetched where
    they are not here.

    Raises:
        DataError: the hub does not give them, or holds none. HubUnreachable: the hub may give them
            later.
    """
    address = hub_address(source)
    snapshot = patiently(
        lambda: _snapshot(source, address, suffixes), what="hub", may_pass=may_come_back
    )
    inside = (path.relative_to(snapshot) for path in snapshot.rglob("*") if path.is_file())
    wanted = sorted(str(path) for path in inside if _is_named(str(path), address.path))
    found = [path for path in wanted if path == address.path or is_records(Path(path).name)]
    if found != [address.path] and not _is_listed(address, snapshot):
        raise DataError(
            f"{source}: the cache of the hub on this machine holds {len(found)} files of records "
            "of it and no list of all, so some may be missing. Fix: fetch it where there is a "
            f"network: {_download_line(address)}"
        )
    if not found:
        raise DataError(
            f"{source}: the data set holds no file of records there; look at its files on the hub "
            "and name others"
        )
    return [f"{SCHEME}{address.name}@{snapshot.name}/{path}" for path in found]


def hub_path(name: str) -> Path:
    """Where a file of `hub_files` is on this machine."""
    import huggingface_hub  # only an address of the hub needs it, and not every image has it

    address = hub_address(name)
    found = huggingface_hub.try_to_load_from_cache(
        address.name, address.path, revision=address.revision, repo_type="dataset"
    )
    if not isinstance(found, str):
        raise DataError(f"{name}: gone from the cache of the hub while it was read; start again")
    return Path(found)


def _is_named(path: str, wanted: str) -> bool:
    if not wanted:
        return True
    return path == wanted or path.startswith(f"{wanted}/") or fnmatch.fnmatchcase(path, wanted)


def _patterns(path: str, suffixes: Iterable[str]) -> list[str]:
    """As the hub's client takes them, to which `*` also stands for folders: files of records, and
    the one that is named."""
    if path:
        folder = f"{path}/"
    else:
        folder = ""
    return [
        *([path] if path else []),
        *(f"{folder}*{suffix}{packed}" for suffix in suffixes for packed in ("", ".gz", ".zst")),
    ]


def _snapshot(source: str, address: HubAddress, suffixes: Iterable[str]) -> Path:
    """The folder of the revision's commit, with the files that the address names."""
    import huggingface_hub
    from httpx2 import HTTPError
    from huggingface_hub import errors

    kind: type[DataError] | type[HubUnreachable] = DataError
    try:
        return Path(
            huggingface_hub.snapshot_download(
                address.name,
                repo_type="dataset",
                revision=address.revision,
                allow_patterns=_patterns(address.path, suffixes),
            )
        )
    except errors.GatedRepoError:
        complaint = (
            "is gated on the hub; accept its terms there with your account and set HF_TOKEN to a "
            "token of it"
        )
    except errors.RevisionNotFoundError:
        complaint = (
            "the hub has the data set, not the revision; write a commit, tag or branch of it "
            "behind the @"
        )
    except errors.RepositoryNotFoundError:
        complaint = (
            "no data set of the hub that this HF_TOKEN (or none) may see; check the spelling, or "
            "set HF_TOKEN"
        )
    except (errors.LocalEntryNotFoundError, errors.IncompleteSnapshotError) as error:
        complaint = (
            "not in the cache of the hub on this machine, and the hub did not give it "
            f"({cause_of(error)}); check network, HF_ENDPOINT and HF_HUB_OFFLINE, or fetch it "
            f"where there is a network: {_download_line(address)}"
        )
        if not_given_for_now(error.__cause__):
            kind = HubUnreachable
    except errors.HFValidationError:
        complaint = f"no address of a data set of the hub, must be such as {_FORM}"
    except (errors.HfHubHTTPError, HTTPError, OSError) as error:
        complaint = (
            f"the download from the hub broke off ({cause_of(error)}); run the same command again"
        )
        if broke_off_for_now(error):
            kind = HubUnreachable
    raise kind(f"{source}: {complaint}") from None


def _download_line(address: HubAddress) -> str:
    if address.revision:
        revision = f" --revision {address.revision}"
    else:
        revision = ""
    return f"hf download --repo-type dataset {address.name}{revision}"


def _is_listed(address: HubAddress, snapshot: Path) -> bool:
    """Whether the cache has the list of the revision's files, by which the client itself refuses a
    part of them. It comes with a download of several files; one file, fetched by its name, brings
    none."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        huggingface_hub.get_cached_repo_tree(
            address.name, repo_type="dataset", revision=snapshot.name
        )
    except errors.CachedRepoTreeNotFoundError:
        return False
    return True
