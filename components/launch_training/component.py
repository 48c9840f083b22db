"""The KFP face of launch_training."""

from kfp import dsl

from components.shared.kfp_face import image


@dsl.component(base_image=image("launch_training"), packages_to_install=[], install_kfp_package=False)
def launch_training(run: str, plan: str, train_image: str, manifest: dsl.Output[dsl.Artifact]) -> str:
    """Trains in `train_image` as plan/ (digest: `plan`) says, and follows the job to its end. Returns the digest of checkpoints/."""
    from components.launch_training.__main__ import kfp_step

    return kfp_step(run, train_image=train_image, manifest_path=manifest.path)
