"""The program in each training process: plan + dataset -> checkpoints. Started by torchrun,
configured by the run's folder."""

import argparse
import json
import os
import platform
import shutil
import sys
import traceback
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import components.train.model.early_imports  # noqa: F401  # isort: skip - before peft's importers
import deepspeed
import torch
import torch.distributed as dist
from transformers import TrainingArguments

from components.shared.documents.plan import Plan
from components.shared.documents.prompts import read_prompts
from components.shared.documents.results import History
from components.shared.errors import PeerLost, Preempted, RunFailed, SpaceError
from components.shared.job.endings import ANY_OTHER, ending_of
from components.shared.model.new_tokens import tokenizer_folder
from components.shared.model.source import resolve_planned_model
from components.shared.pickled import open_listed_classes_only
from components.shared.processes import end_with_parent
from components.shared.spec.run_spec import RunSpec
from components.shared.step import Log, open_run, step_log, work_folder
from components.shared.store.checkpoints import committed_checkpoints
from components.shared.store.layout import CHECKPOINTS, DATASET, PLAN
from components.shared.store.manifest import fetch_folder, require_manifest
from components.shared.store.patience import waits
from components.shared.store.storage import Store
from components.train.agreement import Agreement, ShortPatience
from components.train.checkpoints.commit import prune
from components.train.checkpoints.resume import AfterResume, Resume, fetch_resume, map_files
from components.train.checkpoints.saving import CheckpointSaver
from components.train.checkpoints.uploader import BackgroundUploads
from components.train.devices import device_problem, meet
from components.train.loop.boundary import Sigterm, StepBoundary
from components.train.loop.engine import (
    EngineSetup,
    SkippedSteps,
    build_without_a_step,
    leave_muon_uncompiled,
)
from components.train.loop.environment import NoteStart
from components.train.loop.finite import step_fault
from components.train.loop.parts import TimeParts
from components.train.loop.results import (
    EpochProbe,
    history_of,
    peak_memory,
    probe_logits,
    publish_results,
)
from components.train.loop.rows import PackedRows, unpack_rows
from components.train.loop.start_up import (
    EngineIsBuilt,
    FirstStep,
    HeldOutIsMeasured,
    RowsAreProved,
    StartUp,
    process_started,
)
from components.train.loop.tokens import check_template, check_tokens
from components.train.loop.trainer import HaganeTrainer, HeldOutLoss, Progress, held_out_loss
from components.train.model.apart import ProveRows, look_at
from components.train.model.attention import NAME as CONVERSATIONS
from components.train.model.attention import ConversationAttention
from components.train.model.loading import load_model
from components.train.model.output_layer import OutputLayer
from components.train.model.own_layers import OwnLayers

LOCAL_CHECKPOINTS, RESUME = "checkpoints", "resume"
"""Folders of this machine's work folder: checkpoints on their way to the store, and the one that
training resumes from."""


