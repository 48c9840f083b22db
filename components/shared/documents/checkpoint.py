"""What the manifest of a checkpoint states, as training writes it and every later step reads it."""

from pydantic import ConfigDict

from components.shared.documents.fields import FrozenModel


class CheckpointFacts(FrozenModel):
    """A loss that is no number is stored all the same: as null in a manifest."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    epoch: int | None
    """The epoch, counted from 1, that it is the end of; None between epochs."""
    step: int
    num_processes: int
    zero_stage: int
    loss: float | None
    """Mean of the epoch's step losses so far."""
    held_out_loss: float | None
    """None between epochs, and where nothing is held out."""
    steps_per_epoch: int
    micro_batch: int
