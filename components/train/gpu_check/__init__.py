"""Is this node, and are these nodes together, able to train as a plan says? Two minutes, one
table."""
