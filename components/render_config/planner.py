"""Spec + dataset manifest + config.json -> the plan, each decided value with its reason. Pure:
values in, a value out.

`decide` takes each decision once, in the order in which they follow from one another; `Decisions`
holds them, and `make_plan` writes them down as one document.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from components.render_config.choose.checkpoints import plan_checkpoints, upload_seconds
from components.render_config.choose.choose_zero import Choice, choose
from components.render_config.choose.learning_rate import choose_learning_rate
from components.render_config.choose.lora import choose_lora
from components.render_config.choose.numerics import choose_gradient_sums, choose_router_loss
from components.render_config.choose.rows import held_out_rows, unknown_rows_caution
from components.render_config.choose.steps import choose_steps
from components.render_config.choose.threads import choose_threads
from components.render_config.choose_setting import choose_setting
from components.render_config.cost.after_training import plan_after
from components.render_config.cost.hardware import Hardware, Machine
from components.render_config.cost.timing import step_time, training_time
from components.render_config.dataset_facts import NO_DATASET, DatasetFacts
from components.render_config.decision import Decision, Section
from components.render_config.model.config_cautions import config_cautions
from components.render_config.model.registry_cautions import registry_cautions
from components.render_config.page.verdict import verdict
from components.render_config.render.files import file_reasons, file_values
from components.render_config.render.job_checks import job_cautions
from components.render_config.setting import Setting
from components.shared.documents.plan import (
    AfterPlan,
    CheckpointPlan,
    HardwarePlan,
    LoraPlan,
    ModelPlan,
    Plan,
    Precision,
    StepPlan,
    TimePlan,
)
from components.shared.spec.run_spec import HOW_NOT_WHAT, RunSpec


@dataclass(frozen=True)
class Decisions:
    """Every decision of one plan."""

    setting: Section[Setting]
    fit: Section[Choice]
    steps: Section[StepPlan]
    lora: Section[LoraPlan | None]
    checkpoints: Section[CheckpointPlan]
    after: Section[AfterPlan]
    threads: Decision[int | None]
    learning_rate: Decision[float]
    gradient_sums: Decision[bool]
    router_loss: Decision[Literal["none", "left out"]]
    time: TimePlan | None
    """None where nothing is known of the GPU's speed."""

    @property
    def reasons(self) -> dict[str, str]:
        """Field of the plan, dotted -> why it has its value."""
        reasons: dict[str, str] = {}
        for section in (
            self.setting,
            self.fit,
            self.steps,
            self.lora,
            self.checkpoints,
            self.after,
        ):
            reasons.update(section.reasons)
        architecture = self.setting.value.architecture
        return reasons | {
            "threads_per_process": self.threads.reason,
            "learning_rate": self.learning_rate.reason,
            "fp32_gradient_sums": self.gradient_sums.reason,
            "router_loss": self.router_loss.reason,
            "model.num_new_tokens": "texts of data.new_tokens; num_parameters counts their rows",
            "model.num_embeddings": "vocab_size of config.json, and rows for new tokens beyond it",
            "model.num_parameters": (
                f"counted from the config of a {architecture.model_type} model with "
                f"{architecture.num_blocks} blocks"
            ),
        }


def check_spec(spec: RunSpec, config: Mapping[str, Any], machine: Machine) -> None:
    """Raises HaganeError with all that is wrong with model, LoRA targets, row length, packing,
    batch sizes, job and hardware, or with what does not fit it."""
    choose(choose_setting(spec, config, machine, NO_DATASET).value)


def make_plan(
    spec: RunSpec, dataset: DatasetFacts, config: Mapping[str, Any], *, machine: Machine
) -> Plan:
    """The whole plan. Raises HaganeError as `check_spec` does, or when `drop_last` leaves nothing
    to train."""
    decisions = decide(spec, config, machine, dataset)
    plan = _plan(decisions, dataset, config)
    hidden_size = decisions.setting.value.architecture.hidden_size
    files = file_values(spec, plan, hidden_size=hidden_size)
    reasons = plan.reasons | file_reasons(files)
    return plan.model_copy(update={"verdict": verdict(plan), "reasons": reasons})


