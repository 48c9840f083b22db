"""Checkpoint files of torch are pickles, which may name any function to be called; here only the
listed classes may be named.

Whoever can write the store can replace a file together with its line in the manifest, so checksums
protect from damage alone. torch opens such a file with its own reader (`weights_only=True`), which
knows tensors and plain data, calls nothing else, and takes further classes by name only
(pytorch.org/docs/stable/notes/serialization.html).
"""

import os
import pickle
import re
import warnings
from collections.abc import Callable, Iterable
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from components.shared.errors import RunFailed
from components.shared.printable import shown

DEEPSPEED_CLASSES = (
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.utils.tensor_fragment.fragment_address",
)
"""What files of DeepSpeed 0.19 hold beside tensors and plain data: an enumeration, two records of a
loss scale, a pair of numbers."""
ALWAYS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""Variable that makes every torch.load of a process and its children one with weights_only=True,
whatever a library asks for."""
_TAG = re.compile(r"global_step\d{1,18}")
_NAMED = re.compile(r"GLOBAL ([\w.]+)|class ([\w.]+)")


def open_listed_classes_only() -> None:
    """No pickle that this process, or one that it starts, opens through torch can name a class that
    is not listed."""
    os.environ[ALWAYS] = "1"
    listed: list[Any] = [_class(name) for name in DEEPSPEED_CLASSES]
    listed.append((_enum_member, "builtins.getattr"))
    import_module("torch").serialization.add_safe_globals(listed)


def refuse_foreign_pickles(folder: Path) -> None:
    """Every pickle below the folder names listed classes only, and `latest` names a folder of
    DeepSpeed's beside it.

    Raises:
        RunFailed: with the file, and the class or function that it asks for.
    """
    latest = folder / "latest"
    if latest.is_file() and not _TAG.fullmatch(latest.read_bytes()[:100].decode(errors="replace")):
        raise RunFailed(
            f"{latest}: got {shown(latest.read_bytes()[:100])}, must be global_step and a number; "
            f"{_CHANGED}"
        )
    load = import_module("torch").load
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in (".pt", ".pth", ".bin", ".ckpt", ".pkl"):
            _refuse_foreign(path, load)


_CHANGED = (
    "training never wrote such a file: someone has changed the store; look who can write to it, "
    "and take an older checkpoint"
)


def _refuse_foreign(path: Path, load: Callable[..., Any]) -> None:
    with (
        import_module("torch").serialization.safe_globals(_of_generators()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter(
            "ignore"
        )  # about pickles of another protocol, which are refused all the same
        try:
            load(
                path, map_location="cpu", weights_only=True, mmap=is_zipfile(path)
            )  # where it can, tensors stay on the disk
        except pickle.UnpicklingError as error:
            named = _NAMED.search(str(error))
            if named is None:
                what = "is no checkpoint file"
            else:
                what = f"asks for {named[1] or named[2]}"
            raise RunFailed(
                f"{path.parent.name}/{path.name}: {what}, which is not opened; {_CHANGED}"
            ) from None
        except (RuntimeError, EOFError, OSError) as error:
            said = str(error).split("\n")[0]
            raise RunFailed(
                f"{path.parent.name}/{path.name}: is no checkpoint file ({said}); {_CHANGED}"
            ) from None


def _of_generators() -> Iterable[Any]:
    """What transformers 5.23 lists for the states of random generators, which numpy keeps in
    arrays."""
    numpy = import_module("numpy")
    return [
        numpy._core.multiarray._reconstruct,
        numpy.ndarray,
        numpy.dtype,
        type(numpy.dtype("uint32")),
    ]


def _enum_member(kind: type[Enum], name: str) -> Enum:
    """What stands for `getattr`, by which some versions of Python 3.11 (3.11.2 is one) write a
    member of an enumeration.

    Raises:
        pickle.UnpicklingError: anything else is asked for.
    """
    if not (isinstance(kind, type) and issubclass(kind, Enum) and name in kind.__members__):
        raise pickle.UnpicklingError("Unsupported global: GLOBAL builtins.getattr")
    return kind[name]


def _class(name: str) -> Any:
    module, _, short = name.rpartition(".")
    return getattr(import_module(module), short)
