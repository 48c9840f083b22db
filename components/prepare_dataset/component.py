"""The KFP face of prepare_dataset."""

from typing import NamedTuple

from kfp import dsl

from components.shared.kfp_face import image


@dsl.component(base_image=image("prepare_dataset"), packages_to_install=[], install_kfp_package=False)
def prepare_dataset(spec: dict, manifest: dsl.Output[dsl.Artifact], page: dsl.Output[dsl.HTML]) -> NamedTuple(
    "Prepared", run=str, dataset=str
):  # pyright: ignore[reportInvalidTypeForm]
    """Claims the run that the spec names and makes its dataset/. Returns the run's URI and the digest of dataset/."""
    from components.prepare_dataset.__main__ import kfp_step

    return kfp_step(spec, manifest_path=manifest.path, page_path=page.path)
