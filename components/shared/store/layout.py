"""The names of everything inside a run's folder; no other module spells one.

<store>/<run name>/spec.yaml  dataset/  plan/  checkpoints/epoch-0001/ … step-000123/
                   adapter/ or model/  evaluation/  report/
                                         asked.json  progress.json  logs/  failures/  ends/
<store>/.newest/<series>.json
<store>/published/<name>/v0001/ …  latest.json  claims/v0001.json  moves/000001.json
"""

from typing import Literal

SPEC = "spec.yaml"
DATASET = "dataset"
PLAN = "plan"
CHECKPOINTS = "checkpoints"
MERGED = "merged"
"""The base with the adapter merged into it, beside adapter/ where `export.merge` says so."""
EVALUATION = "evaluation"
REPORT = "report"
MANIFEST = "manifest.json"
ASKED = "asked.json"
"""What a run that a pipeline claimed is made from, as one digest: see series.py."""
PROGRESS = "progress.json"
"""How far a training in a cluster is, as its launcher last saw it. For people alone: nothing is
decided by it."""
LOGS = "logs"
"""What each pod of a training in a cluster printed: `logs/<pod>-<start of its uid>.log`."""
FAILURES = "failures"
"""Why steps of the run failed, one document each: see failures.py."""
SET_ASIDE = "damaged.json"
"""A manifest that a resume found to be untrue, beside where it was: readers no longer see its
checkpoint, people do."""


def job_file(backend: str) -> str:
    """In plan/, for a run whose backend is a cluster: the job's manifest without its image,
    `pytorchjob.yaml` or `trainjob.yaml`."""
    return f"{backend}.yaml"


def export_folder(method: Literal["lora", "full"]) -> str:
    """The folder of what a run is for: `adapter` holds LoRA matrices alone, `model` whole
    weights."""
    return {"lora": "adapter", "full": "model"}[method]


def finished_folders(method: Literal["lora", "full"]) -> tuple[str, ...]:
    """Those of a run that a step finishes, in the order of the steps."""
    return DATASET, PLAN, CHECKPOINTS, export_folder(method), EVALUATION, REPORT


def checkpoint_folder(epoch: int) -> str:
    """The folder of the checkpoint at the end of an epoch, counted from 1:
    `checkpoints/epoch-0001`."""
    return f"{CHECKPOINTS}/epoch-{epoch:04d}"


def step_checkpoint_folder(step: int) -> str:
    """The folder of a checkpoint between epochs, after an optimizer step counted from 1:
    `checkpoints/step-000123`."""
    return f"{CHECKPOINTS}/step-{step:06d}"


def newest_key(series: str) -> str:
    """In the store, beside the runs: which run of a series finished last. No run's name begins with
    a dot."""
    return f".newest/{series}.json"


def published_folder(name: str) -> str:
    """In the store, beside the runs: all versions of a published model. No run is named
    `published`."""
    return f"published/{name}"


def version_folder(name: str, version: int) -> str:
    return f"{published_folder(name)}/v{version:04d}"


def failure_key(step: str) -> str:
    return f"{FAILURES}/{step}.json"


def end_key(kfp_run: str) -> str:
    """What was said of the end of a run of KFP: see run_end.py."""
    return f"ends/{kfp_run}.json"


def manifest_key(folder: str) -> str:
    return f"{folder}/{MANIFEST}"
