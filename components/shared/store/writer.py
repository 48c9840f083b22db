"""One writer a run: who works on a run says so in its folder, and again every 20 s; a second start
stops with the first one's name.

    <store>/<run>/.writer-000001.json      host and process, or run of KFP; removed at the end

A lock of an S3 store and of a folder alike: its object is written only if absent, so of two starts
at once one wins. Who was killed leaves its lock behind. It is taken over at once on the same
machine, where the process can be seen to be gone, and from another one after 2 minutes without a
sign of life, by the store's own clock. Then the next number is taken. The first one, should it
still be there, sees before it writes its own lock again or removes it that there is a higher
number, or that its own lock is gone or is another's: the numbers begin at 1 again once a taker has
ended. It writes and removes only what is its own still, by the store's own comparison (If-Match in
S3, the open file in a folder), so that a process which was held up between look and write brings
nothing back.

A run of Kubeflow Pipelines is many pods, one after the other. Its first step writes the lock, each
step shows signs of life while it runs, and its exit task removes the lock. Between two steps nobody
does, so it is taken over after an hour without one. A second such run with the same spec works
beside the first: their steps find each other's results. With another spec it is refused."""

import os
import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from components.shared.documents.fields import FrozenModel
from components.shared.errors import HaganeError, ObjectExists, ObjectMissing, SpecError, StoreError
from components.shared.printable import shown
from components.shared.store.storage import Store, StoredObject

BEAT_S = 20.0
TAKE_OVER_S = 120.0
"""Without a sign of life: six beats, so that a store which is away for a minute loses nobody the
run."""
KFP_BEAT_S = 60.0
KFP_TAKE_OVER_S = 3600.0
"""Longer than a pod of a next step usually waits for a node. A run that was taken over stops at its
next step, by its spec's digest."""
OWNER_VARIABLE = "HAGANE_WRITER"
"""Environment variable of what `hagane run` starts: the owner of its lock, which is theirs too."""
GIVE_BACK_S = 5.0
"""The longest wait at the end for a store that does not answer; a lock that stays is taken over."""
_PREFIX = ".writer-"
_LOCK = re.compile(r"\.writer-(\d{6})\.json")


class Writer(FrozenModel):
    """Who works on a run. A process is itself by machine, number and the moment of its start."""

    owner: str
    host: str
    machine: str
    """The start of the machine and its name space of processes, where a process's number means
    something."""
    pid: int
    process_started: int
    """In ticks of the machine's clock, proc(5); 0 where there is no /proc, and signs of life alone
    count."""
    kfp_run: str = ""
    """KFP's id of the run that works on it; empty where a process does."""
    spec: str = ""
    """Digest of the spec that KFP's run was started with."""

    @property
    def title(self) -> str:
        if self.kfp_run:
            return f"run {shown(self.kfp_run)} of Kubeflow Pipelines"
        return f"process {self.pid} on {shown(self.host)}"


@dataclass
class Held:
    """A lock that this process has."""

    number: int
    writer: Writer
    lost_to: str | None = None
    """Who took it over; None while it is held."""


@dataclass(frozen=True)
class _Found:
    number: int
    stored: StoredObject
    content: bytes
    writer: Writer | None
    """None for one that cannot be read."""


def this_writer() -> Writer:
    pid = os.getpid()
    return Writer(
        owner=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=_machine(),
        pid=pid,
        process_started=_process_started(pid) or 0,
    )


def kfp_writer(kfp_run: str, spec_digest: str) -> Writer:
    return Writer(
        owner=kfp_run,
        host="",
        machine="",
        pid=0,
        process_started=0,
        kfp_run=kfp_run,
        spec=spec_digest,
    )


def claim_for_kfp(store: Store, writer: Writer) -> None:
    """The run of Kubeflow Pipelines has the lock, until `given_back`; a try of the same step finds
    its own.

    Raises:
        SpecError: a process works on it, or another run of Kubeflow Pipelines with another spec;
            with who.
    """
    for each in _locks(store):
        if each.writer == writer and store.touch(each.stored.key, each.content):
            return
    _acquire(store, writer)


