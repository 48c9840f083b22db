"""Spec, model, dataset and machine -> the Setting, with the reason for each choice in it, or all
that is wrong."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from components.render_config.choose.also_trained import choose_also_trained, with_new_tokens
from components.render_config.choose.attention import choose_attention
from components.render_config.choose.lora import choose_targets
from components.render_config.choose.output_layer import choose_output_layer
from components.render_config.choose.precision import precision_of, precision_of_model
from components.render_config.choose.quantization import choose_quantization
from components.render_config.choose.rows import check_row_tokens, choose_rows
from components.render_config.choose.steps import grad_accum_of
from components.render_config.cost.hardware import (
    Hardware,
    Machine,
    hardware_of,
    machine_that_trains,
)
from components.render_config.dataset_facts import DatasetFacts
from components.render_config.decision import Decision, Section
from components.render_config.model.architectures import architecture_of
from components.render_config.model.shapes import Architecture
from components.render_config.model.targets import Targets
from components.render_config.render.job_checks import check_job
from components.render_config.setting import AlsoTrained, Quantized, Setting
from components.shared.documents.plan import Precision
from components.shared.errors import HaganeError, SpecError, all_of, attempt
from components.shared.model.row_packing import untrainable
from components.shared.spec.run_spec import RunSpec


def choose_setting(
    spec: RunSpec, config: Mapping[str, Any], machine: Machine, dataset: DatasetFacts
) -> Section[Setting]:
    """Raises HaganeError with all that is wrong with model, LoRA targets, row length, packing,
    batch sizes, job and hardware, or when the dataset's rows are not as the model needs them."""
    errors: list[HaganeError] = []
    rows = attempt(errors, lambda: choose_rows(spec, config, dataset))
    model = attempt(errors, lambda: _model_choices(spec, config, dataset))
    attempt(errors, lambda: check_row_tokens(spec, config))
    device = attempt(errors, lambda: choose_device(spec, machine))
    if errors or rows is None or model is None or device is None:
        raise all_of(errors)
    (architecture, targets, quantized, also), (hardware, chosen) = model, device
    precision = precision_of_model(chosen, architecture.model_type)
    _check_stage(spec, precision.value)
    setting = Setting(
        spec,
        architecture,
        targets,
        hardware,
        precision.value,
        rows.value,
        quantized.value,
        also=also.value,
    )
    attention = choose_attention(setting, config)
    output_layer = choose_output_layer(setting, config)
    setting = replace(
        setting,
        attention=attention.value.implementation,
        masked_attention=attention.value.masked,
        loss_chunk_tokens=output_layer.value,
    )
    reasons = {
        "precision": precision.reason,
        "attention": attention.reason,
        "loss_chunk_tokens": output_layer.reason,
        **rows.reasons,
        **quantized.reasons,
        **also.reasons,
    }
    return Section(setting, reasons, (*rows.cautions, *also.cautions))


def _model_choices(
    spec: RunSpec, config: Mapping[str, Any], dataset: DatasetFacts
) -> tuple[Architecture, Targets, Section[Quantized], Section[AlsoTrained]] | None:
    """None for a type that cannot be trained, which `choose_rows` says: it often cannot be built
    either, and building takes seconds."""
    if untrainable(config):
        return None
    architecture = architecture_of(with_new_tokens(spec, config, dataset))
    errors: list[HaganeError] = []
    also = attempt(errors, lambda: choose_also_trained(spec, architecture))
    targets = attempt(errors, lambda: choose_targets(spec, architecture))
    quantized = attempt(errors, lambda: choose_quantization(spec, config, architecture))
    if targets is None or quantized is None or also is None:
        raise all_of(errors)
    return architecture, targets, quantized, also


def choose_device(spec: RunSpec, machine: Machine) -> tuple[Hardware, Decision[Precision]]:
    """What the spec says that needs no model. Raises HaganeError with all that is wrong with
    hardware, number format, the job and the batch sizes."""
    errors: list[HaganeError] = []
    trains = machine_that_trains(spec, machine)
    attempt(errors, lambda: check_job(spec))
    hardware = attempt(errors, lambda: hardware_of(spec.hardware, trains))
    asked = spec.training.micro_batch
    attempt(errors, lambda: grad_accum_of(spec, 1 if asked == "auto" else asked))
    precision = None
    if hardware is not None:
        precision = attempt(errors, lambda: precision_of(spec, hardware))
    if errors or hardware is None or precision is None:
        raise all_of(errors)
    return hardware, precision


def _check_stage(spec: RunSpec, precision: Precision) -> None:
    if precision == "fp16" and spec.zero.stage == 0:
        raise SpecError(
            "zero.stage: found 0, allowed 1, 2 or 3 in fp16, whose loss DeepSpeed scales only with "
            "ZeRO. Fix: set zero.stage: 1, or auto"
        )
