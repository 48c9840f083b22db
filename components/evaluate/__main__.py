"""base model + export + held-out rows -> evaluation/: loss of both, answers of both, and the gate."""

from collections.abc import Callable

from components.shared.kfp_face import hand_over
from components.shared.manifest import Manifest
from components.shared.step import run_argument, step_log


def run_step(run: str) -> Manifest:
    """evaluation/ is finished: held-out loss of base and tuned model, and their answers to the spec's questions.

    Raises:
        StoreError: the dataset or the export is not finished, or an object is damaged.
        RunFailed: the tuned model is not better and the spec says it must be; evaluation/ is finished all the same.
    """
    with step_log("evaluate") as log:
        from components.evaluate.evaluation import evaluate_run  # torch costs 5 s that --help need not pay

        return evaluate_run(run, log)


def kfp_step(run: str, *, manifest_path: str, log_metric: Callable[[str, float], None]) -> str:
    """`run_step` for KFP: its manifest is at `manifest_path` too, both losses are KFP metrics. Returns the manifest's digest."""
    manifest = run_step(run)
    for name in ("base_loss", "tuned_loss"):
        log_metric(name, float(manifest.facts[name] or 0))
    return hand_over(manifest, run=run, manifest_path=manifest_path)


def main() -> None:
    run_step(run_argument("evaluate", __doc__, must_be_finished="export"))


if __name__ == "__main__":
    main()
