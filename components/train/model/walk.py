"""config.json -> the shapes of its model as JSON on stdout, by building the model on torch's meta
device: no weights, no memory.

render_config runs this program for architectures whose shapes it cannot count by itself. It needs
this component's libraries.
"""

import argparse
import json
import logging
import re
import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft.utils.transformers_weight_conversion import _MOE_TARGET_MODULE_MAPPING
from transformers import AutoConfig, AutoModelForCausalLM, Conv1D, PreTrainedModel
from transformers.conversion_mapping import _MODEL_TO_CONVERSION_PATTERN

Tree = dict[str, Any]
ROUTER = re.compile(r"(^|_)(gate|router|gating)$|Router", re.IGNORECASE)
ACTIVE_EXPERTS = ("num_experts_per_tok", "moe_k", "moe_topk", "top_k_experts")
OTHER_SENSES = re.compile(r"vision|visual|image|audio")
NUM_EXPERTS = (
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "moe_num_experts",
    "num_routed_experts",
)
MIXER_ROLES = (
    "attn",
    "attention",
    "mixer",
    "mamba",
    "conv",
    "recurrent",
    "rwkv",
    "temporal_block",
    "linear_attn",
)
# PEFT 0.21 tuners_utils.py, _check_lora_target_modules_mamba: kernels read these weights past their
# layers.
MAMBA_TYPES = {"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"}
MAMBA_FUSED = ("out_proj", "conv1d")


def special_float(tree: Tree) -> Any:
    """transformers 5 writes Infinity and NaN as `{"__float__": "Infinity"}`
    (configuration_utils.py); Mamba-2 has one."""
    if tree.keys() == {"__float__"}:
        return float(tree["__float__"])
    return tree


def build(config: Tree) -> PreTrainedModel:
    """The causal language model that the config stands for, on the meta device."""
    fields = {
        key: value
        for key, value in config.items()
        if key not in ("model_type", "dtype", "torch_dtype", "quantization_config")
    }
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            AutoConfig.for_model(config["model_type"], **fields)
        )


def walk(model: PreTrainedModel) -> Tree:
    """Fields of components.render_config.model.shapes.Architecture."""
    config = text_config(model)
    weights = dict(model.named_parameters())
    lists, block_sizes = block_lists(model), Counter[str]()
    for name, weight in weights.items():
        place = place_in_block(model, name, lists)
        if place is not None:
            block_sizes[place.index] += weight.numel()
    linears, experts = linears_of(model), experts_of(model)
    heads = first_of(config, "num_attention_heads", "n_head", "n_heads", "num_heads", default=1)
    embeddings: Any = model.get_input_embeddings()
    width = int(embeddings.weight.shape[1])
    hidden = first_of(config, "hidden_size", "n_embd", "d_model", default=width)
    key_heads = first_of(config, "num_key_value_heads", default=heads)
    head_size = first_of(config, "head_dim", default=hidden // heads)
    total = sum(weight.numel() for weight in weights.values())
    return {
        "model_type": model.config.model_type,
        "num_blocks": len(block_sizes),
        "hidden_size": hidden,
        "vocabulary": first_of(config, "vocab_size", default=0),
        "attention": {"num_heads": heads, "num_key_heads": key_heads, "head_size": head_size},
        "linears": linears,
        "experts": experts,
        "num_active_experts": first_of(config, *ACTIVE_EXPERTS, default=1) if experts else 0,
        "gated": any(
            "gate" in linear["path"] or "up_proj" in linear["path"]
            for linear in linears
            if linear["role"] == "mlp"
        )
        or bool(experts),
        "num_parameters": total,
        "largest_layer_parameters": max(weight.numel() for weight in weights.values()),
        "largest_block_parameters": max(block_sizes.values()),
        "outside_parameters": total - sum(block_sizes.values()),
        "embedding_size": width,
        **head_of(model),
        "avoid": sorted(avoided(model)),
        "unreachable": sorted(unreachable(model)),
    }


def head_of(model: PreTrainedModel) -> Tree:
    """Whether the head is the embeddings' weight, and has a bias."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    return {
        "tied": head is not None and head.weight is embeddings.weight,
        "head_bias": getattr(head, "bias", None) is not None,
    }


def text_config(model: PreTrainedModel) -> Any:
    return model.config.get_text_config(decoder=True)


@dataclass(frozen=True)
class Place:
    index: str
    """Which block."""
    path: str
    """Where in it, list indexes as `*`: `mlp.experts.*.w1`."""


def block_lists(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of the lists that hold the blocks: the ModuleList with most parameters, those of the
    same kind of block (HRM has two stacks), and those beside it of the same length (XLM keeps
    attention, MLP and norms in lists of their own)."""
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList)
        and len(module)
        and not OTHER_SENSES.search(name)
        and not re.search(r"\.\d+\.", name)
    }
    assert lists, f"{type(model).__name__} has no list of blocks"
    best = max(
        lists,
        key=lambda name: (
            sum(weight.numel() for weight in lists[name].parameters()),
            name.count("."),
        ),
    )
    parent, kind, length = best.rpartition(".")[0], type(lists[best][0]), len(lists[best])
    beside = (
        name
        for name, each in lists.items()
        if type(each[0]) is kind or (name.rpartition(".")[0] == parent and len(each) == length)
    )
    return tuple(beside)


