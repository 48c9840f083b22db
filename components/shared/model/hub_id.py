"""How a model of the hub is spelled."""

import re

# huggingface_hub/utils/_validators.py, REPO_ID_REGEX: `name` or `org/name` of letters, digits, `-`,
# `_`, `.`
_HUB_ID = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*")


def is_hub_id(source: str) -> bool:
    """Whether it is spelled as a model of the hub is; a folder may be too, which then wins."""
    return _HUB_ID.fullmatch(source) is not None
