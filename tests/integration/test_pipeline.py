"""The whole pipeline on tiny models, from the command line: real data, real DeepSpeed, real
checkpoints, a real S3 server."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from components.export_adapter.verification.logits import prompt_logits
from components.prepare_dataset.inputs import digest_of
from components.shared.documents.prompts import read_prompts
from components.shared.spec.file import load_spec
from components.shared.store.checkpoints import committed_checkpoints
from components.shared.store.layout import DATASET
from components.shared.store.manifest import require_manifest
from components.shared.store.storage import LocalStore, Store
from tests.support.command_line import environment, hagane, write_spec
from tests.support.tiny_models import make_model, write_conversations

EPOCHS = 2


ZERO3 = {"stage": 3, "offload_optimizer": "cpu", "offload_parameters": "cpu"}


def tiny_spec(
    folder: Path,
    *,
    architecture: Any = "llama",
    method: str = "lora",
    store: str | None = None,
    zero: Any = ZERO3,
    **training: Any,
) -> Path:
    """A run of two processes on a tiny random model, 48 conversations, two epochs unless `training`
    says otherwise."""
    return write_spec(
        folder / "spec.yaml",
        {
            "name": "tiny",
            "store": store or str(folder / "store"),
            "model": {"source": str(make_model(folder / "model", architecture=architecture))},
            "data": {
                "train": str(write_conversations(folder / "train.jsonl", 48, seed=1)),
                "held_out": str(write_conversations(folder / "held_out.jsonl", 8, seed=2)),
                "row_tokens": 256,
            },
            "training": {
                "method": method,
                "epochs": EPOCHS,
                "global_batch": 4,
                "lr_peak": 0.005,
                "seed": 3,
                **training,
            },
            "lora": {"rank": 4, "dropout": 0.1},
            "zero": zero,
            "hardware": {"processes_per_node": 2},
            "evaluation": {"questions": ["What is 12 plus 7?"], "answer_tokens": 8},
        },
    )


def read_json(store: Store, key: str) -> Any:
    return json.loads(store.read_bytes(key))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two epochs; its spec and its model are beside `store`."""
    folder = tmp_path_factory.mktemp("finished")
    assert_run_verified(tiny_spec(folder), folder)
    return folder


def test_a_spec_becomes_a_verified_adapter(finished: Path) -> None:
    assert Path(finished, "store/tiny/report/report.html").is_file()


@pytest.mark.parametrize(
    "step", ["render_config", "launch_training", "export_adapter", "evaluate", "write_report"]
)
def test_a_step_whose_work_is_done_says_so_before_it_imports_what_takes_seconds(
    step: str, finished: Path
) -> None:
    program = (
        f"sys.argv = ['{step}', '--run', {str(finished / 'store/tiny')!r}]; "
        f"runpy.run_module('components.{step}', run_name='__main__')"
    )
    said, heavy = done_again(program, finished)
    assert "event=already_done" in said
    assert heavy == []


def test_a_dataset_that_is_there_is_known_before_the_data_is_read(finished: Path) -> None:
    run = finished / "store/tiny"
    inputs = digest_of(require_manifest(LocalStore(run), DATASET).inputs)
    paths = {name: str(finished / f"{name}-again") for name in ("manifest_path", "page_path")}
    metrics = (
        "types.SimpleNamespace(path=paths['page_path'] + '.json', log_metric=lambda name, value: "
        "None)"
    )
    program = f"from components.prepare_dataset.kfp_steps import kfp_step; paths = {paths!r}; "
    program += f"kfp_step({str(run)!r}, inputs={inputs!r}, metrics={metrics}, **paths)"
    said, heavy = done_again(program, finished)
    assert "event=already_done" in said
    assert heavy == []
    assert (finished / "manifest_path-again").read_bytes() == (
        run / "dataset/manifest.json"
    ).read_bytes()


