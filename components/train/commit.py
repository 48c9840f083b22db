"""The checkpoint protocol: each process uploads its own files, then its part list; whoever is last writes the manifest.

    checkpoints/epoch-0001/<attempt>/…             files of all processes, never overwritten: an attempt is one start of the job
    checkpoints/epoch-0001/<attempt>/part-00000.json   process 0's files are all there: their names, sizes, checksums
    checkpoints/epoch-0001/manifest.json           every process's part is there; only now the checkpoint exists for readers

No process waits for another. Two that finish at once may both write the manifest: the write is conditional, and both
write the same bytes.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from components.shared.errors import ObjectExists
from components.shared.layout import checkpoint_folder, manifest_key
from components.shared.manifest import FileEntry, Manifest, file_entry
from components.shared.spec import FrozenModel
from components.shared.storage import Store


class Part(FrozenModel):
    """One process's share of one checkpoint, and what it takes to commit the whole."""

    epoch: int
    step: int
    attempt: str
    process_rank: int
    num_processes: int
    plan: str
    loss: float
    held_out_loss: float
    root: str
    """Local folder of the files."""
    names: tuple[str, ...]
    """Files of this process, relative to `root`."""

    @property
    def folder(self) -> str:
        return checkpoint_folder(self.epoch)


class PartList(FrozenModel):
    files: tuple[FileEntry, ...]


@dataclass(frozen=True)
class Stored:
    num_bytes: int
    committed: bool
    """True where this process found all parts there and wrote the manifest; when two are last at once, both did."""


def store_part(store: Store, part: Part) -> Stored:
    """This process's files are in the store; the checkpoint is committed if all other processes' were there too."""
    entries: list[FileEntry] = []
    for name in part.names:
        entry = file_entry(Path(part.root, name), f"{part.attempt}/{name}")
        store.upload(Path(part.root, name), f"{part.folder}/{entry.name}")
        entries.append(entry)
    part_list = PartList(files=tuple(entries))
    store.write_bytes(_part_key(part, part.process_rank), part_list.model_dump_json().encode())
    return Stored(sum(entry.num_bytes for entry in entries), _commit(store, part))


def _part_key(part: Part, process_rank: int) -> str:
    return f"{part.folder}/{part.attempt}/part-{process_rank:05d}.json"


def _commit(store: Store, part: Part) -> bool:
    prefix = f"{part.folder}/{part.attempt}/part-"
    present = {found.key for found in store.list(prefix)}
    keys = [_part_key(part, process_rank) for process_rank in range(part.num_processes)]
    if not present.issuperset(keys):
        return False
    lists = [PartList.model_validate_json(store.read_bytes(key)) for key in keys]
    manifest = Manifest(
        folder=part.folder,
        made_by="train",
        inputs={"plan": part.plan},
        facts={
            "epoch": part.epoch,
            "step": part.step,
            "num_processes": part.num_processes,
            "loss": part.loss,
            "held_out_loss": part.held_out_loss,
        },
        files=tuple(entry for part_list in lists for entry in part_list.files),
    )
    try:
        store.write_bytes(manifest_key(part.folder), manifest.to_bytes(), if_absent=True)
    except ObjectExists:
        return False  # an earlier attempt committed this epoch; its checkpoint stands
    return True


def owner(name: str) -> int | None:
    """The process a checkpoint's file is named after: only that one writes and reads it. None: process 0 writes, all read.

    DeepSpeed 0.19: `[bf16_]zero_pp_rank_1_mp_rank_00_optim_states.pt`; transformers 5.23: `rng_state_1.pth`.
    """
    last = name.rsplit("/", 1)[-1]
    named = re.search(r"zero_pp_rank_(\d+)_mp_rank_|rng_state_(\d+)\.pth$", last)
    return int(named[1] or named[2]) if named else None
