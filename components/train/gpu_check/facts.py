"""What a node has, as torch sees it: measured in a process of its own, which leaves no CUDA context
behind.

`python -m components.train.gpu_check.facts PRECISION` prints one event, `node_facts`. No check here
judges; device_checks.py does.
"""

import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from components.shared.documents.fields import FrozenModel
from components.shared.log import set_up_log
from components.shared.machine import computes_bf16, machine_flags
from components.train.driver import find_driver

LIBRARIES = (
    "triton",
    "flash-attn",
    "kernels",
    "liger-kernel",
    "causal-conv1d",
    "mamba-ssm",
    "bitsandbytes",
)
"""Packages that make some models faster when they are there; hagane needs none of them."""
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "plain": SDPBackend.MATH,
}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
PINNED_BYTES = 2**30
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the place itself, no file in it


class Gpu(FrozenModel):
    name: str
    total_bytes: int
    free_bytes: int
    capability: str
    """Such as 8.0."""


class NodeFacts(FrozenModel):
    """An entry that names an error holds its first line; an empty one means that it worked."""

    torch_version: str
    torch_cuda: str | None
    """CUDA that torch is built with; None for a wheel for CPUs."""
    architectures: tuple[str, ...]
    """Of the kernels in the wheel, such as sm_80."""
    driver: str | None
    driver_cuda: str | None
    cuda_error: str = ""
    """What torch said when it looked for GPUs."""
    gpus: tuple[Gpu, ...] = ()
    bf16: bool
    """Whether this device computes bf16 by instructions of its own."""
    shared_memory_bytes: int
    pinned_error: str = ""
    pinned_gb_s: float | None = None
    """From pinned host memory to the GPU; None without a GPU."""
    attention: dict[str, str]
    """Kernel -> error, for attention with a mask in the plan's precision."""
    bmm_error: str = ""
    tflops: float | None
    """Of a plain matrix product in the plan's precision on one device."""
    libraries: dict[str, str]
    """Optional package -> version, of those that are installed."""


def node_facts(precision: str) -> NodeFacts:
    driver = find_driver()
    if torch.version.cuda is None:
        cuda_error = ""
    else:
        cuda_error = error_of(torch.cuda.init)
    on_gpu = torch.cuda.is_available() and not cuda_error
    device = torch.device("cuda" if on_gpu else "cpu")
    dtype = DTYPES[precision]
    if on_gpu:
        pinned_gb_s, pinned_error = measured(pinned_copy_gb_s)
    else:
        pinned_gb_s, pinned_error = (None, "")
    tflops, _ = measured(lambda: matrix_tflops(device, dtype))
    return NodeFacts(
        torch_version=torch.__version__,
        torch_cuda=torch.version.cuda,
        architectures=tuple(torch.cuda.get_arch_list()) if on_gpu else _built_for(),
        driver=driver.version,
        driver_cuda=driver.cuda,
        cuda_error=cuda_error,
        gpus=tuple(gpu_facts(index) for index in range(torch.cuda.device_count()))
        if on_gpu
        else (),
        bf16=_computes_bf16(on_gpu=on_gpu),
        shared_memory_bytes=_size_of(SHARED_MEMORY),
        pinned_error=pinned_error,
        pinned_gb_s=pinned_gb_s,
        attention={name: attention_error(name, device, dtype) for name in KERNELS},
        bmm_error=error_of(lambda: one_wide_bmm(device, dtype)),
        tflops=tflops,
        libraries={name: found for name in LIBRARIES if (found := _installed(name))},
    )


def error_of(work: Callable[[], object]) -> str:
    """First line of what the work raised; empty where it raised nothing."""
    return measured(work)[1]


def measured(work: Callable[[], Any]) -> tuple[Any, str]:
    """What the work returned, and an empty text; or None, and the first line of what it raised."""
    try:
        return work(), ""
    except Exception as error:  # whatever a driver or a kernel raises is what is to be reported
        lines = str(error).splitlines()
        return None, f"{type(error).__name__}: {lines[0] if lines else ''}"


def gpu_facts(index: int) -> Gpu:
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    capability = f"{properties.major}.{properties.minor}"
    return Gpu(name=properties.name, total_bytes=total, free_bytes=free, capability=capability)


def pinned_copy_gb_s() -> float:
    """GB/s from 1 GiB of pinned host memory to the GPU."""
    host = torch.empty(PINNED_BYTES, dtype=torch.uint8, pin_memory=True)
    device = torch.empty(PINNED_BYTES, dtype=torch.uint8, device="cuda")
    return (
        PINNED_BYTES
        / seconds_of(lambda: device.copy_(host, non_blocking=True), device.device)
        / 1e9
    )


def attention_error(kernel: str, device: torch.device, dtype: torch.dtype) -> str:
    """Attention of packed rows, hence with a mask, by one kernel, forward and backward."""

    def attend() -> None:
        shape = (1, 4, 128, 64)
        query = torch.randn(shape, device=device, dtype=dtype, requires_grad=True)
        mask = torch.ones(128, 128, device=device, dtype=torch.bool).tril()
        with sdpa_kernel(KERNELS[kernel]):
            out = torch.nn.functional.scaled_dot_product_attention(
                query, query, query, attn_mask=mask
            )
        out.sum().backward()

    return error_of(attend)


def one_wide_bmm(device: torch.device, dtype: torch.dtype) -> None:
    """A batched product whose inner dimension is 1, as rotary position embeddings are written in
    some
    models: torch 2.13 hands it to Triton on a GPU (pytorch/pytorch#196977)."""
    left = torch.randn(2, 8, 1, device=device, dtype=dtype)
    right = torch.randn(2, 1, 8, device=device, dtype=dtype)
    difference = (torch.bmm(left, right) - left * right).abs().max()
    if float(difference) > 1e-2:
        raise ArithmeticError(
            f"the product differs by {float(difference):.3g} from the elementwise one"
        )


def matrix_tflops(device: torch.device, dtype: torch.dtype) -> float:
    if device.type == "cuda":
        size = 8192
    else:
        size = 1024
    left = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / seconds_of(lambda: left @ left, device) / 1e12


def seconds_of(work: Callable[[], object], device: torch.device, *, times: int = 5) -> float:
    """Shortest of several, after one that is not counted."""
    took: list[float] = []
    for _ in range(times + 1):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took.append(time.perf_counter() - begun)
    return min(took[1:])


def _built_for() -> tuple[str, ...]:
    if torch.version.cuda:
        flags = torch._C._cuda_getArchFlags()
    else:
        flags = None
    if flags:
        return tuple(flags.split())
    return ()


def _computes_bf16(*, on_gpu: bool) -> bool:
    if on_gpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return computes_bf16(machine_flags())


def _size_of(folder: str) -> int:
    if not Path(folder).exists():
        return 0
    space = os.statvfs(folder)
    return space.f_frsize * space.f_blocks


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    set_up_log("train").info("node_facts", **node_facts(sys.argv[1]).model_dump())
