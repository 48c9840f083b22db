"""An export -> the files by which others serve it: serve/ in the export's folder.

Made from facts of the export alone. Where a server cannot load it, serve/README.md says why, and
the file is left out.
"""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from components.shared.documents.plan import Plan
from components.shared.documents.results import BaseModel
from components.shared.model.quantization import dtype_words
from components.shared.model.registry import model_families
from components.shared.spec.values import name_elsewhere

TEMPLATE = "chat_template.jinja"
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's --max-lora-rank (vllm/config/lora.py, MaxLoRARanks)."""


@dataclass(frozen=True)
class ServedExport:
    name: str
    """By which clients ask for the model."""
    uri: str
    """Of the export's folder."""
    plan: Plan
    base: BaseModel
    is_adapter: bool
    merged_uri: str | None = None
    """Of the same adapter merged into its base, where that is exported too."""
    template_args: dict[str, Any] | None = None
    """What the chat template got for the training data beside the messages."""
    has_template: bool = True
    """Whether chat_template.jinja is in the export. A base model trained on plain text may have
    none."""

    @property
    def why_not_vllm(self) -> str | None:
        """Why vLLM cannot load it; None where it can."""
        if not self.is_adapter or self.plan.lora is None:
            return None
        if self.plan.lora.target_parameters:
            return (
                "vLLM may leave out an adapter of experts' weights without an error "
                "(vllm-project/vllm#41384)"
            )
        if self.plan.lora.dora:
            return "vLLM loads no DoRA; serve merged/, which `export.merge: true` makes"
        if self.plan.lora.changes_vocabulary:
            return (
                "vLLM loads no adapter with trained embeddings or head; serve merged/, which "
                "`export.merge: true` makes"
            )
        unserved = {family.model_type for family in model_families() if family.merge}
        if self.plan.model.model_type in unserved:
            return (
                f"vLLM loads no adapter of {self.plan.model.model_type}; serve merged/, which "
                "`export.merge: true` makes"
            )
        return None

    @property
    def why_not_kserve(self) -> str | None:
        """The same of KServe, which serves by vLLM and gets the base from the hub."""
        if self.why_not_vllm is None and self.is_adapter and self.base.hub_id is None:
            return (
                "the base is a folder of one machine, where no cluster finds it; serve merged/, "
                "which `export.merge: true` makes"
            )
        if self.why_not_vllm is None and "://" not in self.uri:
            return (
                "the export is in a folder of one machine, where no cluster finds it; it needs a "
                "store such as s3://bucket/prefix"
            )
        return self.why_not_vllm


def write_serving_files(export: ServedExport, folder: Path) -> None:
    """serve/ in `folder` is of this export, its URI and the template beside it, whatever was
    there."""
    export = replace(export, has_template=(folder / TEMPLATE).is_file())
    shutil.rmtree(folder / "serve", ignore_errors=True)
    (folder / "serve").mkdir()
    for name, text in serving_files(export).items():
        (folder / name).write_text(text, encoding="utf-8")


def serving_files(export: ServedExport) -> dict[str, str]:
    """Name, below the export's folder -> text."""
    files = {
        "serve/README.md": _readme(export),
        "serve/load.py": _load(export),
        "serve/GGUF.md": _gguf(export),
    }
    if export.why_not_vllm is None:
        files["serve/vllm.sh"] = _vllm(export)
    if export.why_not_kserve is None:
        files["serve/inferenceservice.yaml"] = _inference_service(export)
    return files


def vllm_arguments(export: ServedExport, *, folder: str) -> Iterator[str]:
    """Options of vLLM that name what is in the export's folder, beside the model itself."""
    yield from ("--tokenizer", folder)
    if export.has_template:
        yield from ("--chat-template", f"{folder}/{TEMPLATE}")
    yield from ("--generation-config", folder)
    if export.is_adapter:
        yield from (
            "--enable-lora",
            "--max-lora-rank",
            str(_vllm_rank(export)),
            "--lora-modules",
            f"{export.name}={folder}",
        )
    else:
        yield from ("--served-model-name", export.name)


def _vllm_rank(export: ServedExport) -> int:
    if export.plan.lora is None:
        rank = 1
    else:
        rank = export.plan.lora.rank
    return next((allowed for allowed in VLLM_RANKS if allowed >= rank), rank)


