"""What the registry knows of a model by its name that a person should read before training."""

from collections.abc import Iterator, Mapping
from typing import Any

from components.shared.model.registry import known_model
from components.shared.spec.run_spec import RunSpec


def registry_cautions(spec: RunSpec, config: Mapping[str, Any]) -> Iterator[str]:
    """Of a model that the registry knows by its source, or by the name that its config.json was
    saved under."""
    known = known_model(spec.model.source) or known_model(str(config.get("_name_or_path")))
    if known is None:
        return
    family, model = known
    if family.merge and spec.training.method == "lora":
        yield (
            f"serving: vLLM has no LoRA for {family.model_type}, so the adapter of {model.name} "
            "must be merged to be served by it"
        )
    if model.template == "none" and spec.data.chat_template == "model":
        yield (
            f"data.chat_template: {model.name} is a base model without a template; set one, such "
            "as specs/templates/plain.jinja"
        )
