"""Data sets of the hub, by `hf://owner/name@revision`."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from components.prepare_dataset.readers import hub_data
from components.prepare_dataset.records.records import RecordSource, read_records
from components.shared.errors import HaganeError, HubUnreachable
from tests.support.hub import COMMIT, serve_hub


def _lines(*answers: str) -> bytes:
    return "".join(json.dumps({"instruction": "q", "output": answer}) + "\n" for answer in answers).encode()


FILES = {
    "README.md": b"---\nlicense: mit\n---",
    "data/train-00000-of-00002.jsonl": _lines("a", "b"),
    "data/train-00001-of-00002.jsonl": _lines("c"),
    "data/test-00000-of-00001.jsonl": _lines("t"),
    "other/extra.jsonl": _lines("x"),
    "dataset_infos.json": b"{}",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with serve_hub(FILES, cache=tmp_path / "cache", monkeypatch=monkeypatch):
        yield


def _answers(source: str, split: str | None = None) -> list[str]:
    (file,) = read_records(RecordSource(source, split=split))
    return [each.messages[-1].content for each in file.conversations]


def _complaint(source: str, split: str | None = None) -> str:
    with pytest.raises(HaganeError) as raised:
        read_records(RecordSource(source, split=split))
    (problem,) = raised.value.problems
    return problem


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("source", "split", "answers"),
    [
        ("hf://org/tiny", "train", ["a", "b", "c"]),
        ("hf://datasets/org/tiny@v1", "test", ["t"]),
        ("hf://org/tiny@main/other", None, ["x"]),
        ("hf://org/tiny/other/extra.jsonl", None, ["x"]),
        ("hf://org/tiny/data/train-*.jsonl", None, ["a", "b", "c"]),
    ],
)
def test_a_data_set_of_the_hub_is_read_by_split_folder_file_or_pattern(source: str, split: str | None, answers: list[str]) -> None:
    assert _answers(source, split) == answers


@pytest.mark.usefixtures("hub")
def test_places_name_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = read_records(RecordSource("hf://org/tiny/other"))
    assert file.conversations[0].where == f"hf://org/tiny@{COMMIT}/other/extra.jsonl:1"


@pytest.mark.usefixtures("hub")
def test_a_data_set_that_was_fetched_is_read_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers("hf://org/tiny", "train")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert _answers("hf://org/tiny", "train") == ["a", "b", "c"]


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("source", "split", "told"),
    [
        ("hf://org/tiny", None, "holds the splits test (1 files), train (2 files), and it is not said which to read. Fix: write"),
        ("hf://org/tiny", "dev", "holds no file of split 'dev'; splits that its file names say: test (1 files), train (2 files)"),
        ("hf://org/tiny@v9", None, "the hub has the data set, not the revision"),
        ("hf://org/tiny/nothing", None, "the data set holds no file of records there"),
        ("hf://gated/tiny", None, "is gated on the hub; accept its terms there"),
        ("hf://missing/tiny", None, "no data set of the hub that this HF_TOKEN (or none) may see"),
        ("hf://broken/tiny", "train", "the download from the hub broke off"),
        ("hf://tiny", None, "no address of a data set of the hub, must be such as hf://owner/name"),
        ("hf://a--b/c..d", None, "no address of a data set of the hub"),
    ],
)
def test_what_the_hub_refuses_is_one_line(source: str, split: str | None, told: str) -> None:
    problem = _complaint(source, split)
    assert problem.startswith(f"{source}: ")
    assert told in problem


@pytest.mark.usefixtures("hub")
def test_offline_a_data_set_of_which_only_some_files_may_be_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "data/train-00000-of-00002.jsonl"
    huggingface_hub.hf_hub_download("org/tiny", name, repo_type="dataset")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    problem = _complaint("hf://org/tiny/data", "train")
    assert "holds 1 files of records of it and no list of all, so some may be missing. Fix: fetch it" in problem
    assert _answers(f"hf://org/tiny/{name}") == ["a", "b"]


@pytest.mark.usefixtures("hub")
def test_offline_a_download_of_some_files_is_refused_where_more_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub.snapshot_download("org/tiny", repo_type="dataset", allow_patterns="data/train-00000*")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "not in the cache of the hub on this machine" in _complaint("hf://org/tiny/data", "train")


def test_offline_and_not_in_the_cache_is_one_line_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    problem = _complaint("hf://org/tiny@v1")
    assert "not in the cache of the hub on this machine, and the hub did not give it (OfflineModeIsEnabled)" in problem
    assert problem.endswith("hf download --repo-type dataset org/tiny --revision v1")


@pytest.mark.parametrize(
    ("error", "is_passing"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (ConnectionResetError(), True),
    ],
)
def test_only_a_hub_that_may_answer_later_is_asked_again(monkeypatch: pytest.MonkeyPatch, error: OSError, is_passing: bool) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    monkeypatch.setattr(hub_data, "patiently", lambda attempt, **_: attempt())
    with pytest.raises(HaganeError) as raised:
        hub_data.hub_files("hf://org/tiny", suffixes=[".jsonl"], is_records=bool)
    assert isinstance(raised.value, HubUnreachable) == is_passing
    assert "the download from the hub broke off" in str(raised.value)
