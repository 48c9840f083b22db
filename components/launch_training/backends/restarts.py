"""How often a training was started anew, and when that is too often."""

from dataclasses import dataclass

from components.shared.errors import RunFailed
from components.shared.spec.cluster import ClusterSpec

MOST_FRUITLESS = 3
"""Restarts in a row without a step made, after which no further one is waited for."""


@dataclass(frozen=True)
class Restarts:
    """How often the pods of a run's training were started anew, in all and when a step was last
    made."""

    rounds: int = 0
    at_last_step: int = 0

    def too_many(self, spec: ClusterSpec) -> str | None:
        """Why no further one is waited for; None while there are some left."""
        fruitless = self.rounds - self.at_last_step
        if fruitless > MOST_FRUITLESS:
            return f"the pods were started anew {fruitless} times without a step made"
        if self.rounds > spec.max_restarts:
            return f"the pods were started anew {self.rounds} times in all (cluster.max_restarts)"
        return None

    def and_one_more(self) -> "Restarts":
        return Restarts(self.rounds + 1, self.at_last_step)


NO_RESTARTS = Restarts()


class Stalled(RunFailed):
    """No step was made for too long; the job is deleted, and may be made anew."""
