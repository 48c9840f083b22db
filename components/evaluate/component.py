"""The KFP face of evaluate."""

from kfp import dsl

from components.shared.kfp_face import image


@dsl.component(base_image=image("evaluate"), packages_to_install=[], install_kfp_package=False)
def evaluate(
    run: str,
    spec_digest: str,
    export: str,
    manifest: dsl.Output[dsl.Artifact],
    samples: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Measures base and tuned model (digest of its folder: `export`) on held-out data. Returns the
    digest of evaluation/."""
    from components.evaluate.__main__ import kfp_step

    return kfp_step(
        run,
        spec_digest=spec_digest,
        manifest_path=manifest.path,
        samples_path=samples.path,
        metrics=metrics,
    )