def place_in_block(model: PreTrainedModel, name: str, lists: tuple[str, ...]) -> Place | None:
    """`model.layers.3.mlp.experts.0.w1` -> block 3, `mlp.experts.*.w1`; None outside the blocks."""
    for blocks in lists:
        if name.startswith(f"{blocks}."):
            index, _, _ = name[len(blocks) + 1 :].partition(".")
            path = without_indexes(model, name, inside=f"{blocks}.{index}")
            several = len({type(model.get_submodule(f"{each}.0")) for each in lists}) > 1
            return Place(
                f"{blocks if not several else ''}.{index}",
                f"{blocks.rpartition('.')[2]}.*.{path}".rstrip(".") if several else path,
            )
    return None


def without_indexes(model: PreTrainedModel, name: str, *, inside: str) -> str:
    """The rest of a name, `*` for each index into a list; the index of a layer in a Sequential is
    its name."""
    parts, found = name.split("."), list[str]()
    for index in range(inside.count(".") + 1, len(parts)):
        listed = parts[index].isdigit() and isinstance(
            model.get_submodule(".".join(parts[:index])), torch.nn.ModuleList
        )
        found.append("*" if listed else parts[index])
    return ".".join(found)


def is_linear(module: torch.nn.Module) -> bool:
    """Only what PEFT can put LoRA beside: Linear with its subclasses, and GPT-2's Conv1D."""
    return isinstance(module, (torch.nn.Linear, Conv1D))


def avoided(model: PreTrainedModel) -> set[str]:
    """Linear layers that are no targets: the head and all else outside the blocks, routers, Mamba's
    fused weights."""
    lists, found = block_lists(model), set[str]()
    for name, module in model.named_modules():
        place = place_in_block(model, name, lists)
        if is_linear(module) and place is None:
            found.add(re.sub(r"\.\d+(?=\.|$)", ".*", name))
        elif is_linear(module) and place is not None and not is_target(model, name, module):
            found.add(place.path)
    return found


def unreachable(model: PreTrainedModel) -> set[str]:
    """Of the linear layers in blocks those that LoRA belongs beside, but PEFT cannot put it
    there."""
    lists, found = block_lists(model), set[str]()
    for name, module in model.named_modules():
        place = place_in_block(model, name, lists)
        if place is None or not is_linear(module) or is_router(model, name, module):
            continue
        if not is_target(model, name, module):
            found.add(place.path)
    return found


