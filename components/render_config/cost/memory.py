"""Setting, ZeRO and micro-batch -> peak memory of one GPU and of one node's host, term by term,
each with its formula and its source.

In the modules of terms: P parameters, T those trained, w bytes of a weight (2 in bf16, 4 in fp32),
N processes, n of them on a node, h hidden size. On a CPU the "GPU" is host memory too: the same
terms, once a process. DS in comments is DeepSpeed 0.19.
"""

from components.render_config.cost.device_memory import device_terms
from components.render_config.cost.host_memory import cpu_host_terms, gpu_host_terms, transient
from components.render_config.cost.offload import offloaded
from components.render_config.setting import Setting
from components.shared.documents.plan import Memory, MemoryTerm, ZeroPlan


def memory(setting: Setting, zero: ZeroPlan, micro_batch: int) -> Memory:
    """Peak of one GPU, and of one node's host. On a CPU the first is empty and the second holds
    both."""
    device = device_terms(setting, zero, micro_batch)
    moved = offloaded(setting, zero, micro_batch)
    if not setting.on_gpu:
        host = cpu_host_terms(setting, zero, micro_batch, device=device, offloaded=moved)
        return Memory(gpu=(), host=_not_empty(host))
    host = [*gpu_host_terms(setting, zero), *moved]
    at_times = transient(setting, zero)
    return Memory(gpu=_not_empty(device), host=_not_empty(host), transient=at_times)


def _not_empty(terms: list[MemoryTerm]) -> tuple[MemoryTerm, ...]:
    return tuple(term for term in terms if term.num_bytes)
