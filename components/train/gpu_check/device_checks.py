"""A node's facts beside the plan -> findings. Takes values and returns values, so that each fault
can be shown by a test."""

from collections.abc import Iterator

from components.shared.documents.findings import Finding
from components.shared.documents.gpu_check import CheckRequest
from components.shared.figures import plain
from components.shared.job.training_job import shared_memory_bytes
from components.train.devices import memory_counted_on, runs_on
from components.train.driver import Driver, driver_problem
from components.train.gpu_check.facts import SHARED_MEMORY, Gpu, NodeFacts

GIB = 2**30
MOST_USED_BYTES = 2 * GIB
"""In use on a GPU before anything is started there: a display, or the context of this check."""
LEAST_SHARE = 0.5
"""Of what the plan assumes, a rate below which its time and price are wrong by more than their
range."""
NO_GPU = "no GPU here"
CPU_PLAN = "the plan is for CPUs"


def device_findings(request: CheckRequest, facts: NodeFacts) -> Iterator[Finding]:
    """All of them, in the order in which one explains the next."""
    for check in CHECKS:
        yield check(request, facts)


def usable_gpus(request: CheckRequest, facts: NodeFacts) -> bool:
    """Whether the plan's processes each have a GPU here."""
    return request.plan.on_gpus and len(facts.gpus) >= request.processes_per_node


def torch_finding(request: CheckRequest, facts: NodeFacts) -> Finding:
    if facts.torch_cuda is None:
        built = "without CUDA"
    else:
        built = f"with CUDA {facts.torch_cuda}"
    seen = f"torch {facts.torch_version}, built {built}"
    if request.plan.on_gpus and facts.torch_cuda is None:
        fix = (
            "in a cluster use the image train-cuda (train_on_gpus in images/images.yaml); here "
            "install torch with CUDA"
        )
        return Finding(
            check="torch", state="failed", found=f"{seen}, and the plan is for GPUs", fix=fix
        )
    return Finding(check="torch", state="ok", found=seen)


def driver_finding(request: CheckRequest, facts: NodeFacts) -> Finding:
    check = "driver"
    if not request.plan.on_gpus:
        return _left_out(check, CPU_PLAN)
    if facts.torch_cuda is None:
        return _left_out(check, "torch is built without CUDA")
    problem = driver_problem(Driver(facts.driver, facts.driver_cuda), facts.torch_cuda)
    if problem is not None:
        return Finding(check=check, state="failed", found=problem[0], fix=problem[1])
    return Finding(
        check=check,
        state="ok",
        found=f"driver {facts.driver or 'of unknown version'}, CUDA {facts.driver_cuda}",
    )


def gpus_finding(request: CheckRequest, facts: NodeFacts) -> Finding:
    check, wanted, there = "GPUs", request.processes_per_node, len(facts.gpus)
    if not request.plan.on_gpus:
        return _left_out(check, CPU_PLAN)
    if there < wanted:
        if facts.cuda_error:
            said = f"; torch says: {facts.cuda_error}"
        else:
            said = ""
        fix = "set hardware.processes_per_node to what a node has, or see driver and torch above"
        return Finding(
            check=check,
            state="failed",
            found=f"{there} here, the plan has {wanted} a node{said}",
            fix=fix,
        )
    if wanted > 1 and any("MIG" in gpu.name for gpu in facts.gpus):
        fix = "set hardware.processes_per_node: 1, or use whole GPUs: NCCL joins no MIG instances"
        return Finding(
            check=check,
            state="failed",
            found=f"MIG instances, and {wanted} processes a node",
            fix=fix,
        )
    names = " and ".join(sorted({gpu.name for gpu in facts.gpus}))
    return Finding(
        check=check, state="ok", found=f"{there} of {names}, the plan has {wanted} a node"
    )