def _vllm(export: ServedExport) -> str:
    base = export.base
    model = '"$here"'
    if export.is_adapter and not base.hub_id:
        settings = ['base=${1:?"usage: vllm.sh BASE_FOLDER [OPTION ...]"}', "shift"]
    else:
        settings = []
    if export.is_adapter:
        if base.hub_id is None:
            model = '"$base"'
        else:
            model = shlex.quote(base.hub_id)
    if export.is_adapter and base.commit:
        revision = f"  --revision {shlex.quote(base.commit)} \\\n"
    else:
        revision = ""
    named = replace(export, name=re.sub(r'([\\"$`])', r"\\\1", export.name))
    words = (
        f"\n  {word}" if word.startswith("--") else f' "{word}"'
        for word in vllm_arguments(named, folder="$here")
    )
    options = "".join(words).lstrip("\n").replace("\n", " \\\n")
    lines = "\n".join([*settings, f"exec vllm serve {model} \\"])
    return (
        f"#!/bin/sh\n# Serves {export.name} by vLLM with the API of OpenAI. "
        "Further options go to `vllm serve`.\nset -eu\n"
        f'here=$(cd "$(dirname "$0")/.." && pwd)\n{lines}\n{revision}{options} \\\n  "$@"\n'
    )


def _inference_service(export: ServedExport) -> str:
    """serving.kserve.io/v1beta1. KServe mounts what storageUri names at /mnt/models; its Hugging
    Face server takes vLLM's options, and --model_id before that folder (kserve,
    python/huggingfaceserver/huggingfaceserver/__main__.py)."""
    args = [f"--model_name={export.name}"]
    if export.is_adapter:
        args += [f"--model_id={export.base.hub_id}", f"--model_revision={export.base.commit}"]
    options = list(vllm_arguments(export, folder="/mnt/models"))
    if not export.is_adapter:
        options = options[: options.index("--served-model-name")]
    model = {
        "modelFormat": {"name": "huggingface"},
        "args": [*args, *options],
        "storageUri": export.uri,
        "resources": {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "1"}},
    }
    tree = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": export.name},
        "spec": {"predictor": {"serviceAccountName": "kserve-s3", "model": model}},
    }
    about = (
        "# kserve-s3: a service account whose secret has the store's keys, as KServe's page on S3 "
        "has it made.\n# Resources are those of a small model; a model of 7 B parameters in bf16 "
        "needs a GPU of 24 GB.\n"
    )
    return about + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _load(export: ServedExport) -> str:
    """A program that answers one question with transformers and peft alone."""
    return "\n".join(
        [
            (
                f'"""Answers a question with {export.name}: python load.py '
                f'{"[--base FOLDER] " if export.is_adapter else ""}QUESTION"""'
            ),
            "",
            "import argparse",
            "from pathlib import Path",
            "",
            *(["from peft import PeftModel"] if export.is_adapter else []),
            "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig",
            "",
            "here = Path(__file__).resolve().parents[1]",
            "parser = argparse.ArgumentParser(description=__doc__)",
            'parser.add_argument("question")',
            *_load_model(export),
            "tokenizer = AutoTokenizer.from_pretrained(here)",
            *_load_prompt(export),
            "settings = GenerationConfig.from_pretrained(here)",
            "settings.max_new_tokens = 200",
            "tokens = model.generate(**prompt, generation_config=settings)",
            (
                'print(tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], '
                "skip_special_tokens=True))"
            ),
            "",
        ]
    )


def _load_prompt(export: ServedExport) -> list[str]:
    if not export.has_template:
        return [
            (
                'prompt = tokenizer(asked.question, return_tensors="pt", '
                "return_token_type_ids=False).to(model.device)"
            )
        ]
    arguments = dict(export.template_args or {})
    return [
        "prompt = tokenizer.apply_chat_template(",
        '    [{"role": "user", "content": asked.question}],',
        "    add_generation_prompt=True,",
        "    return_dict=True,",
        '    return_tensors="pt",',
        *([f"    **{arguments!r},"] if arguments else []),
        ").to(model.device)",
    ]


