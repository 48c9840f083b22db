"""The end of training -> checkpoints/: the history of losses, a probe of the trained model, and the
folder's manifest."""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.shared.documents.plan import Plan
from components.shared.documents.prompts import PROBE, PROBE_POSITIONS, Prompts
from components.shared.documents.results import EpochLosses, History, StepLosses, TrainingStart
from components.shared.store.layout import CHECKPOINTS
from components.shared.store.manifest import Manifest, Scalar, publish_folder
from components.shared.store.storage import Store
from components.train.loop.parts import part_seconds
from components.train.loop.trainer import (
    LogHistory,
    epoch_loss,
    evaluating,
    held_out_loss_of,
    seconds_per_step,
    seconds_trained,
    step_seconds,
)
from components.train.model.own_layers import OwnLayers


def probe_logits(model: Any, own: OwnLayers, prompts: Prompts) -> dict[str, torch.Tensor]:
    """`tokens` of all prompts behind each other, their `lengths`, and the model's `logits` [K, V],
    fp32, at the last PROBE_POSITIONS of each prompt. Every process must call this under ZeRO-3."""
    device = next(model.parameters()).device
    logits_KV: list[torch.Tensor] = []
    with evaluating(model), own.last_logits_alone(PROBE_POSITIONS):
        for prompt in prompts.prompts:
            tokens_1T = torch.tensor([prompt.probe_ids], device=device)
            logits_1TV = model(input_ids=tokens_1T, use_cache=False).logits
            logits_KV.append(logits_1TV[0, -PROBE_POSITIONS:].float().cpu())
    return {
        "tokens": torch.tensor([token for prompt in prompts.prompts for token in prompt.probe_ids]),
        "lengths": torch.tensor([prompt.probe_length for prompt in prompts.prompts]),
        "logits": torch.cat(logits_KV).contiguous(),
    }


class EpochProbe(TrainerCallback):
    """At the end of each epoch, before its checkpoint is saved, `keep` has the model's probe."""

    def __init__(
        self,
        probe: Callable[[], dict[str, torch.Tensor]],
        *,
        keep: Callable[[dict[str, torch.Tensor]], None],
    ) -> None:
        self._probe = probe
        self._keep = keep
        self._newest: dict[str, torch.Tensor] | None = None

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._newest = self._probe()
        self._keep(self._newest)

    def last(self) -> dict[str, torch.Tensor]:
        """Of the trained model; made here only where this start had no step left to make."""
        if self._newest is None:
            return self._probe()
        return self._newest


@dataclass(frozen=True)
class PeakMemory:
    """Bytes since the job was last started."""

    node: int | None
    """Of the node that took most: the peaks of its processes added up. None where the kernel does
    not tell."""
    gpu: int | None
    """Of the GPU that took most, by torch; None on a CPU."""


def peak_memory() -> PeakMemory:
    """Of all processes. Every process must call this."""
    own = (
        os.environ.get("GROUP_RANK", "0"),
        _resident_peak(),
        torch.cuda.max_memory_reserved() if torch.cuda.is_available() else None,
    )
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    nodes: dict[str, int] = {}
    for node, resident, _ in found:
        nodes[node] = nodes.get(node, 0) + (resident or 0)
    return PeakMemory(
        node=max(nodes.values()) or None,
        gpu=max((gpu for *_, gpu in found if gpu is not None), default=None),
    )


def _resident_peak() -> int | None:
    """Of this program, without what is mapped of libraries: processes share those pages, and how
    many are counted hangs on the page cache (64 MB more after a fresh install). getrusage would
    tell its parent's peak, if that was larger when it started this one."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
    else:
        lines = []
    peak = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
    if peak is None:
        return None
    return peak - mapped_of_libraries(Path("/proc/self/smaps").read_text())


def mapped_of_libraries(smaps: str) -> int:
    """Resident bytes of shared libraries' files, without what the process wrote over, from the text
    of its smaps (proc(5)), where a mapping's first line ends with its file."""
    total, of_library = 0, False
    for line in smaps.splitlines():
        name, _, value = line.partition(":")
        if "-" in name.split(" ")[0]:
            of_library = ".so" in line.rpartition("/")[2]
        elif of_library and name in ("Rss", "Anonymous"):
            total += int(value.split()[0]) * (1024 if name == "Rss" else -1024)
    return total


def history_of(log: LogHistory, plan: Plan, peak: PeakMemory, *, num_skipped: int) -> History:
    """Losses by step and by epoch, in the order of training; what it took. `num_skipped` steps
    changed no weight."""
    starts = [entry["start"] for entry in log if "start" in entry]
    return History(
        start_held_out_loss=held_out_loss_of(log, 0),
        seconds=round(seconds_trained(log), 1),
        tokens=plan.steps.tokens_total,
        seconds_per_step=seconds_per_step(log),
        peak_node_bytes=peak.node,
        peak_gpu_bytes=peak.gpu,
        skipped_steps=num_skipped,
        epochs=tuple(_epochs(log, plan)),
        steps=tuple(_step(entry) for entry in log if "loss" in entry),
        step_seconds=tuple(step_seconds(log)),
        part_seconds=part_seconds(log),
        starts=tuple(TrainingStart.model_validate(start) for start in starts),
    )


def _epochs(log: LogHistory, plan: Plan) -> Iterator[EpochLosses]:
    steps = plan.steps
    for epoch, step in enumerate(steps.save_steps, start=1):
        yield EpochLosses(
            epoch=epoch,
            step=step,
            loss=epoch_loss(log, steps_per_epoch=steps.steps_per_epoch, epoch=epoch),
            held_out_loss=held_out_loss_of(log, epoch),
        )


def _step(entry: dict[str, Any]) -> StepLosses:
    return StepLosses(
        step=entry["step"],
        loss=entry["loss"],
        lr=entry["learning_rate"],
        grad_norm=_finite(entry.get("grad_norm")),
        trained_tokens=entry.get("trained_tokens"),
    )


def _finite(norm: float | None) -> float | None:
    """None for the norm of a step that fp16 skipped, which is infinite."""
    if norm is not None and math.isfinite(norm):
        return norm
    return None


def publish_results(
    store: Store,
    local: Path,
    *,
    history: History,
    probe: dict[str, torch.Tensor],
    training: str,
) -> Manifest:
    """checkpoints/ is finished: its manifest says that the training is whole. `local` is an empty
    folder, `training` the plan's digest."""
    (local / "history.json").write_text(history.model_dump_json(indent=1) + "\n")
    save_file(probe, local / PROBE)
    last = history.epochs[-1]
    facts: dict[str, Scalar] = {
        "num_epochs": last.epoch,
        "num_steps": last.step,
        "loss": last.loss,
        "held_out_loss": last.held_out_loss,
        "seconds": history.seconds,
    }
    return publish_folder(
        store, CHECKPOINTS, local, made_by="train", inputs={"training": training}, facts=facts
    )
