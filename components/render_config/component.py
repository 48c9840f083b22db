"""The KFP face of render_config."""

from kfp import dsl

from components.shared.kfp_face import image


@dsl.component(base_image=image("render_config"), packages_to_install=[], install_kfp_package=False)
def render_config(run: str, dataset: str, manifest: dsl.Output[dsl.Artifact], page: dsl.Output[dsl.HTML]) -> str:
    """Makes the run's plan/ from its spec, its dataset/ (whose digest is `dataset`) and the model's config. Returns the digest."""
    from components.render_config.__main__ import kfp_step

    return kfp_step(run, manifest_path=manifest.path, page_path=page.path)
