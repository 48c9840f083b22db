"""The run's spec, its dataset's manifest and the model's config.json -> plan/."""

import argparse
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.render_config.choose.rows import row_tokens_of
from components.render_config.choose_setting import choose_device
from components.render_config.cost.hardware import GIB, this_machine
from components.render_config.dataset_facts import NO_DATASET, DatasetFacts, dataset_facts
from components.render_config.model.architectures import architecture_of
from components.render_config.page.import_deepspeed import explained_deepspeed, read_deepspeed
from components.render_config.planner import check_spec, make_plan
from components.render_config.probed import with_probe
from components.render_config.render.files import lifecycle_json, rendered_files
from components.render_config.render.pytorchjob import pytorchjob
from components.render_config.render.trainjob import trainjob
from components.shared.documents.plan import Plan
from components.shared.documents.probe import MeasuredSteps
from components.shared.errors import HaganeError, SpecError
from components.shared.kfp_face import Metrics, hand_over, tell_numbers
from components.shared.model.source import CONFIG_AND_TOKENIZER, planned_config, resolve_model
from components.shared.printable import printable, without_secrets
from components.shared.spec.file import load_spec
from components.shared.spec.run_spec import RunSpec
from components.shared.step import Log, finished, open_run, step_log, step_of_run, work_folder
from components.shared.store.checkpoints import committed_checkpoints, resume_problem
from components.shared.store.layout import DATASET, PLAN, job_file
from components.shared.store.manifest import Manifest, publish_folder, require_manifest
from components.shared.store.storage import Store, open_store

LIBRARY_FILES = ("deepspeed", "training_args", "lora")
"""Files of a plan that the training libraries read, as its page shows them."""
CONVERSION = 2.75
"""Bytes on the disk for each of a divided checkpoint, while DeepSpeed's ds_to_universal makes it
fit another number of processes: the checkpoint, scratch, and what comes out of it; 2.73 measured
(full, stage 2, bf16, 2 processes to 1)."""


def run_step(run: str, *, job_of: RunSpec | None = None) -> Manifest:
    """plan/ is finished: plan.json, deepspeed.json, training_args.json, and lora.json for LoRA.

    `job_of`: the spec whose job is written, where the run is only tried in a folder that is thrown
    away.

    Raises:
        HaganeError: the dataset is not finished, or the spec asks for what the model cannot do; all
            problems at once.
    """
    with step_of_run("render_config", run) as log:
        return _planned(run, log, job_of)


def _planned(run: str, log: Log, job_of: RunSpec | None = None) -> Manifest:
    store, spec = open_run(run)
    dataset = require_manifest(store, DATASET)
    inputs = {"dataset": dataset.digest, "spec": spec.digest}
    done = finished(store, PLAN, inputs, log)
    if done is not None:
        return done
    facts = dataset_facts(dataset)
    model = spec.model.model_copy(
        update={"revision": facts.model_revision}
    )  # a branch may have moved since
    config = planned_config(resolve_model(model, patterns=CONFIG_AND_TOKENIZER))
    plan = make_plan(spec, facts, config, machine=this_machine())
    check_resumable(store, plan)
    plan = with_room_to_convert(store, plan)
    local = work_folder(run, PLAN)
    shutil.rmtree(local)
    write_plan(local, job_of or spec, plan, hidden_size=architecture_of(config).hidden_size)
    steps = plan.steps
    log.info(
        "planned",
        steps_per_epoch=steps.steps_per_epoch,
        total_steps=steps.total_steps,
        save_steps=list(steps.save_steps),
    )
    reported = {"total_steps": steps.total_steps, "num_trainable": plan.num_trainable}
    return publish_folder(
        store, PLAN, local, made_by="render_config", inputs=inputs, facts=reported
    )


def check(spec: RunSpec) -> None:
    """Raises HaganeError as `check_spec`; of a model that is not to be had, with what is wrong
    beside it."""
    try:
        config = planned_config(resolve_model(spec.model, patterns=CONFIG_AND_TOKENIZER))
    except HaganeError as no_model:
        try:
            choose_device(spec, this_machine())
        except HaganeError as error:
            raise type(no_model)(*no_model.problems, *error.problems) from None
        raise
    check_spec(spec, config, this_machine())


