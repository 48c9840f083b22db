"""FLOPs, memory and wires -> seconds a step, hours, money: an estimate with its range, to be set beside what happens."""

from dataclasses import dataclass

from components.render_config.choice import Wish, traffic
from components.render_config.hardware import CPU_CORE_TFLOPS, Hardware
from components.render_config.shapes import Architecture
from components.shared.plan import CheckpointPlan, StepPlan, TimePlan, ZeroPlan

# Share of the data sheet's TFLOP/s that training reaches: 0.4, from 0.25 (small models, short rows) to 0.55 (large ones, tuned).
# On a CPU core, of what a plain matrix product reaches there.
MFU, MFU_LOW, MFU_HIGH = 0.4, 0.25, 0.55
CPU_SHARE, CPU_LOW, CPU_HIGH = 0.5, 0.2, 0.8
# Between nodes: 100 Gbit/s. Adam on the host reads and writes 28 B a parameter at 20 GB/s a process.
NETWORK_GB_S, HOST_GB_S, ADAM_BYTES = 12.5, 20.0, 28
SOURCE = "Kaplan et al. 2020 (arXiv 2001.08361) 2.1 for FLOPs; makers' data sheets (hardware.py); 25 to 55 % of them reached"


@dataclass(frozen=True)
class Work:
    """What a step is made of."""

    architecture: Architecture
    wish: Wish
    hardware: Hardware
    zero: ZeroPlan
    steps: StepPlan
    num_cores: int


def estimate(work: Work, checkpoints: CheckpointPlan, *, price_per_gpu_hour: float | None, upload_mb_s: float) -> TimePlan | None:
    """None where nothing is known of the device's speed."""
    rate = _tflops(work)
    if rate is None:
        return None
    on_cpu = work.hardware.gpu is None
    mid, low, high = (CPU_SHARE, CPU_LOW, CPU_HIGH) if on_cpu else (MFU, MFU_LOW, MFU_HIGH)
    flops = flops_per_step(work) / work.hardware.num_processes
    compute = flops / (rate * 1e12)
    network, host = _wires(work)
    # Half of the communication hides behind compute; in the best case all of it does, in the worst none.
    seconds, best, worst = compute / mid + network / 2 + host, max(compute / high, network) + host / 2, compute / low + network + host
    total, upload = work.steps.total_steps, checkpoints.bytes_each / work.hardware.num_nodes / (upload_mb_s * 1e6)
    hours, shortest, longest = (total * each / 3600 for each in (seconds, best, worst))
    price = None if price_per_gpu_hour is None else hours * price_per_gpu_hour * work.hardware.num_processes
    return TimePlan(
        seconds_per_step=seconds,
        low=best,
        high=worst,
        parts={"compute": compute / mid, "communication": network, "host": host},
        hours=hours + upload / 3600,
        hours_low=shortest,
        hours_high=longest + len(work.steps.save_steps) * upload / 3600,
        checkpoint_seconds=upload,
        price=price,
        formula=f"{flops / 1e12:.3g} TFLOP a process and step / ({rate:.3g} TFLOP/s x {mid:g})",
        source=SOURCE,
    )


def flops_per_step(work: Work) -> float:
    """Of all processes: 2 a parameter and token forward, as many for the gradients of activations, as many for those of weights in
    full training, and 2 again under gradient checkpointing; attention's scores and sums beside."""
    architecture, wish = work.architecture, work.wish
    passes = 2 + 2 + (2 if wish.full else 0) + (2 if wish.checkpointing else 0)
    lookup = (
        architecture.vocabulary * architecture.hidden_size
        if architecture.outside_parameters > 1.5 * architecture.vocabulary * architecture.hidden_size
        else 0
    )
    width = architecture.attention.num_heads * architecture.attention.head_size
    scores = 2 * architecture.num_blocks * wish.row_tokens * width * (passes if wish.full else passes + 2)
    return work.steps.global_batch * wish.row_tokens * (passes * (architecture.active_parameters - lookup) + scores)


def _tflops(work: Work) -> float | None:
    """Of one process."""
    if work.hardware.gpu is None:
        return CPU_CORE_TFLOPS * max(1, work.num_cores / work.hardware.processes_per_node)
    return work.hardware.device.bf16_tflops if work.hardware.device is not None else None


def _wires(work: Work) -> tuple[float, float]:
    """Seconds of a step between processes, and for offload between GPU and host, Adam there included."""
    hardware = work.hardware
    sent = traffic(work.architecture, work.wish, hardware, work.zero, work.steps.grad_accum)
    if hardware.device is None:
        return 0.0, 0.0
    speed = NETWORK_GB_S / hardware.processes_per_node if hardware.num_nodes > 1 else hardware.device.link_gb_s
    adam = (
        ADAM_BYTES * work.wish.num_trainable(work.architecture) / hardware.num_processes / (HOST_GB_S * 1e9)
        if work.zero.offload_optimizer
        else 0.0
    )
    return sent.network / (speed * 1e9), sent.pcie / (hardware.device.pcie_gb_s * 1e9) + adam
