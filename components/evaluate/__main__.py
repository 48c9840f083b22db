"""base model + export + held-out rows -> evaluation/: measures and answers of both, the gate, and
the published version."""

from pathlib import Path

from components.evaluate.page import answers_page, numbers_of
from components.evaluate.step import evaluate_run
from components.shared.documents.results import Evaluation
from components.shared.kfp_face import Metrics, hand_over, tell_numbers
from components.shared.step import run_argument, step_of_run
from components.shared.store.layout import EVALUATION
from components.shared.store.manifest import Manifest
from components.shared.store.storage import open_store


def run_step(run: str) -> Manifest:
    """evaluation/ is finished: held-out loss of base and tuned model, and their answers to the
    spec's questions.

    Raises:
        StoreError: the dataset or the export is not finished, or an object is damaged.
        RunFailed: a rule of the gate is not met and the spec says it must be; evaluation/ is
            finished all the same, and nothing is published.
    """
    with step_of_run("evaluate", run) as log:
        return evaluate_run(run, log)


def kfp_step(
    run: str, *, spec_digest: str = "", manifest_path: str, samples_path: str, metrics: Metrics
) -> str:
    """`run_step` for KFP, which has its manifest, both models' answers and their losses too.
    Returns the manifest's digest."""
    with step_of_run("evaluate", run, spec_digest=spec_digest) as log:
        manifest = evaluate_run(run, log)
        evaluation = Evaluation.model_validate_json(
            open_store(run).read_bytes(f"{EVALUATION}/evaluation.json")
        )
        Path(samples_path).write_text(answers_page(run, evaluation), encoding="utf-8")
        tell_numbers(metrics, numbers_of(evaluation))
        return hand_over(manifest, run=run, manifest_path=manifest_path)


def main() -> None:
    run_step(run_argument("evaluate", __doc__, must_be_finished="export"))


if __name__ == "__main__":
    main()
