"""plan/ -> a training job on the spec's backend, followed to its end; checkpoints/ is then finished."""

import os
import shutil
from pathlib import Path
from typing import Any, NoReturn

import yaml

from components.launch_training.backends.container import run_beside
from components.launch_training.backends.local import run_to_end, torchrun_command, worker_settings
from components.launch_training.ending.end import end
from components.launch_training.page import losses_page, numbers_of
from components.shared.documents.plan import Plan
from components.shared.documents.results import History
from components.shared.errors import HaganeError, RunFailed, SpecError
from components.shared.job.training_job import TrainingJob, jobs_folder
from components.shared.kfp_face import Metrics, hand_over, tell_numbers
from components.shared.machine import user_path
from components.shared.model.source import has_weights, resolve_planned_model
from components.shared.spec.run_spec import RunSpec
from components.shared.step import Log, finished, open_run, run_argument, step_log, step_of_run, work_folder
from components.shared.store.checkpoints import committed_checkpoints
from components.shared.store.layout import CHECKPOINTS, PLAN, job_file
from components.shared.store.manifest import Manifest, fetch_folder, require_manifest
from components.shared.store.patience import waits
from components.shared.store.storage import LocalStore, Store, open_store


def run_step(run: str, *, train_image: str, train_on_gpus: str = "", kfp_run: str = "") -> Manifest:
    """checkpoints/ is finished: a committed checkpoint for each epoch, the history of losses, a probe of the trained model.

    `train_image` is what the workers run in where they are containers, `train_on_gpus` where the plan has GPUs; `kfp_run` KFP's id of the
    run that this is a step of.

    Raises:
        HaganeError: the model has no weights here, or disks are too full for what the plan promises; all at once, before training.
        RunFailed: training began and failed; the same command goes on from the newest committed checkpoint.
        Preempted: SIGTERM ended it, as RunFailed.
    """
    with step_of_run("launch_training", run) as log:
        return _trained(run, train_image=train_image, train_on_gpus=train_on_gpus, kfp_run=kfp_run, log=log)


def _trained(run: str, *, train_image: str, train_on_gpus: str, kfp_run: str, log: Log) -> Manifest:
    store, spec = open_run(run)
    folder = work_folder(run, PLAN)
    fetch_folder(store, PLAN, folder)
    plan = Plan.model_validate_json((folder / "plan.json").read_bytes())
    done = finished(store, CHECKPOINTS, {"training": plan.training_digest}, log)
    if done is not None:
        return done
    check_before_training(run, store, spec, plan)
    if plan.on_gpus and spec.backend != "local":
        train_image = train_on_gpus or _no_image_for_gpus()
    log.info("launch", backend=spec.backend, processes=plan.steps.num_processes, total_steps=plan.steps.total_steps)
    try:
        train(run, store, spec, plan, train_image=train_image, kfp_run=kfp_run, log=log)
    except RunFailed as error:
        raise type(error)(*error.problems, _what_is_safe(store)) from None
    return require_manifest(store, CHECKPOINTS)


def train(run: str, store: Store, spec: RunSpec, plan: Plan, *, train_image: str, kfp_run: str, log: Log) -> None:
    """The training ran to its end: in a cluster, in processes of this machine or, where this is a container, in another beside it."""
    if spec.backend != "local":
        from components.launch_training.backends.in_cluster import run_in_cluster  # imports kubernetes, 0.3 s that a laptop need not pay

        work = work_folder(run, "launch_training")
        manifest = yaml.safe_load((work_folder(run, PLAN) / job_file(spec.backend)).read_bytes())
        run_in_cluster(spec, manifest, plan, store, image=train_image, kfp_run=kfp_run, work=work, log=log)
        return
    jobs = jobs_folder()
    settings = worker_settings(plan, spec.checkpoints)
    if jobs is None:
        run_to_end(torchrun_command(run, plan), os.environ | settings, log)
    else:
        run_beside(TrainingJob(image=train_image, run=run, num_processes=plan.steps.num_processes, environment=settings), jobs, log)


