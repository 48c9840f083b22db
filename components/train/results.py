"""The end of training -> checkpoints/: the history of losses, a probe of the trained model, and the folder's manifest."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from components.shared.layout import CHECKPOINTS
from components.shared.manifest import Manifest, publish_folder
from components.shared.plan import Plan
from components.shared.storage import Store
from components.train.trainer import LogHistory, epoch_loss, evaluating, held_out_loss_of, seconds_trained

# Enough positions to tell a right export from a wrong one; at 50,000 tokens of vocabulary this is 3 MB.
PROBE_TOKENS = 16


def probe_logits(model: Any, tokens_1T: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tokens [T] and the model's logits for them [T, V], fp32. Every process must call this under ZeRO-3."""
    device = next(model.parameters()).device
    with evaluating(model):
        logits_1TV = model(input_ids=tokens_1T.to(device), use_cache=False).logits
    return {"tokens": tokens_1T[0].contiguous(), "logits": logits_1TV[0].float().cpu().contiguous()}


def history_json(history: LogHistory, plan: Plan) -> dict[str, Any]:
    """Losses by step and by epoch, in the order of training."""
    steps_per_epoch = plan.steps.steps_per_epoch
    return {
        "start_held_out_loss": held_out_loss_of(history, 0),
        "seconds": seconds_trained(history),
        "tokens": plan.steps.tokens_total,
        "epochs": [
            {
                "epoch": epoch,
                "step": step,
                "loss": epoch_loss(history, steps_per_epoch=steps_per_epoch, epoch=epoch),
                "held_out_loss": held_out_loss_of(history, epoch),
            }
            for epoch, step in enumerate(plan.steps.save_steps, start=1)
        ],
        "steps": [
            {"step": entry["step"], "loss": entry["loss"], "lr": entry["learning_rate"], "grad_norm": entry.get("grad_norm")}
            for entry in history
            if "loss" in entry
        ],
    }


def publish_results(store: Store, local: Path, *, history: dict[str, Any], probe: dict[str, torch.Tensor], training: str) -> Manifest:
    """checkpoints/ is finished: its manifest says that the training is whole. `local` is an empty folder, `training` the plan's digest."""
    (local / "history.json").write_text(json.dumps(history, indent=1) + "\n")
    save_file(probe, local / "probe.safetensors")
    last = history["epochs"][-1]
    facts = {
        "num_epochs": last["epoch"],
        "num_steps": last["step"],
        "loss": last["loss"],
        "held_out_loss": last["held_out_loss"],
        "seconds": history["seconds"],
    }
    return publish_folder(store, CHECKPOINTS, local, made_by="train", inputs={"training": training}, facts=facts)
