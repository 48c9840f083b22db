"""The checkpoint protocol: each process uploads its own files, then its part list; whoever is last
writes the manifest.

    checkpoints/epoch-0001/<attempt>/…             files of all processes, of one start of the job
    checkpoints/epoch-0001/<attempt>/part-00000.json   process 0's files are there: names, checksums
    checkpoints/epoch-0001/manifest.json           every part is there: now the checkpoint exists

No process waits for another. Two that finish at once may both write the manifest: the write is
conditional, and both write the same bytes. docs/checkpoints.md says what each crash leaves, and why
it is safe."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict

from components.shared.documents.checkpoint import CheckpointFacts
from components.shared.documents.fields import FrozenModel
from components.shared.errors import ObjectDamaged, ObjectExists
from components.shared.spec.results import KeepSpec
from components.shared.store.checkpoints import committed_checkpoints, folder_of, reasons_to_keep
from components.shared.store.layout import manifest_key
from components.shared.store.manifest import FileEntry, Manifest, file_entry
from components.shared.store.storage import Store


class Part(FrozenModel):
    """One process's share of one checkpoint, and what it takes to commit the whole."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    facts: CheckpointFacts
    attempt: str
    process_rank: int
    training: str
    """The plan's training_digest."""
    root: str
    """Local folder of the files."""
    names: tuple[str, ...]
    """Files of this process, relative to `root`."""

    @property
    def folder(self) -> str:
        return folder_of(self.facts)

    def remove_files(self) -> None:
        """The local files are gone."""
        for name in self.names:
            Path(self.root, name).unlink(missing_ok=True)


class PartList(FrozenModel):
    files: tuple[FileEntry, ...]


@dataclass(frozen=True)
class Stored:
    num_bytes: int
    committed: bool
    """True where this process found all parts there and wrote the manifest; when two are last at
    once, both did."""


def store_part(store: Store, part: Part) -> Stored:
    """This process's files are in the store; the checkpoint is committed if all other processes'
    were there too.

    May be called again after any error. Raises StoreError; ObjectDamaged when a part's file is no
    longer what its list says.
    """
    entries: list[FileEntry] = []
    with ThreadPoolExecutor(1) as beside:
        for name in part.names:
            path, stored_name = Path(part.root, name), f"{part.attempt}/{name}"
            entry = beside.submit(
                file_entry, path, stored_name
            )  # reads the file while it is uploaded
            store.upload(path, f"{part.folder}/{stored_name}")
            entries.append(entry.result())
    part_list = PartList(files=tuple(entries))
    store.write_bytes(_part_key(part, part.process_rank), part_list.model_dump_json().encode())
    return Stored(sum(entry.num_bytes for entry in entries), _commit(store, part))


def _part_key(part: Part, process_rank: int) -> str:
    return f"{part.folder}/{part.attempt}/part-{process_rank:05d}.json"


def _commit(store: Store, part: Part) -> bool:
    sizes = {found.key: found.num_bytes for found in store.list(f"{part.folder}/{part.attempt}/")}
    keys = [_part_key(part, process_rank) for process_rank in range(part.facts.num_processes)]
    if not sizes.keys() >= set(keys):
        return False
    lists = [PartList.model_validate_json(store.read_bytes(key)) for key in keys]
    files = tuple(entry for part_list in lists for entry in part_list.files)
    for entry in files:
        found = sizes.get(f"{part.folder}/{entry.name}")
        if found != entry.num_bytes:
            raise ObjectDamaged(
                f"{store.uri}/{part.folder}/{entry.name}: holds {found} bytes of "
                f"{entry.num_bytes}; nothing is committed"
            )
    try:
        store.write_bytes(
            manifest_key(part.folder), _manifest(part, files).to_bytes(), if_absent=True
        )
    except ObjectExists:
        return False  # an earlier attempt committed this checkpoint, and it stands
    return True


def _manifest(part: Part, files: tuple[FileEntry, ...]) -> Manifest:
    return Manifest(
        folder=part.folder,
        made_by="train",
        inputs={"training": part.training},
        facts=part.facts.model_dump(),
        files=files,
    )


def prune(store: Store, keep: KeepSpec) -> list[str]:
    """Committed checkpoints that nothing keeps are gone: the manifest first, so that none is ever
    seen without its files.

    Returns their folders. To be called after a commit: the newest one always stays. Only the
    attempt that was committed is removed: another start of the job may be writing beside it, and
    needs its files there until it has seen that it came too late.
    """
    committed = committed_checkpoints(store)
    kept = reasons_to_keep(committed, keep)
    removed = [checkpoint for checkpoint in committed if checkpoint.folder not in kept]
    for checkpoint in removed:
        store.delete(manifest_key(checkpoint.folder))
        for attempt in checkpoint.attempts:
            for found in list(store.list(f"{checkpoint.folder}/{attempt}/")):
                store.delete(found.key)
    return [checkpoint.folder for checkpoint in removed]


def owner(name: str) -> int | None:
    """The process a checkpoint's file is named after: only that one writes and reads it. None:
    process 0 writes, all read.

    DeepSpeed 0.19: `[bf16_]zero_pp_rank_1_mp_rank_00_optim_states.pt`; transformers 5.23:
    `rng_state_1.pth`.
    """
    last = name.rsplit("/", 1)[-1]
    named = re.search(r"zero_pp_rank_(\d+)_mp_rank_|rng_state_(\d+)\.pth$", last)
    if named:
        return int(named[1] or named[2])
    return None
