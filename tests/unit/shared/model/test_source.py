from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import huggingface_hub.constants
import pytest

from components.shared.documents.plan import Plan
from components.shared.errors import ModelError
from components.shared.log import set_up_log
from components.shared.model.source import (
    CONFIG_AND_TOKENIZER,
    WEIGHTS,
    ResolvedModel,
    has_weights,
    planned_config,
    read_config,
    resolve_model,
    resolve_planned_model,
)
from components.shared.spec.run_spec import ModelSpec
from components.shared.store import patience
from components.shared.store.patience import waits
from tests.support.hub import COMMIT, serve_hub

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "README.md": b"hello",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with serve_hub(FILES, cache=tmp_path / "cache", monkeypatch=monkeypatch):
        yield


def _complaint(source: str, revision: str | None = None) -> str:
    with pytest.raises(ModelError) as raised:
        resolve_model(ModelSpec(source=source, revision=revision), patterns=CONFIG_AND_TOKENIZER)
    assert len(raised.value.problems) == 1
    return raised.value.problems[0]


def test_an_existing_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    model = resolve_model(ModelSpec(source=str(tmp_path)), patterns=WEIGHTS)
    assert (model.folder, model.revision) == (tmp_path, None)


def test_a_revision_of_a_folder_is_refused(tmp_path: Path) -> None:
    assert "model.revision: got 'v1'" in _complaint(str(tmp_path), "v1")


def test_a_missing_folder_is_told_with_the_models_beside_it(tmp_path: Path) -> None:
    (tmp_path / "smollm2").mkdir()
    (tmp_path / "smollm2" / "config.json").write_text("{}")
    assert f"in {tmp_path} are: smollm2" in _complaint(str(tmp_path / "smolm2"))


@pytest.mark.parametrize("source", ["./x", "~/nowhere-at-all", "a/b/c", "/nowhere", ".hagane/x"])
def test_what_looks_like_a_path_never_asks_the_hub(source: str) -> None:
    assert _complaint(source).startswith(f"model.source: no folder {source!r}")


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    assert "is a file" in _complaint(str(tmp_path / "model.gguf"))


@pytest.mark.usefixtures("hub")
def test_a_hub_id_gives_the_wanted_files_and_the_commit_of_its_branch() -> None:
    model = resolve_model(ModelSpec(source="org/tiny", revision="v1"), patterns=CONFIG_AND_TOKENIZER)
    assert model.revision == COMMIT
    assert sorted(path.name for path in model.folder.iterdir()) == ["config.json", "tokenizer.json"]
    assert not has_weights(model.folder)
    assert read_config(model.folder) == {"model_type": "llama"}


@pytest.mark.usefixtures("hub")
def test_a_download_of_weights_that_was_interrupted_stops_no_later_plan() -> None:
    spec = ModelSpec(source="org/tiny", revision=COMMIT)
    cached = resolve_model(spec, patterns=CONFIG_AND_TOKENIZER)
    (cached.folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    assert planned_config(resolve_model(spec, patterns=CONFIG_AND_TOKENIZER)) == {"model_type": "llama"}
    with pytest.raises(ModelError, match=r"names files that are not there: 'model-1.safetensors'"):
        planned_config(ResolvedModel(cached.folder, revision=None))


@pytest.mark.usefixtures("hub")
def test_weights_of_the_hub_are_judged_when_they_were_fetched() -> None:
    model = SimpleNamespace(source="org/tiny", revision=COMMIT)
    with pytest.raises(ModelError, match=r"model\.safetensors: is no whole safetensors file"):
        resolve_planned_model(cast(Plan, SimpleNamespace(model=model)))


@pytest.mark.usefixtures("hub")
def test_the_commit_gives_the_same_folder_with_its_weights() -> None:
    model = resolve_model(ModelSpec(source="org/tiny", revision=COMMIT), patterns=CONFIG_AND_TOKENIZER + WEIGHTS)
    assert (model.revision, has_weights(model.folder)) == (COMMIT, True)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("source", "revision", "told"),
    [
        ("missing/tiny", None, "no model of the hub that this HF_TOKEN (or none) may see"),
        ("gated/tiny", None, "gated on the hub; accept its terms"),
        ("org/tiny", "v9", "'v9': the hub has the model, not the revision"),
        ("broken/tiny", None, "run the same command again"),
        ("status-403/tiny", None, "the hub refused it with HTTP status 403; check HF_ENDPOINT and HF_TOKEN"),
        ("a--b/c..d", None, "no possible hub id"),
    ],
)
def test_what_the_hub_refuses_is_one_line_with_the_way_out(source: str, revision: str | None, told: str) -> None:
    assert told in _complaint(source, revision)


def test_an_unreachable_hub_is_told_apart_from_a_wrong_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert "the hub did not give it (ConnectError)" in _complaint("org/tiny")


def test_offline_mode_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert "(OfflineModeIsEnabled); check network, HF_ENDPOINT and HF_HUB_OFFLINE" in _complaint("org/tiny")


@pytest.mark.parametrize(("offline", "num_waits"), [(False, 1), (True, 0)], ids=["no answer", "offline"])
def test_a_step_waits_for_a_hub_that_is_away_and_not_for_one_that_may_not_be_asked(
    offline: bool, num_waits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(patience, "DEADLINE_S", 0.2)
    with waits(set_up_log("export_adapter")):
        _complaint("org/tiny")
    waited = capsys.readouterr().out.count("event=waiting component=export_adapter what=hub")
    assert min(waited, 1) == num_waits


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("source", ["gated/tiny", "missing/tiny", "broken/tiny", "status-403/tiny", "status-400/tiny"])
def test_what_the_hub_refuses_is_not_asked_again(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    with waits(set_up_log("export_adapter")):
        _complaint(source)
    assert "event=waiting" not in capsys.readouterr().out


@pytest.mark.usefixtures("hub")
def test_a_hub_that_is_busy_is_asked_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(patience, "DEADLINE_S", 0.2)
    with waits(set_up_log("export_adapter")):
        _complaint("status-501/tiny")
        assert "event=waiting" not in capsys.readouterr().out
        _complaint("status-500/tiny")
    assert "event=waiting" in capsys.readouterr().out


@pytest.mark.parametrize(("content", "told"), [(None, "no such file"), ("{", "cannot be read as JSON"), ("[]", "found list")])
def test_a_config_that_is_none_is_refused(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=told):
        read_config(tmp_path)
