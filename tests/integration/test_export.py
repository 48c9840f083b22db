"""checkpoints/ of really trained tiny models -> adapter/ or model/, verified in a fresh process."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from components.export_adapter.step import export_run
from components.export_adapter.verification.logits import prompt_logits
from components.shared.documents.prompts import read_prompts
from components.shared.documents.results import BaseModel, Verification
from components.shared.errors import HaganeError, ObjectDamaged, RunFailed, StoreError
from components.shared.store.checkpoints import committed_checkpoints
from components.shared.store.layout import CHECKPOINTS, DATASET, manifest_key
from components.shared.store.manifest import Manifest, publish_folder, require_manifest
from components.shared.store.storage import LocalStore
from tests.support.trained_run import ATTEMPT, make_trained_run

# peft 0.21.2 asks transformers 5.23 by an old name
pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)

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
    """The run's checkpoint holds a changed adapter, and its manifest says so: nothing is damaged on
    the way."""
    store, folder = LocalStore(Path(run)), Path(run, EPOCH)
    manifest = require_manifest(store, EPOCH)
    path = folder / ATTEMPT / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)
    Path(run, manifest_key(EPOCH)).unlink()
    publish_folder(
        store, EPOCH, folder, made_by="train", inputs=manifest.inputs, facts=manifest.facts
    )


def probe_logits(run: str, model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits of the model, logits of the trained model) for the data's prompts."""
    probe, prompts = (
        load_file(Path(run, CHECKPOINTS, "probe.safetensors")),
        read_prompts(Path(run, DATASET)),
    )
    return prompt_logits(model.eval(), prompts), probe["logits"]


def test_exported_adapter_gives_the_trained_models_logits_and_names_its_base(
    exported: str, lora_run: str
):
    base = json.loads(Path(exported, "adapter/adapter_config.json").read_bytes())[
        "base_model_name_or_path"
    ]
    found, expected = probe_logits(
        exported,
        PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(base), f"{exported}/adapter"
        ),
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert base == str(Path(lora_run).parents[1] / "base")
    named = BaseModel.model_validate_json(Path(exported, "adapter/base.json").read_bytes())
    command = (
        "LC_ALL=C; export LC_ALL; sha256sum config.json *.safetensors tokenizer.json | sha256sum"
    )
    printed = subprocess.run(
        command, shell=True, cwd=base, capture_output=True, text=True, check=True
    ).stdout
    assert (named.folder, named.sha256) == ("base", printed.split()[0])


def test_adapter_folder_holds_matrices_config_card_and_proof(exported: str):
    manifest = require_manifest(LocalStore(Path(exported)), "adapter")
    assert [entry.name for entry in manifest.files] == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
        "chat_template.jinja",
        "generation_config.json",
        "serve/GGUF.md",
        "serve/README.md",
        "serve/load.py",
        "serve/vllm.sh",
        "tokenizer.json",
        "tokenizer_config.json",
        "verification.json",
    ]
    assert manifest.facts["max_difference"] == pytest.approx(0, abs=1e-4)


def test_the_cards_code_answers_in_an_empty_folder_without_network(exported: str, tmp_path: Path):
    base = json.loads(Path(exported, "adapter/adapter_config.json").read_bytes())[
        "base_model_name_or_path"
    ]
    card = Path(exported, "adapter/README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0]
    code = code.replace("path/to/this/folder", f"{exported}/adapter").replace("path/to/base", base)
    (tmp_path / "empty").mkdir()
    code += (
        "import json; json.dump([prompt['input_ids'][0].tolist(), tokens[0].tolist()], "
        "open('reported.json', 'w'))"
    )
    command = [sys.executable, "-I", "-W", "ignore", "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path / "empty", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    prompt, tokens = json.loads((tmp_path / "empty/reported.json").read_bytes())
    model: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), f"{exported}/adapter"
    )
    expected = model.generate(input_ids=torch.tensor([prompt]), do_sample=False, max_new_tokens=200)
    assert tokens == expected[0].tolist()
    assert len(tokens) > len(prompt)


