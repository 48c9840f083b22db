"""A run of its own for the check: a random model of 10M parameters, one row many times, and a plan
for them.

It is trained by `components.train` itself, with the precision, ZeRO stage, offload, optimizer and
settings of the plan that is checked. So what is tried is what the run will do, on a model that
loads in seconds.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from components.shared.documents.gpu_check import CheckRequest
from components.shared.documents.plan import CheckpointPlan, LoraPlan, ModelPlan, Plan, StepPlan
from components.shared.documents.prompts import PROMPTS, Prompt, Prompts, base_files
from components.shared.documents.tokenizer_sample import (
    AS_WRITTEN,
    TOKENIZER_SAMPLE,
    TokenizerSample,
)
from components.shared.spec.file import parse_spec, spec_yaml
from components.shared.store.layout import CHECKPOINTS, DATASET, PLAN, SPEC, manifest_key
from components.shared.store.manifest import publish_folder
from components.shared.store.storage import LocalStore

WIDTH, INNER, LAYERS, VOCABULARY = 256, 688, 8, 8192
ROW_TOKENS = 128
STEPS = 4
"""Of one start: the first brings kernels and buffers into being, three are timed."""
LEARNING_RATE = 1e-3
LORA_TARGETS = ("q_proj", "v_proj")


@dataclass(frozen=True)
class SmallRun:
    """The run's folder and base model below `folder`; it is trained by `processes`, then by
    fewer."""

    folder: Path
    processes: int

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.folder / "runs" / "gpu-check")

    @property
    def uri(self) -> str:
        return str(self.folder / "runs" / "gpu-check")

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def fewer(self) -> int:
        """Half of the processes; one where there is one."""
        if self.processes % 2 == 0:
            return self.processes // 2
        return 1

    def history(self) -> dict[str, Any]:
        """Of the last start; empty where none has finished."""
        path = Path(self.uri, CHECKPOINTS, "history.json")
        if path.exists():
            return json.loads(path.read_text())
        return {}


def make_small_run(request: CheckRequest, folder: Path, *, processes: int) -> SmallRun:
    """dataset/, plan/ and the base model are there, for a first start by `processes`."""
    run = SmallRun(folder, processes)
    num_parameters = write_base(run.base)
    spec = parse_spec(
        {
            "name": "gpu-check",
            "store": str(folder / "runs"),
            "model": {"source": str(run.base)},
            "data": {"train": "none.jsonl", "row_tokens": ROW_TOKENS},
            "training": {
                "epochs": 2,
                "global_batch": processes,
                "micro_batch": 1,
                "method": request.plan.method,
            },
        }
    )
    run.store.write_bytes(SPEC, spec_yaml(spec).encode())
    write_dataset(run, num_rows=STEPS * processes)
    write_plan(run, request, num_parameters=num_parameters, epochs=1)
    return run


def plan_resume(run: SmallRun, request: CheckRequest) -> None:
    """plan/ is for one more epoch, by fewer processes."""
    num_parameters = sum(parameter.numel() for parameter in small_model().parameters())
    run.store.delete(manifest_key(CHECKPOINTS))
    write_plan(run, request, num_parameters=num_parameters, epochs=2)


def small_model() -> LlamaForCausalLM:
    config = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=VOCABULARY,
        max_position_embeddings=ROW_TOKENS,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def write_base(folder: Path) -> int:
    """The model is in `folder`. Returns its number of parameters: 10.5 million."""
    logging.disable_progress_bar()
    model = small_model()
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def write_dataset(run: SmallRun, *, num_rows: int) -> None:
    """Rows that are all the same, so that four steps lower the loss of a model that learns at
    all."""
    tokens = list(range(7, 7 + ROW_TOKENS))
    row = {"input_ids": tokens, "labels": tokens, "lengths": [ROW_TOKENS]}
    local = run.folder / "dataset"
    local.mkdir()
    pq.write_table(pa.Table.from_pylist([row] * num_rows), local / "train.parquet")
    pq.write_table(pa.Table.from_pylist([row]), local / "held_out.parquet")
    prompt = Prompt(text="", token_ids=tuple(tokens[:8]), probe_length=8, ends_turn=False)
    prompts = Prompts(
        chat_template="", end_token_ids=(2,), base_files=base_files(run.base), prompts=(prompt,)
    )
    (local / PROMPTS).write_text(prompts.model_dump_json())
    sample = TokenizerSample(tokenizer_class=AS_WRITTEN[0], texts=())
    (local / TOKENIZER_SAMPLE).write_text(sample.model_dump_json())
    publish_folder(
        run.store, DATASET, local, made_by="gpu_check", inputs={}, facts={"num_rows": num_rows}
    )


def write_plan(run: SmallRun, request: CheckRequest, *, num_parameters: int, epochs: int) -> None:
    """plan/ is for training until the end of epoch 1 by all processes, or of epoch 2 by fewer."""
    if epochs == 1:
        processes = run.processes
    else:
        processes = run.fewer
    accum, precision = run.processes // processes, request.plan.precision
    plan = small_plan(run, request, num_parameters=num_parameters, epochs=epochs)
    deepspeed = request.deepspeed | {
        "train_batch_size": run.processes,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accum,
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {**request.deepspeed.get("fp16", {}), "enabled": precision == "fp16"},
        "communication_data_type": precision,
    }
    arguments = request.training_args | {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": accum,
        "num_train_epochs": epochs,
        "max_steps": -1,
        "warmup_steps": 0,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
    }
    local = run.folder / "plan"
    shutil.rmtree(local, ignore_errors=True)
    local.mkdir()
    (local / "plan.json").write_text(plan.model_dump_json())
    (local / "deepspeed.json").write_text(json.dumps(deepspeed))
    (local / "training_args.json").write_text(json.dumps(arguments))
    if plan.lora is not None:
        (local / "lora.json").write_text(json.dumps(plan.lora.peft_config))
    publish_folder(run.store, PLAN, local, made_by="gpu_check", inputs={}, facts={})


def small_plan(run: SmallRun, request: CheckRequest, *, num_parameters: int, epochs: int) -> Plan:
    asked = request.plan
    if epochs == 1:
        processes = run.processes
    else:
        processes = run.fewer
    if asked.lora is None:
        rank = 8
    else:
        rank = asked.lora.rank
    num_lora = LAYERS * len(LORA_TARGETS) * rank * 2 * WIDTH
    if asked.method == "full":
        num_trainable = num_parameters
    else:
        num_trainable = num_lora
    bytes_each = 16 * num_parameters
    steps = StepPlan(
        num_rows=STEPS * run.processes,
        num_processes=processes,
        micro_batch=1,
        grad_accum=run.processes // processes,
        global_batch=run.processes,
        steps_per_epoch=STEPS,
        total_steps=STEPS * epochs,
        warmup_steps=0,
        save_steps=tuple(STEPS * epoch for epoch in range(1, epochs + 1)),
        tokens_per_epoch=STEPS * run.processes * ROW_TOKENS,
        tokens_total=STEPS * run.processes * ROW_TOKENS * epochs,
    )
    return asked.model_copy(
        update={
            "run": "gpu-check",
            "packed": True,
            "router_loss": "none",
            "num_trainable": num_trainable,
            "training_digest": "0" * 64,
            "model": ModelPlan(
                source=str(run.base),
                revision=None,
                model_type="llama",
                num_parameters=num_parameters,
                largest_layer_parameters=VOCABULARY * WIDTH,
                num_embeddings=VOCABULARY,
            ),
            "steps": steps,
            "lora": None
            if asked.method == "full"
            else LoraPlan(rank=rank, alpha=rank, dropout=0.0, target_modules=LORA_TARGETS),
            "checkpoints": CheckpointPlan(
                bytes_each=bytes_each,
                num_kept=epochs,
                bytes_total=bytes_each * epochs,
                node_bytes=bytes_each,
                work_bytes=2 * bytes_each,
                saves_on_sigterm=False,
            ),
        }
    )
