"""A program: updates 1 to 6 of one weight matrix by DeepSpeed in bf16 without ZeRO, in units of the learning rate, as JSON."""

import itertools
import json
import os
from typing import Any

import deepspeed
import torch

from components.train.loop.engine import build_without_a_step
from tests.support.free_port import free_port

LR = 1e-3


def main() -> None:
    one = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_SIZE": "1"}
    os.environ |= one | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # pyright: ignore[reportAttributeAccessIssue]
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    build_without_a_step()
    layer = torch.nn.Linear(64, 64, bias=False).to(torch.bfloat16)
    torch.nn.init.zeros_(layer.weight)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=LR, weight_decay=0.0, fused=True)
    config = {"train_batch_size": 1, "gradient_clipping": 1.0, "bf16": {"enabled": True}, "zero_optimization": {"stage": 0}}
    engine, *_ = deepspeed.initialize(model=layer, optimizer=optimizer, config=config)
    wrapper: Any = engine.optimizer
    [[master]] = wrapper.fp32_groups
    weights = [master.detach().clone()]
    for _ in range(6):
        engine.backward(engine(torch.ones(1, 64, dtype=torch.bfloat16)).sum())
        engine.step()
        weights.append(master.detach().clone())
    made = [float((now - before).abs().mean()) / LR for before, now in itertools.pairwise(weights)]
    counted = [int(state["step"]) for state in optimizer.state.values()]
    print(json.dumps({"updates": made, "counted": counted}))


if __name__ == "__main__":
    main()
