"""Setting and ZeRO -> host memory of one node that offload spends, term by term."""

from components.render_config.cost.device_memory import gradient_bytes
from components.render_config.cost.quantized import base_bytes, weights_formula
from components.render_config.cost.terms import term
from components.render_config.setting import Setting
from components.shared.documents.plan import MemoryTerm, ZeroPlan

SOURCE = "ZeRO-Offload (arXiv 2101.06840), section 3; DeepSpeed stage_1_and_2.py, stage3.py"


def offloaded(setting: Setting, zero: ZeroPlan, micro_batch: int) -> list[MemoryTerm]:
    """Of one node: each process its share, page-locked on a machine with GPUs."""
    terms: list[MemoryTerm] = []
    if zero.offload_optimizer:
        terms += _optimizer(setting, zero, micro_batch)
    if zero.offload_parameters:
        terms.append(_parameters(setting))
    return terms


def _optimizer(setting: Setting, zero: ZeroPlan, micro_batch: int) -> list[MemoryTerm]:
    n, share = setting.hardware.processes_per_node, setting.num_trainable / setting.num_processes
    over = f" x {setting.num_trainable:,} trained / {setting.num_processes} x {n} on a node"
    sums = zero.stage == 3 or setting.grad_accum(micro_batch) > 1
    if sums:
        from_gpu = gradient_bytes(setting, zero, micro_batch)
    else:
        from_gpu = 0
    if zero.stage < 3:
        updated = setting.weight_bytes
    else:
        updated = 0
    page_locked = {
        "fp32 weights": 4,
        "fp32 gradients": 4,
        "updated weights for the GPU": updated,
        "gradients from the GPU": from_gpu,
    }
    terms = [term("optimizer state", 8 * share * n, f"8 B{over}", SOURCE)]
    for name, of_each in page_locked.items():
        num_bytes = n * _pinned(of_each * share, setting)
        terms.append(term(name, num_bytes, f"{of_each} B{over}{_locked(setting)}", SOURCE))
    return terms


def _parameters(setting: Setting) -> MemoryTerm:
    n, w, total = setting.hardware.processes_per_node, setting.weight_bytes, setting.num_parameters
    quantized = setting.quantized.num_parameters
    share = base_bytes(total, quantized, w) / setting.num_processes
    num_bytes = n * _pinned(share, setting)
    over = f"{weights_formula(total, quantized, w)} / {setting.num_processes} x {n} on a node"
    source = "ZeRO-Infinity (arXiv 2104.07857), section 5"
    return term("weights", num_bytes, f"{over}{_locked(setting)}", source)


def _pinned(num_bytes: float, setting: Setting) -> float:
    """torch rounds a page-locked buffer up to a power of two (CachingHostAllocator); DeepSpeed
    makes at most 4 GB each (sub_group_size)."""
    if not setting.on_gpu or num_bytes < 1:
        return num_bytes
    whole, rest = divmod(num_bytes, 4e9)
    if rest > 1:
        rounded = 2 ** (int(rest) - 1).bit_length()
    else:
        rounded = 0
    return whole * 2**32 + rounded


def _locked(setting: Setting) -> str:
    if setting.on_gpu:
        return ", page-locked: rounded up to powers of two"
    return ""
