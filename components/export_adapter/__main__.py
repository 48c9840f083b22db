"""checkpoints/ -> adapter/ (LoRA) or model/ (full): what a run is for, proved to give the trained model's logits."""

from components.shared.kfp_face import hand_over
from components.shared.manifest import Manifest
from components.shared.step import run_argument, step_log


def run_step(run: str) -> Manifest:
    """The export is finished: adapter/ or model/, with a model card and the verification's numbers in it.

    Raises:
        StoreError: the training is not finished, or an object is damaged.
        RunFailed: the checkpoint is no sound adapter or model, or does not give the trained model's logits.
    """
    with step_log("export_adapter") as log:
        from components.export_adapter.export import export_run  # torch costs 5 s that --help need not pay

        return export_run(run, log)


def kfp_step(run: str, *, manifest_path: str) -> str:
    """`run_step` for KFP: its manifest is at `manifest_path` too. Returns the manifest's digest."""
    return hand_over(run_step(run), run=run, manifest_path=manifest_path)


def main() -> None:
    run_step(run_argument("export_adapter", __doc__, must_be_finished="training"))


if __name__ == "__main__":
    main()
