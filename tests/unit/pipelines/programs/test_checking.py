"""What is known of a spec before a run, without its data and its model."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from components.shared.job.images import IN_THE_REPOSITORY
from components.shared.spec.file import parse_spec
from components.shared.spec.run_spec import RunSpec
from pipelines.programs.checking import image_problems


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
