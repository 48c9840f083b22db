"""A Setting made by hand, for tests of what follows from one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from components.render_config.choose.precision import precision_of
from components.render_config.cost.hardware import Machine, hardware_of
from components.render_config.model.architectures import architecture_of
from components.render_config.model.targets import lora_targets
from components.render_config.setting import Rows, Setting
from components.shared.spec.file import spec_from_parameter

A100 = {"gpu": "a100-80gb"}


def setting_of(
    config: Mapping[str, Any],
    *,
    machine: Machine | None = None,
    row_tokens: int = 4096,
    packed: bool = True,
    **sections: Any,
) -> Setting:
    """Of full rows, on an A100 unless `hardware` says otherwise; `sections` are the spec's."""
    tree = {
        "name": "t",
        "store": "s3://b/r",
        "model": {"source": "m"},
        "data": {"train": "s3://b/d", "row_tokens": row_tokens},
        "hardware": A100,
    }
    spec = spec_from_parameter(tree | sections)
    architecture = architecture_of(config)
    hardware = hardware_of(spec.hardware, machine or Machine())
    return Setting(
        spec=spec,
        architecture=architecture,
        targets=lora_targets(spec.lora.targets, architecture),
        hardware=hardware,
        precision=precision_of(spec, hardware).value,
        rows=Rows(packed, row_tokens, row_tokens, float(row_tokens)),
    )


def on_gpus(setting: Setting, **hardware: Any) -> Setting:
    """The same on other hardware than a spec can name."""
    return replace(setting, hardware=replace(setting.hardware, **hardware))
