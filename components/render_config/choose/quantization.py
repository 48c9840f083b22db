"""Spec + config.json + shapes -> how many parameters of the frozen base are held in 4 bits, and
why."""

from collections.abc import Mapping
from typing import Any

from components.render_config.decision import Section
from components.render_config.model.shapes import Architecture
from components.render_config.setting import Quantized
from components.shared.documents.plan import Quantization
from components.shared.errors import ModelError
from components.shared.model.quantization import quantization_of_files
from components.shared.spec.run_spec import RunSpec

_FIELDS = ("model.quantization", "model.num_quantized", "model.quantized_files")


def choose_quantization(
    spec: RunSpec, config: Mapping[str, Any], architecture: Architecture
) -> Section[Quantized]:
    """Raises ModelError with all that the model, its files or the training do not allow."""
    asked, of_files = spec.model.quantization, quantization_of_files(config)
    if asked == "auto":
        kind = of_files
    else:
        kind = asked
    if kind == of_files == "none":
        why = "as the model's files are"
        return Section(Quantized(), dict.fromkeys(_FIELDS, why))
    problems = list(_problems(spec, of_files, architecture))
    if problems:
        raise ModelError(*problems)
    sizes = [each.num_inputs * each.num_outputs for each in architecture.linears]
    counts = [each.count for each in architecture.linears]
    reason = "as model.quantization asks; each process quantizes the weights as it loads them"
    if of_files == "nf4":
        reason = "bitsandbytes quantized the model's files"
    num_quantized = sum(size * count for size, count in zip(sizes, counts, strict=True))
    return Section(
        Quantized("nf4", num_quantized, max(sizes, default=0), in_files=of_files == "nf4"),
        {
            "model.quantization": reason,
            "model.quantized_files": "quantization_config of the model's config.json",
            "model.num_quantized": (
                "all linear layers of the blocks; embeddings, head and norms stay as they are"
            ),
        },
    )


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