def test_the_serving_program_gives_the_cards_answer_in_an_empty_folder_without_network(
    exported: str, tmp_path: Path
):
    base = json.loads(Path(exported, "adapter/adapter_config.json").read_bytes())[
        "base_model_name_or_path"
    ]
    folder = shutil.copytree(f"{exported}/adapter", tmp_path / "anywhere")
    (tmp_path / "empty").mkdir()
    command = [
        sys.executable,
        "-I",
        "-W",
        "ignore",
        folder / "serve/load.py",
        "--base",
        base,
        "What is 12 plus 7?",
    ]
    done = subprocess.run(
        command, cwd=tmp_path / "empty", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    asked = [{"role": "user", "content": "What is 12 plus 7?"}]
    prompt = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    made = model.generate(**prompt, do_sample=False, max_new_tokens=200)[
        0, prompt["input_ids"].shape[1] :
    ]
    assert done.stdout.strip() == tokenizer.decode(made, skip_special_tokens=True).strip()


def test_exporting_a_finished_run_again_changes_nothing(exported: str):
    before = {path: path.stat().st_mtime_ns for path in Path(exported).rglob("*")}
    assert export(exported) == require_manifest(LocalStore(Path(exported)), "adapter")
    assert {path: path.stat().st_mtime_ns for path in Path(exported).rglob("*")} == before


def test_merged_model_is_exported_verified_and_equal_to_base_and_adapter(own_run: str):
    spec = Path(own_run, "spec.yaml")
    spec.write_text(spec.read_text().replace("merge: auto", "merge: true"))
    export(own_run)
    manifest = require_manifest(LocalStore(Path(own_run)), "merged")
    verified = Verification.model_validate_json(
        Path(own_run, "merged/verification.json").read_bytes()
    )
    found, expected = probe_logits(
        own_run, AutoModelForCausalLM.from_pretrained(f"{own_run}/merged")
    )
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= {
        entry.name for entry in manifest.files
    }
    assert verified.passed
    assert verified.num_prompts == 4
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_adapter_that_is_not_the_trained_one_is_refused_and_nothing_published(own_run: str):
    republish_adapter(
        own_run,
        lambda weights: {name: w * 1.01 if "lora_B" in name else w for name, w in weights.items()},
    )
    with pytest.raises(
        RunFailed, match=r"adapter: not published: its logits are .* allowed are 0\.0001"
    ):
        export(own_run)
    assert not Path(own_run, "adapter").exists()


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        (
            lambda weights: {**weights, next(iter(weights)): torch.zeros(0, 64)},
            "1 matrices are empty",
        ),
        (
            lambda weights: {name: w * ("lora_B" not in name) for name, w in weights.items()},
            "all 14 B matrices are zero",
        ),
        (
            lambda weights: {
                name.replace("layers.1.", "layers.7."): w for name, w in weights.items()
            },
            "14 matrices are absent",
        ),
    ],
)
def test_unsound_adapter_is_refused_and_nothing_published(
    own_run: str, change: Callable[[Weights], Weights], reported: str
):
    republish_adapter(own_run, change)
    with pytest.raises(RunFailed, match=f"{EPOCH}/adapter_model.safetensors: {reported}"):
        export(own_run)
    assert not Path(own_run, "adapter").exists()


def republish(run: str, folder: str, change: Callable[[Path], object]) -> None:
    """The folder's files are changed, and its manifest says so."""
    store, local = LocalStore(Path(run)), Path(run, folder)
    manifest = require_manifest(store, folder)
    change(local)
    copy = Path(run).parent / "republished"
    shutil.copytree(local, copy, ignore=shutil.ignore_patterns("epoch-*", "manifest.json"))
    store.delete(manifest_key(folder))
    publish_folder(
        store, folder, copy, made_by=manifest.made_by, inputs=manifest.inputs, facts=manifest.facts
    )


def exchange_ids(base: Path) -> None:
    tokenizer = json.loads((base / "tokenizer.json").read_bytes())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["h"], vocabulary["e"] = vocabulary["e"], vocabulary["h"]
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))


