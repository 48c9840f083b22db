"""The pipeline: a spec goes in, a verified adapter and a report come out. The same definition runs
on a laptop and in a cluster.

A finished step is known by its manifest in the store, which KFP's cache cannot see. `claim_run`
looks, each time, and hands what it saw to prepare_dataset and render_config as parameters
(components/prepare_dataset/claim.py), so that those two may be taken from the cache; KFP then
starts its driver for each, and no pod of the step. The others are never: training writes what no
parameter stands for, and each of the rest finds its own work done within seconds.
"""

# pyright: reportCallIssue=false, reportArgumentType=false
# KFP hands a component its output artifacts itself and makes a task of a call; the type checker
# takes them for missing arguments, and a task for what the function returns.

import yaml
from kfp import dsl, kubernetes

from components.evaluate.component import evaluate
from components.export_adapter.component import export_adapter
from components.launch_training.component import end_run, launch_training
from components.prepare_dataset.component import claim_run, prepare_dataset
from components.render_config.component import render_config
from components.shared.documents.plan import EVALUATE_POD_HOURS
from components.shared.job.images import read_images
from components.shared.kfp_face import image, image_on_gpus
from components.shared.own_files import own_file
from components.write_report.component import write_report
from pipelines.finetune.pods import Pod, settle

DEFAULT_SPEC = own_file("specs/from-the-ui.yaml")
"""What the run form is filled with."""

ABOUT = """\
Fine-tunes an open language model as one spec says: data in, a verified adapter and a report out.
Fields of the spec: docs/spec.md.

spec: what is asked. override_*: set one field of it, exactly as --set does; left empty (or 0), the
spec counts. {run} in override_run_name stands for the beginning of this run's id. A name that is
there already goes on where it stopped.
skip_if_unchanged: do nothing again when data, spec and images are those of the newest finished run
of this name.
notify_when: never, failure or always; tells the address in the secret hagane-notify, if there is
one.
"""


@dsl.pipeline(
    name="hagane-finetune", display_name="hagane: fine-tune a language model", description=ABOUT
)
def finetune(
    # read once, as the pipeline is made
    spec: dict = yaml.safe_load(DEFAULT_SPEC.read_text(encoding="utf-8")),  # noqa: B008
    override_run_name: str = "",
    override_model: str = "",
    override_data: str = "",
    override_epochs: int = 0,
    override_store: str = "",
    skip_if_unchanged: bool = False,
    notify_when: str = "failure",
):
    """`spec` is a run spec as data: the fields of specs/from-the-ui.yaml."""
    asked = {
        "spec": spec,
        "override_run_name": override_run_name,
        "override_model": override_model,
        "override_data": override_data,
        "override_epochs": override_epochs,
        "override_store": override_store,
        "kfp_run": dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    }
    ended = end_run(**asked, notify_when=notify_when)
    with dsl.ExitHandler(ended, name="Fine-tune"):
        claimed = claim_run(
            **asked,
            skip_if_unchanged=skip_if_unchanged,
            notify_when=notify_when,
            images=" ".join(read_images().names()),
        )
        run, digest = claimed.outputs["run"], claimed.outputs["spec_digest"]
        dataset = prepare_dataset(
            run=run,
            spec_digest=digest,
            inputs=claimed.outputs["inputs"],
            seen=claimed.outputs["dataset_seen"],
        )
        plan = render_config(
            run=run,
            spec_digest=digest,
            dataset=dataset.outputs["Output"],
            seen=claimed.outputs["plan_seen"],
        )
        checkpoints = launch_training(
            run=run,
            spec_digest=digest,
            plan=plan.outputs["digest"],
            train_image=image("train"),
            train_on_gpus=image_on_gpus(),
            kfp_run=asked["kfp_run"],
        )
        export = export_adapter(
            run=run, spec_digest=digest, checkpoints=checkpoints.outputs["Output"]
        )
        evaluation = evaluate(run=run, spec_digest=digest, export=export.outputs["Output"])
        report = write_report(run=run, spec_digest=digest, evaluation=evaluation.outputs["Output"])
    settle(claimed, Pod("Claim the run", cpus="250m", memory="1Gi", reads_hub=True, hours=1))
    settle(
        dataset,
        Pod("Prepare the dataset", cpus="2", memory="4Gi", reads_hub=True, hours=12),
        cached=True,
    )
    settle(plan, Pod("Plan", cpus="250m", memory="512Mi", reads_hub=True, hours=1), cached=True)
    settle(
        checkpoints,
        Pod("Train", cpus="250m", memory="512Mi", reads_hub=False, hours=None, retries=1),
    )
    cpus = plan.outputs["cpus"]
    settle(
        export,
        Pod(
            "Export and verify",
            cpus=cpus,
            memory=plan.outputs["export_memory"],
            reads_hub=True,
            hours=12,
        ),
    )
    settle(
        evaluation,
        Pod(
            "Evaluate",
            cpus=cpus,
            memory=plan.outputs["evaluate_memory"],
            reads_hub=True,
            hours=EVALUATE_POD_HOURS,
        ),
    )
    settle(report, Pod("Report", cpus="250m", memory="512Mi", reads_hub=False, hours=1))
    # May run twice all the same: see end.py.
    settle(
        ended, Pod("How it ended", cpus="250m", memory="512Mi", reads_hub=False, hours=1, retries=0)
    )
    kubernetes.use_secret_as_env(
        ended,
        secret_name="hagane-notify",  # noqa: S106 - its name
        secret_key_to_env={"url": "HAGANE_NOTIFY_URL"},
        optional=True,
    )
