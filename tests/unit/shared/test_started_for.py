"""A step of a pipeline does nothing for a spec that is not the one its pipeline was started for."""

from pathlib import Path
from typing import Any

import pytest

from components.shared.layout import SPEC
from components.shared.newest import Asked, note_asked
from components.shared.spec_file import parse_spec, spec_yaml
from components.shared.step import claim_run, step_of_run
from components.shared.writer import OWNER_VARIABLE, claim_for_kfp, kfp_writer


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
