"""Files of other tools become specs; every key of them is named with what became of it."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import transformers
import yaml
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from deepspeed.runtime.zero.offload_config import (
    DeepSpeedZeroOffloadOptimizerConfig,
    DeepSpeedZeroOffloadParamConfig,
)

from components.shared.spec.file import load_spec
from pipelines.imports import deepspeed_keys, training_args_keys
from pipelines.imports.foreign import MARKS, Imported, kind_of, read_foreign, run_name
from pipelines.imports.rules import resolve
from tests.support.command_line import hagane

FILES = Path(__file__).parent / "foreign"
MODELS = Path(__file__).parents[4] / "specs" / "models"
NAMES = (
    "zero3.json",
    "training_args.json",
    "axolotl.yaml",
    "llama_factory.yaml",
    "trl.yaml",
    "accelerate.yaml",
)


def imported(name: str) -> Imported:
    found = read_foreign(FILES / name)
    assert found is not None
    return found


def fate_of(found: Imported, name: str) -> str:
    return next(key.fate for key in found.keys if key.name == name)


@pytest.mark.parametrize("name", NAMES)
def test_no_key_of_a_usual_file_is_unknown_and_each_has_a_reason(name: str) -> None:
    found = imported(name)
    assert [key.name for key in found.keys if key.fate == "unknown"] == []
    assert all(key.note or key.spec_field for key in found.keys)


@pytest.mark.parametrize("name", NAMES)
def test_a_usual_file_is_planned_and_imported_by_the_command_line(
    name: str, tmp_path: Path
) -> None:
    model = ["--set", f"model.source={MODELS / 'elyza-7b'}"]
    gpu = ["--set", "hardware.gpu=a100-80gb", "--set", "hardware.host_memory_gib=2000"]
    done = hagane("plan", FILES / name, "--rows", "500", *model, *gpu, work=tmp_path)
    assert done.exit_code == 0, done.errors
    assert " of elyza-7b (6.74B) fits " in done.output.splitlines()[0]
    assert "0 unknown" in " ".join(done.errors)
    out = tmp_path / "spec.yaml"
    assert hagane("import", FILES / name, "--out", out, work=tmp_path).exit_code == 0
    load_spec(out, [f"model.source={MODELS / 'elyza-7b'}", "data.train=d.jsonl"])


def test_the_batch_and_the_processes_of_an_accelerate_file_and_of_training_arguments_agree() -> (
    None
):
    spec = imported("accelerate.yaml").spec
    assert spec["hardware"] == {"num_nodes": 1, "processes_per_node": 8}
    assert spec["zero"] == {"stage": 3, "offload_optimizer": "cpu", "offload_parameters": "none"}
    training = imported("llama_factory.yaml").spec["training"]
    assert (training["micro_batch"], training["global_batch"], training["epochs"]) == (1, 8, 3)


def test_what_hagane_cannot_do_is_lost_and_what_it_does_anyway_is_without_effect() -> None:
    axolotl = imported("axolotl.yaml")
    assert {key.name for key in axolotl.keys if key.fate == "lost"} == {
        "optimizer",
        "special_tokens",
    }
    assert fate_of(axolotl, "load_in_4bit") == "without effect"
    assert axolotl.spec["data"]["train"] == [
        {"path": "hf://teknium/GPT4-LLM-Cleaned", "format": "alpaca"}
    ]
    args = imported("training_args.json")
    assert {key.name for key in args.keys if key.fate == "lost"} == {"tf32", "optim"}
    trl = imported("trl.yaml")
    assert fate_of(trl, "assistant_only_loss") == "lost"
    assert (trl.spec["training"]["method"], trl.spec["lora"]["targets"]) == ("lora", "all")


def test_a_file_that_trains_every_parameter_has_no_lora(tmp_path: Path) -> None:
    file = tmp_path / "full.yaml"
    file.write_text("base_model: a/b\nmicro_batch_size: 1\nlora_r: 8\n")
    found = read_foreign(file)
    assert found is not None
    assert found.spec["training"]["method"] == "full"
    assert "lora" not in found.spec


def test_a_misspelt_key_is_named_first(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text('{"zero_optimization": {"stage": 3, "overlap_com": true}}')
    done = hagane("import", file, work=tmp_path)
    assert done.errors[1:3] == [
        "not known:",
        (
            "  zero_optimization.overlap_com = True: no documented key of this file; check how it "
            "is written"
        ),
    ]
    assert yaml.safe_load(done.output) == {"name": "ds", "store": "runs", "zero": {"stage": 3}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[1]", "found list, must be a mapping"),
        (
            "a: 1",
            (
                "found the keys a, must be a spec of hagane or a file of one of: DeepSpeed "
                "configuration"
            ),
        ),
        ("a: [", "not YAML"),
    ],
)
def test_what_is_no_known_file_is_one_line(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(content)
    done = hagane("import", file, work=tmp_path)
    assert (done.exit_code, len(done.errors)) == (2, 1)
    assert words in done.errors[0]


def test_a_spec_is_not_imported_and_nothing_is_overwritten(tmp_path: Path) -> None:
    spec = MODELS.parent / "demo.yaml"
    assert "is a spec of hagane already" in hagane("import", spec, work=tmp_path).errors[0]
    out = tmp_path / "there.yaml"
    out.write_text("mine")
    done = hagane("import", FILES / "trl.yaml", "--out", out, work=tmp_path)
    assert (done.exit_code, out.read_text()) == (2, "mine")


def test_every_field_of_training_arguments_and_of_zero_has_a_rule() -> None:
    names = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
    assert names - training_args_keys.RULES.keys() == set()
    parts: dict[str, Any] = {
        "zero_optimization": DeepSpeedZeroConfig,
        "zero_optimization.offload_optimizer": DeepSpeedZeroOffloadOptimizerConfig,
        "zero_optimization.offload_param": DeepSpeedZeroOffloadParamConfig,
    }
    for section, config in parts.items():
        for name, field in config.model_fields.items():
            for spelling in (name, field.alias or name):
                dotted = f"{section}.{spelling}"
                known = dotted in deepspeed_keys.RULES or dotted in deepspeed_keys.SECTIONS
                assert known, dotted


def test_a_field_that_a_rule_names_is_one_of_the_spec() -> None:
    spec = load_spec(MODELS.parent / "demo.yaml")
    for kind, _ in MARKS:
        for field in {rule.spec_field for rule in kind.rules.values() if rule.spec_field}:
            branch: Any = spec
            for part in field.split("."):
                assert hasattr(branch, part), (kind.name, field)
                branch = getattr(branch, part)


def test_auto_is_left_to_the_plan() -> None:
    key = resolve("train_batch_size", "auto", deepspeed_keys.RULES)
    assert (key.fate, key.note) == ("derived", "training.global_batch")


@pytest.mark.parametrize(
    ("stem", "name"),
    [("Qwen2.5 LoRA_v1.yaml", "qwen2-5-lora-v1"), ("3b.json", "run-3b"), ("zero3.json", "zero3")],
)
def test_the_run_is_named_after_the_file(stem: str, name: str) -> None:
    assert run_name(Path(stem)) == name


def test_a_spec_with_a_misspelt_section_stays_a_spec() -> None:
    assert kind_of({"name": "x", "model": {}, "lora_rank": 8}) is None


def test_embeddings_head_and_new_tokens_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "axolotl.yaml"
    tree = yaml.safe_load((FILES / "axolotl.yaml").read_text())
    layers = {"lora_modules_to_save": ["embed_tokens", "lm_head"], "tokens": ["<tool>", "鋼"]}
    file.write_text(yaml.safe_dump({**tree, **layers, "peft_use_dora": True}))
    found = read_foreign(file)
    assert found is not None
    assert found.spec["lora"]["also_train"] == ["embeddings", "head"]
    assert found.spec["lora"]["dora"] is True
    assert found.spec["data"]["new_tokens"] == ["<tool>", "鋼"]
    file.write_text(yaml.safe_dump({**tree, "lora_modules_to_save": ["classifier"]}))
    other = read_foreign(file)
    assert other is not None
    assert fate_of(other, "lora_modules_to_save") == "lost"
