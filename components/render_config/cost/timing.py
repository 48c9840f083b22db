"""FLOPs, memory and wires -> seconds a step, hours, money: an estimate with its range, to be set
beside what happens."""

from dataclasses import dataclass

from components.render_config.choose.zero_options import Setting, traffic
from components.render_config.cost.hardware import Hardware, core_tflops
from components.render_config.cost.quantized import bytes_to_turn_back
from components.render_config.model.shapes import Architecture
from components.shared.documents.plan import StepPlan, TimePlan, ZeroPlan
from components.shared.figures import plain

# Of the share that a GPU of this type reaches (gpus.py), the worst and the best case: nine of ten
# published runs lie between (benchmarks/published_speed.py).
SLOWER, FASTER = 0.72, 1.3
# Full training reaches more of it than LoRA, whose small matrices take time and few FLOPs (same
# runs).
FULL_GAIN = 1.16
# Seconds in which PyTorch launches the kernels of one block's passes, whatever their size, and with
# ZeRO-3's gathering: Qwen-1.8B and 7B with 256 tokens on an A100 (benchmarks/published).
GPU_BLOCK_S = (0.005, 0.005, 0.005, 0.011)
# On CPU cores, of what a plain matrix product reaches there, by bytes a weight; beside it, in
# seconds: what a step takes, what its exchanges take where processes are several, and what ZeRO's
# hooks take of each pass through a block, by stage. All measured, together with how far single runs
# lie from it: benchmarks/time_truth.py.
CPU_SHARES = {4: (0.55, 0.3, 0.9), 2: (0.33, 0.15, 0.5)}
CPU_SHARE = CPU_SHARES[4][0]
CPU_STEP_S, CPU_PEERS_S, CPU_BLOCK_S = 0.08, 0.12, (0.0, 0.009, 0.009, 0.026)
# Adam reads and writes 28 B a parameter: on the host at 20 GB/s a process, else at the GPU's memory
# speed.
HOST_GB_S, ADAM_BYTES = 20.0, 28
FLOPS_SOURCE = "Kaplan et al. 2020 (arXiv 2001.08361) 2.1 for FLOPs"
SOURCE = (
    f"{FLOPS_SOURCE}; makers' data sheets and the share of them that published runs reach "
    "(gpus.py); 80 of the 83 published runs that these were fitted to lie in the range "
    "(benchmarks/published_speed.py)"
)
CPU_SOURCE = (
    f"{FLOPS_SOURCE}; matrix products measured on single cores (hardware.py), and trainings on "
    "CPUs (benchmarks/time_truth.py)"
)


@dataclass(frozen=True)
class Work:
    """What a step is made of."""

    architecture: Architecture
    setting: Setting
    hardware: Hardware
    zero: ZeroPlan
    steps: StepPlan
    num_cores: int
    """Of the machine that trains, with what its processor can do; both count where it has no
    GPU."""
    flags: frozenset[str]


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step."""

    seconds: float
    low: float
    high: float
    parts: dict[str, float]
    formula: str


def step_time(work: Work) -> StepTime | None:
    """None where nothing is known of the device's speed."""
    rate = _tflops(work)
    if rate is None:
        return None
    mid, low, high = _shares(work)
    flops = flops_per_step(work) / work.hardware.num_processes
    compute = flops / (rate * 1e12)
    memory, (network, host) = _memory(work), _wires(work)
    fixed = _fixed(work, compute / mid + memory)
    # Half of the communication hides behind compute, where that lasts so long; in the best case all
    # of it does and memory too, in the worst nothing does. What is fixed is half as long or twice.
    seen = max(network / 2, network - compute / mid)
    return StepTime(
        seconds=compute / mid + memory + seen + host + fixed,
        low=max(compute / high, memory, network) + host / 2 + fixed / 2,
        high=compute / low + memory + network + host + 2 * fixed,
        parts={
            "compute": compute / mid,
            "memory": memory,
            "communication": network,
            "host": host,
            "fixed": fixed,
        },
        formula=f"{plain(flops / 1e12)} TFLOP a process and step / ({rate:g} TFLOP/s x {mid:g})",
    )


def estimate(
    step: StepTime, work: Work, *, upload_seconds: float, price_per_gpu_hour: float | None
) -> TimePlan:
    """Of the whole training: all steps, and the upload of the last checkpoint, beside which nothing
    is left to do."""
    total = whole_steps(work.steps)
    hours = (total * step.seconds + upload_seconds) / 3600
    return TimePlan(
        seconds_per_step=step.seconds,
        low=step.low,
        high=step.high,
        parts=step.parts,
        hours=hours,
        hours_low=total * step.low / 3600,
        hours_high=(total * step.high + len(work.steps.save_steps) * upload_seconds) / 3600,
        checkpoint_seconds=upload_seconds,
        price=None
        if price_per_gpu_hour is None
        else hours * price_per_gpu_hour * work.hardware.num_processes,
        formula=step.formula,
        source=CPU_SOURCE if work.hardware.gpu is None else SOURCE,
    )


