"""Spec + dataset manifest + config.json -> the plan, each decided value with its reason. Pure:
values in, a value out."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from components.render_config.choose.attention import AttentionChoice, choose_attention
from components.render_config.choose.checkpoints import (
    checkpoint_reasons,
    plan_checkpoints,
    upload_seconds,
)
from components.render_config.choose.choose_zero import Choice, choose
from components.render_config.choose.learning_rate import choose_learning_rate
from components.render_config.choose.output_layer import OutputLayerChoice, choose_output_layer
from components.render_config.choose.precision import (
    WEIGHT_BYTES,
    choose_precision,
    precision_of_model,
)
from components.render_config.choose.quantization import (
    QuantizationChoice,
    choose_quantization,
    quantization_reasons,
)
from components.render_config.choose.steps import Batching, grad_accum_steps, plan_steps
from components.render_config.choose.threads import threads_per_process, why_threads
from components.render_config.choose.zero_options import Setting
from components.render_config.cost.after_training import after_cautions, after_reasons, plan_after
from components.render_config.cost.hardware import Hardware, hardware_of
from components.render_config.cost.memory import sums_in_fp32
from components.render_config.cost.timing import Work, estimate, step_time
from components.render_config.model.architectures import architecture_of
from components.render_config.model.config_cautions import config_cautions
from components.render_config.model.shapes import Architecture
from components.render_config.model.targets import Targets, lora_targets
from components.render_config.page.batch_advice import step_cautions
from components.render_config.page.explanations import (
    model_cautions,
    reasons,
    rows_in_conversations,
    verdict,
)
from components.render_config.render.file_reasons import file_reasons, rendered_files
from components.render_config.render.job_checks import check_job, job_cautions
from components.shared.documents.plan import (
    HardwarePlan,
    LoraPlan,
    MemoryPlan,
    ModelPlan,
    Plan,
    Precision,
    StepPlan,
)
from components.shared.errors import DataError, HaganeError, ModelError, SpecError
from components.shared.model.positions import known_positions
from components.shared.model.registry import KnownModel, ModelFamily, known_model
from components.shared.model.row_packing import RowPacking, row_packing, untrainable
from components.shared.spec.run_spec import HOW_NOT_WHAT, RunSpec
from components.shared.spec.training import LoraSpec

T = TypeVar("T")


@dataclass(frozen=True)
class DatasetFacts:
    """What planning needs of the dataset's manifest."""

    digest: str
    """Of the dataset's manifest: it stands for every row. Empty where there is none yet."""
    num_rows: int
    num_tokens: int
    model_revision: str | None
    num_held_out: int | None = None
    """Held-out rows; None where there is no dataset yet."""
    row_tokens: int | None = None
    """Most tokens of a row; None where there is no dataset yet."""
    packed: bool | None = None
    """Whether conversations share rows; None where there is no dataset yet."""
    num_conversations: int | None = None
    """Conversations that are trained on in an epoch; None where it is not known."""
    longest_conversation: int | None = None
    """Tokens of the longest conversation, training or held out; None where it is not known."""


ROW_TOKENS_UNKNOWN = 1024
"""What a plan without data counts for `data.row_tokens: auto`, the least that packed rows get."""
NO_DATASET = DatasetFacts(digest="", num_rows=0, num_tokens=0, model_revision=None)


@dataclass(frozen=True)
class Machine:
    """What planning knows of a machine: the one it runs on, or that trains."""

    flags: frozenset[str] = frozenset()
    """precision.py"""
    memory_bytes: int | None = None
    num_cores: int = 1


@dataclass(frozen=True)
class Decided:
    """What follows from spec, model and hardware before any row is counted."""

    architecture: Architecture
    hardware: Hardware
    precision: Precision
    why_precision: str
    setting: Setting
    choice: Choice
    asks_for_router_loss: bool
    """config.json adds the router's auxiliary loss to the model's (`output_router_logits`)."""
    packing: RowPacking
    attention: AttentionChoice
    output_layer: OutputLayerChoice
    quantization: QuantizationChoice
    known: tuple[ModelFamily, KnownModel] | None
    """What the registry tells of the model, by its source or by the name that its config.json was
    saved under."""


