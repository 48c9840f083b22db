"""A checkpoint's tensors from a GPU to files, by a thread, while training goes on.

torch.save asks each tensor's memory for a copy on the host (`UntypedStorage.cpu`), one after the
other. torch 2.13 makes that copy with Python's global interpreter lock held and through memory that
is not pinned, so the training thread would stand still: 0.58 of 0.58 s for 1 GiB between two
tensors of a CPU, where `Tensor.copy_`, which frees the lock, holds 0.02 to 0.05 s. Here the copy
goes by `Tensor.copy_` through two pinned buffers, on a stream of its own that waits for the step
which made the tensors.

Where tensors lie on the CPU nothing is copied: torch.save reads them as they are.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

BUFFER_BYTES = 64 * 2**20
NUM_BUFFERS = 2
"""One is filled by the GPU while the other is emptied to the host."""
TICK_S, LATE_S = 0.005, 0.05
"""A thread that sleeps for TICK_S is late by LATE_S and more where something holds the
interpreter's lock, or no core is free."""
_of_thread = threading.local()
_usual_cpu: Callable[[torch.UntypedStorage], torch.UntypedStorage] = torch.UntypedStorage.cpu


@dataclass(frozen=True)
class Device:
    """A GPU as the copy uses it: torch.cuda, or what stands for it in a test."""

    module: Any
    """Has Event, Stream, stream, set_device and current_stream, as torch.cuda."""
    index: int

    def pinned(self, num_bytes: int) -> torch.Tensor:
        """A tensor [num_bytes] of bytes on the host that the GPU writes by itself."""
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)


class LockWatch:
    """Measures for how long no thread of this process could run Python: `held_s`, from `begin` to
    `end`."""

    def __init__(self) -> None:
        self.held_s = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lock-watch", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._over.wait(TICK_S):
            now = time.monotonic()
            late_s = now - before - TICK_S
            self.held_s += late_s if late_s >= LATE_S else 0.0
            before = now


class DeviceCopy:
    """Copies of one checkpoint. Made at the step boundary, on the thread and stream that made the
    tensors; used by the thread that writes. `held` is called with the seconds in which its use kept
    training's thread from running."""

    def __init__(self, device: Device, held: Callable[[float], None]) -> None:
        self._device = device
        self._held = held
        self._captured = device.module.Event()
        self._captured.record(device.module.current_stream())

    @contextmanager
    def used(self) -> Iterator[None]:
        """Inside, on this thread, torch.save copies tensors of a GPU through the buffers. All is
        copied when it ends."""
        module = self._device.module
        module.set_device(self._device.index)  # a new thread is on GPU 0
        self._stream = module.Stream()
        self._stream.wait_event(self._captured)
        self._buffers = [self._device.pinned(BUFFER_BYTES) for _ in range(NUM_BUFFERS)]
        self._filled = [module.Event() for _ in self._buffers]
        _of_thread.copy = self
        watch = LockWatch()
        watch.begin()
        try:
            yield
        finally:
            _of_thread.copy = None
            watch.end()
            self._held(watch.held_s)
            self._stream.synchronize()
            del self._buffers  # torch's cache of pinned memory has them for the next checkpoint

    def on_host(self, storage: torch.UntypedStorage) -> torch.UntypedStorage:
        """A copy of the memory on the host, which is there when this returns."""
        source = bytes_of(storage)
        copied = torch.empty(source.numel(), dtype=torch.uint8)
        pieces = [
            (start, min(BUFFER_BYTES, source.numel() - start))
            for start in range(0, source.numel(), BUFFER_BYTES)
        ]
        for number, (start, length) in enumerate(pieces):
            self._fill(number, source[start : start + length])
            if number:
                self._empty(number - 1, copied, *pieces[number - 1])
        if pieces:
            self._empty(len(pieces) - 1, copied, *pieces[-1])
        return copied.untyped_storage()

    def _fill(self, number: int, piece: torch.Tensor) -> None:
        """The GPU is copying the piece into its buffer. What the buffer had before is on the host
        already."""
        turn = number % NUM_BUFFERS
        with self._device.module.stream(self._stream):
            self._buffers[turn][: piece.numel()].copy_(piece, non_blocking=True)
            self._filled[turn].record(self._stream)

    def _empty(self, number: int, copied: torch.Tensor, start: int, length: int) -> None:
        turn = number % NUM_BUFFERS
        self._filled[turn].synchronize()  # frees the interpreter while it waits
        copied[start : start + length].copy_(self._buffers[turn][:length])


def bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    """The memory as a tensor of bytes, without a copy."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)  # pyright: ignore[reportArgumentType] - takes both kinds


def device_of(engine: Any) -> Device | None:
    """The GPU that DeepSpeed's engine trains on; None for a CPU."""
    device: torch.device = engine.device
    if device.type != "cuda":
        return None
    return Device(torch.cuda, torch.cuda.current_device())


def _cpu(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    copy: DeviceCopy | None = getattr(_of_thread, "copy", None)
    if copy is None or storage.device.type == "cpu":
        return _usual_cpu(storage)
    return copy.on_host(storage)


def copy_through_buffers() -> None:
    """From now on torch.save's copies go through `DeviceCopy.used`, on threads that are inside it.
    May go with pytorch pull request 200410, which frees the lock in `UntypedStorage.copy_`."""
    torch.UntypedStorage.cpu = _cpu  # pyright: ignore[reportAttributeAccessIssue]
