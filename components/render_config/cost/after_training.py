"""Model and held-out rows -> what the steps after training take: rows measured, cores, memory,
hours.

In a cluster those steps have no GPU, and are planned for a processor without bf16, on which they
compute in fp32.
"""

import math
from collections.abc import Iterator

from components.render_config.cost.hardware import CORE_FP32, GIB
from components.render_config.cost.timing import CPU_SHARE, HOST_GB_S, SLOWER, forward_flops
from components.render_config.decision import Section
from components.render_config.model.shapes import Architecture
from components.render_config.setting import Setting
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
"""The model's, the loss's without its last row, and their logarithms; measured with PROCESS_BYTES:
tests/truth/test_after.py."""


def plan_after(setting: Setting, *, num_held_out: int) -> Section[AfterPlan]:
    """Rows, hours, cores and memory of export and evaluation."""
    spec, architecture = setting.spec, setting.architecture
    # On this machine training's cores are those of the later steps too.
    is_local = spec.backend == "local"
    if is_local:
        cpus = setting.hardware.num_cores
    else:
        cpus = _pod_cpus(architecture)
    row_seconds = _row_seconds(setting, cpus)
    rows = _measured_rows(setting, num_held_out, row_seconds)
    hours = None
    if row_seconds is not None:
        hours = (rows * row_seconds + _answer_seconds(setting)) / 3600
    weights = 4 * architecture.num_parameters
    logits = LOGITS_COPIES * 4 * setting.rows.most_tokens * architecture.vocabulary
    after = AfterPlan(
        held_out_rows=rows,
        hours=hours,
        cpus=cpus,
        export_bytes=2 * PROCESS_BYTES + weights,
        evaluate_bytes=PROCESS_BYTES + weights + logits,
    )
    reasons = _reasons(spec, after, num_held_out=num_held_out)
    return Section(after, reasons, tuple(_cautions(spec, after)))


def _row_seconds(setting: Setting, cpus: int) -> float | None:
    """Of both models on one row; None on a GPU whose speed is not known."""
    rate = _tflops(setting, cpus)
    if rate is None:
        return None
    return 2 * forward_flops(setting.architecture, setting.rows.mean_tokens) / (rate * 1e12)


def _measured_rows(setting: Setting, num_held_out: int, row_seconds: float | None) -> int:
    """As many as the spec asks for; by itself those that are measured in AUTO_HOURS."""
    asked = setting.spec.evaluation.rows
    if asked != "auto":
        return min(num_held_out, asked)
    if row_seconds is None:
        return num_held_out
    return min(num_held_out, max(LEAST_ROWS, int(AUTO_HOURS * 3600 / row_seconds)))


def _pod_cpus(architecture: Architecture) -> int:
    needed = math.ceil(architecture.num_parameters / PARAMETERS_A_CORE)
    return min(MOST_CPUS, max(LEAST_CPUS, needed))


def _tflops(setting: Setting, cpus: int) -> float | None:
    """What evaluation reaches; None on a GPU whose speed is not known."""
    hardware = setting.hardware
    if setting.spec.backend != "local" or hardware.gpu is None:
        return cpus * CORE_FP32 * CPU_SHARE
    device = hardware.device
    if device is None:
        return None
    return device.half_tflops * device.share * SLOWER


def _answer_seconds(setting: Setting) -> float:
    """Each token of an answer reads all weights that it meets, in both models."""
    asked = setting.spec.evaluation
    num_tokens = 2 * len(asked.questions) * asked.answer_tokens
    return num_tokens * 4 * setting.architecture.active_parameters / (HOST_GB_S * 1e9)


def _cautions(spec: RunSpec, after: AfterPlan) -> Iterator[str]:
    if not spec.data.holds_out:
        yield NOTHING_HELD_OUT
    if spec.backend != "local" and after.hours is not None and after.hours > EVALUATE_POD_HOURS:
        yield (
            f"evaluation.rows: {after.held_out_rows:,} rows take about {plain(after.hours)} hours "
            f"on {after.cpus} cores, and the step that evaluates may take {EVALUATE_POD_HOURS}; "
            "set auto, or fewer rows"
        )


def _reasons(spec: RunSpec, after: AfterPlan, *, num_held_out: int) -> dict[str, str]:
    asked = spec.evaluation.rows
    limit = f"what is measured in about {AUTO_HOURS:g} hours"
    if asked != "auto":
        limit = f"evaluation.rows {asked:,}"
    held_out = "nothing is held out"
    if num_held_out:
        held_out = f"the fewer of {num_held_out:,} held out and {limit}"
    cpus = "this machine's"
    if spec.backend != "local":
        each = f"{PARAMETERS_A_CORE / 1e9:g}B parameters"
        cpus = f"one for each {each}, from {LEAST_CPUS} to {MOST_CPUS}"
    reasons = {"after.held_out_rows": held_out}
    if after.hours is not None:
        reasons["after.hours"] = "both models on each row, and their answers"
    reasons["after.cpus"] = cpus
    reasons["after.export_bytes"] = (
        "two processes, and 4 bytes a parameter: the export is loaded in fp32 to be verified"
    )
    reasons["after.evaluate_bytes"] = (
        f"a process, 4 bytes a parameter, {LOGITS_COPIES} x 4 bytes x row_tokens x vocabulary for "
        "logits"
    )
    return reasons
