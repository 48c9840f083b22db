"""A really trained tiny adapter on its base -> evaluation/, and the gate behind it."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import yaml
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs
from transformers import AutoModelForCausalLM

from components.evaluate.measure.held_out import PackedRow, count, read_rows
from components.evaluate.measure.measures import Found, measure_of
from components.evaluate.page import answers_page
from components.evaluate.step import evaluate_run
from components.export_adapter.step import export_run
from components.shared.documents.lineage import Lineage
from components.shared.documents.plan import AfterPlan, Plan
from components.shared.documents.results import Evaluation, Measure
from components.shared.errors import RunFailed
from components.shared.spec.file import parse_spec, spec_yaml
from components.shared.store.manifest import Manifest, publish_folder, require_manifest
from components.shared.store.published import Claim, claim_version, make_latest, versions
from components.shared.store.storage import LocalStore
from tests.support.trained_run import ATTEMPT, make_trained_run

# peft 0.21.2 asks transformers 5.23 by an old name
pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)

QUESTIONS = ["What is 12 plus 7?", "41の次の数は何ですか。"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Holds a trained run whose adapter/ is the checkpoint's, unverified: that is not what is
    tested here."""
    folder = tmp_path_factory.mktemp("evaluate")
    run = make_trained_run(
        folder,
        architecture="llama",
        method="lora",
        evaluation={"questions": QUESTIONS, "answer_tokens": 6, "must_improve": True},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAGANE_WORK", str(folder / "work"))
        publish_folder(
            LocalStore(Path(run)),
            "adapter",
            checkpoint(run),
            made_by="export_adapter",
            inputs={},
            facts={},
        )
        yield folder


def checkpoint(run: str) -> Path:
    return Path(run, "checkpoints/epoch-0001", ATTEMPT)


def evaluate(run: str) -> Manifest:
    return evaluate_run(run, structlog.get_logger())


def measured(base: Path, rows: list[PackedRow]) -> Measure:
    return measure_of(
        Found(count(AutoModelForCausalLM.from_pretrained(base), rows, on_row=lambda: None))
    )


def run_with_worse_adapter(folder: Path, copy: Path, *, must_improve: bool) -> str:
    """A copy of the run whose adapter pulls away from what was learned."""
    run = shutil.copytree(
        folder / "store/tiny", copy / "run", ignore=shutil.ignore_patterns("evaluation")
    )
    spec = run / "spec.yaml"
    spec.write_text(
        spec.read_text().replace("must_improve: true", f"must_improve: {str(must_improve).lower()}")
    )
    local = shutil.copytree(checkpoint(str(run)), copy / "worse")
    weights = load_file(local / "adapter_model.safetensors")
    save_file(
        {name: -4 * w if "lora_B" in name else w for name, w in weights.items()},
        local / "adapter_model.safetensors",
    )
    publish_folder(LocalStore(run), "adapter", local, made_by="export_adapter", inputs={}, facts={})
    return str(run)


def test_base_and_tuned_model_are_measured_and_asked(folder: Path):
    run = folder / "store/tiny"
    with capture_logs() as events:
        manifest = evaluate(str(run))
    found = Evaluation.model_validate_json((run / "evaluation/evaluation.json").read_bytes())
    rows = read_rows(run / "dataset/held_out.parquet")
    base = measured(folder / "base", rows)
    assert found.base is not None
    assert found.tuned is not None
    assert found.base.loss == pytest.approx(base.loss, abs=1e-5)
    assert found.tuned.loss < found.base.loss - 0.1
    assert found.improved
    assert [answer.question for answer in found.answers] == QUESTIONS
    assert all(answer.base != answer.tuned for answer in found.answers)
    assert manifest.facts["tuned_loss"] == found.tuned.loss
    assert events[-2]["event"] == "progress"
    assert events[-2]["done"] == events[-2]["total"] == 2 * (len(rows) + 2)


def test_as_many_rows_as_planned_are_measured_and_the_page_tells_of_how_many(
    folder: Path, tmp_path: Path
):
    run = shutil.copytree(
        folder / "store/tiny", tmp_path / "run", ignore=shutil.ignore_patterns("evaluation")
    )
    plan = Plan.model_validate_json((run / "plan/plan.json").read_bytes())
    after = AfterPlan(held_out_rows=2, hours=0.1, cpus=2, export_bytes=1, evaluate_bytes=1)
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan/plan.json").write_text(
        plan.model_copy(update={"after": after}).model_dump_json()
    )
    publish_folder(
        LocalStore(run), "plan", tmp_path / "plan", made_by="render_config", inputs={}, facts={}
    )
    evaluate(str(run))
    found = Evaluation.model_validate_json((run / "evaluation/evaluation.json").read_bytes())
    rows = read_rows(run / "dataset/held_out.parquet")
    base = measured(folder / "base", [rows[0], rows[len(rows) // 2]])
    assert (found.measured_rows, found.held_out_rows) == (2, len(rows))
    assert found.base is not None
    assert found.base.loss == pytest.approx(base.loss, abs=1e-5)
    assert f"(2 of {len(rows)} rows)" in answers_page("tiny", found)


def test_evaluating_a_finished_run_again_changes_nothing(folder: Path):
    run = folder / "store/tiny"
    first = evaluate(str(run))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert evaluate(str(run)) == first
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_model_that_did_not_improve_fails_the_run_again_and_again_and_can_be_read(
    folder: Path, tmp_path: Path
):
    run = run_with_worse_adapter(folder, tmp_path, must_improve=True)
    problems: list[str] = []
    for _ in range(2):
        with pytest.raises(
            RunFailed,
            match=(
                r"gate: held-out loss must fall below the base model's by more than noise: .* "
                r"worse by"
            ),
        ) as failed:
            evaluate(run)
        problems += failed.value.problems
    assert problems[0] == problems[1]
    assert json.loads(Path(run, "evaluation/evaluation.json").read_bytes())["improved"] is False


def test_model_that_did_not_improve_passes_where_the_spec_allows_it(folder: Path, tmp_path: Path):
    assert (
        evaluate(run_with_worse_adapter(folder, tmp_path, must_improve=False)).facts["improved"]
        is False
    )


@pytest.fixture(scope="module")
def publishable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a trained, exported and verified run that is to be published as `support`, with
    metrics on answers."""
    folder = tmp_path_factory.mktemp("publish")
    evaluation = {
        "answer_tokens": 6,
        "metrics": ["exact_match", "rouge_l", "json"],
        "references": 5,
    }
    run = make_trained_run(
        folder,
        architecture="llama",
        method="lora",
        evaluation=evaluation,
        publish={"name": "support"},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAGANE_WORK", str(folder / "work"))
        export_run(run, structlog.get_logger())
        yield folder


def copied(publishable: Path, store: Path, **settings: object) -> str:
    """The run in another store, its spec with other settings."""
    shutil.copytree(publishable / "store", store)
    spec = yaml.safe_load((store / "tiny/spec.yaml").read_text())
    (store / "tiny/spec.yaml").write_text(
        spec_yaml(parse_spec({**spec, "store": str(store), **settings}))
    )
    return str(store / "tiny")


def test_run_that_meets_its_gate_is_published_with_its_lineage(publishable: Path, tmp_path: Path):
    run = copied(publishable, tmp_path / "store")
    evaluate(run)
    evaluate(run)  # again changes nothing
    (version,) = versions(LocalStore(tmp_path / "store"))
    assert (version.label, version.is_latest) == ("v1", True)
    folder = tmp_path / "store/published/support/v0001"
    assert json.loads((folder.parent / "latest.json").read_bytes())["uri"] == str(folder)
    assert (folder / "adapter/adapter_model.safetensors").read_bytes() == Path(
        run, "adapter/adapter_model.safetensors"
    ).read_bytes()
    assert "support: python load.py" in (folder / "adapter/serve/load.py").read_text()
    lineage = Lineage.model_validate_json((folder / "lineage.json").read_bytes())
    store = LocalStore(Path(run))
    assert lineage.dataset.manifest_sha256 == require_manifest(store, "dataset").digest
    assert (
        lineage.checkpoint.manifest_sha256
        == require_manifest(store, "checkpoints/epoch-0001").digest
    )
    assert (
        lineage.spec_sha256 == parse_spec(yaml.safe_load((folder / "spec.yaml").read_text())).digest
    )
    assert lineage.code.commit is not None
    assert lineage.run == Path(run).name
    texts = [path for path in folder.rglob("*") if path.suffix in {".json", ".md", ".sh", ".py"}]
    naming = {path.name for path in texts if os.fspath(tmp_path) in path.read_text()}
    assert naming <= {"manifest.json"}  # which stays in the store
    found = Evaluation.model_validate_json((folder / "evaluation.json").read_bytes())
    assert found.both is not None
    base, tuned = found.both
    assert set(tuned.scores) >= {"loss", "token_accuracy", "exact_match", "rouge_l", "json"}
    assert tuned.scores["rouge_l"].value > base.scores["rouge_l"].value


def test_run_that_misses_its_gate_publishes_nothing_and_the_latest_stays(
    publishable: Path, tmp_path: Path
):
    run = copied(publishable, tmp_path / "store")
    evaluate(run)
    latest = tmp_path / "store/published/support/latest.json"
    before = latest.read_bytes()
    with pytest.raises(
        RunFailed,
        match=r"must fall below that of the published version by at least 0.01: found .* by 0 ",
    ):
        evaluate(
            run_of_the_same_export(
                run, gate=[{"metric": "loss", "against": "published", "improve_by": 0.01}]
            )
        )
    assert list((publishable / "work").glob("*/evaluate")) == []
    assert latest.read_bytes() == before
    assert [each.label for each in versions(LocalStore(tmp_path / "store"))] == ["v1"]


def run_of_the_same_export(run: str, **settings: object) -> str:
    """Another run, `other`, in the store of `run`: its model is the same, its export's manifest
    another."""
    other = shutil.copytree(
        run, Path(run).with_name("other"), ignore=shutil.ignore_patterns("evaluation")
    )
    spec = yaml.safe_load((other / "spec.yaml").read_text())
    (other / "spec.yaml").write_text(spec_yaml(parse_spec({**spec, "name": "other", **settings})))
    export = require_manifest(LocalStore(other), "adapter").model_copy(
        update={"inputs": {"checkpoints": "of another training"}}
    )
    (other / "adapter/manifest.json").write_bytes(export.to_bytes())
    return str(other)


def test_gate_against_the_published_version_measures_that_one_and_replaces_it_only(
    publishable: Path, tmp_path: Path
):
    """A worse adapter is published first; the run's own one is then compared with it, and takes its
    place."""
    rule = {"gate": [{"metric": "loss", "against": "published"}]}
    run = copied(publishable, tmp_path / "store", **rule)
    place, worse = LocalStore(tmp_path / "store"), tmp_path / "worse"
    shutil.copytree(Path(run, "adapter"), worse / "adapter")
    weights = load_file(worse / "adapter/adapter_model.safetensors")
    halved = {name: 0.5 * w if "lora_B" in name else w for name, w in weights.items()}
    save_file(halved, worse / "adapter/adapter_model.safetensors")
    number = claim_version(place, "support", Claim(run="another", export="halved"))
    publish_folder(
        place,
        "published/support/v0001",
        worse,
        made_by="publish",
        inputs={},
        facts={"export": "adapter"},
    )
    make_latest(place, "support", number, why="published", instead_of=0)
    first = evaluate(run)
    assert evaluate(run) == first, (
        "started again after it was published, it is not compared with itself"
    )
    found = Evaluation.model_validate_json(Path(run, "evaluation/evaluation.json").read_bytes())
    (beside,) = [
        each for each in found.comparisons if (each.against, each.metric) == ("published", "loss")
    ]
    assert found.published == "support v1"
    assert found.both is not None
    base, tuned = found.both
    assert tuned.loss < beside.other < base.loss
    assert [(each.label, each.is_latest) for each in versions(place)] == [
        ("v1", False),
        ("v2", True),
    ]
