"""The names of everything inside a run's folder; no other module spells one.

<store>/<run name>/spec.yaml  dataset/  plan/  checkpoints/epoch-0001/ … step-000123/  adapter/ or model/  evaluation/  report/
"""

from typing import Literal

SPEC = "spec.yaml"
DATASET = "dataset"
PLAN = "plan"
CHECKPOINTS = "checkpoints"
EVALUATION = "evaluation"
REPORT = "report"
MANIFEST = "manifest.json"
SET_ASIDE = "damaged.json"
"""A manifest that a resume found to be untrue, beside where it was: readers no longer see its checkpoint, people do."""


def export_folder(method: Literal["lora", "full"]) -> str:
    """The folder of what a run is for: `adapter` holds LoRA matrices alone, `model` whole weights."""
    return {"lora": "adapter", "full": "model"}[method]


def checkpoint_folder(epoch: int) -> str:
    """The folder of the checkpoint at the end of an epoch, counted from 1: `checkpoints/epoch-0001`."""
    return f"{CHECKPOINTS}/epoch-{epoch:04d}"


def step_checkpoint_folder(step: int) -> str:
    """The folder of a checkpoint between epochs, after an optimizer step counted from 1: `checkpoints/step-000123`."""
    return f"{CHECKPOINTS}/step-{step:06d}"


def manifest_key(folder: str) -> str:
    return f"{folder}/{MANIFEST}"
