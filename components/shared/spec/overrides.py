"""What a person sets beside the spec when starting a run by a button or a schedule -> the spec of
that run."""

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

from components.shared.errors import SpecError
from components.shared.printable import shown
from components.shared.spec.file import spec_from_parameter
from components.shared.spec.run_spec import RunSpec

OVERRIDES = {
    "override_run_name": "name",
    "override_model": "model.source",
    "override_data": "data.train",
    "override_epochs": "training.epochs",
    "override_store": "store",
}
"""Parameter of the pipeline -> the field of the spec that it sets, exactly as `--set` would."""
RUN_MARK = "{run}"
"""In a run's name: stands for the beginning of KFP's own id of the run, so that each start by a
schedule is a run of its own."""
NotifyWhen = Literal["never", "failure", "always"]
"""When to tell the address in the secret hagane-notify how a run ended."""


def refuse_notify_when(given: str) -> None:
    """Raises SpecError for a word that only the run's end would find to be none."""
    if given not in get_args(NotifyWhen):
        raise SpecError(
            f"notify_when: got {shown(given)}, must be one of "
            f"{', '.join(map(repr, get_args(NotifyWhen)))}"
        )


def asked_spec(
    tree: Mapping[str, Any], overrides: Mapping[str, str | int], *, kfp_run: str
) -> RunSpec:
    """The spec with the overrides, by parameter; empty text and 0 leave the spec as it is, since
    KFP has no null.

    Raises:
        SpecError: as for a spec file with `--set`, one line a problem, which names the parameter.
    """
    said: dict[str, str] = {}
    for name, given in overrides.items():
        if name == "override_run_name":
            value = str(given).replace(RUN_MARK, short_id(kfp_run))
        else:
            value = given
        if value not in ("", 0):
            said[f"{name}={value}"] = f"{OVERRIDES[name]}={json.dumps(value, ensure_ascii=False)}"
    return spec_from_parameter(tree, said)


def short_id(kfp_run: str) -> str:
    """The first eight letters and digits of the id that KFP gave its run."""
    return "".join(letter for letter in kfp_run.lower() if letter.isascii() and letter.isalnum())[
        :8
    ]


def series_of(spec: RunSpec, run_name: str) -> str:
    """What the runs of one schedule have in common: the name without the part that is each one's
    own."""
    if RUN_MARK in run_name:
        return run_name.replace(RUN_MARK, "").strip("-")
    return spec.name
