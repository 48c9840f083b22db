"""The KFP face of launch_training."""

from kfp import dsl

from components.shared.kfp_face import image


@dsl.component(
    base_image=image("launch_training"), packages_to_install=[], install_kfp_package=False
)
def launch_training(
    run: str,
    spec_digest: str,
    plan: str,
    train_image: str,
    train_on_gpus: str,
    kfp_run: str,
    manifest: dsl.Output[dsl.Artifact],
    losses: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Trains in `train_image`, or `train_on_gpus`, as plan/ (digest: `plan`) says, and follows the
    job to its end. Returns the digest of checkpoints/."""
    from components.launch_training.__main__ import kfp_step

    trainers = {"train_image": train_image, "train_on_gpus": train_on_gpus}
    return kfp_step(
        run,
        spec_digest=spec_digest,
        **trainers,
        kfp_run=kfp_run,
        manifest_path=manifest.path,
        losses_path=losses.path,
        metrics=metrics,
    )


@dsl.component(
    base_image=image("launch_training"), packages_to_install=[], install_kfp_package=False
)
def end_run(
    spec: dict,
    override_run_name: str,
    override_model: str,
    override_data: str,
    override_epochs: int,
    override_store: str,
    kfp_run: str,
    notify_when: str,
    status: dsl.PipelineTaskFinalStatus,
    summary: dsl.Output[dsl.Markdown],
) -> None:
    """However the pipeline ended: deletes the run's job, tells what is safe and whoever wants to
    know."""
    from components.launch_training.__main__ import kfp_end

    overrides = {
        "override_run_name": override_run_name,
        "override_model": override_model,
        "override_data": override_data,
        "override_epochs": override_epochs,
        "override_store": override_store,
    }
    kfp_end(
        spec,
        overrides,
        kfp_run=kfp_run,
        notify_when=notify_when,
        state=status.state,
        error_message=status.error_message,
        summary_path=summary.path,
    )
