"""Whole runs that train embeddings, head and new tokens: verified, merged, and loaded by plain
transformers and peft in an empty folder."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.shared.documents.prompts import read_prompts
from tests.integration.test_pipeline import ZERO3, assert_run_verified, tiny_spec
from tests.support.trained_run import tie_embeddings

pytestmark = pytest.mark.slow
NEW_TOKENS = ["The number after", "次の数は何ですか"]
LOGITS = """
import json, sys, torch
from pathlib import Path
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
export, base, run = map(Path, sys.argv[1:])
prompts = json.loads((run / "dataset/prompts.json").read_bytes())["prompts"]
tokenizer = AutoTokenizer.from_pretrained(export)
if (export / "adapter_config.json").is_file():
    from peft import PeftModel
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model = PeftModel.from_pretrained(model, export)
else:
    model = AutoModelForCausalLM.from_pretrained(export, dtype="float32")
made = []
for each in prompts:
    ids = tokenizer.encode(each["text"], add_special_tokens=False)
    assert ids == each["token_ids"], ids
    ids = torch.tensor([ids[: each["probe_length"]]])
    made.append(model.eval()(input_ids=ids, use_cache=False).logits[0, -8:])
probe = load_file(run / "checkpoints/probe.safetensors")["logits"]
print(float((torch.cat(made) - probe).abs().max()))
"""


@pytest.mark.parametrize(
    ("architecture", "method", "tied", "lora", "model", "precision"),
    [
        ("llama", "lora", False, {}, {}, "fp32"),
        ("gpt_neox", "lora", False, {"also_train": ["embeddings", "head"]}, {}, "fp32"),
        ("llama", "lora", True, {}, {"quantization": "nf4"}, "fp32"),
        ("llama", "full", False, {}, {}, "fp32"),
        ("llama", "lora", False, {"also_train": ["embeddings", "head"]}, {}, "bf16"),
        ("llama", "lora", False, {}, {}, "bf16"),
    ],
)
def test_a_run_with_new_tokens_becomes_a_verified_export(
    tmp_path: Path,
    architecture: str,
    method: str,
    tied: bool,
    lora: dict[str, Any],
    model: dict[str, str],
    precision: str,
) -> None:
    spec = tiny_spec(
        tmp_path, architecture=architecture, method=method, zero=ZERO3, precision=precision
    )
    if tied:
        tie_embeddings(tmp_path / "model")
    tree = yaml.safe_load(spec.read_text())
    tree["data"]["new_tokens"] = NEW_TOKENS
    tree["lora"] |= lora
    tree["model"] |= model
    spec.write_text(yaml.safe_dump(tree, allow_unicode=True))
    assert_run_verified(spec, tmp_path)
    run = tmp_path / "store/tiny"
    assert [each.text for each in read_prompts(run / "dataset").new_tokens] == NEW_TOKENS
    exports = ["adapter", "merged"] if method == "lora" else ["model"]
    for part in exports:
        proof = json.loads((run / part / "verification.json").read_bytes())
        assert proof["passed"], proof["problems"]
        if precision == "bf16" or (model and part == "adapter"):
            continue  # the program below loads fp32; the proof has loaded it as it was trained
        empty = tmp_path / f"beside-{part}"
        empty.mkdir()
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", LOGITS, run / part, tmp_path / "model", run],
            cwd=empty,
            capture_output=True,
            text=True,
            check=True,
        )
        assert float(done.stdout) < 1e-4