def check_resumable(store: Store, plan: Plan) -> None:
    """Raises SpecError when the run has checkpoints already and training by this plan could not go
    on from the newest."""
    newest = committed_checkpoints(store)[-1:]
    problems = [
        problem
        for checkpoint in newest
        if (problem := resume_problem(checkpoint, plan)) is not None
    ]
    if problems:
        raise SpecError(*problems)


def with_room_to_convert(store: Store, plan: Plan) -> Plan:
    """The plan, with disk on each machine to convert the newest checkpoint, where that is divided
    among another number of processes."""
    newest = committed_checkpoints(store)[-1:]
    if not newest or not newest[0].sharded or newest[0].num_processes == plan.steps.num_processes:
        return plan
    work_bytes = max(plan.checkpoints.work_bytes, math.ceil(CONVERSION * newest[0].num_bytes))
    return plan.model_copy(
        update={"checkpoints": plan.checkpoints.model_copy(update={"work_bytes": work_bytes})}
    )


def plan_without_data(
    spec: RunSpec,
    *,
    num_rows: int,
    folder: Path,
    job_of: RunSpec | None = None,
    with_page: bool = True,
) -> Plan:
    """The plan's files are in the folder, made for this many full rows, from the model's config
    alone. Raises as `run_step`, and takes `job_of` as it does."""
    config = planned_config(resolve_model(spec.model, patterns=("config.json",)))
    num_tokens = num_rows * row_tokens_of(spec, NO_DATASET, config)
    facts = DatasetFacts(
        digest="", num_rows=num_rows, num_tokens=num_tokens, model_revision=spec.model.revision
    )
    plan = make_plan(spec, facts, config, machine=this_machine())
    write_plan(
        folder,
        job_of or spec,
        plan,
        hidden_size=architecture_of(config).hidden_size,
        with_page=with_page,
    )
    return plan