def check_spec(spec: RunSpec, config: Mapping[str, Any], machine: Machine) -> None:
    """Raises HaganeError with all that is wrong with model, LoRA targets, row length, packing,
    batch sizes, job and hardware, or with what does not fit it."""
    decide(spec, config, machine, NO_DATASET)


def decide(
    spec: RunSpec, config: Mapping[str, Any], machine: Machine, dataset: DatasetFacts
) -> Decided:
    """Raises HaganeError as `check_spec`, or when the dataset's rows are not as the model needs
    them."""
    problems: list[str] = []
    packing = _collect(problems, lambda: _packing(spec, config, dataset))
    # A type that cannot be trained often cannot be built either, and building takes seconds.
    architecture = (
        None if untrainable(config) else _collect(problems, lambda: architecture_of(config))
    )
    targets = (
        None if architecture is None else _collect(problems, lambda: _targets(spec, architecture))
    )
    quantization = (
        None
        if architecture is None
        else _collect(problems, lambda: choose_quantization(spec, config, architecture))
    )
    _collect(problems, lambda: _check_row_tokens(spec, config))
    settings = _collect(problems, lambda: settle(spec, machine))
    if problems or architecture is None or targets is None or settings is None or packing is None:
        raise HaganeError(*problems)
    assert quantization is not None  # or there is a problem
    hardware, precision, why = settings
    precision, why = precision_of_model(precision, why, architecture.model_type)
    if precision == "fp16" and spec.zero.stage == 0:
        raise SpecError(
            "zero.stage: found 0, allowed 1, 2 or 3 in fp16, whose loss DeepSpeed scales only with "
            "ZeRO. Fix: set zero.stage: 1, or auto"
        )
    row_tokens = row_tokens_of(spec, dataset, config)
    longest_row = _longest_row(dataset, row_tokens)
    on_gpu = hardware.gpu_bytes is not None
    attention = choose_attention(
        spec.training.attention,
        config,
        packed=packing.packed,
        on_gpu=on_gpu,
        row_tokens=longest_row,
        precision=precision,
    )
    output_layer = choose_output_layer(
        spec.training.output_layer,
        config,
        full=spec.training.method == "full",
        on_gpu=on_gpu,
        tokens=longest_row
        * (1 if spec.training.micro_batch == "auto" else spec.training.micro_batch),
        hidden_size=architecture.hidden_size,
        weight_bytes=WEIGHT_BYTES[precision],
        label_smoothing=spec.training.label_smoothing,
    )
    setting = Setting(
        zero=spec.zero,
        full=spec.training.method == "full",
        targets=targets,
        rank=spec.lora.rank,
        weight_bytes=WEIGHT_BYTES[precision],
        row_tokens=longest_row,
        mean_row_tokens=_mean_row_tokens(dataset, row_tokens),
        global_batch=spec.training.global_batch,
        micro_batch=None if spec.training.micro_batch == "auto" else spec.training.micro_batch,
        checkpointing=spec.training.gradient_checkpointing,
        loss_chunk_tokens=output_layer.chunk_tokens,
        masked_attention=attention.masked,
        fp16=precision == "fp16",
        on_gpu=on_gpu,
        num_quantized=quantization.num_quantized,
        largest_quantized=quantization.largest_quantized,
    )
    known = known_model(spec.model.source) or known_model(str(config.get("_name_or_path")))
    asks_for_router_loss = bool(architecture.experts) and bool(
        config.get("output_router_logits", False)
    )
    choice = choose(architecture, setting, hardware)
    return Decided(
        architecture,
        hardware,
        precision,
        why,
        setting,
        choice,
        asks_for_router_loss,
        packing,
        attention,
        output_layer,
        quantization,
        known,
    )


