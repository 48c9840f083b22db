"""One run on spot nodes behind a queue -> tests/golden/trainjob.yaml, the TrainJob that the
launcher would send."""

import json
from typing import Any

import yaml

from components.render_config.render.trainjob import trainjob
from tests.support.example_jobs import JOBS
from tests.support.example_plans import ROOT, example_spec, plan_example

GOLDEN = ROOT / "tests" / "golden" / "trainjob.yaml"
NO_PLACE = ("cluster.gang", "cluster.priority_class", "cluster.patch", "cluster.pod_patch")
"""Fields of example_jobs that a TrainJob has no place for, or that are written for a PyTorchJob."""


def example_trainjob(name: str, **fields: Any) -> dict[str, Any]:
    """The TrainJob of one of example_jobs' runs, with these fields of its spec set beside."""
    base, given = JOBS[name]
    kept = {key: value for key, value in given.items() if key not in NO_PLACE}
    overrides = {"backend": "trainjob", "store": "s3://bucket/runs", **kept, **fields}
    spec = example_spec(
        ROOT / "specs" / "plans" / f"{base}.yaml",
        [f"{key}={json.dumps(value)}" for key, value in overrides.items()],
    )
    return json.loads(json.dumps(trainjob(spec, plan_example(spec))))


def trainjob_text() -> str:
    head = (
        "# Of example_jobs' spot-in-a-queue. Written by `make golden`; the launcher adds the image "
        "and its lease.\n"
    )
    return head + yaml.safe_dump(
        example_trainjob("spot-in-a-queue", **{"cluster.user": "mika"}), sort_keys=False
    )
