"""components.train on a machine whose GPU is made up: `python -m tests.unit.train.fake_gpu NUM_GPUS
RUN`.

Only what is looked at before the processes join is there: nothing can be computed on it.
"""

import sys
import time
from types import SimpleNamespace
from typing import Any

import torch

from components.train import __main__ as trainer

IMPORTED = "imported at "
A10_BYTES = 23_609_475_072


def properties(**changed: Any) -> SimpleNamespace:
    """An A10's, as torch tells them, but for `changed`."""
    return SimpleNamespace(
        **{"name": "NVIDIA A10", "major": 8, "minor": 6, "total_memory": A10_BYTES, **changed}
    )


WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
"""Of torch 2.13.0+cu130: torch._C._cuda_getArchFlags()."""


def make_up(cuda: Any, num_gpus: int, *, bf16: bool = True, **changed: Any) -> None:
    """`cuda`, torch's module, speaks of this many GPUs."""
    cuda.is_available = lambda: num_gpus > 0
    cuda.device_count = lambda: num_gpus
    cuda.get_device_properties = lambda index: properties(**changed)
    cuda.get_arch_list = lambda: WHEEL
    cuda.is_bf16_supported = lambda including_emulation=True: bf16


if __name__ == "__main__":
    make_up(torch.cuda, int(sys.argv.pop(1)))
    print(f"{IMPORTED}{time.time()}", flush=True)
    trainer.main()
