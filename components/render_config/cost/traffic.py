"""Setting and ZeRO -> bytes that a step sends over the network and over PCIe, and what that slows,
in words."""

from dataclasses import dataclass

from components.render_config.cost.quantized import frozen_bytes
from components.render_config.setting import Setting
from components.shared.documents.plan import ZeroPlan
from components.shared.figures import size_of


@dataclass(frozen=True)
class Traffic:
    """Bytes that one process sends in one optimizer step."""

    network: float
    pcie: float


def traffic(setting: Setting, zero: ZeroPlan, grad_accum: int) -> Traffic:
    """ZeRO (arXiv 1910.02054) section 7: 2 x the gradients up to stage 2 (all-reduce =
    reduce-scatter + all-gather); stage 3 gathers all weights for the forward and again for the
    backward pass and reduces gradients once, 3 x in full training.

    Offload moves gradients down and weights up (ZeRO-Offload, arXiv 2101.06840, section 3). With
    gradient accumulation each micro-step after the first also brings the summed gradient back to
    the GPU (DeepSpeed 0.19.8, stage_1_and_2.py and stage3.py): 2g - 1 copies of it, and one of the
    weights. Offloaded parameters move twice a micro-step. Weights in 4 bits move as they are.
    """
    n, w, trained = setting.num_processes, setting.weight_bytes, setting.num_trainable
    weights = frozen_bytes(setting)
    exchanged = 2.0 * w * trained
    if zero.stage == 3:
        exchanged = 2 * weights * grad_accum + w * trained
    pcie = 0.0
    if zero.offload_optimizer:
        pcie += 2.0 * grad_accum * w * trained / n
    if zero.offload_parameters:
        pcie += 2.0 * weights / n * grad_accum
    return Traffic(network=(n - 1) / n * exchanged, pcie=pcie)


def cost_of(setting: Setting, zero: ZeroPlan) -> str:
    """What the option slows, against no ZeRO, at one pass a step."""
    sent = traffic(setting, zero, 1)
    communication = _communication(setting, zero, sent)
    if not zero.offload_optimizer:
        return communication
    moved = "no copy, as all is in host memory"
    if setting.on_gpu:
        moved = f"{size_of(sent.pcie)} over PCIe per step and GPU"
    return f"{communication}; {moved}; the optimizer computes on the host"


def _communication(setting: Setting, zero: ZeroPlan, sent: Traffic) -> str:
    if setting.num_processes == 1:
        divides = zero.stage > 0 and not zero.offload_optimizer
        if divides:
            return "nothing to divide: one process"
        return "no communication"
    base = traffic(setting, ZeroPlan(stage=0), 1)
    if setting.on_gpu:
        each = "GPU"
    else:
        each = "process"
    times = f"{sent.network / base.network:.3g}x"
    return f"communication {times} ({size_of(sent.network)} per step and {each})"
