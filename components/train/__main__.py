"""The program in each training process: plan + dataset -> checkpoints. Started by torchrun, told everything by the run's folder."""

import argparse
import json
import os
import re
import shutil
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import deepspeed
import torch
import torch.distributed as dist
from transformers import TrainingArguments

from components.shared.checkpoints import committed_checkpoints
from components.shared.errors import PeerLost, Preempted, RunFailed, SpaceError
from components.shared.layout import CHECKPOINTS, DATASET, PLAN
from components.shared.manifest import fetch_folder
from components.shared.model_source import resolve_planned_model
from components.shared.patience import waits
from components.shared.pickled import open_listed_classes_only
from components.shared.plan import Plan
from components.shared.processes import end_with_parent
from components.shared.prompts import read_prompts
from components.shared.spec import RunSpec
from components.shared.step import Log, open_run, step_log, work_folder
from components.shared.storage import Store
from components.train.agreement import Agreement
from components.train.apart import ProveRows, look_at
from components.train.boundary import Sigterm, StepBoundary
from components.train.commit import prune
from components.train.engine import EngineSetup, SkippedSteps, build_without_a_step
from components.train.finite import step_fault
from components.train.model import load_model
from components.train.results import history_json, peak_memory, probe_logits, publish_results
from components.train.resume import AfterResume, Resume, fetch_resume
from components.train.rows import PackedRows, unpack_rows
from components.train.saving import CheckpointSaver
from components.train.tokens import check_template, check_tokens
from components.train.trainer import HaganeTrainer, HeldOutLoss, Progress, held_out_loss
from components.train.uploader import BackgroundUploads

PEER_LOST = r"[Cc]onnection (closed|reset) by peer|Broken pipe|gloo.*(Timed out|Read error|Write error|Connect error)"
LOCAL_CHECKPOINTS, RESUME = "checkpoints", "resume"
"""Folders of this machine's work folder: checkpoints on their way to the store, and the one that training resumes from."""


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
    parser.add_argument("run", metavar="RUN", help="URI of the run's folder; its dataset/ and plan/ must be finished")
    run = parser.parse_args().run
    end_with_parent()
    open_listed_classes_only()
    with step_log("train") as log, waits(log):
        try:
            join_processes()
            train(prepare_job(run, log), log)
        except Preempted as error:
            if dist.get_rank() == 0:
                log.error("failed", exit_code=error.exit_code, problems=error.lines)
            leave_processes(error.exit_code)
        except RuntimeError as error:
            if not peer_is_lost(error):
                raise
            log.warning("peer_lost", process_rank=int(os.environ["RANK"]), found=str(error).splitlines()[0])
            os._exit(PeerLost.exit_code)  # at once: there is nobody to wait for
    leave_processes()


def peer_is_lost(error: RuntimeError) -> bool:
    """Whether another process, or the way to it, is gone: what torch.distributed, gloo and NCCL raise then. All may start again."""
    return isinstance(error, dist.DistError) or re.search(PEER_LOST, str(error)) is not None


def join_processes() -> None:
    """All processes of the job know each other. On a CPU DeepSpeed must be told to use gloo before transformers asks it,
    and its shared-memory operator, which needs a compiler at run time, is not worth having there."""
    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # pyright: ignore[reportAttributeAccessIssue]
        os.environ["LOCAL_SIZE"] = os.environ["LOCAL_WORLD_SIZE"]  # DeepSpeed's name; else it starts numactl at each bucket of ZeRO-3
        deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    else:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        deepspeed.init_distributed(dist_backend="nccl", verbose=False)
    build_without_a_step()


def leave_processes(exit_code: int = 0) -> NoReturn:
    """Ends this process at once when all have arrived: gloo's threads may abort a normal exit (Python 3.11, torch 2.13)."""
    dist.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def prepare_job(run: str, log: Log) -> Job:
    """dataset/, plan/ and the checkpoint to resume from are on this machine, checked; all processes agree on the last."""
    store, spec = open_run(run)
    work = work_folder(run, "train")
    if int(os.environ["LOCAL_RANK"]) == 0:
        for leftover in (LOCAL_CHECKPOINTS, RESUME):  # an earlier try's files, where the folder outlives it; what counts is in the store
            shutil.rmtree(work / leftover, ignore_errors=True)
        for folder in (DATASET, PLAN):
            fetch_folder(store, folder, work / folder)
        for name in ("train", "held_out"):
            unpack_rows(work / DATASET / f"{name}.parquet")
    dist.barrier()
    plan = Plan.model_validate_json((work / PLAN / "plan.json").read_bytes())
    check_device(plan)
    check_space(work, plan)
    read_prompts(work / DATASET)  # needed at the end, so refused before training where it is not there
    if dist.get_world_size() != plan.steps.num_processes:
        raise RunFailed(f"training: {dist.get_world_size()} processes were started, the plan is for {plan.steps.num_processes}")
    resume = fetch_resume(store, plan, spec.resume, work / RESUME, log)
    attempt = [uuid.uuid4().hex[:12]]
    dist.broadcast_object_list(attempt, src=0)
    return Job(run, store, spec, plan, work, attempt[0], resume)


