"""Four optimizer steps of a plan's own model, three of them timed: `hagane plan --probe`."""
