"""hagane's own YAML files, which are large and trusted -> plain data, read by libyaml where PyYAML
has it (ten times as fast)."""

from pathlib import Path
from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_own_yaml(path: Path) -> Any:
    """The file's one document. Files of users are read by spec/yaml_text.py, within limits."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - a safe loader