def given_back(store: Store, kfp_run: str) -> None:
    """The lock of this run of Kubeflow Pipelines is gone, where it has one."""
    for each in _locks(store):
        if kfp_run and each.writer is not None and each.writer.kfp_run == kfp_run:
            store.delete_own(each.stored.key, each.content)


def kfp_runs_at(store: Store, spec_digest: str) -> list[str]:
    """KFP's ids of the runs with this spec that have a lock."""
    return [
        each.writer.kfp_run
        for each in _of_kfp_with(_locks(store), spec_digest)
        if each.writer is not None
    ]


def owner_of(store: Store) -> str:
    """Who has the newest lock, for a message; empty where there is none."""
    found = _locks(store)
    if not found:
        return ""
    if found[-1].writer is None:
        return "someone unknown"
    return found[-1].writer.title


def is_held_by_another(store: Store, kfp_run: str) -> bool:
    """Whether there is a lock that is neither of this run of Kubeflow Pipelines, nor of the `hagane
    run` that started this process."""
    own = (kfp_run, os.environ.get(OWNER_VARIABLE))
    return any(each.writer is None or each.writer.owner not in own for each in _locks(store))


@contextmanager
def kfp_run_alive(
    store: Store, spec_digest: str, *, on_loss: Callable[[], object], beat_s: float = KFP_BEAT_S
) -> Iterator[None]:
    """The locks of runs of Kubeflow Pipelines with this spec show signs of life inside the block,
    where there are any: several such runs work beside each other, and a step does not know of which
    one it is.

    `on_loss` is called, from a thread, when a run with another spec has taken over.
    """
    if not _of_kfp_with(_locks(store), spec_digest):
        yield
        return
    ended = threading.Event()
    beat = threading.Thread(
        target=_kfp_beat, args=(store, spec_digest, ended, on_loss, beat_s), daemon=True
    )
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join(timeout=GIVE_BACK_S)


def _kfp_beat(
    store: Store,
    spec_digest: str,
    ended: threading.Event,
    on_loss: Callable[[], object],
    beat_s: float,
) -> None:
    last = max((each.number for each in _of_kfp_with(_locks(store), spec_digest)), default=0)
    while not ended.is_set():
        with suppress(StoreError):  # the store may be back at the next beat
            found = _locks(store)
            own = _of_kfp_with(found, spec_digest)
            last = max((each.number for each in own), default=last)
            if any(each.number > last and each not in own for each in found):
                for each in (
                    own
                ):  # a store without conditional writes may have it again since it was taken over
                    store.delete_own(each.stored.key, each.content)
                on_loss()
                return
            for each in own:
                store.touch(each.stored.key, each.content)
        ended.wait(beat_s)


def _of_kfp_with(found: list[_Found], spec_digest: str) -> list[_Found]:
    return [
        each
        for each in found
        if each.writer is not None and each.writer.kfp_run and each.writer.spec == spec_digest
    ]


@contextmanager
def held_run(
    store: Store, writer: Writer, *, on_loss: Callable[[], object], beat_s: float = BEAT_S
) -> Iterator[Held]:
    """Nobody else works on the run inside the block. `on_loss` is called, from a thread, when it is
    taken over all the same.

    The end of the block takes at most `GIVE_BACK_S`, also with the store away.

    Raises:
        SpecError: someone else works on it; with who, and from when on it may be taken over.
    """
    held = Held(_acquire(store, writer), writer)
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(store, held, ended, on_loss, beat_s), daemon=True)
    beat.start()
    try:
        yield held
    finally:
        ended.set()
        beat.join(timeout=GIVE_BACK_S)


def _acquire(store: Store, writer: Writer) -> int:
    for _ in range(10):
        found = _locks(store)
        _refuse_living(store, found, writer)
        number = max((each.number for each in found), default=0) + 1
        try:
            store.write_bytes(_key(number), _content(writer), if_absent=True)
        except ObjectExists:
            continue  # another start was faster by a moment
        try:
            _refuse_living(store, [each for each in _locks(store) if each.number != number], writer)
        except HaganeError:
            store.delete(_key(number))
            raise
        if writer.kfp_run:
            beside = _of_kfp_with(found, writer.spec)
        else:
            beside = []
        for each in found:
            if each not in beside:
                store.delete_own(each.stored.key, each.content)
        return number
    raise SpecError(
        f"name: {store.uri} is begun by several processes at once; wait for them, or set another "
        "name"
    )