def settle(spec: RunSpec, machine: Machine) -> tuple[Hardware, Precision, str]:
    """What the spec says that needs no model: hardware, number format and why. Raises HaganeError
    with all that is wrong with these, the job and the batch sizes."""
    problems: list[str] = []
    machine = machine_that_trains(spec, machine)
    _collect(problems, lambda: check_job(spec))
    hardware = _collect(
        problems,
        lambda: hardware_of(
            spec.hardware, machine_bytes=machine.memory_bytes, has_gpu="cuda" in machine.flags
        ),
    )
    micro_batch = 1 if spec.training.micro_batch == "auto" else spec.training.micro_batch
    _collect(problems, lambda: _grad_accum(spec, micro_batch))
    chosen = (
        None
        if hardware is None
        else _collect(problems, lambda: _precision(spec, machine, hardware))
    )
    if problems or hardware is None or chosen is None:
        raise HaganeError(*problems)
    return hardware, *chosen


def machine_that_trains(spec: RunSpec, planner: Machine) -> Machine:
    """The one that plans, or of a cluster's nodes what the spec says: a plan of the same run is the
    same wherever it is made."""
    if spec.backend == "local":
        return planner
    return Machine(num_cores=max(1, int(spec.cluster.cpus or spec.hardware.processes_per_node)))


def _precision(spec: RunSpec, machine: Machine, hardware: Hardware) -> tuple[Precision, str]:
    asked, has_bf16 = spec.training.precision, hardware.device is None or hardware.device.bf16
    if spec.backend != "local" and hardware.gpu is None:
        unknown = (
            "training.precision is auto, and what processors the cluster's nodes have is not "
            "known; set bf16 where they compute it"
        )
        return ("fp32", unknown) if asked == "auto" else (asked, "as training.precision asks")
    return choose_precision(asked, machine.flags, gpu=hardware.gpu, gpu_has_bf16=has_bf16)


def _collect(problems: list[str], check: Callable[[], T]) -> T | None:
    try:
        return check()
    except HaganeError as error:
        problems.extend(error.problems)
        return None


def _targets(spec: RunSpec, architecture: Architecture) -> Targets:
    """Raises ModelError as `lora_targets`, or with all that LoRA of experts does not allow."""
    targets = lora_targets(spec.lora.targets, architecture)
    if spec.training.method != "lora" or not targets.parameters:
        return targets
    problems: list[str] = []
    if spec.lora.dropout:
        problems.append(
            f"lora.dropout: got {spec.lora.dropout}, must be 0 where experts are trained, as PEFT "
            "has none for 3-D parameters; set lora.dropout: 0, or lora.targets: attention"
        )
    if spec.export.merge is True:
        problems.append(
            "export.merge: found true, allowed auto or false where experts are trained, whose "
            "adapter cannot be merged. Fix: set export.merge: false, or lora.targets: attention"
        )
    if problems:
        raise ModelError(*problems)
    return targets


def _check_row_tokens(spec: RunSpec, config: Mapping[str, Any]) -> None:
    known, asked = known_positions(config), spec.data.row_tokens
    if known is not None and asked != "auto" and asked > known[1]:
        raise ModelError(
            f"data.row_tokens: got {asked}, the model's {known[0]} allows at most {known[1]}"
        )


def row_tokens_of(spec: RunSpec, dataset: DatasetFacts, config: Mapping[str, Any]) -> int:
    """Most tokens of a row. Where auto is not decided yet, for want of data, ROW_TOKENS_UNKNOWN, as
    far as the model knows positions."""
    if spec.data.row_tokens != "auto":
        return spec.data.row_tokens
    known = known_positions(config)
    return dataset.row_tokens or min(ROW_TOKENS_UNKNOWN, known[1] if known else ROW_TOKENS_UNKNOWN)


def _packing(spec: RunSpec, config: Mapping[str, Any], dataset: DatasetFacts) -> RowPacking:
    """Raises ModelError as `row_packing`; DataError when the dataset's rows are of the other kind,
    as an older hagane made them."""
    packing = row_packing(spec.data.packing, config, spec.training.attention)
    if dataset.packed not in (None, packing.packed):
        rows = "packed rows" if dataset.packed else "one conversation a row"
        raise DataError(
            f"dataset: found {rows}, allowed data.packing {str(packing.packed).lower()}, since "
            f"{packing.reason}. Fix: prepare it again, in a run of another name"
        )
    return packing


