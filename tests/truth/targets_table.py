"""`python -m tests.truth.targets_table`: docs/targets.md, what each causal language model of
transformers gets as LoRA targets.

Every architecture that transformers builds from its default config is built on the meta device,
walked, and given LoRA three times: by hagane's `auto`, by PEFT's default and by PEFT's
`all-linear`.
"""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from components.render_config.choose.lora import lora_plan
from components.render_config.model.shapes import Architecture, from_json
from components.render_config.model.targets import lora_targets, num_lora_parameters
from components.render_config.render.files import lora_json
from components.shared.spec.training import LoraSpec
from components.train.model.walk import build, is_linear, is_router, walk

DOCS = Path(__file__).parents[2] / "docs" / "targets.md"
RANK = 4


@dataclass(frozen=True)
class Row:
    model_type: str
    auto: tuple[str, ...]
    experts: tuple[str, ...]
    num_trainable: int
    peft_default: str
    all_linear: str
    problems: tuple[str, ...]
    """Why `auto` is not what it promises; empty when it is."""


def rows() -> tuple[list[Row], dict[str, str]]:
    """A row an architecture, and why others cannot be built from their default config."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    found: list[Row] = []
    left_out: dict[str, str] = {}
    for model_type in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        try:
            model = build({"model_type": model_type})
        except (
            Exception
        ) as error:  # each class fails in its own way when its default config is no model
            left_out[model_type] = type(error).__name__
            continue
        found.append(row(model_type, model))
    return found, left_out


def row(model_type: str, model: PreTrainedModel) -> Row:
    architecture = from_json(walk(model))
    targets = lora_targets("auto", architecture)
    heads = forbidden(model)
    config = lora_json(lora_plan(LoraSpec(rank=RANK, alpha=8.0), targets))
    attached = attach(model, **config)
    if isinstance(attached, str):
        problems = [attached]
    else:
        made = sum(weight.numel() for weight in attached.parameters() if weight.requires_grad)
        planned = num_lora_parameters(targets, RANK)
        problems = [f"LoRA beside {name}" for name in adapted(attached) if name in heads]
        problems += [f"{planned} parameters planned, {made} made"] if made != planned else []
    return Row(
        model_type=model_type,
        auto=targets.modules,
        experts=targets.parameters,
        num_trainable=num_lora_parameters(targets, 16),
        peft_default=reported(attach(build({"model_type": model_type})), heads, architecture),
        all_linear=reported(
            attach(build({"model_type": model_type}), target_modules="all-linear"),
            heads,
            architecture,
        ),
        problems=tuple(problems),
    )


def attach(model: PreTrainedModel, **config: Any) -> Any:
    """The model with LoRA, or the kind of error."""
    try:
        with torch.device("meta"):
            return get_peft_model(
                model, LoraConfig(**({"r": RANK, "task_type": "CAUSAL_LM"} | config))
            )
    except Exception as error:
        return type(error).__name__


def forbidden(model: PreTrainedModel) -> set[str]:
    """Head, embeddings and routers, found without the walk's own list of what to avoid."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return {
        name
        for name, module in model.named_modules()
        if module is head
        or module is embedding
        or (is_linear(module) and is_router(model, name, module))
        or name.endswith(".gate.wg")
    }


def adapted(model: Any) -> list[str]:
    """Modules of the base model that got LoRA."""
    names = (name for name, module in model.named_modules() if hasattr(module, "lora_A"))
    return [name.removeprefix("base_model.model.").replace(".base_layer", "") for name in names]


def reported(model: Any, heads: set[str], architecture: Architecture) -> str:
    """Last parts of the adapted names; what ought not to be there in bold."""
    if isinstance(model, str):
        return f"*{model}*"
    names: dict[str, bool] = {}
    routers = {path.rpartition(".")[2] for path in architecture.avoid}
    for name in adapted(model):
        last = name.rpartition(".")[2]
        bad = (
            name in heads
            or (last in routers and last in ("gate", "router"))
            or (last == "gate" and bool(architecture.experts))
        )
        names[last] = names.get(last, False) or bad
    return ", ".join(f"**{name}**" if bad else name for name, bad in names.items())


def document(found: list[Row], left_out: dict[str, str]) -> str:
    lines = [
        "# LoRA targets of every architecture",
        "",
        (
            f"Written by `make targets` with transformers {transformers.__version__}: all "
            f"{len(found)} causal language models that it builds"
        ),
        (
            "from their default config, each built on the meta device and given LoRA. `auto` is "
            "what hagane trains: every linear layer of the"
        ),
        (
            "blocks and the experts' 3-D parameters, never the head, an embedding or a router. "
            "Beside it is what PEFT does by itself: its"
        ),
        (
            "default for the type, and `all-linear`; in bold what ought not to be trained, in "
            "italics the error."
        ),
        "",
        (
            "| model type | `lora.targets: auto` | experts | trainable, rank 16 | PEFT's default "
            "| PEFT's `all-linear` |"
        ),
        "|---|---|---|---|---|---|",
    ]
    for each in found:
        experts = ", ".join(each.experts)
        cells = (
            each.model_type,
            ", ".join(each.auto),
            experts,
            f"{each.num_trainable:,}",
            each.peft_default,
            each.all_linear,
        )
        lines.append("| " + " | ".join(re.sub(r"\s+", " ", cell) for cell in cells) + " |")
    lines += [
        "",
        "Not buildable from their default config, so not here: "
        + ", ".join(f"{name} ({why})" for name, why in left_out.items())
        + ".",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    found, left_out = rows()
    problems = [f"{each.model_type}: {problem}" for each in found for problem in each.problems]
    assert not problems, "\n".join(problems)
    DOCS.write_text(document(found, left_out), encoding="utf-8")


if __name__ == "__main__":
    main()
