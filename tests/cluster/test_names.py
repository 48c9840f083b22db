"""Runs of the longest names: their jobs' pods are made, whose names are DNS labels of at most 63 characters."""

import time
from typing import Any

import pytest

from components.launch_training.backends.in_cluster import as_sent
from components.launch_training.ending.ownership import this_owner
from components.launch_training.job.kinds import KINDS
from components.launch_training.kubernetes_api.client import Cluster
from components.render_config.planner import Machine, make_plan
from components.render_config.render.pytorchjob import pytorchjob
from components.render_config.render.trainjob import trainjob
from tests.cluster.conftest import TestNamespace
from tests.cluster.trainer import trainer
from tests.unit.render_config.test_planner import CONFIG, DATASET, spec_with

LENGTHS = range(39, 51)
PATIENCE_S = 60.0


@pytest.mark.parametrize("backend", KINDS)
def test_the_pods_of_a_run_with_a_long_name_are_made(backend: str, namespace: TestNamespace) -> None:
    if backend == "pytorchjob":
        _make_each_length(backend, namespace)
        return
    with trainer(namespace.name):
        _make_each_length(backend, namespace)


def _make_each_length(backend: str, namespace: TestNamespace) -> None:
    cluster = Cluster(namespace.name, KINDS[backend])
    for length in LENGTHS:
        manifest = _manifest(backend, f"{'name-' * 10}"[: length - 1] + "x")
        name = manifest["metadata"]["name"]
        assert cluster.create(as_sent(cluster.kind, manifest, image="localhost/none:1", owner=this_owner("")))
        end = time.monotonic() + PATIENCE_S
        while len(cluster.pods(name)) < 2:
            assert time.monotonic() < end, f"{name}: {cluster.pods(name)}"
            time.sleep(0.2)
        pods = sorted(each["metadata"]["name"] for each in cluster.pods(name))
        print(f"{backend}: name of {length} characters: job {name} ({len(name)}), pods {pods}")
        assert all(len(each) <= 63 for each in pods)
        cluster.delete(name)


def _manifest(backend: str, name: str) -> dict[str, Any]:
    hardware = {"num_nodes": 2, "host_memory_gib": 8}
    spec = spec_with(
        name=name, store="s3://bucket/runs", backend=backend, hardware=hardware, training={"global_batch": 2}, cluster={"cpus": 0.1}
    )
    plan = make_plan(spec, DATASET, CONFIG, machine=Machine())
    return pytorchjob(spec, plan) if backend == "pytorchjob" else trainjob(spec, plan)
