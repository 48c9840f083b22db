"""Prepare, plan and train as a user calls them, against plain torch with each conversation alone: every way to divide the work."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.reference_run import ALL_CLOSE, Differences, compare

pytestmark = [
    pytest.mark.slow,
    # peft 0.21.2 asks transformers 5.23 by an old name
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

LORA = {"method": "lora"}
OFFLOADED = {"offload_optimizer": "cpu"}
ROUTER_LOSS = {"output_router_logits": True, "router_aux_loss_coef": 0.02}
APART = {"num_conversations": 13}
# fmt: off
FP32: dict[str, dict[str, Any]] = {
    "full, ZeRO-0": {"zero": {"stage": 0}},
    "full, ZeRO-0, two processes": {"zero": {"stage": 0}, "num_processes": 2},
    "full, ZeRO-1, two processes": {"zero": {"stage": 1}, "num_processes": 2},
    "full, ZeRO-2, two processes, micro-batch 3": {"zero": {"stage": 2}, "num_processes": 2, "training": {"micro_batch": 3}},
    "full, ZeRO-2 offloaded, two processes": {"zero": {"stage": 2, **OFFLOADED}, "num_processes": 2},
    "full, ZeRO-3, two processes": {"zero": {"stage": 3}, "num_processes": 2},
    "full, ZeRO-3 offloaded, two processes": {"zero": {"stage": 3, **OFFLOADED, "offload_parameters": "cpu"}, "num_processes": 2},
    "full, drop_last": {"zero": {"stage": 2}, "training": {"drop_last": True, "micro_batch": 2}},
    "full, tied embeddings, ZeRO-3": {"zero": {"stage": 3}, "config": {"tie_word_embeddings": True}},
    "full, checkpointing": {"zero": {"stage": 2}, "training": {"gradient_checkpointing": True}},
    "full, labels smoothed, at the peak until it decays, two processes": {
        "zero": {"stage": 2},
        "num_processes": 2,
        "training": {"label_smoothing": 0.1, "lr_schedule": "warmup_stable_decay", "lr_decay_share": 0.5},
    },
    "rsLoRA, a least learning rate": {
        "zero": {"stage": 0},
        "training": {**LORA, "lr_schedule": "cosine_with_min_lr", "epochs": 3},
        "lora": {"rslora": True, "alpha": 16},
    },
    "full, GPT-NeoX": {"architecture": "gpt_neox", "zero": {"stage": 2}},
    "full, logits of all tokens": {"zero": {"stage": 2}, "training": {"output_layer": "all_tokens"}},
    "LoRA, ZeRO-0, two processes": {"zero": {"stage": 0}, "num_processes": 2, "training": LORA},
    "LoRA, ZeRO-3, micro-batch 2": {"zero": {"stage": 3}, "training": {**LORA, "micro_batch": 2}},
    "LoRA, checkpointing": {"zero": {"stage": 0}, "training": {**LORA, "gradient_checkpointing": True}},
    # Checkpointed blocks are run again while ZeRO-3 gathers their frozen weights anew: CheckpointError in DeepSpeed 0.19.2.
    "LoRA, ZeRO-3, checkpointing, two processes": {
        "zero": {"stage": 3},
        "num_processes": 2,
        "training": {**LORA, "gradient_checkpointing": True},
    },
    "LoRA of experts, ZeRO-0": {"architecture": "qwen3_moe", "zero": {"stage": 0}, "training": LORA},
    "LoRA of experts, ZeRO-3, two processes": {"architecture": "mixtral", "zero": {"stage": 3}, "num_processes": 2, "training": LORA},
    "full, the mask of transformers": {"zero": {"stage": 2}, "training": {"attention": "sdpa", "micro_batch": 3}},
    "GPT-OSS, ZeRO-3, two processes": {"architecture": "gpt_oss", "zero": {"stage": 3}, "num_processes": 2},
    "GPT-OSS, checkpointing, micro-batch 3": {
        "architecture": "gpt_oss",
        "zero": {"stage": 2},
        "training": {"gradient_checkpointing": True, "micro_batch": 3},
    },
    "GPT-OSS, one conversation a row": {
        **APART,
        "architecture": "gpt_oss",
        "zero": {"stage": 2},
        "training": {"attention": "eager"},
    },
    "BLOOM, one conversation a row": {**APART, "architecture": "bloom", "zero": {"stage": 2}, "training": {"micro_batch": 2}},
    "Mamba-2, one conversation a row": {**APART, "architecture": "mamba2", "zero": {"stage": 2}, "training": {"micro_batch": 3}},
    "Qwen3-Next, one conversation a row, ZeRO-3": {**APART, "architecture": "qwen3_next", "zero": {"stage": 3}},
    "Llama, data.packing: false": {
        "num_conversations": 13,
        "data": {"packing": False},
        "zero": {"stage": 2},
        "training": {"micro_batch": 3},
    },
    # Each row is one conversation: a recurrent state carries over.
    "full, Mamba": {"architecture": "mamba", "zero": {"stage": 2}, "num_conversations": 13},
    "router loss asked for": {"architecture": "mixtral", "zero": {"stage": 2}, "config": ROUTER_LOSS},
}
# fmt: on
# bf16 keeps 8 bits: a loss near 6 and a norm near 2 are known to some 0.02. Held-out losses after four steps are the tight ones: with
# one hidden step of Adam they are 0.086 away in full training and 0.015 with LoRA.
IN_BF16 = Differences(loss=0.02, grad_norm=0.05, lr=1e-12, held_out=0.006, epoch_loss=0.02)
BF16: dict[str, dict[str, Any]] = {
    "full, ZeRO-0": {"zero": {"stage": 0}},
    "full, ZeRO-2": {"zero": {"stage": 2}},
    "full, ZeRO-3, two processes": {"zero": {"stage": 3}, "num_processes": 2},
    "LoRA, ZeRO-0": {"zero": {"stage": 0}, "training": LORA},
    "LoRA, ZeRO-0, two processes": {"zero": {"stage": 0}, "num_processes": 2, "training": LORA},
}


@pytest.mark.parametrize("case", FP32)
def test_training_in_fp32_is_that_of_plain_torch(case: str, tmp_path: Path) -> None:
    differences = compare(tmp_path, **FP32[case]).differences
    print(case, differences)
    assert differences <= ALL_CLOSE


@pytest.mark.parametrize("case", BF16)
def test_training_in_bf16_is_that_of_plain_torch(case: str, tmp_path: Path) -> None:
    settings = {**BF16[case], "training": {"precision": "bf16", **BF16[case].get("training", {})}}
    differences = compare(tmp_path, **settings).differences
    print(case, differences)
    assert differences <= IN_BF16


def test_gradients_of_many_micro_batches_are_summed_in_fp32(tmp_path: Path) -> None:
    data = {"num_conversations": 280, "training": {"global_batch": 64, "precision": "bf16", "epochs": 1}}
    found = compare(tmp_path, zero={"stage": 2}, **data)
    assert found.plan["fp32_gradient_sums"]
    print(found.differences)
    assert found.differences <= IN_BF16
