"""What a check of the world found, as one program tells it to another: one `check` event a
finding."""

from typing import Literal

from components.shared.documents.fields import FrozenModel
from components.shared.events import Event

State = Literal["ok", "warning", "failed", "skipped"]


class Finding(FrozenModel):
    check: str
    """What was looked at, in a word or three."""
    state: State
    found: str
    """Of a check that was skipped, why."""
    fix: str = ""
    """What to do about a failure or warning."""
    namespace: str | None = None
    """Where all checks looked; the check `cluster` alone says it."""
    account: str | None = None
    """Whose rights all checks asked for; the check `cluster` alone says it, and None is whoever
    asks."""

    @property
    def line(self) -> str:
        return f"{self.check}: {self.found}{self.fix and f'; {self.fix}'}"


def finding_of(event: Event) -> Finding:
    """Of a pod too, whose image may be older."""
    return Finding.model_validate({key: event[key] for key in Finding.model_fields if key in event})
