"""AdamW as the plan means it: which parameters decay, and a warm-up whose first step trains."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import Conv1D

MATRICES = (
    torch.nn.Linear,
    torch.nn.Embedding,
    torch.nn.Conv1d,
    torch.nn.Conv2d,
    torch.nn.Conv3d,
    Conv1D,
)
# Of recurrent layers (Mamba, arXiv 2312.00752, section 3.6) and of inkling2's clip: no matrices,
# though some have two dimensions.
STATE_PARAMETERS = {"A_log", "scale"}


def decayed_parameters(model: torch.nn.Module) -> list[str]:
    """Names of the parameters that weight decay is for: weights of layers, embeddings and experts.

    Norms, biases, attention sinks and the state parameters of recurrent layers are left out,
    whatever their name, by their shape.
    """
    return [
        name
        for name, parameter in model.named_parameters()
        if _decays(model, name, _shape(parameter))
    ]


def _decays(model: torch.nn.Module, name: str, shape: torch.Size) -> bool:
    owner, _, last = name.rpartition(".")
    layer = model.get_submodule(owner)
    is_norm = "norm" in type(layer).__name__.lower()
    if is_norm or "bias" in last or last in STATE_PARAMETERS:
        return False
    if isinstance(layer, MATRICES):
        return True
    return sum(size > 1 for size in shape) >= 2 and not re.search(r"(^|[._])norm([._]|$)", name)


def raise_rate_of_b(optimizer: torch.optim.Optimizer, model: torch.nn.Module, ratio: float) -> None:
    """B matrices of LoRA are in groups of their own, with `ratio` times the learning rate (LoRA+,
    arXiv 2402.12354). Before the optimizer's first step and its schedule."""
    b_matrices = {id(each) for name, each in model.named_parameters() if "lora_B" in name}
    for group in list(optimizer.param_groups):
        raised = [each for each in group["params"] if id(each) in b_matrices]
        if not raised:
            continue
        group["params"] = [each for each in group["params"] if id(each) not in b_matrices]
        optimizer.add_param_group({**group, "params": raised, "lr": ratio * group["lr"]})


def _shape(parameter: Any) -> torch.Size:
    """Of the whole parameter; ZeRO-3 leaves an empty tensor and its true shape in `ds_shape`."""
    return getattr(parameter, "ds_shape", parameter.shape)


def warm_up_from_the_first_step(scheduler: LambdaLR, warmup_steps: int) -> LambdaLR:
    """The same schedule, but step s of the warm-up, counted from 1, has s / (warmup_steps + 1) of
    the peak.

    transformers (5.23, optimization.py) gives it (s - 1) / warmup_steps: a first step with learning
    rate 0 trains nothing. All later steps are as transformers has them: the step after the warm-up
    is the first at the peak.
    """

    def rising(after: Callable[[int], float]) -> Callable[[int], float]:
        return lambda num_done: (
            (num_done + 1) / (warmup_steps + 1) if num_done < warmup_steps else after(num_done)
        )

    return LambdaLR(scheduler.optimizer, [rising(after) for after in scheduler.lr_lambdas])
