"""What the keys of another tool's file mean together: in that tool, and so in the spec."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
import yaml
from transformers import SchedulerType

from pipelines.imports import training_args_keys
from pipelines.imports.foreign import Imported, read_foreign
from pipelines.imports.rules import Key
from tests.support.command_line import hagane

AXOLOTL = {"base_model": "a/b"}
LLAMA_FACTORY = {"finetuning_type": "lora"}
TRL = {"dataset_name": "d.jsonl"}
ARGS = {"output_dir": "out"}


def imported(folder: Path, tree: dict[str, Any]) -> Imported:
    file = folder / "their.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    found = read_foreign(file)
    assert found is not None
    return found


def key_of(found: Imported, name: str) -> Key:
    return next(key for key in found.keys if key.name == name)


def test_trl_trains_every_parameter_unless_the_file_asks_for_peft(tmp_path: Path) -> None:
    found = imported(tmp_path, TRL | {"lora_r": 4})
    assert found.spec["training"]["method"] == "full"
    assert "lora" not in found.spec
    assert key_of(found, "lora_r").fate == "without effect"
    assert any("use_peft: true" in line for line in found.remarks)
    asked = imported(tmp_path, TRL | {"use_peft": True, "lora_r": 4})
    assert (asked.spec["training"]["method"], asked.spec["lora"]) == ("lora", {"rank": 4})


@pytest.mark.parametrize("kind", [ARGS, AXOLOTL, LLAMA_FACTORY, TRL])
@pytest.mark.parametrize("order", [1, -1])
def test_no_warmup_steps_leave_the_ratio_as_it_is(
    tmp_path: Path, kind: dict[str, Any], order: int
) -> None:
    keys = [("warmup_ratio", 0.1), ("warmup_steps", 0)][::order]
    found = imported(tmp_path, kind | dict(keys))
    assert found.spec["training"]["warmup_share"] == 0.1
    assert key_of(found, "warmup_steps").fate == "without effect"


def test_a_ratio_of_zero_does_not_stand_for_steps_that_are_lost(tmp_path: Path) -> None:
    found = imported(tmp_path, ARGS | {"warmup_steps": 100, "warmup_ratio": 0.0})
    assert key_of(found, "warmup_steps").fate == "lost"
    assert "warmup_share" not in found.spec.get("training", {})


def test_of_two_keys_for_one_field_one_is_said_to_count(tmp_path: Path) -> None:
    keys = {"lora_target_linear": True, "lora_target_modules": ["q_proj"], "adapter": "lora"}
    found = imported(tmp_path, AXOLOTL | keys)
    assert found.spec["lora"]["targets"] == "all"
    assert key_of(found, "lora_target_modules").note == "lora_target_linear counts"


def test_no_secret_of_the_file_is_printed(tmp_path: Path) -> None:
    tree = {
        "zero_optimization": {"stage": 3},
        "comet": {"enabled": True, "api_key": "SECRET1"},
        "other": [{"token": "SECRET2"}, "https://me:SECRET3@host/x"],
    }
    file = tmp_path / "ds.json"
    file.write_text(json.dumps(tree))
    done = hagane("import", file, work=tmp_path)
    planned = hagane("plan", file, "--rows", "5", work=tmp_path)
    said = " ".join([done.output, *done.errors, planned.output, *planned.errors])
    assert "comet" in said
    assert "other" in said
    assert "SECRET" not in said


@pytest.mark.parametrize("off", [True, False])
def test_a_key_that_switches_checkpointing_off_is_taken(tmp_path: Path, off: bool) -> None:
    found = imported(tmp_path, LLAMA_FACTORY | {"disable_gradient_checkpointing": off})
    assert found.spec["training"]["gradient_checkpointing"] is not off


def test_a_taken_key_that_needs_a_hint_has_one(tmp_path: Path) -> None:
    keys = {"dataset": "identity,demo", "cutoff_len": 512, "num_train_epochs": 2.5}
    found = imported(tmp_path, LLAMA_FACTORY | keys)
    assert "dataset_info.json" in key_of(found, "dataset").note
    assert "data.too_long" in key_of(found, "cutoff_len").note
    assert "a part of an epoch" in key_of(found, "num_train_epochs").note
    whole = imported(tmp_path, LLAMA_FACTORY | {"num_train_epochs": 3.0})
    assert key_of(whole, "num_train_epochs").note == ""


@pytest.mark.parametrize("schedule", [{}, {"lr_scheduler": "cosine"}])
def test_a_least_learning_rate_comes_with_its_schedule(
    tmp_path: Path, schedule: dict[str, Any]
) -> None:
    found = imported(tmp_path, AXOLOTL | schedule | {"cosine_min_lr_ratio": 0.1})
    training = found.spec["training"]
    assert (training["lr_schedule"], training["lr_min_share"]) == ("cosine_with_min_lr", 0.1)


def test_a_schedule_without_a_least_learning_rate_stays(tmp_path: Path) -> None:
    keys = {"lr_scheduler": "linear", "cosine_min_lr_ratio": 0.1}
    found = imported(tmp_path, AXOLOTL | keys)
    assert found.spec["training"]["lr_schedule"] == "linear"
    assert key_of(found, "cosine_min_lr_ratio").fate == "without effect"


def test_an_adapter_that_hagane_lacks_becomes_lora_and_is_said(tmp_path: Path) -> None:
    found = imported(tmp_path, AXOLOTL | {"adapter": "dora", "lora_r": 4})
    assert (found.spec["training"]["method"], found.spec["lora"]) == ("lora", {"rank": 4})
    assert "training.method: lora, in place of adapter = 'dora'; or set full" in found.remarks


def test_keys_of_lora_are_without_effect_where_no_adapter_is_named(tmp_path: Path) -> None:
    found = imported(tmp_path, AXOLOTL | {"adapter": None, "lora_target_linear": True})
    assert found.spec["training"]["method"] == "full"
    assert key_of(found, "lora_target_linear").fate == "without effect"


def test_a_folder_that_is_here_is_no_data_set_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "train").mkdir(parents=True)
    places = {
        "teknium/OpenHermes-2.5": "hf://teknium/OpenHermes-2.5",
        "data/train": "data/train",
        "data/train.jsonl": "data/train.jsonl",
        "./org/data": "./org/data",
    }
    for name, place in places.items():
        found = imported(tmp_path, {"dataset_name": name})
        assert found.spec["data"]["train"] == place


def test_only_the_models_own_chat_template_is_the_same(tmp_path: Path) -> None:
    named = imported(tmp_path, AXOLOTL | {"chat_template": "chatml"})
    assert key_of(named, "chat_template").fate == "lost"
    own = imported(tmp_path, AXOLOTL | {"chat_template": "tokenizer_default"})
    assert key_of(own, "chat_template").fate == "without effect"
    other = imported(tmp_path, LLAMA_FACTORY | {"template": "vicuna"})
    assert key_of(other, "template").fate == "lost"


@pytest.mark.parametrize(
    ("tree", "name"),
    [
        (ARGS | {"max_steps": float("inf")}, "max_steps"),
        (ARGS | {"num_train_epochs": "1e400"}, "num_train_epochs"),
        (ARGS | {"bf16": [1]}, "bf16"),
        (ARGS | {"per_device_train_batch_size": True}, "per_device_train_batch_size"),
        (ARGS | {"weight_decay": 1.5}, "weight_decay"),
        (ARGS | {"seed": "x"}, "seed"),
        ({"zero_optimization": {}, "scheduler": {"type": ["a"]}}, "scheduler.type"),
        (
            {"zero_optimization": {}, "optimizer": {"params": {"weight_decay": 1.5}}},
            "optimizer.params.weight_decay",
        ),
        ({"finetuning_type": ["lora"]}, "finetuning_type"),
        ({"mixed_precision": [1]}, "mixed_precision"),
    ],
)
def test_a_value_that_the_spec_refuses_is_lost(
    tmp_path: Path, tree: dict[str, Any], name: str
) -> None:
    assert key_of(imported(tmp_path, tree), name).fate == "lost"


@pytest.mark.parametrize("command", [("import", "their.yaml"), ("init",)])
def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    imported(tmp_path, TRL)
    words = [tmp_path / word if word.endswith(".yaml") else word for word in command]
    done = hagane(*words, "--out", tmp_path / "none" / "s.yaml", work=tmp_path)
    assert (done.exit_code, len(done.errors)) == (2, 1)
    assert "there is no folder" in done.errors[0]


def test_defaults_that_differ_from_the_tools_are_one_line(tmp_path: Path) -> None:
    found = imported(tmp_path, ARGS | {"learning_rate": 1e-4})
    lines = [line for line in found.remarks if line.startswith("defaults that differ")]
    assert len(lines) == 1
    assert "training.lr_schedule is cosine here, linear there" in lines[0]
    assert "training.warmup_share is 0.05 here, 0 there" in lines[0]
    assert "lr_peak" not in lines[0]


def test_the_defaults_of_transformers_are_those_of_the_installed_one() -> None:
    args = transformers.TrainingArguments(output_dir="out", use_cpu=True)
    assert {
        "training.lr_schedule": SchedulerType(args.lr_scheduler_type).value,
        "training.warmup_share": args.warmup_steps,
        "training.lr_peak": args.learning_rate,
        "training.seed": args.seed,
    } == training_args_keys.DEFAULTS


def test_accumulation_as_text_counts_and_the_batch_is_said_to_be_of_one_gpu(
    tmp_path: Path,
) -> None:
    keys = {"micro_batch_size": 2, "gradient_accumulation_steps": "8"}
    found = imported(tmp_path, AXOLOTL | keys)
    assert found.spec["training"]["global_batch"] == 16
    assert any("global_batch: 16, counted for 1 GPU" in line for line in found.remarks)


@pytest.mark.parametrize(
    ("tree", "name"),
    [
        (ARGS | {"max_steps": -1}, "max_steps"),
        (AXOLOTL | {"max_steps": -1}, "max_steps"),
        (ARGS | {"fp16": False}, "fp16"),
        (AXOLOTL | {"fp16": False}, "fp16"),
        ({"zero_optimization": {}, "fp16": {"enabled": False}}, "fp16.enabled"),
        (ARGS | {"load_best_model_at_end": False}, "load_best_model_at_end"),
        (AXOLOTL | {"lora_target_linear": False}, "lora_target_linear"),
        ({"mixed_precision": "bf16", "downcast_bf16": False}, "downcast_bf16"),
    ],
)
def test_what_is_switched_off_or_not_set_is_without_effect(
    tmp_path: Path, tree: dict[str, Any], name: str
) -> None:
    assert key_of(imported(tmp_path, tree), name).fate == "without effect"


def test_an_unquoted_no_is_a_precision_and_drop_last_is_taken(tmp_path: Path) -> None:
    found = imported(tmp_path, {"mixed_precision": False})
    assert found.spec["training"]["precision"] == "fp32"
    found = imported(tmp_path, {"zero_optimization": {}, "dataloader_drop_last": True})
    assert found.spec["training"]["drop_last"] is True
