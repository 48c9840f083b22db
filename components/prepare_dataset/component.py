"""The KFP faces of prepare_dataset: the cheap look at what is asked and there, and the work."""

from typing import NamedTuple

from kfp import dsl

from components.shared.kfp_face import image


@dsl.component(
    base_image=image("prepare_dataset"), packages_to_install=[], install_kfp_package=False
)
def claim_run(
    spec: dict,
    override_run_name: str,
    override_model: str,
    override_data: str,
    override_epochs: int,
    override_store: str,
    skip_if_unchanged: bool,
    notify_when: str,
    kfp_run: str,
    images: str,
) -> NamedTuple("Claimed", run=str, inputs=str, dataset_seen=str, plan_seen=str, spec_digest=str):  # pyright: ignore[reportInvalidTypeForm]
    """Claims the run that spec and overrides ask for. Returns its URI, what its dataset is made
    from, and what of it is there."""
    from components.prepare_dataset.kfp_steps import kfp_claim

    overrides = {
        "override_run_name": override_run_name,
        "override_model": override_model,
        "override_data": override_data,
        "override_epochs": override_epochs,
        "override_store": override_store,
    }
    return kfp_claim(
        spec,
        overrides,
        kfp_run=kfp_run,
        images=images,
        skip_if_unchanged=skip_if_unchanged,
        notify_when=notify_when,
    )


@dsl.component(
    base_image=image("prepare_dataset"), packages_to_install=[], install_kfp_package=False
)
def prepare_dataset(
    run: str,
    spec_digest: str,
    inputs: str,
    seen: str,
    manifest: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Makes the run's dataset/ from just those inputs (their digest). `seen` is for KFP's cache
    alone. Returns the digest."""
    from components.prepare_dataset.kfp_steps import kfp_step

    return kfp_step(
        run,
        spec_digest=spec_digest,
        inputs=inputs,
        manifest_path=manifest.path,
        page_path=page.path,
        metrics=metrics,
    )
