"""What a report reads of a run."""

from pathlib import Path

import pytest

from components.shared.errors import StoreError
from components.shared.step import open_run
from components.shared.store.layout import DATASET
from components.shared.store.manifest import publish_folder
from components.write_report.gather import gather
from tests.unit.write_report.example_run import write_example_run


def test_a_folder_made_without_the_file_that_is_read_is_named(tmp_path: Path) -> None:
    store = write_example_run(tmp_path / "store")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/rows.txt").write_text("1")
    publish_folder(store, DATASET, tmp_path / "other", made_by="another", inputs={}, facts={})
    _, spec = open_run(store.uri)
    with pytest.raises(StoreError, match=r"dataset: its manifest names no quality.json. Fix: "):
        gather(store, spec, uri=store.uri, work=tmp_path / "work")