def _load_model(export: ServedExport) -> list[str]:
    if not export.is_adapter:
        return [
            "asked = parser.parse_args()",
            'model = AutoModelForCausalLM.from_pretrained(here, dtype="auto").eval()',
        ]
    base = export.base
    if base.hub_id:
        default = f"default={json.dumps(base.hub_id)}"
    else:
        default = "required=True"
    if base.hub_id:
        revision = f"revision=None if Path(asked.base).is_dir() else {base.commit!r}, "
    else:
        revision = ""
    return [
        (
            f'parser.add_argument("--base", {default}, '
            f"help={json.dumps(base.label, ensure_ascii=False)})"
        ),
        "asked = parser.parse_args()",
        (
            f"model = AutoModelForCausalLM.from_pretrained(asked.base, {revision}"
            f"{dtype_words(export.plan)})"
        ),
        *grown_lines(export.plan),
        "model = PeftModel.from_pretrained(model, here).eval()",
    ]


def grown_lines(plan: Plan) -> list[str]:
    """Python that gives the base rows for the new tokens, which the adapter then fills."""
    if not plan.model.num_new_tokens:
        return []
    rows = plan.model.num_embeddings
    return [f"model.resize_token_embeddings({rows}, mean_resizing=False)"]


def _gguf(export: ServedExport) -> str:
    """For llama.cpp and what is built on it."""
    whole = f"python convert_hf_to_gguf.py EXPORT --outfile {export.name}.gguf --outtype bf16"
    adapter = f"python convert_lora_to_gguf.py --base BASE --outfile {export.name}-lora.gguf EXPORT"
    if export.is_adapter:
        serve = f"llama-server -m BASE.gguf --lora {export.name}-lora.gguf"
    else:
        serve = f"llama-server -m {export.name}.gguf"
    if export.is_adapter:
        base = f"`BASE` is a folder that holds {export.base.label}.\n"
    else:
        base = ""
    return (
        f"# {export.name} as GGUF\n\nWith the programs of "
        "[llama.cpp](https://github.com/ggml-org/llama.cpp). `EXPORT` is the folder above this "
        f"one. {base}\n    {adapter if export.is_adapter else whole}\n    {serve}\n\nThe "
        "converters know the architectures that llama.cpp has; they say so where this one is not "
        "among them. A GGUF file is not covered by `verification.json`: compare answers before "
        "you rely on it.\n"
    )


def _readme(export: ServedExport) -> str:
    if export.why_not_vllm is None:
        vllm = "`sh serve/vllm.sh`"
    else:
        vllm = f"no: {export.why_not_vllm}"
    if export.why_not_kserve is None:
        kserve = "`kubectl apply -f serve/inferenceservice.yaml`"
    else:
        kserve = f"no: {export.why_not_kserve}"
    rows = [
        ("transformers", "`python serve/load.py QUESTION`"),
        ("vLLM", vllm),
        ("KServe", kserve),
        ("llama.cpp", "serve/GGUF.md"),
    ]
    table = "\n".join(f"| {name} | {how} |" for name, how in rows)
    if export.merged_uri:
        merged = f"\nMerged into its base: {_place(export.merged_uri)}\n"
    else:
        merged = ""
    arguments = json.dumps(export.template_args, ensure_ascii=False)
    if export.template_args:
        template = (
            f"\nSend `chat_template_kwargs: {arguments}` with each request, as in training.\n"
        )
    else:
        template = ""
    if not export.has_template:
        template = (
            "\nThere is no chat template: the model continues a text. Ask a server by "
            "`/v1/completions`.\n"
        )
    return (
        f"# How to serve {export.name}\n\nFrom {_place(export.uri)}:\n\n| | "
        f"|\n|---|---|\n{table}\n{merged}{template}{_about_4_bits(export)}"
    )


def _place(uri: str) -> str:
    """A path of one machine helps nobody else, and says who trained where."""
    if "://" in uri:
        return f"`{uri}`"
    return f"the folder `{name_elsewhere(uri)}`"


def _about_4_bits(export: ServedExport) -> str:
    model = export.plan.model
    if not export.is_adapter or model.quantization == "none":
        return ""
    if model.quantized_files:
        return (
            "\nThe files of the base are in 4 bits (NF4), and the adapter was trained and checked "
            "on them as they are: serve it on these files.\n"
        )
    return (
        "\nThe adapter was trained and checked on its base in 4 bits (NF4). vLLM, KServe and "
        "llama.cpp load the base as it is, so answers differ a little from those that were "
        "checked; merged/, which `export.merge: true` makes, answers as checked.\n"
    )
