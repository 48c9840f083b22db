"""Paths in a spec count from the spec's folder, paths of `--set` from the current folder."""

import os
from pathlib import Path

import pytest

from components.shared.errors import SpecError
from components.shared.spec.file import load_spec
from components.shared.spec.places import FIELDS, MODEL, TEMPLATE, moved, written_for
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
        loaded(**{kept: "here"})
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


def test_every_field_that_may_be_a_path_is_known(folder: Path) -> None:
    """A relative path in any text of a spec that is not among FIELDS would count from nowhere."""
    tree = loaded().model_dump()
    absolute = {where for where, text in _texts(tree) if text.startswith(os.fspath(folder))}
    assert absolute == set(FIELDS) - {("data", "held_out")}


def _texts(tree: object, where: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    if isinstance(tree, str):
        return [(where, tree)]
    items = tree.items() if isinstance(tree, dict) else ()
    return [found for key, value in items for found in _texts(value, (*where, key))]
