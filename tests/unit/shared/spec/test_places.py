"""Paths in a spec count from the spec's folder, paths of `--set` from the current folder."""

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from components.prepare_dataset.readers.source_files import files_of
from components.shared.errors import SpecError
from components.shared.spec.file import load_spec
from components.shared.spec.places import DATA, FIELDS, MODEL, TEMPLATE, moved, written_for
from components.shared.spec.run_spec import RunSpec

SPEC = """\
name: places
store: runs
model: {source: MODEL}
data: {train: TRAIN, chat_template: TEMPLATE}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Has specs/ with all that a spec names, and is the current folder."""
    for name in ("specs/tiny", "specs/data", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "specs/data/train.jsonl").touch()
    (tmp_path / "specs/chat.jinja").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(
    *overrides: str,
    model: str = "tiny",
    train: str = "data/train.jsonl",
    template: str = "chat.jinja",
) -> RunSpec:
    text = SPEC.replace("MODEL", model).replace("TRAIN", train).replace("TEMPLATE", template)
    Path("specs/spec.yaml").write_text(text)
    return load_spec(Path("specs/spec.yaml"), overrides)


def test_every_path_of_a_spec_counts_from_its_folder(folder: Path) -> None:
    spec, specs = loaded(), folder / "specs"
    assert spec.store == str(specs / "runs")
    assert spec.model.source == str(specs / "tiny")
    assert spec.data.train == str(specs / "data/train.jsonl")
    assert spec.data.chat_template == str(specs / "chat.jinja")


def test_it_is_the_same_spec_from_any_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = loaded()
    monkeypatch.chdir(folder / "elsewhere")
    assert load_spec(Path("../specs/spec.yaml")) == spec
    monkeypatch.chdir(folder / "specs")
    assert load_spec(Path("spec.yaml")) == spec


def test_paths_of_overrides_count_from_the_current_folder(folder: Path) -> None:
    (folder / "mine.jsonl").touch()
    spec = loaded("data.train=mine.jsonl", "store=here")
    assert (spec.data.train, spec.store) == (str(folder / "mine.jsonl"), str(folder / "here"))
    assert spec.data.chat_template == str(folder / "specs/chat.jinja")


def test_sources_of_a_list_count_from_the_folder_too(folder: Path) -> None:
    spec = loaded(train="[data/train.jsonl, {path: more/*.jsonl, repeat: 2}]")
    specs = folder / "specs"
    paths = [source.path for source in spec.data.train_sources]
    assert paths == [str(specs / "data/train.jsonl"), str(specs / "more/*.jsonl")]


@pytest.mark.parametrize("place", ["s3://bucket/x.jsonl", "hf://a/b@main", "/x.jsonl", "~/x.jsonl"])
def test_a_place_that_is_no_relative_path_stays(folder: Path, place: str) -> None:
    assert loaded(train=place).data.train == place


@pytest.mark.parametrize("source", ["org/name", "gpt2"])
def test_a_hub_id_stays_where_no_such_folder_is_beside_the_spec(folder: Path, source: str) -> None:
    assert loaded(model=source).model.source == source


def test_a_pattern_is_escaped_where_the_folder_looks_like_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "specs").rename(folder / "a[1]")
    (folder / "specs").symlink_to("a[1]")
    monkeypatch.chdir(folder / "a[1]")
    Path("specs").mkdir()
    Path("spec.yaml").write_text(
        SPEC.replace("MODEL", "tiny").replace("TRAIN", "data/*.jsonl").replace("TEMPLATE", "model")
    )
    assert load_spec(Path("spec.yaml")).data.train == f"{folder}/a[[]1]/data/*.jsonl"


@pytest.mark.parametrize(
    ("field", "kept"),
    [("data.train", "train"), ("data.chat_template", "template"), ("model.source", "model")],
)
def test_a_path_that_only_the_current_folder_has_is_refused_with_the_right_one(
    folder: Path, field: str, kept: str
) -> None:
    (folder / "here").mkdir()
    with pytest.raises(SpecError) as caught:
        loaded(**{kept: "./here"})
    (problem,) = caught.value.problems
    assert problem.startswith(f"specs/spec.yaml:{4 if field.startswith('data') else 3}: {field}: ")
    assert problem.endswith("Fix: write '../here'")


