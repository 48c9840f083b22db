"""Cores of a node and its processes -> the threads of each: OMP_NUM_THREADS, without which torchrun gives each process one.

They matter where the host computes: training on a CPU, and Adam under offload. Which cores a process gets is not decided here: on one
machine it is the kernel's to say, in a cluster the kubelet's (docs/planning.md).
"""

from components.shared.spec.run_spec import RunSpec


def threads_per_process(spec: RunSpec, num_cores: int) -> int | None:
    """`num_cores` are this machine's, which count where it trains. None for a pod whose share of its node nobody stated."""
    cores = num_cores if spec.backend == "local" else spec.cluster.cpus
    return None if cores is None else max(1, int(cores / spec.hardware.processes_per_node))


def why_threads(spec: RunSpec, num_cores: int) -> str:
    processes = spec.hardware.processes_per_node
    each = f"{processes} process{'es' if processes != 1 else ''}"
    if spec.backend == "local":
        return f"{num_cores} cores of this machine / {each}: OMP_NUM_THREADS"
    if spec.cluster.cpus is None:
        return f"cluster.cpus is not set: each of {each} takes its share of the cores that its pod sees when it starts"
    return f"cluster.cpus {spec.cluster.cpus:g} of a pod / {each}: OMP_NUM_THREADS"