def done_again(program: str, finished: Path) -> tuple[str, list[str]]:
    """What a program of a finished run prints, and which of the libraries that take seconds it
    imported."""
    heavy = (
        "print(json.dumps(sorted({'torch', 'transformers', 'peft', 'deepspeed', 'pyarrow', "
        "'tokenizers'} & set(sys.modules))))"
    )
    command = [sys.executable, "-c", f"import json, runpy, sys, types; {program}; {heavy}"]
    done = subprocess.run(
        command, env=environment(finished / "work"), capture_output=True, text=True, check=True
    )
    *said, imported = done.stdout.splitlines()
    return "\n".join(said), json.loads(imported)


def test_any_committed_checkpoint_is_exported_and_verified_into_a_folder(finished: Path) -> None:
    spec, out = finished / "spec.yaml", finished / "epoch-1"
    done = hagane(
        "export", spec, "--checkpoint", "1", "--merge", "--out", out, work=finished / "work"
    )
    assert done.exit_code == 0, done.errors
    assert done.output.splitlines() == [f"{out}/adapter", f"{out}/merged"]
    last = load_file(finished / "store/tiny/adapter/adapter_model.safetensors")
    first = load_file(out / "adapter/adapter_model.safetensors")
    assert first.keys() == last.keys()
    assert not torch.allclose(
        first[(name := next(key for key in first if "lora_B" in key))], last[name]
    )
    readmes = {part: (out / part / "serve/README.md").read_text() for part in ("adapter", "merged")}
    assert all(f"From the folder `{part}`" in readme for part, readme in readmes.items())
    assert "Merged into its base: the folder `merged`" in readmes["adapter"]
    assert not [part for part, readme in readmes.items() if str(finished) in readme]
    proofs = [
        json.loads((out / part / "verification.json").read_bytes())
        for part in ("adapter", "merged")
    ]
    assert all(proof["passed"] and proof["num_prompts"] == 4 for proof in proofs)
    again = hagane(
        "export", spec, "--checkpoint", "7", "--out", finished / "none", work=finished / "work"
    )
    assert again.exit_code == 2
    assert "export.checkpoint: got 7, epochs in" in again.problems[0]
    assert not (finished / "none").exists()


def test_a_finished_run_is_published_listed_read_and_asked(finished: Path) -> None:
    run, store, work = str(finished / "store/tiny"), str(finished / "store"), finished / "work"
    assert (
        hagane("publish", run, "--name", "tiny-chat", work=work).output
        == f"tiny-chat v1  {store}/published/tiny-chat/v0001\n"
    )
    assert "was published before" in hagane("publish", run, "--name", "tiny-chat", work=work).output
    (version,) = json.loads(
        hagane("published", "--store", finished / "spec.yaml", "--json", work=work).output
    )
    assert (version["version"], version["latest"], version["run"]) == (1, True, run)
    refused = hagane("rollback", "tiny-chat", "--store", store, work=work)
    assert (refused.exit_code, refused.errors) == (
        2,
        ["error: tiny-chat: there is no version before v1; versions: v1"],
    )
    status = json.loads(hagane("status", finished / "spec.yaml", "--json", work=work).output)
    assert [folder["finished"] for folder in status["folders"]] == [True] * 6
    assert json.loads(hagane("status", run, "--json", work=work).output) == status
    assert [checkpoint["epoch"] for checkpoint in status["checkpoints"]] == [1, 2]
    log = hagane("logs", run, "export_adapter", work=work).output.splitlines()
    assert any(line.startswith("event=verified component=export_adapter") for line in log)
    assert not any("component=evaluate" in line for line in log)
    asked = hagane(
        "chat", run, "--tokens", "4", work=work, stdin="What is 12 plus 7?\nAnd 41?\n\nnot asked\n"
    )
    assert [line.split()[0] for line in asked.output.splitlines()] == [
        "base",
        "tuned",
        "base",
        "tuned",
    ], asked.errors


