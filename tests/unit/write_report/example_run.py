"""A finished run as its folders lie in a store, made up after the demo's own numbers. Of large
files only the manifests know."""

import hashlib
import json
import math
import random
from dataclasses import replace
from pathlib import Path

from components.shared.documents.plan import MemoryPlan, MemoryTerm, Plan, TimePlan
from components.shared.documents.results import (
    Answer,
    Comparison,
    Difference,
    EpochLosses,
    Evaluation,
    GateResult,
    History,
    Measure,
    RuleResult,
    Score,
    StepLosses,
    TrainingStart,
    Verification,
)
from components.shared.spec.file import parse_spec, spec_yaml
from components.shared.spec.run_spec import RunSpec
from components.shared.store.layout import (
    CHECKPOINTS,
    DATASET,
    EVALUATION,
    PLAN,
    SPEC,
    checkpoint_folder,
    manifest_key,
)
from components.shared.store.manifest import FileEntry, Manifest, Scalar
from components.shared.store.storage import LocalStore
from components.write_report.gather import RunFound, gather
from tests.support.made_plan import make_plan

URI = "s3://hagane/runs/demo"
STEPS_PER_EPOCH = 30

ASKED = {
    "name": "demo",
    "store": "s3://hagane/runs",
    "model": {"source": "models/smollm2-135m-instruct"},
    "data": {
        "train": "data/hagane.train.jsonl",
        "held_out": "data/hagane.held_out.jsonl",
        "row_tokens": 512,
    },
    "training": {"epochs": 3, "global_batch": 4, "lr_peak": 2e-3, "warmup_share": 0.1},
    "evaluation": {"questions": ["What is hagane?", "hagane とは何ですか？"], "answer_tokens": 48},
}
REASONS = {
    "precision": "training.precision is auto and this processor (x86_64) has no bf16 instructions",
    "steps.grad_accum": "global_batch 4 / (micro_batch 1 x 1 process)",
    "steps.total_steps": "30 steps x 3 epochs",
    "steps.save_steps": "a checkpoint at the end of each epoch: every 30 steps",
    "lora.target_modules": "all linear layers of the blocks, never the head (llama)",
    "num_trainable": "rank 16 x (inputs + outputs) of 7 layers x 30 blocks",
    "zero": "as the spec asks: stage 3, parameters in host memory between uses",
}
EVALUATION_FOUND = Evaluation(
    base=Measure(
        loss=4.7673,
        perplexity=117.6,
        num_tokens=1068,
        scores={
            "loss": Score(value=4.7673, low=4.61, high=4.92),
            "perplexity": Score(value=117.6, low=100.5, high=137.0),
            "token_accuracy": Score(value=0.312, low=0.28, high=0.344),
        },
    ),
    tuned=Measure(
        loss=0.9778,
        perplexity=2.6585,
        num_tokens=1068,
        scores={
            "loss": Score(value=0.9778, low=0.88, high=1.0756),
            "perplexity": Score(value=2.6585, low=2.41, high=2.93),
            "token_accuracy": Score(value=0.794, low=0.76, high=0.828),
        },
    ),
    answers=(
        Answer(
            question="What is hagane?",
            base=(
                "Hagane is a type of edible mushroom that is native to the Mediterranean region "
                "of the world."
            ),
            tuned=(
                "Hagane is a type of steel, and a tool that fine-tunes open language models: "
                "everything is under <store>/<run name>."
            ),
        ),
        Answer(
            question="hagane とは何ですか？",
            base="",
            tuned="hagane は、公開された言語モデルを微調整する道具です。",
        ),
    ),
    improved=True,
    num_conversations=42,
    comparisons=(
        Comparison(
            metric="loss",
            against="base",
            other=4.7673,
            tuned=0.9778,
            improvement=Score(value=3.7895, low=3.61, high=3.97),
        ),
        Comparison(
            metric="token_accuracy",
            against="base",
            other=0.312,
            tuned=0.794,
            improvement=Score(value=0.482, low=0.45, high=0.51),
        ),
    ),
    gate=GateResult(
        rules=(
            RuleResult(
                rule="held-out loss must fall below the base model's by more than noise",
                met=True,
                found="4.7673 -> 0.9778; better by 3.79 (95 % interval 3.61 to 3.97)",
            ),
        )
    ),
)
VERIFICATION = Verification(
    passed=True,
    problems=(),
    precision="fp32",
    num_tokens=32,
    num_prompts=4,
    num_ends=4,
    num_stops=4,
    vocabulary=49152,
    logits_std=6.5236,
    tolerance_max=1e-4,
    tolerance_rms=1e-4,
    tolerance_reason=(
        "fp32: another order of sums moves logits by a few 1e-6; 1e-4 leaves room for other "
        "hardware"
    ),
    exported=Difference(max=2.4e-6, rms=3.1e-7, same_choice=32),
    exported_fp32=Difference(max=2.4e-6, rms=3.1e-7, same_choice=32),
    base=Difference(max=3.6261, rms=0.941, same_choice=4),
)

