"""All that a dataset is made from, as one digest."""

import hashlib
import json
from collections.abc import Mapping


def digest_of(inputs: Mapping[str, str]) -> str:
    """One digest for all of a dataset's inputs."""
    return hashlib.sha256(json.dumps(dict(inputs), sort_keys=True).encode()).hexdigest()
