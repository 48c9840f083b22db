"""The copy from a GPU, with CPU tensors and a module that stands for torch.cuda: it has the same calls and remembers them.

What no CPU can show: that pinned memory is written beside kernels, and how fast (docs/gpus-not-run.md).
"""

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from components.train.checkpoints import device_copy
from components.train.checkpoints.device_copy import Device, DeviceCopy, LockWatch, copy_through_buffers


class FakeCuda:
    """torch.cuda, as far as the copy goes."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.num_events = 0

    def Event(self) -> Any:  # noqa: N802 - torch.cuda's name
        number, self.num_events = self.num_events, self.num_events + 1
        return SimpleNamespace(
            number=number,
            record=lambda stream: self.calls.append(("record", number, stream.name)),
            synchronize=lambda: self.calls.append(("synchronize", number)),
        )

    def Stream(self) -> Any:  # noqa: N802
        return SimpleNamespace(
            name="side",
            wait_event=lambda event: self.calls.append(("wait_event", event.number)),
            synchronize=lambda: self.calls.append(("synchronize", "side")),
        )

    def current_stream(self) -> Any:
        return SimpleNamespace(name="training")

    def stream(self, stream: Any) -> Any:
        return nullcontext()

    def set_device(self, index: int) -> None:
        self.calls.append(("set_device", index, threading.current_thread().name))


class FakeDevice(Device):
    def pinned(self, num_bytes: int) -> torch.Tensor:
        return torch.empty(num_bytes, dtype=torch.uint8)


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(device_copy, "BUFFER_BYTES", 1000)
    return 1000


def fake_copy(cuda: FakeCuda, held: Callable[[float], None] = lambda _: None) -> DeviceCopy:
    return DeviceCopy(FakeDevice(cuda, 3), held)


@pytest.mark.usefixtures("small_buffers")
@pytest.mark.parametrize("num_bytes", [0, 4, 996, 1000, 1004, 2000, 5432])
def test_all_bytes_arrive_whatever_the_size(num_bytes: int) -> None:
    tensor = torch.arange(num_bytes // 4, dtype=torch.float32)
    copy = fake_copy(FakeCuda())
    with copy.used():
        copied = copy.on_host(tensor.untyped_storage())
    assert bytes(copied) == bytes(tensor.untyped_storage())
    assert copied.data_ptr() != tensor.data_ptr() or num_bytes == 0


@pytest.mark.usefixtures("small_buffers")
def test_the_copy_waits_for_the_step_and_no_buffer_is_filled_before_it_is_empty() -> None:
    cuda = FakeCuda()
    copy = fake_copy(cuda)
    thread = threading.Thread(target=lambda: use(copy, torch.zeros(1250)), name="writer")
    thread.start()
    thread.join()
    # At the capture, on training's own stream and thread; all else in the writer's.
    assert cuda.calls[:3] == [("record", 0, "training"), ("set_device", 3, "writer"), ("wait_event", 0)]
    pieces = [call for call in cuda.calls[3:-1] if call[0] in ("record", "synchronize")]
    assert all(call[-1] == "side" for call in pieces if call[0] == "record")
    is_full: set[int] = set()
    for what, buffer, *_ in pieces:
        assert (buffer in is_full) == (what == "synchronize")
        is_full.symmetric_difference_update({buffer})
    assert is_full == set()
    assert len(pieces) == 2 * 5
    assert cuda.calls[-1] == ("synchronize", "side")


def use(copy: DeviceCopy, tensor: torch.Tensor) -> None:
    with copy.used():
        copy.on_host(tensor.untyped_storage())


def test_torch_saves_a_gpus_memory_by_this_copy_in_the_thread_that_uses_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = torch.UntypedStorage.cpu
    monkeypatch.setattr(torch.UntypedStorage, "cpu", usual)  # put back after the test
    monkeypatch.setattr(device_copy, "_usual_cpu", lambda storage: "as usual")
    copy_through_buffers()
    of_gpu, of_cpu = (SimpleNamespace(device=torch.device(name)) for name in ("cuda:3", "cpu"))
    asked = torch.UntypedStorage.cpu
    copy: Any = fake_copy(FakeCuda())
    copy.on_host = lambda storage: "through the buffers"
    with copy.used():
        assert asked(of_gpu) == "through the buffers"  # pyright: ignore[reportArgumentType] - a stand-in
        assert asked(of_cpu) == "as usual"  # pyright: ignore[reportArgumentType]
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(asked(of_gpu)))  # pyright: ignore[reportArgumentType]
        thread.start()
        thread.join()
        assert answers == ["as usual"]
    assert asked(of_gpu) == "as usual"  # pyright: ignore[reportArgumentType]


def ticks_beside(work: Callable[[], object]) -> int:
    """How often this thread could look while another works."""
    thread = threading.Thread(target=work)
    num_ticks = 0
    thread.start()
    while thread.is_alive():
        num_ticks += 1
        time.sleep(0.0005)
    return num_ticks


def test_training_goes_on_beside_the_copy_where_torchs_own_holds_the_interpreters_lock() -> None:
    """Both between tensors of the CPU: the lock is the same."""
    storage = torch.ones(64 * 2**20, dtype=torch.float32).untyped_storage()
    own = torch.UntypedStorage(storage.nbytes())
    beside_torchs = min(ticks_beside(lambda: own.copy_(storage)) for _ in range(3))
    beside_ours = max(ticks_beside(lambda: use(fake_copy(FakeCuda()), torch.empty(0).set_(storage))) for _ in range(3))  # pyright: ignore[reportArgumentType] - takes both kinds
    print(f"looks beside 256 MiB: torch's copy {beside_torchs}, this copy {beside_ours}")
    assert beside_ours > 3 * beside_torchs


def test_time_in_which_no_python_could_run_counts_as_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_copy, "LATE_S", 0.01)  # a fast machine copies 256 MiB in 0.03 s
    storage = torch.ones(256 * 2**20, dtype=torch.uint8).untyped_storage()
    own = torch.UntypedStorage(storage.nbytes())
    watch = LockWatch()
    watch.begin()
    start = time.monotonic()
    for _ in range(3):
        own.copy_(storage)
    took_s = time.monotonic() - start
    watch.end()
    assert watch.held_s > took_s / 4
    held: list[float] = []
    with fake_copy(FakeCuda(), held.append).used():
        pass
    assert len(held) == 1
