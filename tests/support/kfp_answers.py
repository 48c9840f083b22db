"""What a real server of Kubeflow Pipelines answered: tests/data/kfp_answers, described in its
README.md."""

import json
from pathlib import Path
from typing import Any

from tests.support.kfp import KfpServer

FOLDER = Path(__file__).parents[1] / "data" / "kfp_answers"


def recorded(name: str) -> Any:
    """The answer in the file of this name, without its ending."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def keep_run(server: KfpServer, name: str) -> str:
    """The stand-in has the recorded run, with its pipeline and experiment. Returns the run's id."""
    run = recorded(name)
    pipeline_id = run["pipeline_version_reference"]["pipeline_id"]
    server.pipelines[pipeline_id] = {
        "pipeline_id": pipeline_id,
        "name": "hagane-finetune",
        "display_name": "hagane",
    }
    experiment = {"experiment_id": run["experiment_id"], "display_name": "hagane", "namespace": ""}
    server.experiments[run["experiment_id"]] = experiment
    server.runs[run["run_id"]] = run
    server.steps[run["run_id"]] = {}
    return run["run_id"]