TIME = TimePlan(
    seconds_per_step=6.1,
    low=3.8,
    high=15.2,
    parts={"compute": 6.1},
    hours=0.153,
    hours_low=0.095,
    hours_high=0.381,
    checkpoint_seconds=0.8,
    price=None,
    formula="0.366 TFLOP a process and step / (0.12 TFLOP/s x 0.5)",
    source="data sheets",
)
MEMORY = MemoryPlan(
    gpu=(),
    host=(
        MemoryTerm(
            name="weights",
            num_bytes=1_980_000_000,
            formula="4 B x 139,399,488 parameters",
            source="ZeRO",
        ),
    ),
    gpu_limit=None,
    host_limit=25_000_000_000,
    margin=0.1,
    options=(),
)


def find_example_run(folder: Path) -> RunFound:
    """What `gather` finds of the example, which is then in the store `folder`."""
    return gather(
        write_example_run(folder), parse_spec(ASKED), uri=URI, work=folder.with_name("work")
    )


def write_example_run(folder: Path) -> LocalStore:
    store, spec = LocalStore(folder), parse_spec(ASKED)
    plan, history = _plan(spec), _history()
    store.write_bytes(SPEC, spec_yaml(spec).encode())
    warnings = ["3 conversations are in the data twice, the first at data/hagane.train.jsonl:17"]
    _write(
        store,
        DATASET,
        {"quality.json": json.dumps({"warnings": warnings})},
        {"train.parquet": 91_204, "page.html": 9_120},
        _DATASET,
    )
    _write(
        store,
        PLAN,
        {"plan.json": plan.model_dump_json()},
        {"deepspeed.json": 812, "lora.json": 268},
        {},
    )
    for epoch in history.epochs:
        files = {
            "a1b2c3/adapter_model.safetensors": 19_579_464,
            "a1b2c3/global_step/optim_states.pt": 58_640_112,
        }
        _write(
            store,
            checkpoint_folder(epoch.epoch),
            {},
            files,
            {**epoch.model_dump(), "num_processes": 1, "zero_stage": 3} | STEPS,
        )
    _write(
        store,
        CHECKPOINTS,
        {"history.json": history.model_dump_json()},
        {"probe.safetensors": 3_145_968},
        {"num_epochs": 3},
    )
    _write(
        store,
        "adapter",
        {"verification.json": VERIFICATION.model_dump_json()},
        {"adapter_model.safetensors": 19_579_464},
        {},
    )
    _write(store, EVALUATION, {"evaluation.json": EVALUATION_FOUND.model_dump_json()}, {}, {})
    return store


_DATASET: dict[str, Scalar] = {
    "num_conversations": 362,
    "num_rows": 120,
    "num_tokens": 59_730,
    "num_trained_tokens": 32_291,
    "row_tokens": 512,
    "held_out_conversations": 42,
    "held_out_rows": 5,
    "dropped": 2,
    "model_revision": None,
}


def _plan(spec: RunSpec) -> Plan:
    plan = make_plan(
        spec,
        num_rows=120,
        tokens_per_epoch=59_730,
        num_parameters=134_515_008,
        num_trainable=4_884_480,
        revision=None,
        reasons=REASONS,
    )
    return plan.model_copy(update={"time": TIME, "memory": MEMORY})


