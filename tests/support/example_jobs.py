"""Five runs as different as clusters are -> tests/golden/pytorchjob/*.yaml, the jobs that the
launcher would send."""

import json
from pathlib import Path
from typing import Any

import yaml

from components.render_config.render.pytorchjob import pytorchjob
from tests.support.example_plans import ROOT, example_spec, plan_example

GOLDEN = ROOT / "tests" / "golden" / "pytorchjob"
SPOT = {
    "key": "cloud.google.com/gke-spot",
    "operator": "Equal",
    "value": "true",
    "effect": "NoSchedule",
}
HIGH_MEMORY = {"key": "node.example.com/memory-gib", "operator": "Gt", "values": ["900"]}
NCCL = {
    "spec": {
        "containers": [{"name": "pytorch", "env": [{"name": "NCCL_DEBUG", "value": "INFO"}]}],
        "schedulerName": "volcano",
    }
}
JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "cpu-two-nodes": ("gpt2-medium-full-cpu", {"hardware.num_nodes": 2, "cluster.cpus": 4}),
    "lora-one-24gb": (
        "elyza-7b-lora-1x24gb",
        {"cluster.node_selector": {"nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-4090"}},
    ),
    "full-two-nodes-of-8x80gb": (
        "llama-3-elyza-8b-full-2x8x80gb",
        {
            "cluster.gang": True,
            "cluster.run_timeout_hours": 48,
            "cluster.work_claim": "scratch",
            "cluster.affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [{"matchExpressions": [HIGH_MEMORY]}]
                    }
                }
            },
        },
    ),
    "spot-in-a-queue": (
        "swallow-70b-lora-8x80gb",
        {
            "cluster.queue": "spot",
            "cluster.tolerations": [SPOT],
            "cluster.priority_class": "hagane",
            "cluster.max_restarts": 30,
            "cluster.labels": {"team": "search"},
            "checkpoints.every_minutes": 10,
            "checkpoints.grace_seconds": 25,
        },
    ),
    "patched-with-claims": (
        "qwen3-8b-lora-1x24gb",
        {
            "cluster.namespace": "team-a",
            "cluster.claims": {"models": "/models", "corpora": "/corpora"},
            "cluster.secrets": ["team-a-s3", "hub-token"],
            "cluster.gpu_resource": "nvidia.com/mig-3g.40gb",
            "cluster.patch": {
                "spec": {"runPolicy": {"cleanPodPolicy": "All", "ttlSecondsAfterFinished": None}}
            },
            "cluster.pod_patch": NCCL,
        },
    ),
}
"""Name of the file -> the spec of specs/plans it begins with, and the fields set beside."""


def job_text(name: str) -> str:
    """The YAML of one golden file."""
    base, fields = JOBS[name]
    overrides = {"backend": "pytorchjob", "store": "s3://bucket/runs", **fields}
    spec = example_spec(
        ROOT / "specs" / "plans" / f"{base}.yaml",
        [f"{key}={json.dumps(value)}" for key, value in overrides.items()],
    )
    head = (
        f"# specs/plans/{base}.yaml with {json.dumps(overrides)}\n# Written by `make golden`; the "
        "launcher adds the image and its lease.\n"
    )
    job = json.loads(
        json.dumps(pytorchjob(spec, plan_example(spec)))
    )  # Master and Worker apart, for people who read it
    return head + yaml.safe_dump(job, sort_keys=False)


def write_all(folder: Path = GOLDEN) -> None:
    folder.mkdir(exist_ok=True)
    for name in JOBS:
        (folder / f"{name}.yaml").write_text(job_text(name), encoding="utf-8")
