"""The NVIDIA driver of this node: which one it is, which CUDA it serves, and what to do when it
does not fit."""

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

KERNEL_MODULE = Path("/proc/driver/nvidia/version")
LEAST_DRIVER = {13: 580, 12: 525}
"""Major version of CUDA -> the first driver that runs its programs (NVIDIA's CUDA release notes,
table of minor version compatibility)."""


@dataclass(frozen=True)
class Driver:
    version: str | None
    """Of the kernel's module, such as 550.54.15; None where the node has none, or hides it."""
    cuda: str | None
    """Newest CUDA that the driver's library serves, such as 12.4; None where the library is not
    found."""


def find_driver(kernel_module: Path = KERNEL_MODULE) -> Driver:
    if kernel_module.exists():
        text = kernel_module.read_text()
    else:
        text = ""
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return Driver(version=None if found is None else found[1], cuda=_library_cuda())


def _library_cuda() -> str | None:
    """By cuDriverGetVersion of the CUDA driver API: 12040 is 12.4. It works without a GPU."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int(0)
    if library.cuDriverGetVersion(ctypes.byref(number)):
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def driver_problem(driver: Driver, torch_cuda: str) -> tuple[str, str] | None:
    """What is wrong with the driver for a torch built with CUDA `torch_cuda`, and how to fix it;
    None where nothing is."""
    major = int(torch_cuda.partition(".")[0])
    least = LEAST_DRIVER.get(major, LEAST_DRIVER[max(LEAST_DRIVER)])
    needs = f"torch has CUDA {torch_cuda}, which needs driver R{least} or newer"
    update = f"update the node's driver to R{least} or newer (docs/gpus.md has the table)"
    if driver.version is None and driver.cuda is None:
        found = "found no NVIDIA driver here: neither /proc/driver/nvidia nor libcuda.so.1"
        return found, "use a node with GPUs and a pod that requests them; look at the device plugin"
    too_old = driver.version is not None and int(driver.version.partition(".")[0]) < least
    if driver.cuda is None and not too_old:
        found = f"found driver {driver.version}, but not its library libcuda.so.1"
        fix = "use the image train-cuda, whose LD_LIBRARY_PATH names /usr/local/nvidia/lib64"
        return found, f"{fix}, and a container runtime that mounts the driver"
    # The library decides: NVIDIA's package cuda-compat brings a newer one to an older kernel
    # module.
    if driver.cuda is None or int(driver.cuda.partition(".")[0]) < major:
        if driver.cuda is None:
            serves = ""
        else:
            serves = f" that serves CUDA {driver.cuda}"
        return f"found driver {driver.version or 'of unknown version'}{serves}; {needs}", update
    return None
