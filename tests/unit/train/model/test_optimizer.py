import re
import warnings
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoConfig, AutoModelForCausalLM, get_scheduler

from components.train.model.optimizer import (
    decayed_parameters,
    raise_rate_of_b,
    warm_up_from_the_first_step,
)

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
GROUPED = {**SMALL, "num_key_value_heads": 2, "pad_token_id": 0}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64},
    "gpt_neox": SMALL,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64},
    "gpt_oss": {**GROUPED, "head_dim": 8, "num_local_experts": 4},
    "mamba": {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "mamba2": {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "head_dim": 16,
        "num_heads": 4,
        "n_groups": 1,
    },
    "jamba": {**GROUPED, "num_experts": 4, "mamba_d_state": 8},
    "rwkv": {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2},
    "falcon_h1": {
        **GROUPED,
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
    },
}
LEFT_OUT = r"bias|norm|(^|[._])ln|A_log|(^|\.)D$|sinks|dt_|time_(decay|first|mix)"


def tiny(model_type: str) -> torch.nn.Module:
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        return AutoModelForCausalLM.from_config(
            AutoConfig.for_model(model_type, **CONFIGS[model_type])
        )


def rates(optimizer: torch.optim.Optimizer) -> dict[int, float]:
    """Learning rate of each parameter, by its identity."""
    return {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}


def test_lora_plus_gives_each_matrix_the_learning_rate_that_peft_gives_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(tiny("llama"), LoraConfig(target_modules=["q_proj", "up_proj"]))
    theirs = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16)
    trained = [each for each in model.parameters() if each.requires_grad]
    ours = torch.optim.AdamW(
        [{"params": trained, "weight_decay": 0.1}, {"params": [], "weight_decay": 0.0}], lr=1e-3
    )
    raise_rate_of_b(ours, model, 16)
    assert rates(ours) == rates(theirs)
    assert set(rates(ours).values()) == {1e-3, 16e-3}
    assert {group["weight_decay"] for group in ours.param_groups if group["params"]} == {0.1}


def test_both_rates_follow_the_schedule() -> None:
    a, b = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    model = torch.nn.ParameterDict({"lora_A": a, "lora_B": b})
    optimizer = torch.optim.AdamW([a, b], lr=1e-3)
    raise_rate_of_b(optimizer, model, 4)
    plain = get_scheduler("cosine", optimizer, num_warmup_steps=2, num_training_steps=8)
    scheduler = warm_up_from_the_first_step(plain, 2)  # pyright: ignore[reportArgumentType]
    seen: list[float] = []
    for _ in range(8):
        of_a, of_b = scheduler.get_last_lr()
        assert of_b == pytest.approx(4 * of_a)
        seen.append(float(of_a))
        optimizer.step()
        scheduler.step()
    assert seen[:3] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])


@pytest.mark.parametrize("model_type", CONFIGS)
def test_weight_decay_leaves_out_norms_biases_and_state_parameters(model_type: str) -> None:
    model = tiny(model_type)
    decayed = set(decayed_parameters(model))
    left_out = {name for name, _ in model.named_parameters() if re.search(LEFT_OUT, name)} - {
        name for name in decayed if re.search(r"\.dt_proj\.weight$", name)
    }
    assert left_out
    assert not decayed & left_out
    matrices = {
        name
        for name, weight in model.named_parameters()
        if sum(size > 1 for size in weight.shape) > 1
    }
    assert decayed == matrices - left_out


def test_a_lora_matrix_of_rank_one_decays() -> None:
    model = torch.nn.ModuleDict(
        {"lora_A": torch.nn.Linear(8, 1, bias=False), "lora_B": torch.nn.Linear(1, 8, bias=False)}
    )
    assert decayed_parameters(model) == ["lora_A.weight", "lora_B.weight"]


def schedule(name: str, *, warmup: int, total: int, ours: bool) -> list[float]:
    """Learning rate of each step, peak 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler: Any = get_scheduler(
        name, optimizer, num_warmup_steps=warmup, num_training_steps=total
    )
    if ours:
        assert isinstance(scheduler, LambdaLR)
        scheduler = warm_up_from_the_first_step(scheduler, warmup)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("name", ["cosine", "linear", "constant_with_warmup"])
def test_the_warm_up_trains_from_its_first_step_and_ends_as_transformers_does(name: str) -> None:
    rates = schedule(name, warmup=3, total=10, ours=True)
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[3:] == schedule(name, warmup=3, total=10, ours=False)[3:]


@pytest.mark.parametrize(("warmup", "total"), [(1, 1), (0, 1), (1, 5)])
def test_no_step_has_learning_rate_zero(warmup: int, total: int) -> None:
    assert min(schedule("cosine", warmup=warmup, total=total, ours=True)) > 0
