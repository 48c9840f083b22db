"""FLOPs, memory and wires -> seconds a step, hours, money: an estimate with its range, to be set
beside what happens."""

from dataclasses import dataclass

from components.render_config.cost.hardware import core_tflops
from components.render_config.cost.quantized import bytes_to_turn_back
from components.render_config.cost.traffic import traffic
from components.render_config.model.shapes import Architecture
from components.render_config.setting import Setting
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
GPU_MULTIPLE = 64
"""Tokens; components/train/loop/rows.py has the same."""
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
class StepTime:
    """Seconds of one optimizer step."""

    seconds: float
    low: float
    high: float
    parts: dict[str, float]
    formula: str


def step_time(setting: Setting, zero: ZeroPlan, steps: StepPlan) -> StepTime | None:
    """None where nothing is known of the device's speed."""
    rate = _tflops(setting)
    if rate is None:
        return None
    mid, low, high = _shares(setting)
    flops = flops_per_step(setting, steps) / setting.num_processes
    compute = flops / (rate * 1e12)
    memory = _memory(setting, zero, steps)
    network, host = _wires(setting, zero, steps)
    fixed = _fixed(setting, zero, steps, compute / mid + memory)
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


def training_time(
    step: StepTime, setting: Setting, steps: StepPlan, *, upload_seconds: float
) -> TimePlan:
    """Of the whole training: all steps, and the upload of the last checkpoint, beside which nothing
    is left to do."""
    total, asked = whole_steps(steps), setting.spec.hardware
    hours = (total * step.seconds + upload_seconds) / 3600
    price = None
    if asked.price_per_gpu_hour is not None:
        price = hours * asked.price_per_gpu_hour * setting.num_processes
    return TimePlan(
        seconds_per_step=step.seconds,
        low=step.low,
        high=step.high,
        parts=step.parts,
        hours=hours,
        hours_low=total * step.low / 3600,
        hours_high=(total * step.high + len(steps.save_steps) * upload_seconds) / 3600,
        checkpoint_seconds=upload_seconds,
        price=price,
        currency=asked.currency,
        formula=step.formula,
        source=CPU_SOURCE if setting.hardware.gpu is None else SOURCE,
    )


def whole_steps(steps: StepPlan) -> float:
    """All steps, counted in steps of a full global batch: the last of an epoch may have fewer
    rows."""
    rows_seen = steps.tokens_total * steps.num_rows / max(1, steps.tokens_per_epoch)
    return min(steps.total_steps, rows_seen / steps.global_batch)


def flops_per_step(setting: Setting, steps: StepPlan) -> float:
    """Of all processes: 2 a parameter and token forward, as many for the gradients of activations,
    as many for those of weights in full training, and 2 again under gradient checkpointing;
    attention's scores and sums beside."""
    passes = _passes(setting)
    row = _row_flops(
        setting.architecture,
        padded_tokens(setting, steps.micro_batch),
        passes=passes,
        score_passes=passes if setting.full else passes + 2,
    )
    return steps.global_batch * row


def padded_tokens(setting: Setting, micro_batch: int) -> float:
    """Tokens of a row with its padding to the longest of its micro-batch; several are taken to hold
    the longest of all. A GPU's row is padded to a multiple of GPU_MULTIPLE, on average by half of
    it, and never beyond the longest."""
    rows = setting.rows
    if micro_batch > 1:
        return rows.longest_tokens
    if setting.on_gpu:
        padding = GPU_MULTIPLE / 2
    else:
        padding = 0
    return min(rows.mean_tokens + padding, rows.longest_tokens)


def forward_flops(architecture: Architecture, row_tokens: float) -> float:
    """Of one row, its loss alone."""
    return _row_flops(architecture, row_tokens, passes=2, score_passes=2)


