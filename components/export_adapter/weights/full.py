"""DeepSpeed's shards of a fully trained model -> model/: an ordinary Hugging Face folder in the
base's number format.

Needs memory for the weights in that format, and for one fp32 weight at a time (the shards are
mapped, not read).
"""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from components.export_adapter.weights.grown import grown
from components.export_adapter.weights.shards import in_shards
from components.shared.documents.prompts import NewToken
from components.shared.errors import ModelError, RunFailed
from components.shared.pickled import open_listed_classes_only, refuse_foreign_pickles
from components.shared.store.checkpoints import Checkpoint, fetch_checkpoint
from components.shared.store.storage import Store

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def write_model(
    store: Store,
    checkpoint: Checkpoint,
    *,
    base: Path,
    scratch: Path,
    local: Path,
    new_tokens: Sequence[NewToken] = (),
) -> torch.dtype:
    """`local` holds the whole model's weights and config. Returns their number format.

    Raises:
        RunFailed: the shards do not hold just the base's weights, or one is not finite.
        ObjectDamaged: a shard is not what the checkpoint's manifest says.
    """
    fetch_checkpoint(
        store,
        checkpoint,
        scratch,
        wanted=lambda name: name == "latest" or name.startswith("global_step"),
    )
    dtype = dtype_of(base)
    with torch.device("meta"):
        config = grown(AutoConfig.from_pretrained(base, trust_remote_code=False), new_tokens)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    weights = trained_weights(scratch, dtype, zero_stage=checkpoint.facts.zero_stage)
    problems = weight_problems(weights, model.state_dict())
    if problems:
        raise RunFailed(*(f"{checkpoint.folder}: {problem}" for problem in problems))
    model.load_state_dict(weights, assign=True)
    model.tie_weights()
    model.save_pretrained(local, max_shard_size="5GB")
    return dtype


def trained_weights(
    checkpoint: Path, dtype: torch.dtype, *, zero_stage: int
) -> dict[str, torch.Tensor]:
    """Every weight of a checkpoint by its name in the model: put together from DeepSpeed's fp32
    master shards, or without ZeRO, where DeepSpeed's tool finds none, as process 0 wrote them, in
    training precision.

    Raises RunFailed for a file that asks for more than tensors and the classes that DeepSpeed's own
    files hold.
    """
    open_listed_classes_only()
    refuse_foreign_pickles(checkpoint)
    if zero_stage == 0:
        whole = checkpoint / (checkpoint / "latest").read_text() / "mp_rank_00_model_states.pt"
        module = torch.load(whole, map_location="cpu", mmap=True, weights_only=True)["module"]
        return _in_format(module, dtype)
    with redirect_stdout(io.StringIO()):  # it prints its findings
        if zero_stage < 3:
            return _in_format(in_shards(checkpoint / (checkpoint / "latest").read_text()), dtype)
        lazy: Any = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint), lazy_mode=True)
    return _in_format(lazy, dtype)


def _in_format(weights: dict[str, Any], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {
        name: whole.contiguous().to(dtype if whole.dtype.is_floating_point else whole.dtype)
        for name, whole in weights.items()
    }


def weight_problems(
    weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]
) -> list[str]:
    """One line for each weight that is absent, foreign, of another shape or not finite."""
    problems = [f"weight {name} is absent" for name in expected if name not in weights]
    for name, tensor in weights.items():
        if name not in expected:
            problems.append(f"weight {name} is not the base model's")
        elif tensor.shape != expected[name].shape:
            problems.append(
                f"weight {name} has shape {list(tensor.shape)}, the base's has "
                f"{list(expected[name].shape)}"
            )
        elif not torch.isfinite(tensor).all():
            problems.append(f"weight {name} is not finite")
    return problems


def dtype_of(base: Path) -> torch.dtype:
    """Number format of the base's first weight. Raises ModelError for one that weights cannot be
    trained to, such as int8."""
    first = min(base.glob("*.safetensors"))
    with safe_open(first, framework="pt") as stored:
        found = stored.get_slice(min(stored.keys())).get_dtype()
    if found not in DTYPES:
        raise ModelError(
            f"model.source: {first} holds weights as {found}, must be one of {', '.join(DTYPES)}"
        )
    return DTYPES[found]