def test_paths_of_the_command_line_are_written_for_the_specs_folder(folder: Path) -> None:
    assert written_for(MODEL, "specs/tiny", folder / "elsewhere") == "../specs/tiny"
    assert written_for(MODEL, "org/name", folder / "elsewhere") == "org/name"
    assert written_for(TEMPLATE, "model", folder / "elsewhere") == "model"
    tree = {"store": "runs", "data": {"train": ["a.jsonl", {"path": "b.jsonl"}]}}
    moved(tree, folder / "specs")
    assert tree == {
        "store": "../runs",
        "data": {"train": ["../a.jsonl", {"path": "../b.jsonl"}]},
    }


NO_PATHS = {
    *("name", "model.revision", "data.columns", "data.encoding", "data.template_args"),
    "data.new_tokens",
    *("lora.targets", "hardware.gpu", "hardware.currency", "publish.name"),
    *("evaluation.questions", "evaluation.pattern", "evaluation.lm_eval.tasks"),
}
"""Fields of text that name no path of this machine. Those of `cluster` name objects in one."""


def test_every_field_that_may_be_a_path_is_known() -> None:
    """A relative path in a field of text that is not among FIELDS would count from nowhere."""
    of_text = {where for where in _fields_of_text(RunSpec) if not where.startswith("cluster.")}
    assert of_text >= NO_PATHS
    assert of_text - NO_PATHS == {".".join(field) for field in FIELDS}


def test_a_folder_of_tasks_counts_from_the_folder_of_the_spec(folder: Path) -> None:
    text = f"{SPEC}evaluation: {{lm_eval: {{folder: tasks}}}}\n"
    Path("specs/spec.yaml").write_text(text.replace("TEMPLATE", "model"))
    found = load_spec(Path("specs/spec.yaml")).evaluation.lm_eval.folder
    assert found == str(folder / "specs/tasks")


def test_a_hub_id_may_be_spelled_as_a_folder_of_the_current_folder(folder: Path) -> None:
    (folder / "org/name").mkdir(parents=True)
    assert loaded(model="org/name").model.source == "org/name"


@pytest.mark.parametrize("named", ["data", "data/train.jsonl", "data [v1]"])
def test_what_is_there_is_named_below_a_folder_that_looks_like_a_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    for name in ("data", "data [v1]"):
        (tmp_path / "[work]" / name).mkdir(parents=True)
        (tmp_path / "[work]" / name / "train.jsonl").touch()
    path = tmp_path / "[work]/spec.yaml"
    path.write_text(
        SPEC.replace("MODEL", "gpt2").replace("TRAIN", f"'{named}'").replace("TEMPLATE", "model")
    )
    monkeypatch.chdir(tmp_path)
    train = load_spec(path).data.train
    assert isinstance(train, str)
    assert [Path(each).name for each in files_of(train)] == ["train.jsonl"]


def test_a_pattern_of_the_command_line_is_searched_below_folders_that_look_like_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "[a]").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "[a]/x.jsonl").touch()
    monkeypatch.chdir(tmp_path / "[a]")
    written = written_for(DATA[0], "*.jsonl", tmp_path / "b")
    monkeypatch.chdir(tmp_path / "b")
    assert [Path(each).name for each in files_of(written)] == ["x.jsonl"]


def _fields_of_text(model: type[BaseModel], where: str = "") -> set[str]:
    """Dotted names of the fields, of sections too, whose values may hold any text."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= _fields_of_text(kind, f"{where}{name}.")
        elif str in _kinds(kind):
            found.add(f"{where}{name}")
    return found


def _kinds(annotation: Any) -> set[Any]:
    """The types in an annotation, however deep; values of a Literal are none."""
    if get_origin(annotation) is Literal:
        return set()
    parts = map(_kinds, get_args(annotation))
    return {annotation}.union(*parts)
