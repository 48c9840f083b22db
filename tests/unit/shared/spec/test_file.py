from pathlib import Path

import pytest

from components.shared.errors import SpecError
from components.shared.spec.file import SpecProblems, load_spec, parse_spec, spec_yaml
from components.shared.spec.run_spec import RunSpec
from components.shared.spec.training import TrainingSpec
from tests.support.field_docs import field_docs

GOOD = """\
name: good
store: runs
model:
  source: m
data:
  train: d.jsonl
training:
  lr_peak: 2e-3
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(text)
    return path


def problems_of(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides)
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


def test_a_number_with_an_exponent_is_a_number_with_or_without_its_dot(tmp_path: Path) -> None:
    assert load_spec(written(tmp_path, GOOD)).training.lr_peak == 0.002


def test_the_last_override_wins_and_reaches_sections_that_the_file_leaves_out(
    tmp_path: Path,
) -> None:
    spec = load_spec(
        written(tmp_path, GOOD),
        ["training.epochs=4", "lora.rank=2", "training.epochs=5", "lora.targets=[q_proj]"],
    )
    assert (spec.training.epochs, spec.lora.rank, spec.lora.targets) == (5, 2, ("q_proj",))


def test_every_problem_is_reported_with_its_line(tmp_path: Path) -> None:
    text = GOOD + '  epoch: 3\n  epochs: "3"\n  seed: -1\nlora: {rank: 0}\n'
    assert problems_of(written(tmp_path, text)) == [
        "10: training.epochs: got '3', must be a whole number",
        "11: training.seed: got -1, must be at least 0",
        (
            "9: training.epoch: unknown key; did you mean 'epochs'? allowed: "
            f"{', '.join(TrainingSpec.model_fields)}"
        ),
        "12: lora.rank: got 0, must be at least 1",
    ]


def test_a_key_given_twice_is_reported(tmp_path: Path) -> None:
    assert problems_of(written(tmp_path, GOOD + "  lr_peak: 1\n")) == [
        "9: training.lr_peak: given twice, first in line 8"
    ]


def test_a_wrong_override_is_reported_as_it_was_typed(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    assert problems_of(path, "training.epochs=x", "nonsense") == [
        "--set nonsense: must be of the form a.b=value, such as training.epochs=5",
        "--set training.epochs=x: training.epochs: got 'x', must be a whole number",
    ]


@pytest.mark.parametrize(
    ("text", "part"),
    [("a: [", "not YAML"), ("- a\n", "must be a mapping"), ("", "must be a mapping")],
)
def test_what_is_no_spec_at_all_is_reported(text: str, part: str, tmp_path: Path) -> None:
    (problem,) = problems_of(written(tmp_path, text))
    assert part in problem


def test_the_rest_of_a_wrong_spec_can_still_be_checked(tmp_path: Path) -> None:
    with pytest.raises(SpecProblems) as caught:
        load_spec(written(tmp_path, GOOD + "  seed: x\nfoo: 1\n"))
    assert caught.value.rest == load_spec(written(tmp_path, GOOD))


def test_a_spec_survives_yaml_and_the_floats_of_kfp() -> None:
    spec = parse_spec(
        {
            "name": "a",
            "store": "s",
            "model": {"source": "m"},
            "data": {"train": "d", "row_tokens": 64.0},
            "lora": {"rank": 8.0},
        }
    )
    assert spec.lora.rank == 8
    import yaml

    assert parse_spec(yaml.safe_load(spec_yaml(spec))) == spec


def test_specs_that_ask_the_same_have_one_digest() -> None:
    tree = {"name": "a", "store": "s", "model": {"source": "m"}, "data": {"train": "d"}}
    assert parse_spec(tree).digest == parse_spec({**tree, "training": {"epochs": 3}}).digest
    assert parse_spec(tree).digest != parse_spec({**tree, "training": {"epochs": 4}}).digest


def test_every_field_is_documented() -> None:
    sections = [
        RunSpec,
        *(
            field.annotation
            for field in RunSpec.model_fields.values()
            if hasattr(field.annotation, "model_fields")
        ),
    ]
    bare = [
        f"{section.__name__}.{name}"  # type: ignore[union-attr]
        for section in sections
        for name, field in section.model_fields.items()  # type: ignore[union-attr]
        if name not in field_docs(section) and not hasattr(field.annotation, "model_fields")
    ]
    assert bare == []


@pytest.mark.parametrize("path", sorted(Path("specs").glob("*.yaml")), ids=str)
def test_every_spec_in_the_repository_is_valid(path: Path) -> None:
    assert load_spec(path).name


@pytest.mark.parametrize(
    "field", ["namespace", "service_account", "priority_class", "queue", "runtime", "work_claim"]
)
def test_what_is_no_name_of_an_object_of_kubernetes_is_refused(field: str, tmp_path: Path) -> None:
    (problem,) = problems_of(written(tmp_path, GOOD), f"cluster.{field}=Not A Name")
    assert (
        f"cluster.{field}: got 'Not A Name', must be the name of an object of Kubernetes" in problem
    )
    assert load_spec(written(tmp_path, GOOD), [f"cluster.{field}=a-name.of-2"])
