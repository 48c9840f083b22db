"""What a pod with GPUs has that one without does not, for both kinds of job."""

import json
from decimal import Decimal
from typing import Any

import pytest
import yaml

from components.launch_training.doctor.queue_checks import quota_finding
from components.launch_training.job.kinds import KINDS
from components.launch_training.job.worker_pod import worker_template
from components.render_config.planner import Machine, make_plan
from components.render_config.render.job_checks import check_job
from components.render_config.render.pytorchjob import pytorchjob
from components.render_config.render.trainjob import trainjob
from components.shared.errors import HaganeError
from tests.support.example_plans import ROOT
from tests.unit.render_config.test_planner import CONFIG, DATASET, spec_with

RENDERERS = {"pytorchjob": pytorchjob, "trainjob": trainjob}
GPU_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists"}
SPOT = {"key": "spot", "operator": "Exists"}


def worker_pod(backend: str, hardware: dict[str, Any] | None = None, **cluster: Any) -> dict[str, Any]:
    """The spec of a worker's pod; of 8 GPUs unless `hardware` says otherwise."""
    hardware = hardware or {"gpu": "a100-80gb", "processes_per_node": 8}
    spec = spec_with(
        backend=backend,
        store="s3://bucket/runs",
        hardware=hardware,
        cluster=cluster,
        training={"global_batch": 8},
    )
    plan = make_plan(spec, DATASET, CONFIG, machine=Machine())
    return worker_template(RENDERERS[backend](spec, plan), KINDS[backend])["spec"]


def environment(pod: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in pod["containers"][0]["env"]}


@pytest.mark.parametrize("backend", RENDERERS)
def test_a_pod_with_gpus_tolerates_their_taint_and_requests_cores(backend: str) -> None:
    pod = worker_pod(backend)
    assert pod["tolerations"] == [GPU_TOLERATION]
    assert pod["containers"][0]["resources"]["requests"]["cpu"] == "32000m"
    with_cpus = worker_pod(backend, cpus=6)
    assert with_cpus["containers"][0]["resources"]["requests"]["cpu"] == "6000m"


@pytest.mark.parametrize("backend", RENDERERS)
def test_a_pod_without_gpus_has_none_of_it(backend: str) -> None:
    pod = worker_pod(backend, hardware={"num_nodes": 1})
    assert "tolerations" not in pod
    assert "cpu" not in pod["containers"][0]["resources"]["requests"]
    gpu_settings = {"HAGANE_GPUS", "NCCL_DEBUG", "PYTORCH_ALLOC_CONF"}
    assert gpu_settings.isdisjoint(environment(pod))


@pytest.mark.parametrize("backend", RENDERERS)
def test_the_specs_tolerations_stay_and_none_stands_twice(backend: str) -> None:
    own = {"key": "nvidia.com/gpu", "operator": "Equal", "value": "present"}
    assert worker_pod(backend, tolerations=[SPOT])["tolerations"] == [SPOT, GPU_TOLERATION]
    assert worker_pod(backend, tolerations=[own])["tolerations"] == [own]


@pytest.mark.parametrize("backend", RENDERERS)
def test_processes_with_gpus_are_set_up_for_cuda_and_nccl(backend: str) -> None:
    found = environment(worker_pod(backend))
    assert found["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert found["NCCL_DEBUG"] == "WARN"
    assert found["HAGANE_GPUS"] == "8"


@pytest.mark.parametrize(("num_gpus", "mebibytes"), [(1, 64), (2, 1024), (4, 2048), (8, 4096)])
def test_shared_memory_grows_with_the_gpus_of_a_node(num_gpus: int, mebibytes: int) -> None:
    hardware = {"gpu": "l4", "processes_per_node": num_gpus}
    volumes = {each["name"]: each for each in worker_pod("pytorchjob", hardware)["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": f"{mebibytes}Mi"}


def test_a_mig_instance_takes_one_process_a_node() -> None:
    cluster = {"gpu_resource": "nvidia.com/mig-3g.40gb"}
    fields = {"backend": "pytorchjob", "store": "s3://bucket/runs", "cluster": cluster}
    check_job(spec_with(**fields, hardware={"gpu_memory_gib": 40}))
    two = spec_with(**fields, hardware={"gpu_memory_gib": 40, "processes_per_node": 2})
    with pytest.raises(HaganeError, match=r"found 2 with cluster.gpu_resource .* allowed 1"):
        check_job(two)


@pytest.mark.parametrize("gpu", ["v100-32gb", "V100", "p100"])
def test_a_gpu_that_the_wheel_has_no_kernels_for_is_refused_with_the_reason(gpu: str) -> None:
    with pytest.raises(HaganeError, match=r"torch 2.13 has no kernels for .* Fix: name a GPU"):
        worker_pod("pytorchjob", {"gpu": gpu})


@pytest.mark.parametrize("backend", RENDERERS)
def test_the_example_queue_covers_all_that_a_pod_with_gpus_requests(backend: str) -> None:
    text = (ROOT / "k8s" / "examples" / "kueue.yaml").read_text()
    queue = next(each for each in yaml.safe_load_all(text) if each["kind"] == "ClusterQueue")
    resources = worker_pod(backend)["containers"][0]["resources"]
    (group,) = queue["spec"]["resourceGroups"]
    assert {*resources["requests"], *resources["limits"]} <= set(group["coveredResources"])
    without_cpu = json.loads(json.dumps(queue))
    without_cpu["spec"]["resourceGroups"][0]["coveredResources"].remove("cpu")
    found = quota_finding("hagane", without_cpu, {"cpu": Decimal(32)}, 1, lambda _: {})
    assert found is not None
    assert "does not cover cpu" in found.found


@pytest.mark.parametrize(("backend", "name"), [("pytorchjob", "pytorch"), ("trainjob", "node")])
def test_the_patch_for_rdma_in_the_docs_adds_to_the_container_and_takes_nothing_away(backend: str, name: str) -> None:
    text = (ROOT / "docs" / "gpus.md").read_text()
    block = text.partition("```yaml\n")[2].partition("```")[0].replace("name: pytorch", f"name: {name}")
    patch = yaml.safe_load(block)["cluster"]["pod_patch"]
    plain, patched = (worker_pod(backend, pod_patch=each)["containers"] for each in ({}, patch))
    (before,), (after,) = plain, patched
    assert after["securityContext"] == before["securityContext"] | {"capabilities": {"drop": ["ALL"], "add": ["IPC_LOCK"]}}
    assert after["resources"]["limits"] == before["resources"]["limits"] | {"rdma/rdma_shared_device_a": "1"}
    names = {each["name"] for each in after["env"]}
    assert names == {each["name"] for each in before["env"]} | {"NCCL_IB_HCA", "NCCL_SOCKET_IFNAME"}
