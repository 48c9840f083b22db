"""checkpoints/ of really trained tiny models -> adapter/ or model/, verified in a fresh process."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from components.export_adapter.export import export_run
from components.shared.checkpoints import committed_checkpoints
from components.shared.errors import ModelError, ObjectDamaged, RunFailed, StoreError
from components.shared.layout import CHECKPOINTS, manifest_key
from components.shared.manifest import Manifest, publish_folder, require_manifest
from components.shared.storage import LocalStore
from tests.trained_run import ATTEMPT, make_trained_run

# peft 0.21.2 asks transformers 5.23 by an old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

EPOCH = "checkpoints/epoch-0001"
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_trained_run(tmp_path_factory.mktemp("lora"), architecture="llama", method="lora")


@pytest.fixture(scope="module")
def exported(lora_run: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A copy of the trained run, exported once for tests that only read."""
    folder = tmp_path_factory.mktemp("exported")
    shutil.copytree(lora_run, folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAGANE_WORK", str(folder / "work"))
        export(str(folder / "run"))
        yield str(folder / "run")


@pytest.fixture
def own_run(lora_run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A copy of the trained run that a test may spoil."""
    monkeypatch.setenv("HAGANE_WORK", str(tmp_path / "work"))
    shutil.copytree(lora_run, tmp_path / "run")
    return str(tmp_path / "run")


def export(run: str) -> Manifest:
    return export_run(run, structlog.get_logger())


def republish_adapter(run: str, change: Callable[[Weights], Weights]) -> None:
    """The run's checkpoint holds a changed adapter, and its manifest says so: nothing is damaged on the way."""
    store, folder = LocalStore(Path(run)), Path(run, EPOCH)
    manifest = require_manifest(store, EPOCH)
    path = folder / ATTEMPT / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)
    Path(run, manifest_key(EPOCH)).unlink()
    publish_folder(store, EPOCH, folder, made_by="train", inputs=manifest.inputs, facts=manifest.facts)


def probe_logits(run: str, model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits of the model, logits of the trained model) for the probe's tokens."""
    probe = load_file(Path(run, CHECKPOINTS, "probe.safetensors"))
    with torch.no_grad():
        return model.eval()(input_ids=probe["tokens"][None], use_cache=False).logits[0].float(), probe["logits"]


def test_exported_adapter_gives_the_trained_models_logits_and_names_its_base(exported: str, lora_run: str):
    base = json.loads(Path(exported, "adapter/adapter_config.json").read_bytes())["base_model_name_or_path"]
    found, expected = probe_logits(exported, PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), f"{exported}/adapter"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert base == str(Path(lora_run).parents[1] / "base")


def test_adapter_folder_holds_matrices_config_card_and_proof(exported: str):
    manifest = require_manifest(LocalStore(Path(exported)), "adapter")
    assert [entry.name for entry in manifest.files] == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "verification.json",
    ]
    assert manifest.facts["max_difference"] == pytest.approx(0, abs=1e-4)


def test_the_cards_five_lines_load_the_adapter(exported: str):
    card = Path(exported, "adapter/README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", f"{exported}/adapter")
    names: dict[str, Any] = {}
    exec(code, names)
    found, expected = probe_logits(exported, names["model"])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert len(code.strip().splitlines()) == 5


def test_exporting_a_finished_run_again_changes_nothing(exported: str):
    before = {path: path.stat().st_mtime_ns for path in Path(exported).rglob("*")}
    assert export(exported) == require_manifest(LocalStore(Path(exported)), "adapter")
    assert {path: path.stat().st_mtime_ns for path in Path(exported).rglob("*")} == before


def test_adapter_that_is_not_the_trained_one_is_refused_and_nothing_published(own_run: str):
    republish_adapter(own_run, lambda weights: {name: w * 1.01 if "lora_B" in name else w for name, w in weights.items()})
    with pytest.raises(RunFailed, match=r"adapter: not published: its logits are .* allowed are 0\.0001"):
        export(own_run)
    assert not Path(own_run, "adapter").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda weights: {**weights, next(iter(weights)): torch.zeros(0, 64)}, "1 matrices are empty"),
        (lambda weights: {name: w * ("lora_B" not in name) for name, w in weights.items()}, "all 14 B matrices are zero"),
        (lambda weights: {name.replace("layers.1.", "layers.7."): w for name, w in weights.items()}, "14 matrices are absent"),
    ],
)
def test_unsound_adapter_is_refused_and_nothing_published(own_run: str, change: Callable[[Weights], Weights], told: str):
    republish_adapter(own_run, change)
    with pytest.raises(RunFailed, match=f"{EPOCH}/adapter_model.safetensors: {told}"):
        export(own_run)
    assert not Path(own_run, "adapter").exists()


def test_damaged_object_of_the_checkpoint_is_named(own_run: str):
    path = Path(own_run, EPOCH, ATTEMPT, "adapter_model.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ObjectDamaged, match=f"{EPOCH}/{ATTEMPT}/adapter_model.safetensors: damaged"):
        export(own_run)


def test_training_whose_last_checkpoint_is_gone_is_refused(own_run: str):
    Path(own_run, manifest_key(EPOCH)).unlink()
    assert committed_checkpoints(LocalStore(Path(own_run))) == []
    with pytest.raises(StoreError, match="training ended with epoch 1, the last checkpoint there is of epoch none"):
        export(own_run)


def test_base_of_another_vocabulary_is_refused(own_run: str):
    store, results = LocalStore(Path(own_run)), Path(own_run, CHECKPOINTS)
    probe = load_file(results / "probe.safetensors")
    local = results.parent / "local"
    shutil.copytree(results, local, ignore=shutil.ignore_patterns("epoch-*", "manifest.json"))
    save_file(probe | {"logits": torch.zeros(16, 401)}, local / "probe.safetensors")
    publish_folder(store, CHECKPOINTS, local, made_by="train", inputs={}, facts={"num_epochs": 1})
    with pytest.raises(ModelError, match="has a vocabulary of 400 tokens, the trained model has 401"):
        export(own_run)


@pytest.mark.parametrize(
    ("architecture", "tied", "precision", "stage"),
    [("llama", True, "bf16", 3), ("gpt_neox", False, "fp32", 3), ("llama", True, "bf16", 0)],
)
def test_exported_model_holds_the_weights_that_deepspeed_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture, tied: bool, precision: str, stage: int
):
    monkeypatch.setenv("HAGANE_WORK", str(tmp_path / "work"))
    run = make_trained_run(tmp_path, architecture=architecture, method="full", precision=precision, tied=tied, zero={"stage": stage})
    export(run)
    trained = load_file(tmp_path / "trained" / "trained.safetensors")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    exported = AutoModelForCausalLM.from_pretrained(f"{run}/model")
    assert exported.dtype == torch.float32  # the base's
    assert dict(exported.named_parameters()).keys() == trained.keys()
    for name, weight in exported.named_parameters():
        torch.testing.assert_close(weight.to(dtype), trained[name].to(dtype), rtol=0, atol=0)
