"""Model and held-out rows -> what the steps after training take: rows measured, cores, memory, hours.

In a cluster those steps have no GPU, and are planned for a processor without bf16, on which they compute in fp32.
"""

import math
from collections.abc import Iterator

from components.render_config.cost.hardware import CORE_FP32, GIB, Hardware
from components.render_config.cost.timing import CPU_SHARE, HOST_GB_S, SLOWER, forward_flops
from components.render_config.model.shapes import Architecture
from components.shared.documents.plan import EVALUATE_POD_HOURS, AfterPlan
from components.shared.figures import plain
from components.shared.held_out import NOTHING_HELD_OUT
from components.shared.spec.run_spec import RunSpec

AUTO_HOURS = 4.0
LEAST_ROWS = 4
PARAMETERS_A_CORE, LEAST_CPUS, MOST_CPUS = 2_000_000_000, 2, 32
"""A core for each two billion parameters: all sizes then take about as long."""
PROCESS_BYTES = GIB // 2
"""Interpreter, torch, transformers and peft."""
LOGITS_COPIES = 3
"""The model's, the loss's without its last row, and their logarithms; measured with PROCESS_BYTES: tests/truth/test_after.py."""


def plan_after(
    spec: RunSpec,
    architecture: Architecture,
    hardware: Hardware,
    *,
    num_held_out: int,
    row_tokens: int,
    mean_row_tokens: float,
    num_cores: int,
) -> AfterPlan:
    """`num_cores`: of this machine, which counts when training is on it too."""
    cpus = num_cores if spec.backend == "local" else _pod_cpus(architecture)
    rate = _tflops(spec, hardware, cpus)
    row_seconds = None if rate is None else 2 * forward_flops(architecture, mean_row_tokens) / (rate * 1e12)
    affordable = num_held_out if row_seconds is None else max(LEAST_ROWS, int(AUTO_HOURS * 3600 / row_seconds))
    rows = min(num_held_out, affordable if spec.evaluation.rows == "auto" else spec.evaluation.rows)
    weights = 4 * architecture.num_parameters
    logits = LOGITS_COPIES * 4 * row_tokens * architecture.vocabulary
    return AfterPlan(
        held_out_rows=rows,
        hours=None if row_seconds is None else (rows * row_seconds + _answer_seconds(spec, architecture)) / 3600,
        cpus=cpus,
        export_bytes=2 * PROCESS_BYTES + weights,
        evaluate_bytes=PROCESS_BYTES + weights + logits,
    )


def _pod_cpus(architecture: Architecture) -> int:
    return min(MOST_CPUS, max(LEAST_CPUS, math.ceil(architecture.num_parameters / PARAMETERS_A_CORE)))


def _tflops(spec: RunSpec, hardware: Hardware, cpus: int) -> float | None:
    """What evaluation reaches; None on a GPU whose speed is not known."""
    if spec.backend != "local" or hardware.gpu is None:
        return cpus * CORE_FP32 * CPU_SHARE
    device = hardware.device
    return None if device is None else device.half_tflops * device.share * SLOWER


def _answer_seconds(spec: RunSpec, architecture: Architecture) -> float:
    """Each token of an answer reads all weights that it meets, in both models."""
    asked = spec.evaluation
    return 2 * len(asked.questions) * asked.answer_tokens * 4 * architecture.active_parameters / (HOST_GB_S * 1e9)


def after_cautions(spec: RunSpec, after: AfterPlan) -> Iterator[str]:
    if not spec.data.holds_out:
        yield NOTHING_HELD_OUT
    if spec.backend != "local" and after.hours is not None and after.hours > EVALUATE_POD_HOURS:
        yield (
            f"evaluation.rows: {after.held_out_rows:,} rows take about {plain(after.hours)} hours on {after.cpus} cores, and the step that "
            f"evaluates may take {EVALUATE_POD_HOURS}; set auto, or fewer rows"
        )


def after_reasons(spec: RunSpec, after: AfterPlan, *, num_held_out: int) -> dict[str, str]:
    asked = spec.evaluation.rows
    limit = f"what is measured in about {AUTO_HOURS:g} hours" if asked == "auto" else f"evaluation.rows {asked:,}"
    of_pods = f"one for each {PARAMETERS_A_CORE / 1e9:g}B parameters, from {LEAST_CPUS} to {MOST_CPUS}"
    found = {
        "after.held_out_rows": f"the fewer of {num_held_out:,} held out and {limit}" if num_held_out else "nothing is held out",
        "after.hours": "both models on each row, and their answers",
        "after.cpus": "this machine's" if spec.backend == "local" else of_pods,
        "after.export_bytes": "two processes, and 4 bytes a parameter: the export is loaded in fp32 to be verified",
        "after.evaluate_bytes": f"a process, 4 bytes a parameter, {LOGITS_COPIES} x 4 bytes x row_tokens x vocabulary for logits",
    }
    return found if after.hours is not None else {name: why for name, why in found.items() if name != "after.hours"}
