"""A library imported without torch's compiler.

`@torch.compile` on a function of a module imports torch's inductor as the module is imported, which
takes longer than most libraries themselves, whether or not the function is ever called.
"""

import importlib
import logging
from collections.abc import Callable
from typing import Any


def import_uncompiled(name: str, torch: Any) -> None:
    """The library is imported, and its functions that `torch` would compile are left as they are;
    nothing happens where it is not installed.

    What it logs as a warning meanwhile is not shown: bitsandbytes 0.50 misses a package on each CPU
    with avx512_bf16 whose kernels hagane does not use.
    """
    logging.getLogger(name).setLevel(logging.ERROR)
    compile_, torch.compile = torch.compile, _left_as_it_is
    try:
        importlib.import_module(name)
    except ImportError:
        return
    finally:
        torch.compile = compile_


def _left_as_it_is(function: Callable[..., Any] | None = None, **_: Any) -> Any:
    """Stands for torch.compile, called with a function or as a decorator with settings."""
    if function is None:
        return lambda each: each
    return function
