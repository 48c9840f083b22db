"""What is known of a spec before a run, without its data and its model."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from components.shared.errors import HaganeError
from components.shared.job.images import IN_THE_REPOSITORY
from components.shared.spec.file import parse_spec, spec_yaml
from components.shared.spec.run_spec import RunSpec
from pipelines.commands.run import checked
from pipelines.programs import checking
from pipelines.programs.checking import (
    image_cautions,
    image_problems,
    pod_problems,
    tracker_problems,
)


def spec(**evaluation: Any) -> RunSpec:
    return parse_spec(
        {
            "name": "demo",
            "store": "s3://bucket/runs",
            "model": {"source": "m"},
            "data": {"train": "t.jsonl"},
            "evaluation": evaluation,
        }
    )


def test_benchmarks_are_refused_where_the_image_of_evaluate_does_not_hold_the_package() -> None:
    (problem,) = image_problems(spec(lm_eval={"tasks": ["arc_easy"]}))
    assert problem.startswith("evaluation.lm_eval.tasks: needs the Python package lm_eval")
    assert "has_lm_eval: true" in problem


def test_benchmarks_are_taken_where_the_images_are_said_to_hold_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(shutil.copy(IN_THE_REPOSITORY, tmp_path / "images.yaml"))
    with file.open("a") as images:
        images.write("has_lm_eval: true\n")
    monkeypatch.setenv("HAGANE_IMAGES", str(file))
    assert image_problems(spec(lm_eval={"tasks": ["arc_easy"]})) == []


def test_a_spec_without_benchmarks_needs_no_package() -> None:
    assert image_problems(spec()) == []


def test_a_plan_for_a_cluster_cautions_that_submit_would_refuse_its_benchmarks() -> None:
    """`hagane run` of the same spec evaluates here."""
    asked = spec(lm_eval={"tasks": ["arc_easy"]})
    assert image_cautions(asked) == []
    (caution,) = image_cautions(asked.model_copy(update={"backend": "pytorchjob"}))
    assert "`hagane submit` refuses this spec: evaluation.lm_eval.tasks: needs" in caution


def test_plan_takes_the_benchmarks_of_a_job_and_a_run_in_images_refuses_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checking, "CHECKS", {})
    asked = spec(lm_eval={"tasks": ["arc_easy"]}).model_copy(update={"backend": "pytorchjob"})
    (tmp_path / "spec.yaml").write_text(spec_yaml(asked))
    assert checked(tmp_path / "spec.yaml", None, here=False).backend == "pytorchjob"
    with pytest.raises(HaganeError) as raised:
        checked(tmp_path / "spec.yaml", None, here=False, in_images=True)
    assert raised.value.problems == (checking.NO_LM_EVAL,)


def tracked(service: str, backend: str = "local") -> RunSpec:
    tree = spec().model_dump()
    return RunSpec.model_validate({**tree, "backend": backend, "training": {"report_to": service}})


def test_a_service_whose_package_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracker_problems(spec()) == []
    assert tracker_problems(tracked("wandb")) == [
        "training.report_to: found wandb, whose Python package wandb is not installed here. Fix: "
        "pip install wandb, or set none"
    ]
    (tmp_path / "wandb.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert tracker_problems(tracked("wandb")) == []


def test_in_a_cluster_the_workers_image_must_be_said_to_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (problem,) = tracker_problems(tracked("mlflow", "pytorchjob"))
    assert "is not in the workers' image" in problem
    file = Path(shutil.copy(IN_THE_REPOSITORY, tmp_path / "images.yaml"))
    with file.open("a") as images:
        images.write("trackers: [mlflow]\n")
    monkeypatch.setenv("HAGANE_IMAGES", str(file))
    assert tracker_problems(tracked("mlflow", "pytorchjob")) == []


@pytest.mark.parametrize(
    ("cluster", "refused"),
    [
        ({}, True),
        ({"claims": {"models": "/elsewhere"}}, True),
        ({"claims": {"models": "FOLDER"}}, False),
        ({"pod_patch": {"spec": {"volumes": []}}}, False),
    ],
)
@pytest.mark.parametrize("backend", ["pytorchjob", "trainjob", "local"])
def test_a_model_that_only_this_machine_sees_is_refused_before_a_job_is_made(
    tmp_path: Path, cluster: dict[str, Any], refused: bool, backend: str
) -> None:
    (tmp_path / "model").mkdir()
    cluster = {
        key: {name: str(tmp_path) if at == "FOLDER" else at for name, at in value.items()}
        for key, value in cluster.items()
    }
    tree = spec().model_dump(mode="json")
    tree |= {"backend": backend, "cluster": cluster, "model": {"source": str(tmp_path / "model")}}
    problems = pod_problems(parse_spec(tree))
    assert len(problems) == (refused and backend != "local")
    assert all("cluster.claims (docs/how-to/models-on-pvc.md)" in problem for problem in problems)