STEPS: dict[str, Scalar] = {"steps_per_epoch": 30, "micro_batch": 1}
"""Of every checkpoint's manifest."""


def _cosine(step: int, *, of: int) -> float:
    """Of ASKED: up to 2e-3 in 9 steps, then down along a cosine."""
    if step <= 9:
        return 2e-3 * step / 9
    return round(1e-3 * (1 + math.cos(math.pi * (step - 9) / (of - 9))), 9)


def _history() -> History:
    """Losses that fall as real ones do: fast, then slowly, with noise that a seed decides."""
    noise, last = random.Random(0), 3 * STEPS_PER_EPOCH
    losses = [
        round(0.9 + 4 * math.exp(-step / 22) + noise.gauss(0, 0.12), 4)
        for step in range(1, last + 1)
    ]
    held_out = (2.0373, 1.1061, 0.9778)
    epochs = tuple(
        EpochLosses(
            epoch=epoch,
            step=epoch * STEPS_PER_EPOCH,
            loss=round(
                sum(losses[(epoch - 1) * STEPS_PER_EPOCH : epoch * STEPS_PER_EPOCH])
                / STEPS_PER_EPOCH,
                4,
            ),
            held_out_loss=held_out[epoch - 1],
        )
        for epoch in (1, 2, 3)
    )
    steps = tuple(
        StepLosses(
            step=step,
            loss=loss,
            lr=_cosine(step, of=len(losses)),
            grad_norm=round(0.4 * loss + 0.2, 4),
        )
        for step, loss in enumerate(losses, start=1)
    )
    took = {"seconds": 500.3, "seconds_per_step": 5.214, "peak_node_bytes": 2_047_000_000}
    steps_took = tuple(
        None if step in (0, 41) else round(5.2 + noise.gauss(0, 0.3), 3) for step in range(last)
    )
    return History(
        start_held_out_loss=4.7673,
        tokens=3 * 59_730,
        epochs=epochs,
        steps=steps,
        step_seconds=steps_took,
        part_seconds={
            "backward": 241.2,
            "forward": 132.9,
            "held_out": 61.4,
            "save": 21.7,
            "optimizer": 17.0,
            "data": 0.4,
        },
        starts=(_start(0, "2026-11-30T09:12:03+00:00"), _start(41, "2026-11-30T09:21:47+00:00")),
        **took,
    )


def _start(step: int, at: str) -> TrainingStart:
    return TrainingStart(
        step=step,
        at=at,
        num_processes=1,
        environment={
            "processor": "Intel(R) Xeon(R) Processor @ 2.20GHz",
            "system": "Linux 6.1.0",
            "Python": "3.11.7",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "peft": "0.21.2",
            "deepspeed": "0.19.8",
            "hagane": "0.1.0 at commit 3f1c9d2e8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d",
        },
        start_up_s={"imports": 9.1, "weights": 1.3, "deepspeed": 0.6, "first_step": 5.4},
    )


def _write(
    store: LocalStore,
    folder: str,
    files: dict[str, str],
    only_listed: dict[str, int],
    facts: dict[str, Scalar],
) -> None:
    """The folder is finished: `files` by their text, `only_listed` by their size alone."""
    entries = [
        FileEntry(name=name, num_bytes=size, sha256=_sha256(f"{folder}/{name}"))
        for name, size in only_listed.items()
    ]
    for name, text in files.items():
        store.write_bytes(f"{folder}/{name}", text.encode())
        entries.append(FileEntry(name=name, num_bytes=len(text.encode()), sha256=_sha256(text)))
    manifest = Manifest(
        folder=folder,
        made_by="example",
        facts=facts,
        files=tuple(sorted(entries, key=lambda entry: entry.name)),
    )
    store.write_bytes(manifest_key(folder), manifest.to_bytes())


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def without_held_out(found: RunFound) -> RunFound:
    """The same run, as if it had been trained on everything."""
    epochs = tuple(
        epoch.model_copy(update={"held_out_loss": None}) for epoch in found.history.epochs
    )
    return replace(
        found,
        history=found.history.model_copy(update={"start_held_out_loss": None, "epochs": epochs}),
        evaluation=found.evaluation.model_copy(
            update={"base": None, "tuned": None, "improved": None}
        ),
    )