def memory_finding(request: CheckRequest, facts: NodeFacts) -> Finding:
    check, memory = "GPU memory", request.plan.memory
    if memory.gpu_limit is None:
        return _left_out(check, CPU_PLAN)
    if not facts.gpus:
        return _left_out(check, NO_GPU)
    smallest = min(facts.gpus, key=lambda gpu: gpu.total_bytes)
    planned = f"the plan counts on {_gib(memory.gpu_limit)}"
    least, _ = memory_counted_on(request.plan)
    if smallest.total_bytes < least:
        fix = (
            "name the GPU that is there in hardware.gpu, or choose its nodes by "
            "cluster.node_selector"
        )
        found = f"{smallest.name} has {_gib(smallest.total_bytes)}, {planned}"
        return Finding(check=check, state="failed", found=found, fix=fix)
    fullest = max(facts.gpus, key=_used)
    if _used(fullest) > MOST_USED_BYTES:
        fix = (
            "end what runs there (nvidia-smi names it); on a shared GPU set hardware.gpu_memory_gib"
        )
        found = f"{_gib(_used(fullest))} of {fullest.name} are in use by others, {planned}"
        return Finding(check=check, state="failed", found=found, fix=fix)
    return Finding(check=check, state="ok", found=f"{_gib(smallest.total_bytes)} each, {planned}")


def kernels_finding(request: CheckRequest, facts: NodeFacts) -> Finding:
    check = "kernels in the wheel"
    if not request.plan.on_gpus:
        return _left_out(check, CPU_PLAN)
    if not facts.gpus:
        return _left_out(check, NO_GPU)
    there = ", ".join(facts.architectures)
    without = [gpu for gpu in facts.gpus if not has_kernels(gpu.capability, facts.architectures)]
    if without:
        found = (
            f"{without[0].name} has compute capability {without[0].capability}, the wheel has "
            f"kernels for {there}"
        )
        fix = "use a GPU of 7.5 or newer; torch 2.13 has dropped older ones (docs/gpus.md)"
        return Finding(check=check, state="failed", found=found, fix=fix)
    return Finding(
        check=check,
        state="ok",
        found=f"{there}; the GPUs have {', '.join(sorted({gpu.capability for gpu in facts.gpus}))}",
    )


def has_kernels(capability: str, architectures: tuple[str, ...]) -> bool:
    """Whether a GPU runs code of the wheel: of its own major version and at most its minor one
    (CUDA C++ Programming Guide, binary compatibility), or PTX, which is compiled for any newer
    GPU."""
    major, minor = (int(part) for part in capability.split("."))
    return runs_on(list(architectures), major, minor)


def precision_finding(request: CheckRequest, facts: NodeFacts) -> Finding:
    check, precision = "number format", request.plan.precision
    if request.plan.on_gpus and not facts.gpus:
        return _left_out(check, NO_GPU)
    if precision != "bf16" or facts.bf16:
        if facts.bf16:
            has = "has bf16"
        else:
            has = "has no bf16"
        return Finding(check=check, state="ok", found=f"the plan is {precision}; the device {has}")
    fix = (
        "name the GPU that is there in hardware.gpu with training.precision: auto, or set "
        "training.precision: fp32"
    )
    if request.plan.on_gpus:
        state = "failed"
    else:
        state = "warning"
    if request.plan.on_gpus:
        slow = ""
    else:
        slow = ": it is computed one number at a time"
    return Finding(
        check=check,
        state=state,
        found=f"the plan is bf16, and this device has no bf16{slow}",
        fix=fix,
    )


def shared_memory_finding(request: CheckRequest, facts: NodeFacts) -> Finding:
    check, processes = SHARED_MEMORY, request.processes_per_node
    if request.plan.on_gpus:
        needed = shared_memory_bytes(processes)
    else:
        needed = 0
    seen = f"{_gib(facts.shared_memory_bytes)}"
    if facts.shared_memory_bytes < needed:
        found = f"{seen}, NCCL may take {_gib(needed)} for {processes} GPUs"
        fix = (
            "mount an emptyDir of medium Memory at /dev/shm, as hagane's own pods have; with "
            "docker, --shm-size"
        )
        return Finding(check=check, state="failed", found=found, fix=fix)
    return Finding(
        check=check, state="ok", found=f"{seen}, {_gib(needed)} needed" if needed else seen
    )