def is_target(model: PreTrainedModel, name: str, module: torch.nn.Module) -> bool:
    """Of a linear layer in a block: whether LoRA belongs beside it, and PEFT can put it there by a
    name."""
    last, model_type = name.rpartition(".")[2], model.config.model_type
    fused = model_type in MAMBA_TYPES and last in MAMBA_FUSED
    # PEFT 0.21 takes these names, wherever they end a path, for the experts' weights of
    # transformers 4.
    taken = last in _MOE_TARGET_MODULE_MAPPING.get(
        _MODEL_TO_CONVERSION_PATTERN.get(model_type, ""), {}
    )
    nameless = re.search(r"\.\d+\.\d+$", name) is not None
    return not (fused or taken or nameless or is_router(model, name, module))


def is_router(model: PreTrainedModel, name: str, module: torch.nn.Module) -> bool:
    """A layer that scores experts: it or what holds it is named like one, and it gives a score an
    expert (or one, for a shared expert)."""
    parts = name.split(".")
    kinds = [*parts[-2:], type(module).__name__]
    inside_router = any(
        "Router" in type(model.get_submodule(".".join(parts[:n]))).__name__
        for n in range(1, len(parts))
    )
    num_experts = first_of(text_config(model), *NUM_EXPERTS, default=0)
    scores = isinstance(module, torch.nn.Linear) and module.out_features in (num_experts, 1)
    return inside_router or (scores and any(ROUTER.search(kind) for kind in kinds))


def role_of(path: str) -> str:
    """Attention, or whatever mixes tokens in its place; everything else is called the MLP."""
    parents = path.split(".")[:-1]
    if (
        any(word in part.lower() for part in parents for word in MIXER_ROLES)
        and "expert" not in path
    ):
        return "attention"
    return "mlp"


def linears_of(model: PreTrainedModel) -> list[Tree]:
    lists, counts = block_lists(model), Counter[tuple[str, int, int, bool]]()
    for name, module in model.named_modules():
        place = place_in_block(model, name, lists)
        if place is not None and is_linear(module) and is_target(model, name, module):
            conv1d = isinstance(module, Conv1D)
            inputs, outputs = module.weight.shape if conv1d else reversed(module.weight.shape)  # pyright: ignore[reportArgumentType, reportCallIssue]
            counts[(place.path, int(inputs), int(outputs), conv1d)] += 1
    return [
        {
            "path": path,
            "num_inputs": inputs,
            "num_outputs": outputs,
            "count": count,
            "role": role_of(path),
            "conv1d": conv1d,
        }
        for (path, inputs, outputs, conv1d), count in counts.items()
    ]


def experts_of(model: PreTrainedModel) -> list[Tree]:
    """3-D parameters of the blocks that hold one matrix an expert."""
    lists, counts = block_lists(model), Counter[tuple[str, tuple[int, ...]]]()
    num_experts = first_of(text_config(model), *NUM_EXPERTS, default=0)
    for name, weight in model.named_parameters():
        place = place_in_block(model, name, lists)
        if place is None or weight.dim() != 3 or name.endswith("bias"):
            continue
        if "expert" in place.path or weight.shape[0] == num_experts:
            counts[(place.path, tuple(weight.shape))] += 1
    return [
        {
            "path": path,
            "num_experts": shape[0],
            "num_inputs": shape[1],
            "num_outputs": shape[2],
            "count": count,
        }
        for (path, shape), count in counts.items()
    ]


def first_of(config: Any, *names: str, default: int) -> int:
    """The first of these fields that the config has. A field that differs by layer counts with its
    largest value or not at all."""
    for name in names:
        try:
            value = getattr(config, name, None)
        except Exception as error:  # transformers' own class for it is private
            if "PerLayer" not in type(error).__name__:
                raise
            continue
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if (
            isinstance(value, (list, tuple))
            and value
            and all(isinstance(item, int) for item in value)
        ):
            return max(value)  # one figure a block, as OpenELM has
    return default


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m components.train.model.walk", description=__doc__
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="a config.json")
    config = json.loads(parser.parse_args().config.read_text(), object_hook=special_float)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    json.dump(walk(build(config)), sys.stdout)


if __name__ == "__main__":
    main()
