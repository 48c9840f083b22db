"""report.json: what a run comes to, for programs and for the screen at the end of `hagane run`."""

from typing import Literal

from pydantic import ConfigDict

from components.shared.documents.fields import FrozenModel
from components.shared.documents.results import Answer, EpochLosses


class ReportedEpoch(EpochLosses):
    checkpoint: str | None
    """Folder of its checkpoint, relative to the run; None where it was not kept."""


class HeldOutLosses(FrozenModel):
    """Nats per trained token."""

    base: float
    tuned: float


class ExportFolder(FrozenModel):
    folder: str
    """Relative to the run."""
    uri: str
    num_bytes: int


class PlannedFigure(FrozenModel):
    """What the plan said beside what happened."""

    what: str
    planned: int | float
    range: tuple[float, ...]
    """Its lowest and highest, where the plan gives them; else empty."""
    happened: int | float
    unit: Literal["seconds", "bytes", "steps"]


class Report(FrozenModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")

    run: str
    uri: str
    method: Literal["lora", "full"]
    epochs: tuple[ReportedEpoch, ...]
    held_out_loss: HeldOutLosses | None
    """None where nothing was held out."""
    answers: tuple[Answer, ...]
    export: ExportFolder
    seconds: float
    """Of training alone."""
    against_plan: tuple[PlannedFigure, ...]
