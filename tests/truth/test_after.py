"""What the plan says of memory after training, compared with the steps' own code on a model large
enough to be most of it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

from components.render_config.cost.after_training import PROCESS_BYTES, plan_after
from components.shared.documents.plan import AfterPlan
from tests.support.settings import setting_of

ROW_TOKENS = 1024
MEASURED = """
import re, sys, threading, time
from pathlib import Path

peak = 0
def watch():
    global peak
    while True:
        peak = max(peak, int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024)
        time.sleep(0.003)
threading.Thread(target=watch, daemon=True).start()
import torch
base, adapter = Path(sys.argv[1]), Path(sys.argv[2])
"""  # noqa: E501
EVALUATE = """
from components.evaluate.evaluation import Models, look_at_both
from components.evaluate.measure.held_out import PackedRow, row_loss
tokens = [index % 16000 for index in range(int(sys.argv[3]))]
row = PackedRow(tokens, tokens, [len(tokens) // 2, len(tokens) - len(tokens) // 2])
look_at_both(Models(base, adapter, torch.float32), lambda model: row_loss(model, row))
print(peak)
"""
VERIFY = """
from components.export_adapter.verification.logits import exported_logits
tokens = torch.arange(16)
for dtype in (torch.bfloat16, torch.float32):
    exported_logits(adapter, base, tokens, dtype)
print(peak)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base/, a Llama of 170 million parameters stored in bf16, and adapter/ for it."""
    made = tmp_path_factory.mktemp("after")
    config = LlamaConfig(
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=11,
        num_attention_heads=16,
        vocab_size=16000,
        max_position_embeddings=2048,
    )
    model: Any = LlamaForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(made / "base")
    get_peft_model(
        model, LoraConfig(r=8, target_modules=["q_proj"], task_type="CAUSAL_LM")
    ).save_pretrained(str(made / "adapter"))
    return made


@pytest.fixture(scope="module")
def planned(folder: Path) -> AfterPlan:
    config = AutoConfig.from_pretrained(folder / "base").to_dict()
    setting = setting_of(config, row_tokens=ROW_TOKENS, backend="pytorchjob", hardware={})
    return plan_after(setting, num_held_out=10).value


def measured(code: str, folder: Path) -> int:
    """Peak bytes of a process that the kernel could not have taken back: what is mapped of files is
    not among them."""
    command = [
        sys.executable,
        "-c",
        MEASURED + code,
        str(folder / "base"),
        str(folder / "adapter"),
        str(ROW_TOKENS),
    ]
    return int(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]
    )


def test_evaluation_takes_what_is_planned(folder: Path, planned: AfterPlan) -> None:
    assert 0.75 < measured(EVALUATE, folder) / planned.evaluate_bytes < 1.0


def test_verification_takes_what_is_planned_beside_the_process_that_exports(
    folder: Path, planned: AfterPlan
) -> None:
    assert 0.7 < measured(VERIFY, folder) / (planned.export_bytes - PROCESS_BYTES) < 1.0
