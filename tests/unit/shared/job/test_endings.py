import re
from pathlib import Path

import pytest

from components.shared.errors import ModelError, PeerLost, Preempted, RunFailed, StoreUnreachable
from components.shared.job.endings import ANY_OTHER, ENDINGS, ending_in, ending_of, signal_of, starts_again, table

ROOT = Path(__file__).parents[4]


class AcceleratorError(RuntimeError):
    """As torch's, which components/shared does without."""


class OutOfMemoryError(RuntimeError):
    pass


class DistError(RuntimeError):
    pass


class DistBackendError(DistError):
    pass


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (AcceleratorError("CUDA error: uncorrectable ECC error encountered"), "retry", 200),
        (AcceleratorError("CUDA error: unspecified launch failure"), "retry", 200),
        (AcceleratorError("CUDA error: no kernel image is available for execution on the device"), "final", 1),
        (AcceleratorError("CUDA error: invalid device ordinal"), "final", 1),
        (AcceleratorError("CUDA error: device-side assert triggered"), "final", 1),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "final", 1),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"), "final", 1),
        (MemoryError(), "final", 1),
        (DistBackendError("NCCL error: remote process exited or there was a network error"), "retry", 129),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:525] Read error [10.0.0.7]:4711: Connection reset by peer"), "retry", 129),
        (RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms"), "retry", 129),
        (PeerLost("not all came"), "retry", 129),
        (Preempted("SIGTERM"), "retry", 143),
        (OSError(28, "No space left on device"), "final", 1),
        (RunFailed("the loss of step 3 is not finite"), "final", 1),
        (ModelError("no such model"), "user", 2),
        (StoreUnreachable("s3://b: no answer"), "user", 2),
        (RuntimeError("shape mismatch"), "final", 1),
    ],
)
def test_each_error_ends_the_job_or_starts_it_again(error: Exception, kind: str, code: int) -> None:
    ending = ending_of(error)
    assert (ending.kind, ending.code) == (kind, code)
    assert starts_again(ending.code) == (kind == "retry")


def test_a_code_above_every_signal_is_taken_for_none() -> None:
    assert signal_of(137) == 9
    assert signal_of(200) is None
    assert signal_of(1) is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered", "a GPU failed"),
        ("torch.AcceleratorError: CUDA error: no kernel image is available", "no kernels for its architecture"),
        ("[rank3]: Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)", "its GPUs' network did not answer"),
        ("RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried", "the host has too little memory"),
    ],
)
def test_a_pods_last_lines_say_what_happened(line: str, words: str) -> None:
    found = ending_in(["step 4", line])
    assert found is not None
    assert words in found.meaning


def test_kubernetes_reason_counts_where_a_pod_printed_nothing() -> None:
    found = ending_in([], reason="OOMKilled")
    assert found is not None
    assert (found.kind, found.code) == ("final", 137)
    assert ending_in(["step 4"]) is None


def test_the_runtime_of_a_trainjob_and_the_table_agree_on_which_codes_are_final() -> None:
    text = (ROOT / "k8s/overlays/trainjob/runtime.yaml").read_text()
    values = re.search(r"values:\s*\[(.*?)\]", text, re.DOTALL)
    assert values is not None
    final = {int(value) for value in re.findall(r"\d+", values[1])}
    assert final == {code for code in range(1, 256) if not starts_again(code)}
    of_kernel = [ending for ending in ENDINGS if ending.reason]
    assert all(starts_again(ending.code) == (ending.kind == "retry") for ending in ENDINGS if ending not in of_kernel)


def test_the_page_shows_the_table_as_the_code_has_it() -> None:
    assert table() in (ROOT / "docs" / "cluster.md").read_text()
    assert ANY_OTHER.name in table()
