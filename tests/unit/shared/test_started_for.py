"""A step of a pipeline does nothing for a spec that is not the one its pipeline was started for."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.shared.documents.run_end import RunEnd, read_end, write_end
from components.shared.spec.file import parse_spec, spec_yaml
from components.shared.step import claim_run, step_of_run
from components.shared.store.layout import SPEC
from components.shared.store.manifest import publish_folder
from components.shared.store.series import Asked, note_asked
from components.shared.store.storage import LocalStore
from components.shared.store.writer import OWNER_VARIABLE, claim_for_kfp, kfp_runs_at, kfp_writer


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.delenv(OWNER_VARIABLE, raising=False)
    return {"name": "r", "store": str(tmp_path), "model": {"source": "m"}, "data": {"train": "d"}}


def test_a_step_of_another_spec_stops_with_its_owner_and_stores_nothing(tree: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    first, second = parse_spec(tree), parse_spec({**tree, "cluster": {"user": "heron"}})
    store = claim_run(first)
    claim_for_kfp(store, kfp_writer("id-b", second.digest))
    store.write_bytes(SPEC, spec_yaml(second).encode())
    before = {each.key: store.read_bytes(each.key) for each in store.list()}
    begun = False
    with pytest.raises(SystemExit) as ended, step_of_run("evaluate", first.run_uri, spec_digest=first.digest):
        begun = True
    assert (ended.value.code, begun) == (2, False)
    line = capsys.readouterr().out
    assert f"r/spec.yaml: found a spec of digest {second.digest[:12]}, stored by run 'id-b' of Kubeflow Pipelines, but" in line
    assert f"this run was started for {first.digest[:12]}; nothing was done. Fix: start it again under another name" in line
    assert {each.key: store.read_bytes(each.key) for each in store.list()} == before


@pytest.mark.parametrize("is_beside", [True, False])
def test_where_a_run_with_the_same_spec_works_on_a_step_is_no_retry_of_the_one_that_is_over(is_beside: bool, tree: dict[str, Any]) -> None:
    spec = parse_spec(tree)
    store = claim_run(spec)
    if is_beside:
        claim_for_kfp(store, kfp_writer("id-a", spec.digest))
    note_asked(store, Asked(series="r", fingerprint="f", kfp_run="id-b"))
    write_end(store, RunEnd(kfp_run="id-b", state="SUCCEEDED", title="Run r finished", at=datetime.now(UTC)))
    with step_of_run("evaluate", spec.run_uri, spec_digest=spec.digest):
        pass
    assert kfp_runs_at(store, spec.digest) == (["id-a"] if is_beside else ["id-b"])
    end = read_end(store, "id-b")
    assert end is not None
    assert (end.resumed_by == "") is is_beside


@pytest.mark.parametrize("owner", ["", "owner of hagane run"])
def test_a_step_of_its_own_spec_runs(owner: str, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if owner:
        monkeypatch.setenv(OWNER_VARIABLE, owner)
    spec = parse_spec(tree)
    store = claim_run(spec)
    note_asked(store, Asked(series="r", fingerprint="f", kfp_run="id-a"))
    begun = False
    with step_of_run("evaluate", spec.run_uri, spec_digest=spec.digest):
        begun = True
    assert begun


def test_what_another_start_finished_meanwhile_from_the_same_inputs_stays(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "run")
    published = []
    for text in ("first", "second"):
        local = tmp_path / text
        local.mkdir()
        (local / "a").write_text(text)
        published.append(publish_folder(store, "plan", local, made_by="render_config", inputs={"spec": "1"}, facts={}))
    assert published[0] == published[1]
    assert store.read_bytes("plan/a") == b"first"
    again = publish_folder(store, "plan", local, made_by="render_config", inputs={"spec": "2"}, facts={})
    assert again.inputs == {"spec": "2"}
    assert store.read_bytes("plan/a") == b"second"
