import shutil
from pathlib import Path
from typing import Any

import certifi
import huggingface_hub.constants
import pytest

from components.prepare_dataset.__main__ import prepare
from components.prepare_dataset.claim import Claimed, check_account, claim
from components.prepare_dataset.kfp_steps import kfp_step
from components.shared.documents.failures import read_failures
from components.shared.errors import DataError, SpecError
from components.shared.job import pod_account
from components.shared.log import set_up_log
from components.shared.spec.file import parse_spec
from components.shared.step import open_run
from components.shared.store.layout import REPORT
from components.shared.store.manifest import publish_folder
from components.shared.store.series import note_finished
from components.shared.store.storage import LocalStore
from tests.support.tiny_models import write_conversations
from tests.unit.prepare_dataset.conftest import Shown

LOG = set_up_log("prepare_dataset")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def tree(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A spec as KFP hands it over: every number a float."""
    monkeypatch.setenv("HAGANE_WORK", str(tmp_path / "work"))
    write_conversations(tmp_path / "train.jsonl", 40, seed=1)
    data = {"train": str(tmp_path / "train.jsonl"), "held_out_share": 0.1, "row_tokens": 256.0}
    _into_the_cache(model_folder, tmp_path / "hub", monkeypatch)
    return {
        "name": "weekly",
        "store": str(tmp_path / "store"),
        "model": {"source": "org/tiny"},
        "data": data,
    }


def _into_the_cache(model_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is one of the hub, at a commit, as an earlier download left it on this machine."""
    shutil.copytree(model_folder, cache / "models--org--tiny/snapshots" / COMMIT)
    (cache / "models--org--tiny/refs").mkdir()
    (cache / "models--org--tiny/refs/main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))


def _claim(
    tree: dict[str, Any],
    kfp_run: str,
    *,
    images: str = "i:1",
    skip_if_unchanged: bool = True,
    notify_when: str = "failure",
    **overrides: Any,
) -> Claimed:
    return claim(
        tree,
        overrides,
        kfp_run=kfp_run,
        images=images,
        skip_if_unchanged=skip_if_unchanged,
        notify_when=notify_when,
        log=LOG,
    )


def _finish(claimed: Claimed, folder: Path) -> None:
    store, spec = open_run(claimed.run)
    folder.mkdir(exist_ok=True)
    publish_folder(store, REPORT, folder, made_by="write_report", inputs={}, facts={})
    note_finished(spec)


def test_what_is_seen_is_the_manifest_that_is_there_and_else_the_start_itself(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    first = _claim(tree, "kfp-1")
    assert (first.dataset_seen, first.plan_seen) == ("kfp-1", "kfp-1")
    made = prepare(open_run(first.run)[1], LOG)
    second = _claim(tree, "kfp-2")
    assert second == Claimed(first.run, first.inputs, made.digest, "kfp-2", first.spec_digest)
    (Path(first.run) / "dataset/manifest.json").unlink()
    assert _claim(tree, "kfp-3").dataset_seen == "kfp-3"
    write_conversations(tmp_path / "train.jsonl", 41, seed=1)
    changed = _claim(tree, "kfp-4")
    assert changed.inputs != first.inputs
    assert changed.dataset_seen == "kfp-4"


def test_data_that_changes_while_a_run_is_started_is_not_cached_under_the_old_digest(
    tree: dict[str, Any], tmp_path: Path, shown: Shown
) -> None:
    claimed = _claim(tree, "kfp-1")
    write_conversations(tmp_path / "train.jsonl", 41, seed=1)

    with pytest.raises(SystemExit) as ended:
        kfp_step(
            claimed.run,
            spec_digest=claimed.spec_digest,
            inputs=claimed.inputs,
            manifest_path=str(tmp_path / "m"),
            page_path=str(tmp_path / "p"),
            metrics=shown,
        )
    assert ended.value.code == 1
    assert not (tmp_path / "m").exists()


def test_each_start_of_a_series_is_a_run_of_its_own_until_nothing_is_new(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    name: dict[str, Any] = {"override_run_name": "weekly-{run}"}
    first = _claim(tree, "3F2a9c1d-77", **name)
    assert Path(first.run).name == "weekly-3f2a9c1d"
    assert (
        Path(_claim(tree, "aaaabbbb-1", **name).run).name == "weekly-aaaabbbb"
    )  # the first is not finished yet
    _finish(first, tmp_path / "report")
    assert _claim(tree, "ccccdddd-2", **name).run == first.run
    assert (
        Path(_claim(tree, "ccccdddd-2", skip_if_unchanged=False, **name).run).name
        == "weekly-ccccdddd"
    )


@pytest.mark.parametrize("change", ["data", "spec", "images", "lost report"])
def test_what_is_new_is_done(change: str, tree: dict[str, Any], tmp_path: Path) -> None:
    name: dict[str, Any] = {"override_run_name": "weekly-{run}"}
    first = _claim(tree, "11112222", **name)
    _finish(first, tmp_path / "report")
    if change == "data":
        write_conversations(tmp_path / "train.jsonl", 41, seed=1)
    if change == "lost report":
        (Path(first.run) / "report/manifest.json").unlink()
    settings: dict[str, Any] = {"override_epochs": 4} if change == "spec" else {}
    again = _claim(
        tree, "33334444", images="i:2" if change == "images" else "i:1", **name, **settings
    )
    assert Path(again.run).name == "weekly-33334444"


def test_a_run_that_comes_back_to_older_data_is_done_too(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    name: dict[str, Any] = {"override_run_name": "weekly-{run}"}
    _finish(_claim(tree, "11112222", **name), tmp_path / "report")
    write_conversations(tmp_path / "train.jsonl", 41, seed=1)
    _finish(_claim(tree, "33334444", **name), tmp_path / "report")
    write_conversations(tmp_path / "train.jsonl", 40, seed=1)
    assert Path(_claim(tree, "55556666", **name).run).name == "weekly-55556666"


def test_a_model_in_a_folder_is_always_trained_again_since_its_weights_may_be_new(
    tree: dict[str, Any], tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name: dict[str, Any] = {"override_run_name": "weekly-{run}"}
    tree["model"] = {"source": str(model_folder)}
    _finish(_claim(tree, "11112222", **name), tmp_path / "report")
    set_up_log("prepare_dataset")
    assert Path(_claim(tree, "33334444", **name).run).name == "weekly-33334444"
    assert "event=not_skipped" in capsys.readouterr().out


def test_nothing_is_claimed_when_what_is_set_is_wrong_and_the_lines_name_it(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(SpecError) as reported:
        _claim(
            tree,
            "kfp-1",
            override_epochs=-2,
            override_store="ftp://x",
            override_model="",
            notify_when="failures",
        )
    assert reported.value.problems == (
        "override_epochs=-2: training.epochs: got -2, must be at least 1",
        "notify_when: got 'failures', must be one of 'never', 'failure', 'always'",
    )
    assert not (tmp_path / "store").exists()


def test_no_override_leaves_the_spec_as_it_is(tree: dict[str, Any]) -> None:
    claimed = _claim(
        tree,
        "k",
        override_run_name="",
        override_model="",
        override_data="",
        override_epochs=0,
        override_store="",
    )
    assert open_run(claimed.run)[1] == parse_spec(tree)


def test_an_api_server_that_does_not_answer_leaves_the_account_unchecked_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("token", "namespace"):
        (tmp_path / name).write_text("kubeflow")
    shutil.copy(certifi.where(), tmp_path / "ca.crt")
    monkeypatch.setattr(pod_account, "ACCOUNT", tmp_path)
    spec = parse_spec(
        {
            "name": "r",
            "store": "s3://b/r",
            "model": {"source": "m"},
            "data": {"train": "d"},
            "backend": "pytorchjob",
        }
    )
    check_account(spec, set_up_log("claim"))
    assert capsys.readouterr().out == ""  # no pod, nothing to ask
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "9")
    check_account(spec, set_up_log("claim"))
    assert "event=account_not_checked component=claim why=URLError" in capsys.readouterr().out


def test_why_a_run_was_not_claimed_is_in_its_folder_until_it_is(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    data = tmp_path / "train.jsonl"
    there = data.read_bytes()
    data.unlink()
    with pytest.raises(DataError):
        _claim(tree, "mine")
    store = LocalStore(tmp_path / "store/weekly")
    (failure,) = read_failures(store)
    assert (failure.step, "train.jsonl" in failure.message) == ("claim_run", True)
    data.write_bytes(there)
    _claim(tree, "mine")
    assert read_failures(store) == ()