def check_device(plan: Plan) -> None:
    """Raises RunFailed when the plan is for GPUs and this process has none: it would train on the cores beside GPUs that are paid for."""
    if plan.on_gpus and not torch.cuda.is_available():
        raise RunFailed(
            f"training: the plan is for GPUs, but torch {torch.__version__} finds none here; in a cluster the image must be train-cuda "
            "(train_on_gpus in images/images.yaml) and fit the node's driver; on this machine leave hardware.gpu out, or install torch "
            "with CUDA"
        )


def check_space(work: Path, plan: Plan) -> None:
    """Raises SpaceError when this node has less room for checkpoints than the plan needs: in a cluster nobody could look before."""
    free, needed = shutil.disk_usage(work).free, plan.checkpoints.work_bytes
    if free < needed:
        raise SpaceError(
            f"HAGANE_WORK: {free / 1e9:.1f} GB are free in {work}, the plan's checkpoints need {needed / 1e9:.1f} GB; free some, or give "
            "the workers a larger disk (cluster.work_claim)"
        )


def train(job: Job, log: Log) -> None:
    """checkpoints/ is finished: the last epoch is committed, the results are published."""
    spec, plan = job.spec, job.plan
    agreement = Agreement()
    sigterm = Sigterm(spec.checkpoints.grace_seconds) if plan.checkpoints.saves_on_sigterm else None
    arguments = training_arguments(job)
    base = resolve_planned_model(plan)
    check_tokens(base.folder, job.work / DATASET)
    check_template(base.folder, read_prompts(job.work / DATASET))
    lora = None if plan.lora is None else json.loads((job.work / PLAN / "lora.json").read_bytes())
    model = load_model(base.folder, plan, lora=lora, seed=spec.training.seed)
    rows = PackedRows(job.work / DATASET / "train.parquet")
    trainer = HaganeTrainer(model, arguments, rows)
    held_out = PackedRows(job.work / DATASET / "held_out.parquet")
    saver = CheckpointSaver(plan, attempt=job.attempt, uploads=BackgroundUploads(job.run, log), agreement=agreement)
    trainer.save = lambda: saver.save(trainer)

    def engine() -> Any:
        return trainer.model_wrapped

    def measure() -> float:
        return held_out_loss(engine(), held_out, agreement, process_rank=dist.get_rank(), num_processes=dist.get_world_size())

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
    if job.resume is not None:
        trainer.add_callback(AfterResume(job.resume, engine, zero_stage=plan.zero.stage))
    trainer.add_callback(EngineSetup(engine, seed=spec.training.seed))
    trainer.add_callback(SkippedSteps(engine, log))
    trainer.add_callback(ProveRows(lambda: look_at(trainer, rows), plan, agreement, log))
    trainer.add_callback(HeldOutLoss(measure, log, stop=boundary.stop))
    trainer.add_callback(Progress(steps.tokens_per_epoch / steps.steps_per_epoch, log))
    trainer.add_callback(boundary)
    trainer.train(resume_from_checkpoint=None if job.resume is None else str(job.resume.folder))
    assert trainer.state.max_steps == steps.total_steps, f"planned {steps.total_steps} steps, made {trainer.state.max_steps}"
    probe = probe_logits(engine(), read_prompts(job.work / DATASET))
    boundary.finish(trainer.state)
    peak = peak_memory()
    if dist.get_rank() == 0:
        history = history_json(trainer.state.log_history, plan, peak, num_skipped=engine().skipped_steps)
        publish(job, history, probe)


def last_committed(store: Store) -> str | None:
    """The newest committed checkpoint, as people call it; None when there is none."""
    committed = committed_checkpoints(store)
    return committed[-1].told if committed else None


def training_arguments(job: Job) -> TrainingArguments:
    """The plan's TrainingArguments and DeepSpeed config, with this machine's folder and device."""
    planned = json.loads((job.work / PLAN / "training_args.json").read_bytes())
    zero = json.loads((job.work / PLAN / "deepspeed.json").read_bytes())
    if job.resume is not None and job.resume.universal:
        zero["checkpoint"] = {"load_universal": True}
    return TrainingArguments(output_dir=str(job.work / LOCAL_CHECKPOINTS), deepspeed=zero, use_cpu=not torch.cuda.is_available(), **planned)


def publish(job: Job, history: dict[str, Any], probe: dict[str, torch.Tensor]) -> None:
    """checkpoints/ is finished. Raises RunFailed when the last epoch's checkpoint is not committed."""
    total_steps = job.plan.steps.total_steps
    if not any(checkpoint.step == total_steps for checkpoint in committed_checkpoints(job.store)):
        raise RunFailed(f"{CHECKPOINTS}: step {total_steps}, the last, is not in the store; the same command stores it again")
    prune(job.store, job.spec.checkpoints.keep)  # again, for an upload that was killed between commit and removal
    local = work_folder(job.run, "results")
    publish_results(job.store, local, history=history, probe=probe, training=job.plan.training_digest)


if __name__ == "__main__":
    main()
