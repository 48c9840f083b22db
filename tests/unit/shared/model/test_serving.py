"""serve/ of exports of every kind: its commands parse, its YAML has only fields that KServe has,
its programs compile."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from components.shared.documents.plan import LoraPlan
from components.shared.documents.results import BaseModel
from components.shared.model.serving import ServedExport, serving_files, write_serving_files
from components.shared.spec.file import parse_spec
from tests.support.field_lists import unknown_fields
from tests.support.made_plan import make_plan

HUB = BaseModel(hub_id="org/base-7b", commit="a" * 40)
FOLDER = BaseModel(folder="base", sha256="b" * 64)
SPEC = {
    "name": "demo",
    "store": "s3://b/runs",
    "model": {"source": "m"},
    "data": {"train": "t.jsonl"},
    "lora": {"rank": 20},
}
ADAPTER = ServedExport(
    name="support",
    uri="s3://b/runs/published/support/v0003/adapter",
    plan=make_plan(parse_spec(SPEC)),
    base=HUB,
    is_adapter=True,
)
WHOLE = replace(ADAPTER, uri="s3://b/runs/published/support/v0003/merged", is_adapter=False)
EXPORTS = {
    "adapter": ADAPTER,
    "adapter of a folder": replace(ADAPTER, base=FOLDER),
    "whole model": WHOLE,
}


def written(export: ServedExport, folder: Path) -> Path:
    for name, text in serving_files(export).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def vllm_command(export: ServedExport, folder: Path, *arguments: str) -> list[str]:
    """What vllm.sh would start, by a program in vLLM's place that prints its arguments: vLLM itself
    needs a GPU."""
    (folder / "bin").mkdir()
    stand_in = folder / "bin/vllm"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    script = written(export, folder / "my export") / "serve/vllm.sh"
    env = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin"}
    done = subprocess.run(
        ["sh", script, *arguments], cwd="/", env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("kind", EXPORTS)
def test_inference_service_has_only_fields_of_kserves_api(kind: str) -> None:
    text = serving_files(EXPORTS[kind]).get("serve/inferenceservice.yaml")
    if kind == "adapter of a folder":
        assert text is None
        return
    assert text is not None
    tree = yaml.safe_load(text)
    assert unknown_fields(tree, "0.21.0") == []
    model = tree["spec"]["predictor"]["model"]
    assert model["storageUri"] == EXPORTS[kind].uri
    assert ("--model_id=org/base-7b" in model["args"]) == (kind == "adapter")
    assert ("support=/mnt/models" in model["args"]) == (kind == "adapter")


def test_vllm_gets_base_adapter_template_and_a_rank_that_it_allows(tmp_path: Path) -> None:
    here = str(tmp_path / "my export")
    assert vllm_command(ADAPTER, tmp_path, "--port", "9") == [
        *(
            "serve",
            "org/base-7b",
            "--revision",
            "a" * 40,
            "--tokenizer",
            here,
            "--chat-template",
            f"{here}/chat_template.jinja",
        ),
        *(
            "--generation-config",
            here,
            "--enable-lora",
            "--max-lora-rank",
            "32",
            "--lora-modules",
            f"support={here}",
            "--port",
            "9",
        ),
    ]


def test_vllm_is_asked_for_the_folder_of_a_base_that_no_hub_has(tmp_path: Path) -> None:
    command = vllm_command(replace(ADAPTER, base=FOLDER), tmp_path, "/models/base", "--port", "9")
    assert command[:2] == ["serve", "/models/base"]
    assert "--revision" not in command


def test_no_file_for_a_cluster_names_a_folder_of_this_machine() -> None:
    files = serving_files(replace(ADAPTER, uri="/home/me/export/adapter"))
    assert "serve/inferenceservice.yaml" not in files
    assert "serve/vllm.sh" in files
    assert "no: the export is in a folder of one machine" in files["serve/README.md"]


@pytest.mark.parametrize("kind", EXPORTS)
def test_a_model_without_a_chat_template_continues_the_text(kind: str, tmp_path: Path) -> None:
    write_serving_files(EXPORTS[kind], tmp_path)
    served = {path.name: path.read_text() for path in (tmp_path / "serve").iterdir()}
    compile(served["load.py"], "load.py", "exec")
    assert [
        name for name, text in served.items() if "chat_template" in text or "chat-template" in text
    ] == []
    assert "prompt = tokenizer(asked.question" in served["load.py"]
    assert "the model continues a text" in served["README.md"]
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    write_serving_files(EXPORTS[kind], tmp_path)
    assert "--chat-template" in (tmp_path / "serve/vllm.sh").read_text()


def test_a_name_is_no_part_of_the_shells_program(tmp_path: Path) -> None:
    name = '$(touch made)`touch made`"\\'
    assert vllm_command(replace(WHOLE, name=name), tmp_path)[-1] == name


def test_vllm_serves_a_whole_model_from_its_folder(tmp_path: Path) -> None:
    command = vllm_command(WHOLE, tmp_path)
    assert command[:2] == ["serve", str(tmp_path / "my export")]
    assert command[-2:] == ["--served-model-name", "support"]


def test_what_vllm_cannot_load_is_left_out_and_said() -> None:
    neox = make_plan(parse_spec(SPEC), architecture="gpt_neox")
    experts = ADAPTER.plan.model_copy(
        update={
            "lora": LoraPlan(
                rank=4,
                alpha=8,
                dropout=0,
                target_modules=("q_proj",),
                target_parameters=("experts.gate_up_proj",),
            )
        }
    )
    for plan, why in (
        (neox, "vLLM loads no adapter of gpt_neox"),
        (experts, "vLLM may leave out an adapter of experts' weights"),
    ):
        files = serving_files(replace(ADAPTER, plan=plan))
        assert set(files) == {"serve/README.md", "serve/load.py", "serve/GGUF.md"}
        assert files["serve/README.md"].count(why) == 2
        assert "serve/vllm.sh" in serving_files(replace(WHOLE, plan=plan))


@pytest.mark.parametrize("kind", EXPORTS)
def test_programs_are_sound_and_name_what_the_template_needs(kind: str, tmp_path: Path) -> None:
    folder = written(replace(EXPORTS[kind], template_args={"enable_thinking": False}), tmp_path)
    program = (folder / "serve/load.py").read_text()
    compile(program, "load.py", "exec")
    assert "'enable_thinking': False" in program
    assert (
        'chat_template_kwargs: {"enable_thinking": false}'
        in (folder / "serve/README.md").read_text()
    )
    assert shutil.which("sh")
    subprocess.run(["sh", "-n", folder / "serve/vllm.sh"], check=True)
    converter = "convert_lora_to_gguf.py" if EXPORTS[kind].is_adapter else "convert_hf_to_gguf.py"
    assert converter in (folder / "serve/GGUF.md").read_text()


def nf4(export: ServedExport, *, quantized_files: bool) -> ServedExport:
    model = export.plan.model.model_copy(
        update={"quantization": "nf4", "quantized_files": quantized_files}
    )
    return replace(export, plan=export.plan.model_copy(update={"model": model}))


def test_files_in_4_bits_are_loaded_and_served_as_they_are() -> None:
    files = serving_files(nf4(ADAPTER, quantized_files=True))
    assert "serve it on these files" in files["serve/README.md"]
    assert "answers differ" not in files["serve/README.md"]
    assert "quantization_config" not in files["serve/load.py"]
    made = serving_files(nf4(ADAPTER, quantized_files=False))
    assert "answers differ a little" in made["serve/README.md"]
    assert "quantization_config" in made["serve/load.py"]


@pytest.mark.parametrize("base", [HUB, FOLDER])
def test_no_file_names_a_path_of_the_machine_that_exported(base: BaseModel) -> None:
    place = "/home/alice/runs/demo"
    spec = parse_spec({**SPEC, "store": "/home/alice/runs", "model": {"source": "/home/alice/m"}})
    export = replace(
        ADAPTER,
        uri=f"{place}/adapter",
        merged_uri=f"{place}/merged",
        base=base,
        plan=make_plan(spec),
    )
    for name, text in serving_files(export).items():
        assert "alice" not in text, name
    assert "the folder `adapter`" in serving_files(export)["serve/README.md"]
