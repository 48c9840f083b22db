"""The KFP face of render_config."""

from typing import NamedTuple

from kfp import dsl

from components.shared.kfp_face import image


@dsl.component(base_image=image("render_config"), packages_to_install=[], install_kfp_package=False)
def render_config(
    run: str,
    spec_digest: str,
    dataset: str,
    seen: str,
    manifest: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> NamedTuple("Planned", digest=str, cpus=str, export_memory=str, evaluate_memory=str):  # pyright: ignore[reportInvalidTypeForm]
    """Makes the run's plan/ from its spec, its dataset/ (its digest) and the model's config. `seen`
    is for KFP's cache alone. Returns the digest, and what the pods that export and evaluate ask
    for."""
    from components.render_config.__main__ import kfp_step

    return kfp_step(
        run,
        spec_digest=spec_digest,
        manifest_path=manifest.path,
        page_path=page.path,
        metrics=metrics,
    )