@dataclass(frozen=True)
class Job:
    """What every process of one start of the job agrees on."""

    run: str
    store: Store
    spec: RunSpec
    plan: Plan
    work: Path
    attempt: str
    resume: Resume | None
    """What to go on from, or None to begin."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="torchrun … -m components.train", description=__doc__)
    parser.add_argument(
        "run",
        metavar="RUN",
        help="URI of the run's folder; its dataset/ and plan/ must be finished",
    )
    run = parser.parse_args().run
    start_up = StartUp(process_started())
    start_up.end_of("imports")
    end_with_parent()
    open_listed_classes_only()
    with step_log("train") as log, waits(log):
        try:
            agreement = join_processes(planned(run))
            start_up.end_of("processes")
            leave_processes(agreement, train_or_stop(run, agreement, start_up, log))
        except (RuntimeError, MemoryError, OSError) as error:
            end_by_error(error, log)
            raise


def train_or_stop(run: str, agreement: Agreement, start_up: StartUp, log: Log) -> int:
    """Exit code of a training that is finished, or that SIGTERM stopped."""
    try:
        job = prepare_job(run, log)
        start_up.end_of("inputs")
        train(job, agreement, start_up, log)
    except Preempted as error:
        if dist.get_rank() == 0:
            log.error("failed", exit_code=error.exit_code, problems=error.lines)
        return error.exit_code
    return 0


def end_by_error(error: Exception, log: Log) -> None:
    """Ends this process as the table of endings says, at once: there is nobody to wait for, and a
    GPU that failed answers no more.

    Returns where the table does not know the error.
    """
    ending = ending_of(error)
    if ending == ANY_OTHER:
        return
    rank = int(os.environ["RANK"])
    found = (str(error).splitlines() or [type(error).__name__])[0]
    if ending.code == PeerLost.exit_code:
        log.warning("peer_lost", process_rank=rank, found=found)
    else:
        traceback.print_exception(error)
        problem = f"training: process rank {rank} on {platform.node()}: {found}: {ending.meaning}"
        log.error("failed", exit_code=ending.code, problems=[problem])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ending.code)


def planned(run: str) -> Plan:
    """The run's plan, as it is in the store: which devices the processes need must be known before
    they join."""
    store, _ = open_run(run)
    require_manifest(store, PLAN)
    return Plan.model_validate_json(store.read_bytes(f"{PLAN}/plan.json"))


def join_processes(plan: Plan) -> Agreement:
    """All processes of the job know each other, and each has the device that the plan counts on. On
    a CPU DeepSpeed must be set to use gloo before transformers asks it, and its shared-memory
    operator, which needs a compiler at run time, is not worth having there.

    Raises RunFailed and PeerLost as `meet`.
    """
    kept_until_joined = meet(device_problem(plan))
    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # pyright: ignore[reportAttributeAccessIssue]
        # DeepSpeed's name; without it, it starts numactl at each bucket of ZeRO-3.
        os.environ["LOCAL_SIZE"] = os.environ["LOCAL_WORLD_SIZE"]
        deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    else:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        deepspeed.init_distributed(dist_backend="nccl", verbose=False)
    del kept_until_joined
    build_without_a_step()
    leave_muon_uncompiled()
    return Agreement()


def leave_processes(agreement: Agreement, exit_code: int = 0) -> NoReturn:
    """Ends this process at once when all have arrived: gloo's threads may abort a normal exit
    (Python 3.11, torch 2.13)."""
    agreement.wait_for_all()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def prepare_job(run: str, log: Log) -> Job:
    """dataset/, plan/ and the checkpoint to resume from are on this machine, checked; all processes
    agree on the last."""
    store, spec = open_run(run)
    work = work_folder(run, "train")
    if int(os.environ["LOCAL_RANK"]) == 0:
        # An earlier try's files, where the folder outlives it; what counts is in the store.
        for leftover in (LOCAL_CHECKPOINTS, RESUME):
            shutil.rmtree(work / leftover, ignore_errors=True)
        for folder in (DATASET, PLAN):
            fetch_folder(store, folder, work / folder)
    dist.barrier()
    plan = Plan.model_validate_json((work / PLAN / "plan.json").read_bytes())
    check_space(work, plan)
    dist.barrier()  # before any process takes room
    if int(os.environ["LOCAL_RANK"]) == 0:
        for name in ("train", "held_out"):
            unpack_rows(work / DATASET / f"{name}.parquet")
    dist.barrier()
    # Needed at the end, so refused before training where they are not there.
    read_prompts(work / DATASET)
    if dist.get_world_size() != plan.steps.num_processes:
        raise RunFailed(
            f"training: {dist.get_world_size()} processes were started, the plan is for "
            f"{plan.steps.num_processes}"
        )
    resume = fetch_resume(store, plan, spec.resume, work / RESUME, log)
    attempt = [uuid.uuid4().hex[:12]]
    dist.broadcast_object_list(attempt, src=0)
    return Job(run, store, spec, plan, work, attempt[0], resume)


def check_space(work: Path, plan: Plan) -> None:
    """Raises SpaceError when this node has less room for checkpoints than the plan needs: in a
    cluster nobody could look before."""
    free, needed = shutil.disk_usage(work).free, plan.checkpoints.work_bytes
    if free < needed:
        raise SpaceError(
            f"HAGANE_WORK: {free / 1e9:.1f} GB are free in {work}, the plan's checkpoints need "
            f"{needed / 1e9:.1f} GB; free some, or give the workers a larger disk "
            "(cluster.work_claim)"
        )


def train(job: Job, agreement: Agreement, start_up: StartUp, log: Log) -> None:
    """checkpoints/ is finished: the last epoch is committed, the results are published."""
    spec, plan = job.spec, job.plan
    if plan.checkpoints.saves_on_sigterm:
        sigterm = Sigterm(spec.checkpoints.grace_seconds)
    else:
        sigterm = None
    arguments = training_arguments(job)
    base = resolve_planned_model(plan)
    prompts = read_prompts(job.work / DATASET)
    tokenizer = job.work / f"tokenizer-{os.environ['LOCAL_RANK']}"
    tokenizer = tokenizer_folder(base.folder, prompts.new_tokens, tokenizer)
    check_tokens(tokenizer, job.work / DATASET)
    check_template(tokenizer, prompts)
    start_up.end_of("tokenizer")
    if plan.lora is None:
        lora = None
    else:
        lora = json.loads((job.work / PLAN / "lora.json").read_bytes())
    seed, new_tokens = spec.training.seed, prompts.new_tokens
    model = load_model(base.folder, plan, lora=lora, seed=seed, new_tokens=new_tokens)
    start_up.end_of("weights")
    rows = PackedRows(job.work / DATASET / "train.parquet")
    smoothing = spec.training.label_smoothing
    trainer = new_trainer(model, arguments, rows, plan, label_smoothing=smoothing)
    own = trainer.own
    held_out = PackedRows(job.work / DATASET / "held_out.parquet")
    saver = CheckpointSaver(
        plan, attempt=job.attempt, uploads=BackgroundUploads(job.run, log), agreement=agreement
    )
    trainer.save = lambda: saver.save(trainer)

    def engine() -> Any:
        return trainer.model_wrapped

    def measure() -> float:
        ranks = {"process_rank": dist.get_rank(), "num_processes": dist.get_world_size()}
        return held_out_loss(engine(), own, held_out, agreement, **ranks)

    def probe() -> dict[str, torch.Tensor]:
        return probe_logits(engine(), own, prompts)

    steps = plan.steps
    boundary = StepBoundary(
        saver,
        plan,
        spec.checkpoints,
        sigterm=sigterm,
        agreement=agreement,
        log=log,
        fault=lambda: step_fault(trainer.record, engine()),
        last_good=lambda: last_committed(job.store),
    )
    trainer.add_callback(EngineIsBuilt(start_up))
    trainer.add_callback(TimeParts(trainer.times, engine))
    if job.resume is not None:
        trainer.add_callback(AfterResume(job.resume, engine, agreement, zero_stage=plan.zero.stage))
    trainer.add_callback(ShortPatience(plan.checkpoints.node_bytes))
    trainer.add_callback(EngineSetup(engine, seed=spec.training.seed))
    trainer.add_callback(SkippedSteps(engine, log))
    trainer.add_callback(ProveRows(lambda: look_at(trainer, rows), plan, agreement, log))
    trainer.add_callback(RowsAreProved(start_up))
    trainer.add_callback(NoteStart())
    if len(held_out):
        trainer.add_callback(HeldOutLoss(measure, log, stop=boundary.stop))
    trainer.add_callback(HeldOutIsMeasured(start_up))
    trainer.add_callback(FirstStep(start_up, log))
    epoch_probe = EpochProbe(probe, keep=saver.keep_probe)
    trainer.add_callback(epoch_probe)
    trainer.add_callback(Progress(steps.tokens_per_epoch / steps.steps_per_epoch, log))
    trainer.add_callback(boundary)
    map_files(when=job.resume is not None)
    trainer.train(resume_from_checkpoint=None if job.resume is None else str(job.resume.folder))
    assert trainer.state.max_steps == steps.total_steps, (
        f"planned {steps.total_steps} steps, made {trainer.state.max_steps}"
    )
    last_probe = epoch_probe.last()
    boundary.finish(trainer.state)
    peak = peak_memory()
    if dist.get_rank() == 0:
        history = history_of(
            trainer.state.log_history, plan, peak, num_skipped=engine().skipped_steps
        )
        publish(job, history, last_probe)


def new_trainer(
    model: Any,
    arguments: TrainingArguments,
    rows: PackedRows,
    plan: Plan,
    *,
    label_smoothing: float,
) -> HaganeTrainer:
    """As the plan says, for a run and for a probe of its steps. Raises ModelError where the model's
    code does not allow it."""
    if plan.lora is None:
        plus_ratio = 1.0
    else:
        plus_ratio = plan.lora.plus_ratio
    own = own_layers(model, plan, label_smoothing=label_smoothing)
    return HaganeTrainer(model, arguments, rows, own=own, plus_ratio=plus_ratio)


def own_layers(model: Any, plan: Plan, *, label_smoothing: float) -> OwnLayers:
    """Raises ModelError where the model's code does not allow what the plan says."""
    chunk_tokens = plan.loss_chunk_tokens
    return OwnLayers(
        output_layer=None
        if chunk_tokens is None
        else OutputLayer(model, chunk_tokens=chunk_tokens, label_smoothing=label_smoothing),
        attention=ConversationAttention(model) if plan.attention == CONVERSATIONS else None,
    )


