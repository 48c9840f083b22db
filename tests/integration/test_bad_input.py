"""Each thing a user gets wrong, from the command line: exit code 2, every problem on a line of its
own, nothing begun."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.shared.machine import machine_flags
from tests.support.command_line import Finished, hagane, write_spec
from tests.support.s3_server import S3Server
from tests.support.tiny_models import make_model, write_conversations


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and good data, shared by all tests of this file; none writes in it."""
    folder = tmp_path_factory.mktemp("inputs")
    make_model(folder / "model")
    write_conversations(folder / "train.jsonl", 24)
    return folder


@pytest.fixture
def spec(inputs: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "name": "bad",
        "store": str(tmp_path / "store"),
        "model": {"source": str(inputs / "model")},
        "data": {"train": str(inputs / "train.jsonl"), "row_tokens": 256},
        "training": {"epochs": 1, "global_batch": 4},
        "lora": {"rank": 4},
    }


def run_refused(
    spec: dict[str, Any], folder: Path, *, env: dict[str, str] | None = None
) -> list[str]:
    """The lines of `hagane run` on a spec that must be refused before anything is begun."""
    done = hagane("run", write_spec(folder / "spec.yaml", spec), work=folder / "work", env=env)
    assert done.exit_code == 2, done
    others = [line for line in done.errors if line not in done.problems]
    assert all("checking every record" in line for line in others), others
    assert not any((folder / "store").rglob("*")) if not env else True
    return [line.removeprefix("error: ") for line in done.problems]


