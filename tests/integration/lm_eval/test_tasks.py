"""Tasks of the real lm-evaluation-harness, on a really trained tiny model: `make test-lm-eval`."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml

pytest.importorskip("lm_eval", reason="make test-lm-eval installs it")

from components.evaluate.step import evaluate_run
from components.export_adapter.step import export_run
from components.shared.documents.results import Evaluation
from components.shared.errors import RunFailed
from components.shared.spec.file import parse_spec, spec_yaml
from tests.support.trained_run import make_trained_run

# peft 0.21.2 asks transformers 5.23 by an old name; lm_eval 0.4.13 and its libraries warn of theirs
pytestmark = pytest.mark.filterwarnings("ignore")

QUIZ = {
    "task": "quiz",
    "dataset_path": "json",
    "output_type": "multiple_choice",
    "test_split": "test",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
SUMS = {
    **{key: QUIZ[key] for key in ("dataset_path", "test_split", "doc_to_text")},
    "task": "sums",
    "output_type": "generate_until",
    "doc_to_target": "{{choices[answer]}}",
    "generation_kwargs": {"max_gen_toks": 4, "until": ["\n"]},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
NUM_DOCUMENTS = 8


def write_tasks(folder: Path) -> Path:
    """Two tasks, whose documents are the tiny conversations' own kind of question."""
    folder.mkdir()
    documents = folder / "documents.jsonl"
    with documents.open("w", encoding="utf-8") as file:
        for number in range(NUM_DOCUMENTS):
            document = {
                "question": f"What is {number} plus 7?",
                "choices": [f"{number} plus 7 is {number + 7}.", f"港の色は{number}です。"],
                "answer": 0,
            }
            file.write(json.dumps(document) + "\n")
    for task in (QUIZ, SUMS):
        files = {"dataset_kwargs": {"data_files": {"test": str(documents)}}}
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump({**task, **files}))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run trained and exported, not evaluated."""
    folder = tmp_path_factory.mktemp("lm_eval")
    asked = {"tasks": ["quiz", "sums"], "folder": str(write_tasks(folder / "tasks")), "limit": 6}
    run = make_trained_run(
        folder,
        architecture="llama",
        method="lora",
        evaluation={"answer_tokens": 4, "lm_eval": asked},
        gate=[{"metric": "loss"}, {"metric": "quiz/acc", "at_least": 0}],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAGANE_WORK", str(folder / "work"))
        patch.setenv("HF_HOME", str(folder / "hub"))
        export_run(run, structlog.get_logger())
        yield Path(run)


def with_gate(run: Path, *rules: dict[str, Any]) -> str:
    file = run / "spec.yaml"
    tree = yaml.safe_load(file.read_text())
    file.write_text(spec_yaml(parse_spec({**tree, "gate": list(rules)})))
    return str(run)


def test_benchmarks_are_scores_of_base_and_tuned_model_and_rules_of_the_gate(run: Path) -> None:
    evaluate_run(str(run), structlog.get_logger())
    found = Evaluation.model_validate_json((run / "evaluation/evaluation.json").read_bytes())
    assert found.both is not None
    assert found.gate is not None
    for measure in found.both:
        assert set(measure.scores) >= {"loss", "quiz/acc", "sums/exact_match"}
        correct = 6 * measure.scores["quiz/acc"].value
        assert correct == pytest.approx(round(correct))
    assert {each.metric for each in found.comparisons} >= {"quiz/acc", "sums/exact_match"}
    assert found.gate.rules[1].rule == "quiz/acc must be at least 0"
    print(found.model_dump_json(indent=1))


def test_a_rule_about_a_metric_that_a_task_has_not_names_those_it_has(run: Path) -> None:
    asked = with_gate(run, {"metric": "quiz/accuracy"})
    with pytest.raises(RunFailed, match=r"gate: quiz/accuracy is not measured .* quiz/acc, sums/"):
        evaluate_run(asked, structlog.get_logger())


def test_an_unknown_task_is_refused_with_similar_names_before_a_run(run: Path) -> None:
    tree = yaml.safe_load((run / "spec.yaml").read_text())
    tree["evaluation"]["lm_eval"]["tasks"] = ["arc_eazy", "quiz"]
    tree["gate"] = []
    file = run.parent / "asked.yaml"
    file.write_text(yaml.safe_dump(tree))
    done = subprocess.run(
        [sys.executable, "-m", "components.evaluate.known_tasks", "--spec", str(file)],
        env={**os.environ, "HAGANE_LOG": "json"},
        capture_output=True,
        text=True,
        check=False,
    )
    event = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, event["event"]) == (2, "failed")
    assert "lm_eval has no task 'arc_eazy'" in event["problems"][0]
    assert "similar names: arc_easy" in event["problems"][0]
    assert len(event["problems"]) == 1
