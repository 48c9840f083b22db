"""What publishing a run asks of its evaluation, and where it publishes."""

from pathlib import Path
from typing import Any

import pytest

from components.shared.spec.file import parse_spec
from components.shared.store.manifest import Manifest, publish_folder
from components.shared.store.published import make_latest
from components.shared.store.publishing import export_of_version, of_another_name, store_of
from components.shared.store.storage import LocalStore, open_store

SPEC: dict[str, Any] = {"name": "r", "store": "s", "model": {"source": "m"}, "data": {"train": "t"}, "publish": {"name": "support"}}


@pytest.mark.parametrize(
    ("facts", "refused"),
    [
        ({"published_name": "support", "published_move": 1}, {"sales"}),
        ({"published_name": "sales", "published_move": 0}, {"support"}),
        ({"published_move": 1}, {"sales"}),
        ({}, set()),
    ],
    ids=["the spec's name", "a name that the spec had then", "of an earlier version of hagane", "no rule against published"],
)
def test_a_model_compared_under_one_name_is_published_under_no_other(facts: dict[str, Any], refused: set[str]) -> None:
    evaluated = Manifest(folder="evaluation", made_by="evaluate", facts=facts)
    assert {name for name in ("support", "sales") if of_another_name(parse_spec(SPEC), evaluated, name)} == refused


def test_the_place_of_versions_is_beside_the_run_from_whatever_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_of(LocalStore(Path("store/r"))).uri == str(tmp_path / "store")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert store_of(LocalStore(Path("../store/r"))).uri == str(tmp_path / "store")
    assert store_of(open_store("s3://bucket/runs/r")).uri == "s3://bucket/runs"


def test_no_file_of_another_version_is_left_beside_the_fetched_one(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    for version, name in ((1, "model.safetensors"), (2, "model-00001-of-00002.safetensors")):
        local = tmp_path / str(version)
        (local / "model").mkdir(parents=True)
        (local / "model" / name).write_bytes(b"weights")
        publish_folder(store, f"published/support/v000{version}", local, made_by="publish", inputs={}, facts={"export": "model"})
        folder = export_of_version(store, make_latest(store, "support", version, why="published", instead_of=None), tmp_path / "fetched")
        assert [path.name for path in folder.iterdir()] == [name]