def whole_steps(steps: StepPlan) -> float:
    """All steps, counted in steps of a full global batch: the last of an epoch may have fewer
    rows."""
    rows_seen = steps.tokens_total * steps.num_rows / max(1, steps.tokens_per_epoch)
    return min(steps.total_steps, rows_seen / steps.global_batch)


def flops_per_step(work: Work) -> float:
    """Of all processes: 2 a parameter and token forward, as many for the gradients of activations,
    as many for those of weights in full training, and 2 again under gradient checkpointing;
    attention's scores and sums beside."""
    setting, passes = work.setting, _passes(work.setting)
    tokens = setting.padded_tokens(work.steps.micro_batch)
    row = _row_flops(
        work.architecture,
        tokens,
        passes=passes,
        score_passes=passes if setting.full else passes + 2,
    )
    return work.steps.global_batch * row


def forward_flops(architecture: Architecture, row_tokens: float) -> float:
    """Of one row, its loss alone."""
    return _row_flops(architecture, row_tokens, passes=2, score_passes=2)


def _row_flops(
    architecture: Architecture, row_tokens: float, *, passes: int, score_passes: int
) -> float:
    lookup = (
        architecture.vocabulary * architecture.hidden_size
        if architecture.outside_parameters
        > 1.5 * architecture.vocabulary * architecture.hidden_size
        else 0
    )
    width = architecture.attention.num_heads * architecture.attention.head_size
    scores = 2 * architecture.num_blocks * row_tokens * width * score_passes
    return row_tokens * (passes * (architecture.active_parameters - lookup) + scores)


def _passes(setting: Setting) -> int:
    """FLOPs a parameter and token, two for each product with it."""
    return 2 + 2 + (2 if setting.full else 0) + (2 if setting.checkpointing else 0)


def _tflops(work: Work) -> float | None:
    """Of one process."""
    if work.hardware.gpu is None:
        return core_tflops(work.flags, work.setting.weight_bytes) * max(
            1, work.num_cores / work.hardware.processes_per_node
        )
    device = work.hardware.device
    if device is None:
        return None
    return device.fp32_tflops if work.setting.weight_bytes == 4 else device.half_tflops


def _shares(work: Work) -> tuple[float, float, float]:
    """Of the device's TFLOP/s, what training reaches: the middle, the worst and the best case."""
    device = work.hardware.device
    if device is None:
        return CPU_SHARES[work.setting.weight_bytes]
    reached = device.share * FULL_GAIN if work.setting.full else device.share
    return reached, reached * SLOWER, reached * FASTER


def _fixed(work: Work, computed: float) -> float:
    """Seconds of a step that hang on no FLOP: on GPUs what launching kernels takes longer than
    `computed`."""
    passes = work.architecture.num_blocks * work.steps.grad_accum
    if work.hardware.gpu is not None:
        return max(0.0, GPU_BLOCK_S[work.zero.stage] * passes - computed)
    return (
        CPU_STEP_S
        + (CPU_PEERS_S if work.hardware.num_processes > 1 else 0.0)
        + CPU_BLOCK_S[work.zero.stage] * passes
    )


def _memory(work: Work) -> float:
    """Seconds of a step in which a GPU reads the weights, once for each product with them, and Adam
    its state."""
    device, setting = work.hardware.device, work.setting
    if device is None:
        return 0.0
    passes = _passes(setting) // 2 * work.steps.grad_accum
    weights = setting.weight_bytes * work.architecture.num_parameters * passes
    weights += bytes_to_turn_back(setting.num_quantized, setting.weight_bytes) * passes
    share = setting.num_trainable(work.architecture) / (
        work.hardware.num_processes if work.zero.stage else 1
    )
    return (weights + (0 if work.zero.offload_optimizer else ADAM_BYTES * share)) / (
        device.memory_gb_s * 1e9
    )


def _wires(work: Work) -> tuple[float, float]:
    """Seconds of a step between processes, and for offload between GPU and host, Adam there
    included."""
    hardware = work.hardware
    sent = traffic(work.architecture, work.setting, hardware, work.zero, work.steps.grad_accum)
    if hardware.device is None:
        return 0.0, 0.0
    # A ring between nodes passes each network card once, whatever the number of GPUs in a node: its
    # speed is that of all cards of a node together (NCCL's bus bandwidth, nccl-tests
    # doc/PERFORMANCE.md).
    speed = (
        min(hardware.network_gb_s, hardware.device.link_gb_s)
        if hardware.num_nodes > 1
        else hardware.device.link_gb_s
    )
    adam = (
        ADAM_BYTES
        * work.setting.num_trainable(work.architecture)
        / hardware.num_processes
        / (HOST_GB_S * 1e9)
        if work.zero.offload_optimizer
        else 0.0
    )
    return sent.network / (speed * 1e9), sent.pcie / (hardware.device.pcie_gb_s * 1e9) + adam
