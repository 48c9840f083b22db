"""What `components.train.step_probe` is to make steps of: a plan, and the settings that its
libraries read.

A pod of `hagane plan --probe-pod` gets it as one argument, a folder of a plan on this machine
becomes one.
"""

from pathlib import Path

from components.shared.documents.gpu_check import CheckRequest, files_of
from components.shared.documents.plan import Plan


class ProbeRequest(CheckRequest):
    label_smoothing: float
    """`training.label_smoothing` of the spec, which a plan does not hold."""


def probe_request_of(folder: Path, *, label_smoothing: float) -> ProbeRequest:
    """The request for the plan in a folder. Reasons and other options are left out: about 6 KB
    stay.

    Raises:
        OSError: a file of the plan is missing.
    """
    plan = Plan.model_validate_json((folder / "plan.json").read_bytes())
    memory = plan.memory.model_copy(update={"options": ()})
    less = {"reasons": {}, "cautions": (), "verdict": "", "memory": memory}
    return ProbeRequest(
        plan=plan.model_copy(update=less),
        **files_of(folder),
        label_smoothing=label_smoothing,
    )