def import_deepspeed(file: Path, plan: Path | None) -> None:
    """Prints what is wrong in the file, then a line for each setting, beside the deepspeed.json in
    the plan's folder if there is one.

    Raises:
        SpecError: the file is not there, or is no JSON that commas could repair.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{file}: cannot be read: {error}") from None
    imported = read_deepspeed(text, str(file))
    if plan is None:
        planned = None
    else:
        planned = json.loads((plan / "deepspeed.json").read_text())
    print(
        "\n".join(
            printable(without_secrets(line))
            for line in [*imported.problems, *explained_deepspeed(imported, planned)]
        )
    )


def take_measured(spec: RunSpec, measured: Path, folder: Path) -> None:
    """The plan in the folder has the measured steps, and time and price by them; its page is made
    anew. `measured`: a JSON file of MeasuredSteps."""
    plan = Plan.model_validate_json((folder / "plan.json").read_bytes())
    steps = MeasuredSteps.model_validate_json(measured.read_bytes())
    probed = with_probe(spec, plan, steps)
    (folder / "plan.json").write_text(probed.model_dump_json(indent=1) + "\n")
    files = {
        name: json.loads((folder / f"{name}.json").read_bytes())
        for name in LIBRARY_FILES
        if (folder / f"{name}.json").is_file()
    }
    write_page(folder, probed, files)


def write_page(folder: Path, plan: Plan, files: Mapping[str, dict[str, Any]]) -> None:
    """Imported here, since a plan without its page does without jinja2."""
    from components.render_config.page.page import render_page

    (folder / "page.html").write_text(render_page(plan, files), encoding="utf-8")


def write_plan(
    folder: Path, spec: RunSpec, plan: Plan, *, hidden_size: int, with_page: bool = True
) -> None:
    """The files of plan/ are in the folder, which is made."""
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(plan.model_dump_json(indent=1) + "\n")
    files = rendered_files(spec, plan, hidden_size=hidden_size)
    if with_page:
        write_page(folder, plan, files)
    lifecycle = lifecycle_json(spec)
    if lifecycle is not None:
        files["lifecycle"] = lifecycle
    if spec.backend != "local":
        job = {"pytorchjob": pytorchjob, "trainjob": trainjob}[spec.backend](spec, plan)
        (folder / job_file(spec.backend)).write_text(yaml.safe_dump(job, sort_keys=False))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def kfp_step(
    run: str, *, spec_digest: str = "", manifest_path: str, page_path: str, metrics: Metrics
) -> tuple[str, str, str, str]:
    """`run_step` for KFP, which has its manifest, its page and its numbers too. Returns the
    manifest's digest, and what the pods of the later steps ask for: cores, memory to export, memory
    to evaluate."""
    with step_of_run("render_config", run, spec_digest=spec_digest) as log:
        manifest = _planned(run, log)
        plan = Plan.model_validate_json(open_store(run).read_bytes(f"{PLAN}/plan.json"))
        tell_numbers(metrics, numbers_of(plan))
        digest = hand_over(
            manifest, run=run, manifest_path=manifest_path, pages={"page.html": page_path}
        )
    after = plan.after
    return digest, str(after.cpus), in_gib(after.export_bytes), in_gib(after.evaluate_bytes)


def in_gib(num_bytes: int) -> str:
    """As Kubernetes writes it, rounded up."""
    return f"{math.ceil(num_bytes / GIB)}Gi"


def numbers_of(plan: Plan) -> dict[str, float | None]:
    """What KFP shows of the plan, by name."""
    memory = plan.memory
    return {
        "planned_steps": plan.steps.total_steps,
        "planned_steps_per_epoch": plan.steps.steps_per_epoch,
        "trainable_parameters": plan.num_trainable,
        "gpu_memory_gib": round(memory.gpu_bytes / GIB, 2) if plan.on_gpus else None,
        "host_memory_gib": round(memory.host_bytes / GIB, 2),
        "planned_hours": None if plan.time is None else round(plan.time.hours, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m components.render_config", description=__doc__)
    parser.add_argument(
        "--run",
        metavar="URI",
        help="the run's folder, such as s3://bucket/runs/demo; its dataset must be finished",
    )
    parser.add_argument(
        "--spec", metavar="FILE", type=Path, help="with --check or --rows: the spec file"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="only check a spec's model, LoRA targets, batch sizes, hardware; writes nothing",
    )
    parser.add_argument(
        "--rows",
        metavar="COUNT",
        type=int,
        help="plan for this many full rows instead of a dataset, into --out",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="with --rows: a folder that is made for the plan's files; with --measured: theirs",
    )
    parser.add_argument(
        "--no-page",
        action="store_true",
        help="with --rows: without page.html, which takes a tenth of the time",
    )
    parser.add_argument(
        "--job-of",
        metavar="FILE",
        type=Path,
        help="with --run or --rows: the spec that the job is written for, where it is another",
    )
    parser.add_argument(
        "--measured",
        metavar="FILE",
        type=Path,
        help="with --spec and --out: what the train component's step_probe measured of that plan",
    )
    parser.add_argument(
        "--import-deepspeed",
        metavar="FILE",
        type=Path,
        help="explain a hand-written deepspeed.json; with --out's plan beside",
    )
    arguments = parser.parse_args()
    if arguments.import_deepspeed is not None:
        with step_log("render_config"):
            import_deepspeed(arguments.import_deepspeed, arguments.out)
        return
    if arguments.measured is not None:
        if arguments.spec is None or arguments.out is None:
            parser.error("give --measured FILE --spec FILE --out FOLDER")
        with step_log("render_config"):
            take_measured(load_spec(arguments.spec), arguments.measured, arguments.out)
        return
    chosen = [arguments.run is not None, arguments.check, arguments.rows is not None]
    if (
        sum(chosen) != 1
        or (arguments.run is None) == (arguments.spec is None)
        or (arguments.rows is None) != (arguments.out is None)
    ):
        parser.error(
            "give --run URI, or --check --spec FILE, or --rows COUNT --spec FILE --out FOLDER"
        )
    job_of = None
    if arguments.job_of is not None:
        with step_log("render_config"):
            job_of = load_spec(arguments.job_of)
    if arguments.run is not None:
        run_step(arguments.run, job_of=job_of)
        return
    with step_log("render_config"):
        spec = load_spec(arguments.spec)
        if arguments.rows is not None:
            plan_without_data(
                spec,
                num_rows=arguments.rows,
                folder=arguments.out,
                job_of=job_of,
                with_page=not arguments.no_page,
            )
            return
        check(spec)


if __name__ == "__main__":
    main()
