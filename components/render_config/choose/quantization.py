"""Spec + config.json + shapes -> whether the frozen base is held in 4 bits, how many parameters
that is, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.render_config.model.shapes import Architecture
from components.shared.documents.plan import Quantization
from components.shared.errors import ModelError
from components.shared.model.quantization import quantization_of_files
from components.shared.spec.run_spec import RunSpec


@dataclass(frozen=True)
class QuantizationChoice:
    kind: Quantization
    num_quantized: int
    """Parameters held in 4 bits."""
    largest_quantized: int
    """Of the largest of these weights."""
    reason: str


NOT_QUANTIZED = QuantizationChoice("none", 0, 0, "as the model's files are")


def choose_quantization(
    spec: RunSpec, config: Mapping[str, Any], architecture: Architecture
) -> QuantizationChoice:
    """Raises ModelError with all that the model, its files or the training do not allow."""
    asked, of_files = spec.model.quantization, quantization_of_files(config)
    kind = of_files if asked == "auto" else asked
    if kind == of_files == "none":
        return NOT_QUANTIZED
    problems = list(_problems(spec, of_files, architecture))
    if problems:
        raise ModelError(*problems)
    sizes = [each.num_inputs * each.num_outputs for each in architecture.linears]
    counts = [each.count for each in architecture.linears]
    reason = (
        "bitsandbytes quantized the model's files"
        if of_files == "nf4"
        else "as model.quantization asks; each process quantizes the weights as it loads them"
    )
    return QuantizationChoice(
        kind="nf4",
        num_quantized=sum(size * count for size, count in zip(sizes, counts, strict=True)),
        largest_quantized=max(sizes, default=0),
        reason=reason,
    )


def quantization_reasons(choice: QuantizationChoice) -> dict[str, str]:
    """Field of the plan, dotted -> why."""
    reasons = {"model.quantization": choice.reason}
    if choice.num_quantized:
        reasons["model.num_quantized"] = (
            "all linear layers of the blocks; embeddings, head and norms stay as they are"
        )
    return reasons


def _problems(spec: RunSpec, of_files: Quantization, architecture: Architecture) -> list[str]:
    asked, problems = spec.model.quantization, []
    if asked == "none" and of_files == "nf4":
        problems.append(
            "model.quantization: found none, allowed auto or nf4, as the model's files are "
            "quantized by bitsandbytes. Fix: set auto, or name the model's ordinary weights"
        )
    if spec.training.method == "full":
        problems.append(
            "training.method: found full, allowed lora, as the model's files are quantized and "
            "weights of 4 bits cannot be trained. Fix: set lora, or name the ordinary weights"
        )
    if any(each.conv1d for each in architecture.linears):
        problems.append(
            f"model.quantization: found nf4, allowed none for {architecture.model_type}, whose "
            "layers are Conv1D. Fix: set model.quantization: none"
        )
    if architecture.unreachable:
        problems.append(
            f"model.quantization: found nf4, allowed none for {architecture.model_type}, whose "
            "kernels read weights past their layers. Fix: set model.quantization: none"
        )
    if architecture.experts:
        problems.append(
            f"model.quantization: found nf4, allowed none for {architecture.model_type}, whose "
            "experts' weights have three dimensions and would stay as they are. Fix: set "
            "model.quantization: none"
        )
    return problems
