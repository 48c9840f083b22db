"""The KFP face of export_adapter."""

from kfp import dsl

from components.shared.kfp_face import image


@dsl.component(
    base_image=image("export_adapter"), packages_to_install=[], install_kfp_package=False
)
def export_adapter(
    run: str,
    spec_digest: str,
    checkpoints: str,
    manifest: dsl.Output[dsl.Artifact],
    where: dsl.Output[dsl.Markdown],
) -> str:
    """Makes adapter/ or model/ from checkpoints/ (whose digest is `checkpoints`), verified.
    Returns the digest."""
    from components.export_adapter.__main__ import kfp_step

    return kfp_step(
        run, spec_digest=spec_digest, manifest_path=manifest.path, where_path=where.path
    )
