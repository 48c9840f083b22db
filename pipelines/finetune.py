"""The pipeline: a spec goes in, a verified adapter and a report come out. The same definition runs on a laptop and in a cluster.

KFP's own cache is off: a finished step is known by its manifest in the store, which KFP cannot see.
"""

# pyright: reportCallIssue=false
# KFP hands a component its output artifacts itself; the type checker takes them for missing arguments.

from kfp import dsl

from components.evaluate.component import evaluate
from components.export_adapter.component import export_adapter
from components.launch_training.component import launch_training
from components.prepare_dataset.component import prepare_dataset
from components.render_config.component import render_config
from components.shared.kfp_face import image
from components.write_report.component import write_report

STEPS = ("prepare_dataset", "render_config", "launch_training", "export_adapter", "evaluate", "write_report")


@dsl.pipeline(name="hagane-finetune", description="Fine-tunes an open language model as one spec says; see specs/ for examples.")
def finetune(spec: dict):
    """`spec` is a run spec as data: the fields of specs/demo.yaml."""
    prepared = prepare_dataset(spec=spec)
    run = prepared.outputs["run"]
    plan = render_config(run=run, dataset=prepared.outputs["dataset"])
    checkpoints = launch_training(run=run, plan=plan.outputs["Output"], train_image=image("train"))
    export = export_adapter(run=run, checkpoints=checkpoints.outputs["Output"])
    evaluation = evaluate(run=run, export=export.outputs["Output"])
    report = write_report(run=run, evaluation=evaluation.outputs["Output"])
    for task in (prepared, plan, checkpoints, export, evaluation, report):
        task.set_caching_options(False)