def test_an_unknown_key_is_reported_with_its_line_and_the_nearest_known_name(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    spec["training"]["epoch"] = 3
    (line,) = run_refused(spec, tmp_path)
    assert line.startswith(
        f"{tmp_path}/spec.yaml:11: training.epoch: unknown key; did you mean 'epochs'? allowed: "
        "method, epochs,"
    )


def test_a_wrong_type_is_reported_with_what_was_found(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["training"]["epochs"] = "three"
    assert run_refused(spec, tmp_path) == [
        f"{tmp_path}/spec.yaml:9: training.epochs: got 'three', must be a whole number"
    ]


def test_rank_0_is_refused(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["lora"]["rank"] = 0
    assert run_refused(spec, tmp_path) == [
        f"{tmp_path}/spec.yaml:12: lora.rank: got 0, must be at least 1"
    ]


def test_missing_data_is_reported(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["data"]["train"] = "nowhere/train.jsonl"
    (line,) = run_refused(spec, tmp_path)
    where = f"{tmp_path}/nowhere/train.jsonl"
    assert line == f"{where}: no such file; name a file of records that is there"


def test_empty_data_is_reported(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["data"]["train"] = str(tmp_path / "empty.jsonl")
    (tmp_path / "empty.jsonl").touch()
    (line,) = run_refused(spec, tmp_path)
    assert "empty.jsonl" in line


def test_a_record_without_an_assistant_turn_is_reported_with_its_line(
    spec: dict[str, Any], inputs: Path, tmp_path: Path
) -> None:
    data = tmp_path / "train.jsonl"
    shutil.copy(inputs / "train.jsonl", data)
    with data.open("a") as stream:
        stream.write(
            json.dumps({"messages": [{"role": "user", "content": "Nobody answers?"}]}) + "\n"
        )
    spec["data"]["train"] = str(data)
    (line,) = run_refused(spec, tmp_path)
    assert line.startswith(f"{data}:25: ")
    assert "assistant" in line


def test_a_missing_model_folder_is_reported_once(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["model"]["source"] = "./no/such/model"
    (line,) = run_refused(spec, tmp_path)
    assert line.startswith("model.source: ")
    assert "no/such/model" in line


def test_what_is_wrong_beside_a_missing_model_is_reported_with_it(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    spec["model"]["source"] = "./no/such/model"
    spec["data"]["chat_template"] = "no/such.jinja"
    spec["training"] |= {"global_batch": 7, "micro_batch": 3}
    spec["hardware"] = {"gpu": "a1000"}
    starts = [
        line.partition(":")[0]
        for line in run_refused(spec, tmp_path)
        if not line.startswith("hardware: ")
    ]
    assert starts == ["model.source", "data.chat_template", "hardware.gpu", "training.global_batch"]


def test_a_lora_target_that_the_model_lacks_is_reported_with_those_it_has(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    spec["lora"]["targets"] = ["query_key_value"]
    assert run_refused(spec, tmp_path) == [
        "lora.targets: 'query_key_value' is no layer of this llama model's blocks; it has: q_proj, "
        "k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj; or write auto, all, attention, mlp"
    ]


def test_a_store_that_cannot_be_written_is_reported(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["store"] = "/proc/hagane"
    (line,) = run_refused(spec, tmp_path)
    assert line.startswith("store: ")
    assert "/proc/hagane" in line


def test_a_gpu_that_this_machine_does_not_have_is_reported_before_the_data_is_prepared(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    if "cuda" in machine_flags():
        pytest.skip("this machine has a GPU")
    spec["hardware"] = {"gpu": "t4", "host_memory_gib": 64}
    (line,) = run_refused(spec, tmp_path)
    assert line.startswith("hardware: names a GPU, but this machine has none")


def test_benchmarks_without_their_package_are_reported_before_the_data_is_prepared(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    spec["evaluation"] = {"lm_eval": {"tasks": ["arc_easy"]}}
    (problem,) = run_refused(spec, tmp_path)
    assert problem.startswith(
        "evaluation.lm_eval.tasks: needs the Python package lm_eval, which is not installed"
    )


def test_a_bucket_that_does_not_exist_is_reported(
    spec: dict[str, Any], tmp_path: Path, s3: S3Server
) -> None:
    spec["store"] = "s3://no-such-bucket/runs"
    (line,) = run_refused(spec, tmp_path, env=s3.env)
    assert "no-such-bucket" in line


def test_a_wrong_s3_secret_is_reported_and_never_shown(
    spec: dict[str, Any], tmp_path: Path, s3: S3Server
) -> None:
    spec["store"] = s3.fresh_uri()
    (line,) = run_refused(
        spec, tmp_path, env={**s3.env, "AWS_SECRET_ACCESS_KEY": "quite-another-secret"}
    )
    assert "AWS_SECRET_ACCESS_KEY" in line
    assert "quite-another-secret" not in line
    assert s3.env["AWS_SECRET_ACCESS_KEY"] not in line


def test_everything_that_is_wrong_is_reported_in_one_go(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    spec |= {"seed": 1, "store": "/proc/hagane", "model": {"source": "./no/such/model"}}
    spec["lora"] = {"rank": 0, "alpha": "much"}
    spec["data"] = {"train": "nowhere.jsonl"}
    lines = run_refused(spec, tmp_path)
    for part in (
        "seed: unknown key",
        "lora.rank: got 0",
        "lora.alpha: got 'much'",
        "/proc/hagane",
        "nowhere.jsonl",
        "no/such/model",
    ):
        assert sum(part in line for line in lines) == 1, (part, lines)


def test_too_little_free_disk_is_reported_before_training(
    spec: dict[str, Any], inputs: Path, tmp_path: Path
) -> None:
    giant = shutil.copytree(inputs / "model", tmp_path / "giant")
    config = json.loads((giant / "config.json").read_text())
    config |= {
        "hidden_size": 65_536,
        "intermediate_size": 262_144,
        "num_hidden_layers": 200,
        "num_attention_heads": 512,
    }
    (giant / "config.json").write_text(json.dumps(config))
    spec |= {
        "model": {"source": str(giant)},
        "training": {"method": "full", "epochs": 3, "global_batch": 4},
    }
    spec["hardware"] = {"host_memory_gib": 1e9}  # it is disk that is to be missed
    done = hagane("run", write_spec(tmp_path / "spec.yaml", spec), work=tmp_path / "work")
    assert done.exit_code == 2
    reported = [line for line in done.errors if "GB are free" in line]
    assert [line.split(": ")[1] for line in reported] == ["HAGANE_WORK", "store"]
    assert not any((tmp_path / "store").rglob("epoch-*"))


def test_a_plan_for_a_tokenizer_that_is_served_with_other_tokens_is_refused(
    spec: dict[str, Any], inputs: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(inputs / "model", tmp_path / "model")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(
        json.dumps(settings | {"tokenizer_class": "GPTNeoXTokenizerFast"})
    )
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    (model / "tokenizer.json").write_text(
        json.dumps(tokenizer | {"normalizer": {"type": "Lowercase"}})
    )
    spec["model"] = {"source": str(model)}
    done = hagane("plan", write_spec(tmp_path / "spec.yaml", spec), work=tmp_path / "work")
    assert done.exit_code == 2
    line = done.problems[-1]
    assert line.startswith(
        f"error: {model}/tokenizer.json: AutoTokenizer (GPTNeoXTokenizerFast) gives other tokens "
        "than this file"
    )


def test_another_spec_under_the_name_of_a_begun_run_is_reported_field_by_field(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    assert planned(spec, tmp_path).exit_code == 0
    spec["training"]["epochs"] = 7
    done = hagane("run", write_spec(tmp_path / "spec.yaml", spec), work=tmp_path / "work")
    assert done.exit_code == 2
    assert (
        done.problems[0]
        == "error: training.epochs: got 7, but run 'bad' was begun with 1; set another name"
    )


def planned(spec: dict[str, Any], folder: Path) -> Finished:
    """The run's first two steps, as the pipeline makes them."""
    import subprocess
    import sys

    from tests.support.command_line import environment

    file = write_spec(folder / "spec.yaml", spec)
    for arguments in (
        ["prepare_dataset", "--spec", str(file)],
        ["render_config", "--run", f"{spec['store']}/{spec['name']}"],
    ):
        command = [sys.executable, "-m", f"components.{arguments[0]}", *arguments[1:]]
        done = subprocess.run(
            command, env=environment(folder / "work"), capture_output=True, text=True, check=False
        )
    return Finished(done.returncode, done.stdout, done.stderr.splitlines())


def test_new_tokens_that_are_tokens_already_are_refused(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    spec["data"]["new_tokens"] = ["<tool>", "the"]
    assert run_refused(spec, tmp_path) == [
        "data.new_tokens: 'the' is a token of the model already (id 290). Fix: remove it"
    ]


def test_one_layer_of_the_vocabulary_with_new_tokens_is_refused(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    spec["data"]["new_tokens"] = ["<tool>"]
    spec["lora"]["also_train"] = ["head"]
    (line,) = run_refused(spec, tmp_path)
    assert line.startswith("lora.also_train: found ['head'], but data.new_tokens need rows of both")
