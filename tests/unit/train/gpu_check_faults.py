"""A healthy node of eight A100s and the plan for it; a test changes one thing."""

from typing import Any

from components.shared.documents.gpu_check import CheckRequest
from components.train.gpu_check.facts import Gpu, NodeFacts
from components.train.gpu_check.plain_request import plain_request

GIB = 2**30
A100 = Gpu(
    name="NVIDIA A100-SXM4-80GB", total_bytes=80 * GIB, free_bytes=79 * GIB, capability="8.0"
)
WORKING = {"flash": "No available kernel", "memory-efficient": "", "cuDNN": "", "plain": ""}
HEALTHY = NodeFacts(
    torch_version="2.13.0+cu130",
    torch_cuda="13.0",
    architectures=("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"),
    driver="580.65.06",
    driver_cuda="13.0",
    gpus=(A100,) * 8,
    bf16=True,
    shared_memory_bytes=4 * GIB,
    pinned_gb_s=25.0,
    attention=WORKING,
    tflops=250.0,
    libraries={},
)


def gpu_request(
    *, processes: int = 8, nodes: int = 1, precision: str = "bf16", offload: bool = False
) -> CheckRequest:
    """Of a plan for A100s with NVLink and a network of 100 Gbit/s."""
    stage = 3 if offload else 1
    made = plain_request(
        processes=processes, stage=stage, offload="optimizer" if offload else "none", method="full"
    )
    plan = made.plan
    hardware = {
        "gpu": "a100-80gb",
        "tflops": 312.0,
        "link_gb_s": 300.0,
        "network_gb_s": 12.5,
        "num_nodes": nodes,
    }
    changes: dict[str, Any] = {
        "precision": precision,
        "steps": plan.steps.model_copy(update={"num_processes": processes * nodes}),
        "hardware": plan.hardware.model_copy(update=hardware),
        "memory": plan.memory.model_copy(update={"gpu_limit": 80 * GIB}),
    }
    return made.model_copy(update={"plan": plan.model_copy(update=changes)})


def with_fault(**fields: Any) -> NodeFacts:
    return HEALTHY.model_copy(update=fields)


def gpus(**fields: Any) -> tuple[Gpu, ...]:
    """Seven that are healthy and one that is not."""
    return (*(A100,) * 7, A100.model_copy(update=fields))