def last_committed(store: Store) -> str | None:
    """The newest committed checkpoint, as people call it; None when there is none."""
    committed = committed_checkpoints(store)
    if committed:
        return committed[-1].title
    return None


def training_arguments(job: Job) -> TrainingArguments:
    """The plan's TrainingArguments and DeepSpeed config, with this machine's folder and device."""
    planned = json.loads((job.work / PLAN / "training_args.json").read_bytes())
    if "tensorboard" in planned["report_to"] and "://" not in job.run:
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", f"{job.run}/tensorboard")
    zero = json.loads((job.work / PLAN / "deepspeed.json").read_bytes())
    if job.resume is not None and job.resume.universal:
        zero["checkpoint"] = {"load_universal": True}
    return TrainingArguments(
        output_dir=str(job.work / LOCAL_CHECKPOINTS),
        deepspeed=zero,
        use_cpu=not torch.cuda.is_available(),
        **planned,
    )


def publish(job: Job, history: History, probe: dict[str, torch.Tensor]) -> None:
    """checkpoints/ is finished. Raises RunFailed when the last epoch's checkpoint is not
    committed."""
    total_steps = job.plan.steps.total_steps
    if not any(checkpoint.step == total_steps for checkpoint in committed_checkpoints(job.store)):
        raise RunFailed(
            f"{CHECKPOINTS}: step {total_steps}, the last, is not in the store; the same command "
            "stores it again"
        )
    # Again, for an upload that was killed between commit and removal.
    prune(job.store, job.spec.checkpoints.keep)
    local = work_folder(job.run, "results")
    publish_results(
        job.store, local, history=history, probe=probe, training=job.plan.training_digest
    )


if __name__ == "__main__":
    main()
