"""What a training runs on and with, noted at each start in the history that its checkpoints
carry."""

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.shared.code_version import code_version
from components.shared.documents.results import TrainingStart

LIBRARIES = ("torch", "transformers", "peft", "deepspeed", "accelerate", "safetensors")


class NoteStart(TrainerCallback):
    """The log history says that training began, or went on, here."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        start = TrainingStart(
            step=state.global_step,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            num_processes=args.world_size,
            environment=environment(),
        )
        state.log_history.append({"start": start.model_dump(mode="json")})  # pyright: ignore[reportArgumentType] - any JSON


def environment() -> dict[str, str]:
    """By names for people."""
    code = code_version()
    found = {
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{name: found for name in LIBRARIES if (found := _version(name))},
        "hagane": " at commit ".join(filter(None, (code.version, code.commit))),
    }
    if torch.cuda.is_available():
        found = {"GPU": torch.cuda.get_device_name(), "CUDA": str(torch.version.cuda), **found}
    return {name: value for name, value in found.items() if value}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The model's name by proc(5), else what the platform calls it."""
    file = Path("/proc/cpuinfo")
    if file.is_file():
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    else:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
