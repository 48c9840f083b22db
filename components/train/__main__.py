"""The program in each training process: plan + dataset -> checkpoints. Started by torchrun, told everything by the run's folder."""

import argparse
import json
import os
import shutil
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from transformers import TrainingArguments

from components.shared.checkpoints import committed_checkpoints, fetch_checkpoint
from components.shared.errors import RunFailed
from components.shared.layout import CHECKPOINTS, DATASET, PLAN
from components.shared.manifest import fetch_folder, read_manifest
from components.shared.model_source import resolve_planned_model
from components.shared.plan import Plan
from components.shared.processes import end_with_parent
from components.shared.spec import RunSpec
from components.shared.step import Log, open_run, step_log, work_folder
from components.shared.storage import Store
from components.train.commit import owner
from components.train.model import load_model
from components.train.results import PROBE_TOKENS, history_json, probe_logits, publish_results
from components.train.rows import PackedRows, first_tokens
from components.train.saving import StoreCheckpoints
from components.train.trainer import HaganeTrainer, HeldOutLoss, Progress, held_out_loss
from components.train.uploader import BackgroundUploads


@dataclass(frozen=True)
class Job:
    """What every process of one start of the job agrees on."""

    run: str
    store: Store
    spec: RunSpec
    plan: Plan
    plan_digest: str
    work: Path
    attempt: str
    resume_from: str | None
    """Folder of the committed checkpoint to go on from, or None to begin."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="torchrun … -m components.train", description=__doc__)
    parser.add_argument("run", metavar="RUN", help="URI of the run's folder; its dataset/ and plan/ must be finished")
    run = parser.parse_args().run
    end_with_parent()
    with step_log("train") as log:
        join_processes()
        train(prepare_job(run), log)
    leave_processes()


def join_processes() -> None:
    """All processes of the job know each other. On a CPU DeepSpeed must be told to use gloo before transformers asks it,
    and its shared-memory operator, which needs a compiler at run time, is not worth having there."""
    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # pyright: ignore[reportAttributeAccessIssue]
        deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    else:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        deepspeed.init_distributed(dist_backend="nccl", verbose=False)


def leave_processes() -> None:
    """Ends this process at once when all have arrived: gloo's threads may abort a normal exit (Python 3.11, torch 2.13)."""
    dist.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def prepare_job(run: str) -> Job:
    """dataset/, plan/ and the checkpoint to resume from are on this machine, checked; all processes agree on the last."""
    store, spec = open_run(run)
    work = work_folder(run, "train")
    first_here = int(os.environ["LOCAL_RANK"]) == 0
    if first_here:
        fetch_folder(store, DATASET, work / DATASET)
    dist.barrier()
    plan_manifest = fetch_folder(store, PLAN, work / PLAN) if first_here else read_manifest(store, PLAN)
    dist.barrier()
    assert plan_manifest is not None
    plan = Plan.model_validate_json((work / PLAN / "plan.json").read_bytes())
    _check_world(plan)
    decided: list[Any] = [None, None]
    if dist.get_rank() == 0:
        newest = committed_checkpoints(store)[-1:]
        for checkpoint in newest:
            _check_same_plan(checkpoint.folder, checkpoint.manifest.inputs["plan"], plan_manifest.digest)
        decided = [uuid.uuid4().hex[:12], newest[0].folder if newest else None]
    dist.broadcast_object_list(decided, src=0)
    return Job(run, store, spec, plan, plan_manifest.digest, work, attempt=decided[0], resume_from=decided[1])


def _check_world(plan: Plan) -> None:
    if dist.get_world_size() != plan.steps.num_processes:
        raise RunFailed(f"training: {dist.get_world_size()} processes were started, the plan is for {plan.steps.num_processes}")


def _check_same_plan(folder: str, made_from: str, plan_digest: str) -> None:
    if made_from != plan_digest:
        raise RunFailed(f"{folder}: was made from another plan ({made_from[:12]}, not {plan_digest[:12]}); set another name for this run")


def train(job: Job, log: Log) -> None:
    """checkpoints/ is finished: every epoch is committed, the results are published."""
    spec, plan = job.spec, job.plan
    local = job.work / "checkpoints"
    arguments = training_arguments(job, local)
    base = resolve_planned_model(plan)
    lora = None if plan.lora is None else json.loads((job.work / PLAN / "lora.json").read_bytes())
    model = load_model(
        base.folder,
        plan,
        lora=lora,
        seed=spec.training.seed,
        zero_stage=plan.zero.stage,
    )
    trainer = HaganeTrainer(model, arguments, PackedRows(job.work / DATASET / "train.parquet"))
    held_out = PackedRows(job.work / DATASET / "held_out.parquet")
    uploads = BackgroundUploads(job.run, log)

    def measure() -> float:
        return held_out_loss(trainer.model_wrapped, held_out, process_rank=dist.get_rank(), num_processes=dist.get_world_size())

    steps = plan.steps
    trainer.add_callback(HeldOutLoss(measure, log))
    trainer.add_callback(Progress(steps.tokens_per_epoch / steps.steps_per_epoch, log))
    trainer.add_callback(StoreCheckpoints(uploads, plan=job.plan_digest, attempt=job.attempt, steps_per_epoch=steps.steps_per_epoch))
    trainer.train(resume_from_checkpoint=fetch_own_share(job, log))
    assert trainer.state.max_steps == steps.total_steps, f"planned {steps.total_steps} steps, made {trainer.state.max_steps}"
    probe = probe_logits(trainer.model_wrapped, first_tokens(held_out, PROBE_TOKENS))
    uploads.finish()
    dist.barrier()
    if dist.get_rank() == 0:
        publish(job, trainer.state.log_history, probe)


def training_arguments(job: Job, local: Path) -> TrainingArguments:
    """The plan's TrainingArguments and DeepSpeed config, with this machine's folder and device."""
    planned = json.loads((job.work / PLAN / "training_args.json").read_bytes())
    zero = json.loads((job.work / PLAN / "deepspeed.json").read_bytes())
    if dist.get_rank() == 0 and local.exists():
        shutil.rmtree(local)  # an earlier try's files; what counts is in the store
    dist.barrier()
    return TrainingArguments(output_dir=str(local), deepspeed=zero, use_cpu=not torch.cuda.is_available(), **planned)


def fetch_own_share(job: Job, log: Log) -> str | None:
    """The local folder to resume from, holding the files this process reads; None to begin. Damage is a StoreError."""
    if job.resume_from is None:
        return None
    folder = job.work / "resume" / job.resume_from.rsplit("/", 1)[-1]
    readers = {dist.get_rank(), None} if int(os.environ["LOCAL_RANK"]) == 0 else {dist.get_rank()}
    fetch_checkpoint(job.store, job.resume_from, folder, wanted=lambda name: owner(name) in readers)
    dist.barrier()
    if dist.get_rank() == 0:
        log.info("resumed", checkpoint=f"{job.run}/{job.resume_from}")
    return str(folder)


def publish(job: Job, history: list[dict[str, Any]], probe: dict[str, torch.Tensor]) -> None:
    epochs = [checkpoint.epoch for checkpoint in committed_checkpoints(job.store)]
    assert epochs == list(range(1, len(job.plan.steps.save_steps) + 1)), f"{CHECKPOINTS}: committed are epochs {epochs}"
    local = work_folder(job.run, "results")
    publish_results(job.store, local, history=history_json(history, job.plan), probe=probe, plan_digest=job.plan_digest)


if __name__ == "__main__":
    main()