def flip_a_bit_of_the_weights(base: Path) -> None:
    """Of the last weight's highest byte: a sign."""
    content = bytearray((base / "model.safetensors").read_bytes())
    content[-1] ^= 0x80
    (base / "model.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (exchange_ids, "tokenizer.json: found sha256 .*, the data was prepared with"),
        (
            lambda base: (base / "tokenizer.json").unlink(),
            "holds no tokenizer.json, the data was prepared with one",
        ),
        (flip_a_bit_of_the_weights, "standard deviations from the trained model's"),
    ],
)
def test_run_whose_base_was_spoiled_is_refused_and_nothing_published(
    own_run: str, lora_run: str, spoil: Callable[[Path], object], line: str
):
    base = Path(lora_run).parents[1] / "base"
    kept = shutil.copytree(base, Path(own_run).parent / "kept")
    try:
        spoil(base)
        with pytest.raises(HaganeError, match=line):
            export(own_run)
    finally:
        shutil.copytree(kept, base, dirs_exist_ok=True)
    assert not Path(own_run, "adapter").exists()


def one_token(results: Path) -> None:
    probe = load_file(results / "probe.safetensors")
    cut = {
        "tokens": probe["tokens"][:1],
        "lengths": torch.tensor([1]),
        "logits": probe["logits"][:1],
    }
    save_file({name: tensor.clone() for name, tensor in cut.items()}, results / "probe.safetensors")


def one_prompt(dataset: Path) -> None:
    prompts = json.loads((dataset / "prompts.json").read_bytes())
    (dataset / "prompts.json").write_text(json.dumps(prompts | {"prompts": prompts["prompts"][:1]}))


@pytest.mark.parametrize(
    ("folder", "spoil", "line"),
    [
        (CHECKPOINTS, one_token, "checkpoints/probe.safetensors: holds 1 prompts, the data has 4"),
        (DATASET, one_prompt, "plan: was made from another dataset"),
        (
            DATASET,
            lambda dataset: (dataset / "prompts.json").unlink(),
            "dataset/prompts.json: found no such file",
        ),
    ],
)
def test_run_whose_prompts_or_probe_were_spoiled_is_refused(
    own_run: str, folder: str, spoil: Callable[[Path], object], line: str
):
    republish(own_run, folder, spoil)
    with pytest.raises(HaganeError, match=line):
        export(own_run)
    assert not Path(own_run, "adapter").exists()


def test_damaged_object_of_the_checkpoint_is_named(own_run: str):
    path = Path(own_run, EPOCH, ATTEMPT, "adapter_model.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ObjectDamaged, match=f"{EPOCH}/{ATTEMPT}/adapter_model.safetensors: damaged"
    ):
        export(own_run)


def test_training_whose_last_checkpoint_is_gone_is_refused(own_run: str):
    Path(own_run, manifest_key(EPOCH)).unlink()
    assert committed_checkpoints(LocalStore(Path(own_run))) == []
    with pytest.raises(
        StoreError, match="training ended with epoch 1, the last checkpoint there is of epoch none"
    ):
        export(own_run)


@pytest.mark.parametrize(
    ("architecture", "tied", "precision", "stage"),
    [("llama", True, "bf16", 3), ("gpt_neox", False, "fp32", 3), ("llama", True, "bf16", 0)],
)
def test_exported_model_holds_the_weights_that_deepspeed_trained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    architecture,
    tied: bool,
    precision: str,
    stage: int,
):
    monkeypatch.setenv("HAGANE_WORK", str(tmp_path / "work"))
    run = make_trained_run(
        tmp_path,
        architecture=architecture,
        method="full",
        precision=precision,
        tied=tied,
        zero={"stage": stage},
    )
    export(run)
    trained = load_file(tmp_path / "trained" / "trained.safetensors")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    exported = AutoModelForCausalLM.from_pretrained(f"{run}/model")
    assert exported.dtype == torch.float32  # the base's
    assert dict(exported.named_parameters()).keys() == trained.keys()
    for name, weight in exported.named_parameters():
        torch.testing.assert_close(weight.to(dtype), trained[name].to(dtype), rtol=0, atol=0)