def _refuse_living(store: Store, found: list[_Found], writer: Writer) -> None:
    """Raises SpecError for a lock whose owner may still be there."""
    for each in found:
        holder = each.writer
        if holder is not None and holder.machine == writer.machine and holder.process_started:
            if _process_started(holder.pid) == holder.process_started:
                raise SpecError(
                    f"name: {store.uri} is being worked on by {holder.title}; wait for its end, or "
                    "set another name"
                )
            continue
        if holder is not None and holder.kfp_run and writer.kfp_run and holder.spec == writer.spec:
            continue
        if holder is not None and holder.kfp_run:
            take_over_s = KFP_TAKE_OVER_S
        else:
            take_over_s = TAKE_OVER_S
        age_s = (_store_time(store) - each.stored.written).total_seconds()
        if age_s < take_over_s:
            if holder is None:
                who = "someone unknown"
            else:
                who = holder.title
            if holder is not None and holder.kfp_run:
                over = f"; if that run is over, delete {store.uri}/{each.stored.key}"
            else:
                over = ""
            raise SpecError(
                f"name: {store.uri} is being worked on by {who}, last seen {max(0, age_s):.0f} s "
                f"ago; wait for its end, or set another name; {take_over_s:.0f} s after it was "
                f"last seen, the same command takes over{over}"
            )


def _beat(
    store: Store, held: Held, ended: threading.Event, on_loss: Callable[[], object], beat_s: float
) -> None:
    """The lock shows signs of life until `ended` is set, and is removed then; one that was lost is
    left as it is."""
    while not ended.wait(beat_s):
        with suppress(StoreError):  # the store may be back at the next beat
            held.lost_to = _taker(_locks(store), held)
            if held.lost_to is not None:
                if not ended.is_set():  # nobody waits for it any more
                    on_loss()
                return
            store.touch(_key(held.number), _content(held.writer))
    with suppress(StoreError):  # a lock that stays is taken over
        held.lost_to = _taker(_locks(store), held)
        if held.lost_to is None:
            store.delete_own(_key(held.number), _content(held.writer))


def _taker(found: list[_Found], held: Held) -> str | None:
    """Who has the run now; None while `held` has it."""
    is_there = any(each.number == held.number and each.writer == held.writer for each in found)
    takers = found
    if is_there:
        takers = [each for each in found if each.number > held.number]
        if not takers:
            return None
    if takers:
        taker = takers[-1].writer
    else:
        taker = None
    if taker is None:
        return "someone unknown"
    return taker.title


def _locks(store: Store) -> list[_Found]:
    found = []
    for stored in list(store.list(_PREFIX)):
        number = _LOCK.fullmatch(stored.key)
        if number is None:
            continue
        try:
            content = store.read_bytes(stored.key)
        except ObjectMissing:  # given back since
            continue
        try:
            writer = Writer.model_validate_json(content)
        except ValueError:
            writer = None
        found.append(_Found(int(number[1]), stored, content, writer))
    return found


def _store_time(store: Store) -> datetime:
    """Now, by the store's clock: the moment of an object that is written for this."""
    key = f"{_PREFIX}clock-{uuid.uuid4().hex}"
    store.write_bytes(key, b"")
    try:
        return next(iter(store.list(key))).written
    finally:
        store.delete(key)


def _content(writer: Writer) -> bytes:
    return writer.model_dump_json().encode()


def _key(number: int) -> str:
    return f"{_PREFIX}{number:06d}.json"


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.is_file():
        return f"{socket.gethostname()} {uuid.getnode()}"
    return f"{boot.read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"


def _process_started(pid: int) -> int | None:
    """None where there is no such process. Field 22 of /proc/<pid>/stat, counted behind the name,
    which may hold anything."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    return int(fields[19])