def assert_run_verified(spec: Path, folder: Path) -> None:
    """`hagane run` of a spec with its store in `folder` ends with what was planned, and with a
    model that is better than the base."""
    done = hagane("run", spec, "--json", work=folder / "work")
    assert done.exit_code == 0, done.errors
    store = LocalStore(folder / "store/tiny")
    plan, history = read_json(store, "plan/plan.json"), read_json(store, "checkpoints/history.json")
    assert [checkpoint.step for checkpoint in committed_checkpoints(store)] == plan["steps"][
        "save_steps"
    ]
    assert [step["step"] for step in history["steps"]] == list(
        range(1, plan["steps"]["total_steps"] + 1)
    )
    stored = [checkpoint.num_bytes for checkpoint in committed_checkpoints(store)]
    # Tiny checkpoints are mostly what does not grow with the model: names of tensors, pickled
    # classes.
    assert all(abs(num_bytes - plan["checkpoints"]["bytes_each"]) < 250_000 for num_bytes in stored)
    report = read_json(store, "report/report.json")
    assert report["held_out_loss"]["tuned"] < report["held_out_loss"]["base"]
    assert report["answers"][0]["question"] == "What is 12 plus 7?"
    happened = {figure["what"]: figure for figure in report["against_plan"]}
    assert set(happened) == {
        "optimizer steps",
        "a step",
        "all steps, with held-out loss and saves",
        "memory of a node",
        "a checkpoint",
    }
    assert happened["optimizer steps"]["happened"] == plan["steps"]["total_steps"]
    memory = happened["memory of a node"]
    # Of tiny models the libraries take nearly all, in fp32 a quarter less than in bf16.
    assert 0.6 < memory["happened"] / memory["planned"] < 1.3
    assert json.loads(done.output) == report
    assert any("is finished" in line for line in done.errors)


def test_another_gate_evaluates_again_and_fails_the_step_that_it_is_judged_in(
    finished: Path,
) -> None:
    gate = "gate=[{metric: loss, improve_by: 100}]"
    done = hagane("run", finished / "spec.yaml", "--set", gate, work=finished / "work")
    assert done.exit_code == 1
    assert (
        "gate: held-out loss must fall below the base model's by at least 100: found"
        in done.problems[0]
    )
    assert f"already done  folder={finished}/store/tiny/checkpoints" in done.output
    failure = read_json(LocalStore(finished / "store/tiny"), "failures/evaluate.json")
    assert failure["message"].startswith("evaluation: gate: held-out loss")


RUN_COMPILED = """
import json, sys, warnings
warnings.simplefilter("ignore")
from kfp import components, local
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[3])
components.load_component_from_file(sys.argv[1])(spec=json.loads(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def compiled_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an fp32 LoRA run made by the compiled YAML; its base model is in `model` beside
    `store`."""
    folder = tmp_path_factory.mktemp("compiled")
    compiled = folder / "finetune.yaml"
    assert hagane("compile", compiled, work=folder / "work").exit_code == 0
    spec = load_spec(tiny_spec(folder, epochs=1, precision="fp32")).model_dump_json(
        exclude_none=True
    )
    command = [sys.executable, "-c", RUN_COMPILED, str(compiled), spec, str(folder / "kfp")]
    done = subprocess.run(
        command, env=environment(folder / "work"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return folder


def test_the_compiled_yaml_itself_runs(compiled_run: Path) -> None:
    assert read_json(LocalStore(compiled_run / "store/tiny"), "report/report.json")["run"] == "tiny"


def test_the_adapter_in_plain_peft_gives_the_trained_models_logits(compiled_run: Path) -> None:
    run = compiled_run / "store/tiny"
    base = AutoModelForCausalLM.from_pretrained(compiled_run / "model", dtype=torch.float32)
    probe = load_file(run / "checkpoints/probe.safetensors")
    prompts = read_prompts(run / "dataset")
    untuned = prompt_logits(base, prompts)
    tuned = prompt_logits(PeftModel.from_pretrained(base, run / "adapter").eval(), prompts)
    assert len(prompts.prompts) == 4
    # fp32 on both sides; only the order of sums differs between DeepSpeed's and plain layers: some
    # units of 1e-7 x |logit|.
    assert torch.allclose(tuned, probe["logits"], atol=1e-4)
    assert not torch.allclose(untuned, probe["logits"], atol=1e-2)