def decide(
    spec: RunSpec, config: Mapping[str, Any], machine: Machine, dataset: DatasetFacts
) -> Decisions:
    """Each decision of the plan, with its reason. Raises HaganeError as `make_plan`."""
    started = choose_setting(spec, config, machine, dataset)
    setting = started.value
    fit = choose(setting)
    zero = fit.value.zero
    steps = choose_steps(setting, dataset, fit.value.micro_batch)
    step = step_time(setting, zero, steps.value)
    checkpoints = plan_checkpoints(setting, zero, steps.value, step=step)
    time = None
    if step is not None:
        seconds = upload_seconds(checkpoints.value.node_bytes, spec)
        time = training_time(step, setting, steps.value, upload_seconds=seconds)
    return Decisions(
        setting=started,
        fit=fit,
        steps=steps,
        lora=choose_lora(setting),
        checkpoints=checkpoints,
        after=plan_after(setting, num_held_out=held_out_rows(spec, dataset)),
        threads=choose_threads(spec, setting.hardware.num_cores),
        learning_rate=choose_learning_rate(spec, setting.architecture.num_parameters),
        gradient_sums=choose_gradient_sums(setting, zero, steps.value),
        router_loss=choose_router_loss(setting, config),
        time=time,
    )


def _plan(decisions: Decisions, dataset: DatasetFacts, config: Mapping[str, Any]) -> Plan:
    """Without verdict, and without the reasons of the training libraries' files."""
    setting, fit = decisions.setting.value, decisions.fit.value
    spec, rate = setting.spec, decisions.learning_rate.value
    return Plan(
        run=spec.name,
        method=spec.training.method,
        precision=setting.precision,
        fp32_gradient_sums=decisions.gradient_sums.value,
        router_loss=decisions.router_loss.value,
        attention=setting.attention,
        loss_chunk_tokens=setting.loss_chunk_tokens,
        packed=setting.rows.packed,
        num_trainable=setting.num_trainable,
        learning_rate=rate,
        training_digest=training_digest(spec, dataset, setting.precision, learning_rate=rate),
        model=_model_plan(setting, dataset),
        threads_per_process=decisions.threads.value,
        zero=fit.zero,
        steps=decisions.steps.value,
        lora=decisions.lora.value,
        checkpoints=decisions.checkpoints.value,
        cautions=tuple(_cautions(decisions, dataset, config)),
        memory=fit.memory,
        time=decisions.time,
        hardware=hardware_plan(setting.hardware, setting.precision),
        after=decisions.after.value,
        reasons=decisions.reasons,
    )


def _cautions(
    decisions: Decisions, dataset: DatasetFacts, config: Mapping[str, Any]
) -> Iterator[str]:
    """Those of the decisions, and of what spec and config.json say that no decision follows."""
    spec = decisions.setting.value.spec
    yield from decisions.fit.cautions
    yield from job_cautions(spec)
    yield from config_cautions(config)
    yield from decisions.learning_rate.cautions
    yield from decisions.setting.cautions
    yield from registry_cautions(spec, config)
    yield from decisions.lora.cautions
    yield from decisions.router_loss.cautions
    yield from decisions.steps.cautions
    yield from unknown_rows_caution(spec, dataset)
    yield from decisions.after.cautions


def _model_plan(setting: Setting, dataset: DatasetFacts) -> ModelPlan:
    architecture = setting.architecture
    return ModelPlan(
        source=setting.spec.model.source,
        revision=dataset.model_revision,
        model_type=architecture.model_type,
        num_parameters=architecture.num_parameters,
        largest_layer_parameters=architecture.largest_layer_parameters,
        quantization=setting.quantized.kind,
        num_quantized=setting.quantized.num_parameters,
        quantized_files=setting.quantized.in_files,
        num_new_tokens=len(setting.spec.data.new_tokens),
        num_embeddings=architecture.vocabulary,
    )


def hardware_plan(hardware: Hardware, precision: Precision) -> HardwarePlan:
    device = hardware.device
    return HardwarePlan(
        num_nodes=hardware.num_nodes,
        processes_per_node=hardware.processes_per_node,
        gpu=hardware.gpu,
        tflops=hardware.gpu_tflops(precision),
        link_gb_s=None if device is None else device.link_gb_s,
        network_gb_s=hardware.network_gb_s,
    )


def training_digest(
    spec: RunSpec, dataset: DatasetFacts, precision: Precision, *, learning_rate: float
) -> str:
    """sha256, in hex, of all that the losses follow from: the spec but for how the work is done,
    where, and what comes after it."""
    asked = spec.model_dump(mode="json", exclude={"name", "store", "backend"})
    for field in HOW_NOT_WHAT:
        section, _, key = field.partition(".")
        if key:
            del asked[section][key]
        else:
            del asked[section]
    del asked["evaluation"]
    asked["training"]["lr_peak"] = learning_rate
    return hashlib.sha256(
        json.dumps([asked, dataset.digest, precision], sort_keys=True).encode()
    ).hexdigest()
