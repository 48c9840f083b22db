"""What several steps say of a run that trains on everything."""

NOTHING_HELD_OUT = (
    "data.held_out_share is 0, so nothing is held out: no held-out loss is measured, no checkpoint "
    "is known as the best, and evaluation.must_improve fails no run"
)