def pinned_finding(request: CheckRequest, facts: NodeFacts) -> Finding:
    check, zero = "pinned memory", request.plan.zero
    if not request.plan.on_gpus:
        return _left_out(check, CPU_PLAN)
    if not facts.gpus:
        return _left_out(check, NO_GPU)
    if facts.pinned_error:
        if zero.offload_optimizer:
            used = "offload needs it"
        else:
            used = "copies to the GPU are slower without it"
        fix = "raise the pod's memory limit, or end what else pins memory on the node"
        if zero.offload_optimizer:
            state = "failed"
        else:
            state = "warning"
        return Finding(
            check=check,
            state=state,
            found=f"1 GiB cannot be pinned ({facts.pinned_error}); {used}",
            fix=fix,
        )
    return Finding(
        check=check, state="ok", found=f"1 GiB, {plain(facts.pinned_gb_s or 0)} GB/s to the GPU"
    )


def attention_finding(request: CheckRequest, facts: NodeFacts) -> Finding:
    """Packed rows bring a mask, which the flash kernel does not take: that one may always fail."""
    check = "attention"
    if request.plan.on_gpus and not facts.gpus:
        return _left_out(check, NO_GPU)
    work = [name for name, error in facts.attention.items() if not error]
    if not work:
        name, error = next(iter(facts.attention.items()))
        found = f"no kernel runs with a mask in {request.plan.precision}; {name}: {error}"
        return Finding(
            check=check,
            state="failed",
            found=found,
            fix="see kernels in the wheel and number format",
        )
    seen = f"with a mask in {request.plan.precision}: {', '.join(work)}"
    if request.plan.on_gpus and not {"memory-efficient", "cuDNN"} & set(work):
        fix = (
            "set shorter data.row_tokens: the plain kernel holds all scores, which the plan does "
            "not count"
        )
        return Finding(
            check=check, state="warning", found=f"only the plain kernel runs, {seen}", fix=fix
        )
    return Finding(check=check, state="ok", found=seen)


def bmm_finding(request: CheckRequest, facts: NodeFacts) -> Finding:
    check = "bmm of width 1"
    if request.plan.on_gpus and not facts.gpus:
        return _left_out(check, NO_GPU)
    if facts.bmm_error:
        fix = (
            "set TORCH_DISABLE_NATIVE_JIT=1, as the image train-cuda does: torch would compile a "
            "Triton kernel for it"
        )
        return Finding(check=check, state="failed", found=facts.bmm_error, fix=fix)
    return Finding(check=check, state="ok", found="right, without a compiler")


def matrices_finding(request: CheckRequest, facts: NodeFacts) -> Finding:
    check, hardware = "matrix products", request.plan.hardware
    if request.plan.on_gpus and not facts.gpus:
        return _left_out(check, NO_GPU)
    precision = request.plan.precision
    if facts.tflops is None:
        fix = "see kernels in the wheel and number format"
        return Finding(
            check=check, state="failed", found=f"none could be made in {precision}", fix=fix
        )
    seen = f"{plain(facts.tflops)} TFLOP/s in {precision}"
    if request.plan.on_gpus:
        planned = hardware.tflops
    else:
        planned = None
    if planned is None:
        return Finding(check=check, state="ok", found=seen)
    beside = f"{seen}; the plan's data sheet says {plain(planned)}"
    if facts.tflops < LEAST_SHARE * planned:
        by_hand = f"plan with hardware.gpu_memory_gib and hardware.tflops: {plain(facts.tflops)}"
        fix = f"see nvidia-smi for power, clocks and other work; or {by_hand}"
        return Finding(check=check, state="warning", found=beside, fix=fix)
    return Finding(check=check, state="ok", found=beside)


def libraries_finding(_: CheckRequest, facts: NodeFacts) -> Finding:
    there = ", ".join(f"{name} {found}" for name, found in facts.libraries.items())
    return Finding(check="optional libraries", state="ok", found=there or "none; hagane needs none")


CHECKS = (
    torch_finding,
    driver_finding,
    gpus_finding,
    memory_finding,
    kernels_finding,
    precision_finding,
    shared_memory_finding,
    pinned_finding,
    attention_finding,
    bmm_finding,
    matrices_finding,
    libraries_finding,
)


def _left_out(check: str, why: str) -> Finding:
    return Finding(check=check, state="skipped", found=why)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f} GiB"


def _used(gpu: Gpu) -> int:
    return gpu.total_bytes - gpu.free_bytes