def _longest_row(dataset: DatasetFacts, row_tokens: int) -> int:
    """Packed rows are taken to be full."""
    if dataset.packed is False and dataset.longest_conversation is not None:
        return dataset.longest_conversation
    return row_tokens


def _mean_row_tokens(dataset: DatasetFacts, row_tokens: int) -> float:
    return dataset.num_tokens / dataset.num_rows if dataset.packed is False else row_tokens


def _num_processes(spec: RunSpec) -> int:
    return spec.hardware.num_nodes * spec.hardware.processes_per_node


def _grad_accum(spec: RunSpec, micro_batch: int) -> int:
    return grad_accum_steps(
        global_batch=spec.training.global_batch,
        micro_batch=micro_batch,
        num_processes=_num_processes(spec),
    )


def make_plan(
    spec: RunSpec, dataset: DatasetFacts, config: Mapping[str, Any], *, machine: Machine
) -> Plan:
    """The whole plan. Raises HaganeError as `check_spec` does, or when `drop_last` leaves nothing
    to train."""
    training, decided = spec.training, decide(spec, config, machine, dataset)
    architecture, choice = decided.architecture, decided.choice
    trains = machine_that_trains(spec, machine)
    num_cores = trains.num_cores
    batching = Batching(
        num_processes=_num_processes(spec),
        micro_batch=choice.micro_batch,
        grad_accum=_grad_accum(spec, choice.micro_batch),
        epochs=training.epochs,
        drop_last=training.drop_last,
        max_steps=training.max_steps,
    )
    steps = plan_steps(
        dataset.num_rows,
        batching,
        warmup_share=training.warmup_share,
        num_tokens=dataset.num_tokens,
    )
    lora = lora_plan(spec.lora, decided.setting.targets) if training.method == "lora" else None
    num_trainable = decided.setting.num_trainable(architecture)
    rate = choose_learning_rate(spec, architecture.num_parameters)
    work = Work(
        architecture, decided.setting, decided.hardware, choice.zero, steps, num_cores, trains.flags
    )
    step = step_time(work)
    checkpoints = plan_checkpoints(
        spec,
        choice.zero,
        steps,
        precision=decided.precision,
        num_trainable=num_trainable,
        vocabulary=architecture.vocabulary,
        step=step,
    )
    row_tokens = row_tokens_of(spec, dataset, config)
    num_held_out = held_out_rows(spec, dataset)
    after = plan_after(
        spec,
        architecture,
        decided.hardware,
        num_held_out=num_held_out,
        row_tokens=row_tokens,
        mean_row_tokens=decided.setting.mean_row_tokens,
        num_cores=num_cores,
    )
    price, upload = spec.hardware.price_per_gpu_hour, upload_seconds(checkpoints.node_bytes, spec)
    time = (
        None
        if step is None
        else estimate(step, work, upload_seconds=upload, price_per_gpu_hour=price)
    )
    if time is not None:
        time = time.model_copy(update={"currency": spec.hardware.currency})
    plan = Plan(
        run=spec.name,
        method=training.method,
        precision=decided.precision,
        fp32_gradient_sums=sums_in_fp32(
            choice.zero, weight_bytes=decided.setting.weight_bytes, grad_accum=steps.grad_accum
        ),
        router_loss="left out" if decided.asks_for_router_loss else "none",
        attention=decided.attention.implementation,
        loss_chunk_tokens=decided.output_layer.chunk_tokens,
        packed=decided.packing.packed,
        num_trainable=num_trainable,
        learning_rate=rate.peak,
        training_digest=training_digest(spec, dataset, decided.precision, learning_rate=rate.peak),
        model=ModelPlan(
            source=spec.model.source,
            revision=dataset.model_revision,
            model_type=architecture.model_type,
            num_parameters=architecture.num_parameters,
            largest_layer_parameters=architecture.largest_layer_parameters,
            quantization=decided.quantization.kind,
            num_quantized=decided.quantization.num_quantized,
        ),
        threads_per_process=threads_per_process(spec, num_cores),
        zero=choice.zero,
        steps=steps,
        lora=lora,
        checkpoints=checkpoints,
        verdict=verdict(spec, decided, steps, time),
        cautions=(
            *choice.cautions,
            *job_cautions(spec),
            *config_cautions(config),
            *rate.cautions,
            *model_cautions(spec, decided),
            *step_cautions(spec, steps, row_tokens=row_tokens),
            *_row_cautions(spec, dataset),
            *after_cautions(spec, after),
        ),
        memory=MemoryPlan(
            gpu=choice.memory.gpu,
            host=choice.memory.host,
            transient=choice.memory.transient,
            gpu_limit=decided.hardware.gpu_bytes,
            host_limit=decided.hardware.host_bytes,
            margin=decided.hardware.margin,
            options=choice.options,
        ),
        time=time,
        hardware=hardware_plan(decided.hardware, decided.precision),
        after=after,
        reasons=reasons(spec, decided, steps, lora)
        | quantization_reasons(decided.quantization)
        | {"threads_per_process": why_threads(spec, num_cores), "learning_rate": rate.reason}
        | _reader_reasons(spec, dataset, steps, batching)
        | checkpoint_reasons(spec, checkpoints, step)
        | after_reasons(spec, after, num_held_out=num_held_out),
    )
    files = rendered_files(spec, plan, hidden_size=architecture.hidden_size)
    return plan.model_copy(update={"reasons": plan.reasons | file_reasons(files)})