def _row_flops(
    architecture: Architecture, row_tokens: float, *, passes: int, score_passes: int
) -> float:
    table = architecture.vocabulary * architecture.hidden_size
    # Embeddings that are not the head's weights too are looked up, and multiply nothing.
    has_own_head = architecture.outside_parameters > 1.5 * table
    if has_own_head:
        lookup = table
    else:
        lookup = 0
    width = architecture.attention.num_heads * architecture.attention.head_size
    scores = 2 * architecture.num_blocks * row_tokens * width * score_passes
    return row_tokens * (passes * (architecture.active_parameters - lookup) + scores)


def _passes(setting: Setting) -> int:
    """FLOPs a parameter and token, two for each product with it."""
    if setting.full:
        of_weights = 2
    else:
        of_weights = 0
    if setting.checkpointing:
        again = 2
    else:
        again = 0
    return 2 + 2 + of_weights + again


def _tflops(setting: Setting) -> float | None:
    """Of one process."""
    hardware = setting.hardware
    if hardware.gpu is None:
        cores = max(1, hardware.num_cores / hardware.processes_per_node)
        return core_tflops(hardware.flags, setting.weight_bytes) * cores
    return hardware.gpu_tflops(setting.precision)


def _shares(setting: Setting) -> tuple[float, float, float]:
    """Of the device's TFLOP/s, what training reaches: the middle, the worst and the best case."""
    device = setting.hardware.device
    if device is None:
        return CPU_SHARES[setting.weight_bytes]
    if setting.full:
        reached = device.share * FULL_GAIN
    else:
        reached = device.share
    return reached, reached * SLOWER, reached * FASTER


def _fixed(setting: Setting, zero: ZeroPlan, steps: StepPlan, computed: float) -> float:
    """Seconds of a step that hang on no FLOP: on GPUs what launching kernels takes longer than
    `computed`."""
    passes = setting.architecture.num_blocks * steps.grad_accum
    if setting.hardware.gpu is not None:
        return max(0.0, GPU_BLOCK_S[zero.stage] * passes - computed)
    if setting.num_processes > 1:
        peers = CPU_PEERS_S
    else:
        peers = 0.0
    return CPU_STEP_S + peers + CPU_BLOCK_S[zero.stage] * passes


def _memory(setting: Setting, zero: ZeroPlan, steps: StepPlan) -> float:
    """Seconds of a step in which a GPU reads the weights, once for each product with them, and Adam
    its state."""
    device = setting.hardware.device
    if device is None:
        return 0.0
    products = _passes(setting) // 2 * steps.grad_accum
    of_weights = setting.weight_bytes * setting.architecture.num_parameters
    turned_back = bytes_to_turn_back(setting.quantized.num_parameters, setting.weight_bytes)
    num_bytes = products * (of_weights + turned_back)
    if not zero.offload_optimizer:
        if zero.stage:
            shared = setting.num_processes
        else:
            shared = 1
        num_bytes += ADAM_BYTES * (setting.num_trainable / shared)
    return num_bytes / (device.memory_gb_s * 1e9)


def _wires(setting: Setting, zero: ZeroPlan, steps: StepPlan) -> tuple[float, float]:
    """Seconds of a step between processes, and for offload between GPU and host, Adam there
    included."""
    hardware, sent = setting.hardware, traffic(setting, zero, steps.grad_accum)
    if hardware.device is None:
        return 0.0, 0.0
    # A ring between nodes passes each network card once, whatever the number of GPUs in a node: its
    # speed is that of all cards of a node together (NCCL's bus bandwidth, nccl-tests
    # doc/PERFORMANCE.md).
    speed = hardware.device.link_gb_s
    if hardware.num_nodes > 1:
        speed = min(hardware.network_gb_s, speed)
    adam = 0.0
    if zero.offload_optimizer:
        adam = ADAM_BYTES * setting.num_trainable / setting.num_processes / (HOST_GB_S * 1e9)
    return sent.network / (speed * 1e9), sent.pcie / (hardware.device.pcie_gb_s * 1e9) + adam
