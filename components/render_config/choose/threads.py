"""Cores of a node and its processes -> the threads of each: OMP_NUM_THREADS, without which torchrun
gives each process one.

They matter where the host computes: training on a CPU, and Adam under offload. Which cores a
process gets is not decided here: on one machine it is the kernel's to say, in a cluster the
kubelet's (docs/planning.md).
"""

from components.render_config.decision import Decision
from components.shared.job.threads import SPINS
from components.shared.spec.run_spec import RunSpec

SHORT_WAIT = (
    f"one that waits for another soon sleeps (GOMP_SPINCOUNT {SPINS}), or other work on the "
    "machine would make a step many times as long"
)


def choose_threads(spec: RunSpec, num_cores: int) -> Decision[int | None]:
    """`num_cores` are this machine's, which count where it trains. None for a pod whose share of
    its node nobody stated."""
    processes = spec.hardware.processes_per_node
    each = f"{processes} process{'es' if processes != 1 else ''}"
    if spec.backend == "local":
        reason = f"{num_cores} cores of this machine / {each}: OMP_NUM_THREADS; {SHORT_WAIT}"
        return Decision(max(1, num_cores // processes), reason)
    cpus = spec.cluster.cpus
    if cpus is None:
        return Decision(
            None,
            f"cluster.cpus is not set: each of {each} takes its share of the cores that its pod "
            f"sees when it starts; {SHORT_WAIT}",
        )
    reason = f"cluster.cpus {cpus:g} of a pod / {each}: OMP_NUM_THREADS; {SHORT_WAIT}"
    return Decision(max(1, int(cpus / processes)), reason)