def _reader_reasons(
    spec: RunSpec, dataset: DatasetFacts, steps: StepPlan, batching: Batching
) -> dict[str, str]:
    """What packed rows come to in conversations, as the data's owner counts."""
    if not dataset.packed or dataset.num_conversations is None:
        return {}
    alone = plan_steps(
        dataset.num_conversations,
        batching,
        warmup_share=spec.training.warmup_share,
        num_tokens=dataset.num_tokens,
    )
    return {"steps.num_rows": rows_in_conversations(dataset.num_conversations, steps, alone)}


def _row_cautions(spec: RunSpec, dataset: DatasetFacts) -> Iterator[str]:
    if spec.data.row_tokens == "auto" and dataset.row_tokens is None:
        yield (
            "data.row_tokens: auto is decided by the data, which was not read: this plan counts "
            f"{ROW_TOKENS_UNKNOWN:,} tokens a row"
        )


def held_out_rows(spec: RunSpec, dataset: DatasetFacts) -> int:
    """Held-out rows; without a dataset, the share of all rows that is set aside."""
    if not spec.data.holds_out:
        return 0
    share = spec.data.held_out_share
    return (
        max(1, round(dataset.num_rows * share / (1 - share)))
        if dataset.num_held_out is None
        else dataset.num_held_out
    )


def hardware_plan(hardware: Hardware, precision: Precision) -> HardwarePlan:
    device = hardware.device
    tflops = None
    if device is not None:
        tflops = device.fp32_tflops if precision == "fp32" else device.half_tflops
    return HardwarePlan(
        num_nodes=hardware.num_nodes,
        processes_per_node=hardware.processes_per_node,
        gpu=hardware.gpu,
        tflops=tflops,
        link_gb_s=None if device is None else device.link_gb_s,
        network_gb_s=hardware.network_gb_s,
    )


def lora_plan(asked: LoraSpec, targets: Targets) -> LoraPlan:
    return LoraPlan(
        rank=asked.rank,
        alpha=asked.alpha,
        rslora=asked.rslora,
        dropout=asked.dropout,
        target_modules=targets.modules,
        target_parameters=targets.parameters,
        exclude_modules=targets.exclude,
        fan_in_fan_out=targets.fan_in_fan_out,
    )


def training_digest(
    spec: RunSpec, dataset: DatasetFacts, precision: Precision, *, learning_rate: float
) -> str:
    """sha256, in hex, of all that the losses follow from: the spec but for how the work is done,
    where, and what comes after it."""
    asked = spec.model_dump(mode="json", exclude={"name", "store", "backend", "evaluation"})
    for field in HOW_NOT_WHAT:
        section, _, key = field.partition(".")
        if key:
            del asked[section][key]
        else:
            del asked[section]
    asked["training"]["lr_peak"] = learning_rate
    return hashlib.sha256(
        json.dumps([asked, dataset.digest, precision], sort_keys=True).encode()
    ).hexdigest()
