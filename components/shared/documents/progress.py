"""progress.json: how far a training in a cluster is, written every few seconds by its launcher for
those who look on from elsewhere."""

from components.shared.documents.fields import FrozenModel


class TrainingProgress(FrozenModel):
    job: str
    namespace: str
    phase: str
    detail: str
    """Of the phase; may be empty."""
    restarts: int
    """How often the job's pods were started anew."""
    at: str
    """When this was written: UTC, ISO 8601."""
    done: int | None = None
    """Optimizer steps made; None before the first, and so are all fields below."""
    total: int | None = None
    epoch: float | None = None
    loss: float | None = None
    """None also where it is no number."""
    tokens_s: int | None = None
    left_s: float | None = None

    def to_bytes(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()