def _no_image_for_gpus() -> NoReturn:
    raise SpecError(
        "images: the plan has GPUs, but this pipeline was compiled without an image for them (train_on_gpus in images/images.yaml); run "
        "`make images-cuda push REGISTRY=…`, and compile again"
    )


def check_before_training(run: str, store: Store, spec: RunSpec, plan: Plan) -> None:
    """Raises HaganeError with all that would stop the training later: weights that are not there, disks too full; for a cluster, a store
    that its pods would not share."""
    if spec.backend != "local":
        if isinstance(store, LocalStore):
            raise SpecError(f"store: got folder {spec.store!r}, but pods of a cluster share no folder; must be s3://bucket/prefix")
        return
    problems = space_problems(run, store, plan)
    # A hub model is fetched where it is used: in a container of its own that is not here.
    if jobs_folder() is None or user_path(plan.model.source).is_dir():
        model = resolve_planned_model(plan)
        if not has_weights(model.folder):
            problems.append(f"model.source: {model.folder} holds no weights (*.safetensors); put them beside its config.json")
    if problems:
        raise HaganeError(*problems)


def space_problems(run: str, store: Store, plan: Plan) -> list[str]:
    """One line for each disk with less free space than the plan promises to use. What is committed already is not needed again."""
    # An older checkpoint goes only when a newer one is there: one more than stay.
    num_left = max(0, min(len(plan.steps.save_steps), plan.checkpoints.num_kept + 1) - len(committed_checkpoints(store)))
    needs = {work_folder(run, "train"): (plan.checkpoints.work_bytes, "HAGANE_WORK")}
    if isinstance(store, LocalStore):
        needs[store.root.absolute()] = (plan.checkpoints.bytes_each * num_left, "store")
    problems: list[str] = []
    for folder, (needed, setting) in needs.items():
        free = shutil.disk_usage(folder).free
        if free < needed:
            problems.append(
                f"{setting}: {free / 1e9:.1f} GB are free in {folder}, the plan's checkpoints need {needed / 1e9:.1f} GB; "
                f"free some or set {setting} to another disk"
            )
    return problems


def _what_is_safe(store: Store) -> str:
    committed = committed_checkpoints(store)
    if not committed:
        return "checkpoints: none is committed yet; the same command begins again"
    return f"checkpoints: {committed[-1].told} is committed; the same command goes on from there"


def kfp_step(
    run: str,
    *,
    spec_digest: str = "",
    train_image: str,
    train_on_gpus: str,
    kfp_run: str,
    manifest_path: str,
    losses_path: str,
    metrics: Metrics,
) -> str:
    """`run_step` for KFP, which has its manifest, its losses drawn and its numbers too. Returns the manifest's digest."""
    with step_of_run("launch_training", run, spec_digest=spec_digest) as log:
        manifest = _trained(run, train_image=train_image, train_on_gpus=train_on_gpus, kfp_run=kfp_run, log=log)
        history = History.model_validate_json(open_store(run).read_bytes(f"{CHECKPOINTS}/history.json"))
        Path(losses_path).write_text(losses_page(run, history), encoding="utf-8")
        tell_numbers(metrics, numbers_of(history))
        return hand_over(manifest, run=run, manifest_path=manifest_path)


def kfp_end(
    spec: dict[str, Any],
    overrides: dict[str, str | int],
    *,
    kfp_run: str,
    notify_when: str,
    state: str,
    error_message: str | None,
    summary_path: str,
) -> None:
    """`end` as a process of its own, for KFP, which shows what there is to read; fails, after all was told, when a job may be at work."""
    with step_log("end_run") as log, waits(log):
        ended = end(spec, overrides, kfp_run=kfp_run, state=state, error_message=error_message or "", notify_when=notify_when, log=log)
        Path(summary_path).write_text(ended.page, encoding="utf-8")
        if ended.problems:
            # KFP's launcher uploads no artifact of a task that fails (backend/src/v2/component/launcher_v2.go).
            print(ended.page, flush=True)
            raise HaganeError(*ended.problems)


def main() -> None:
    run_step(run_argument("launch_training", __doc__, must_be_finished="plan"), train_image="")


if __name__ == "__main__":
    main()
