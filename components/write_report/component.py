"""The KFP face of write_report."""

from kfp import dsl

from components.shared.kfp_face import image


@dsl.component(base_image=image("write_report"), packages_to_install=[], install_kfp_package=False)
def write_report(
    run: str,
    spec_digest: str,
    evaluation: str,
    manifest: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
) -> str:
    """Makes report/ from every folder of the run (digest of evaluation/: `evaluation`). Returns the
    digest."""
    from components.write_report.__main__ import kfp_step

    return kfp_step(run, spec_digest=spec_digest, manifest_path=manifest.path, page_path=page.path)
