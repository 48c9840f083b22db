"""A real DeepSpeed checkpoint of a few full-parameter steps, made by one gloo process; with what it must turn back into.

    python -m tests.integration.deepspeed_checkpoint BASE OUT PRECISION STAGE

OUT holds prompts.json. It gets the checkpoint as DeepSpeed writes it, and beside it trained.safetensors (every weight, gathered,
fp32) and probe.safetensors (the trained model's logits for the prompts), both taken from the live engine.
"""

import os
import sys
from pathlib import Path
from typing import Any

import deepspeed
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from transformers.integrations.deepspeed import HfDeepSpeedConfig

from components.shared.documents.prompts import read_prompts
from components.train.loop.results import probe_logits
from components.train.model.own_layers import OwnLayers

STEPS = 3


def config_of(precision: str, stage: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": precision == "bf16"},
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {"stage": 0}
        if stage == 0
        else {
            "stage": stage,
            "offload_optimizer": {"device": "cpu"},
            "offload_param": {"device": "cpu"},
            # Low enough that the larger weights of a tiny model are really partitioned.
            "stage3_param_persistence_threshold": 500,
        },
    }


def main() -> None:
    base, out, precision, stage = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # pyright: ignore[reportAttributeAccessIssue]
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    torch.manual_seed(0)
    config = config_of(precision, stage)
    zero_init = HfDeepSpeedConfig(config)  # referenced until from_pretrained is done, or ZeRO-3 stays off
    model = AutoModelForCausalLM.from_pretrained(base)
    assert zero_init.is_zero3() == (stage == 3)
    assert hasattr(next(model.parameters()), "ds_id") == (stage == 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    tokens_1T = torch.randint(4, model.config.vocab_size, (1, 16))
    for _ in range(STEPS):
        engine.backward(engine(input_ids=tokens_1T, labels=tokens_1T, use_cache=False).loss)
        engine.step()
    engine.save_checkpoint(str(out), tag=f"global_step{STEPS}")
    save_file(probe_logits(engine, OwnLayers(), read_prompts(out)), out / "probe.safetensors")
    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        weights = {name: parameter.detach().float().clone() for name, parameter in model.named_parameters()}
    save_file(weights, out / "trained.safetensors")
    os._exit(0)  # gloo's threads may abort a normal exit (Python 3.11, torch 2.13)


if __name__ == "__main__":
    main()
