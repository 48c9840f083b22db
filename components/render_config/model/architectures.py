"""config.json -> shapes: counted for the usual model types, for all others walked by a program that
builds the model on the meta device.

Why both: counting needs nothing and takes no time, but is by hand, model type by model type.
Walking is right for every causal language model that transformers can build, but takes transformers
and torch, some seconds to import, which this component's image lacks.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from components.render_config.model.families import FAMILIES, canonical
from components.render_config.model.shapes import Architecture, from_json
from components.shared.errors import ModelError
from components.shared.printable import cut

WALK = "components.train.model.walk"
SIZE_NAMES = r"^(n_|num_)|_(size|dim|rank|heads|layers|experts|topk)$|^moe_"
MOST_NAMES = 6
WALK_SECONDS = 600
"""The largest models that are known take less than one minute."""


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The shapes that a config.json stands for.

    Raises:
        ModelError: a model type that transformers cannot build, or a field that its formula needs
            is absent.
    """
    return _architecture(json.dumps(dict(config), sort_keys=True))


@lru_cache(maxsize=8)
def _architecture(text: str) -> Architecture:
    """Kept, since walking takes seconds and checking and planning both ask."""
    config = json.loads(text)
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise ModelError(
            f"model.source: config.json has model_type {model_type!r}, must be the name of an "
            "architecture, such as llama"
        )
    count = FAMILIES.get(model_type)
    if count is None:
        return _walked(config)
    try:
        return count(canonical(config))
    except KeyError as error:
        raise ModelError(
            f"model.source: config.json of a {model_type} model has no field {error}"
        ) from None
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        lists = sorted(
            name
            for name, value in config.items()
            if isinstance(value, list) and name.endswith("_size")
        )
        if lists:
            why = f"{', '.join(lists)}: found a list, must be a number for this type"
        else:
            why = str(error)
        raise ModelError(
            f"model.source: config.json of a {model_type} model cannot be counted ({why}); correct "
            "its sizes"
        ) from None


def _walked(config: Mapping[str, Any]) -> Architecture:
    model_type = config["model_type"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(dict(config)))
        command = [sys.executable, "-m", WALK, str(file)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=WALK_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise ModelError(
                f"model.source: building a {model_type} model of this config.json took more than "
                f"{WALK_SECONDS} s; correct its sizes"
            ) from None
    if done.returncode == 0:
        return from_json(json.loads(done.stdout))
    last_line = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    counted = ", ".join(sorted(FAMILIES))
    if "No module named" in last_line:
        raise ModelError(
            f"model.source: a {model_type} model is planned by building it, and the libraries for "
            f"that are not here ({last_line}); plan it where {WALK} can run, in the train image; "
            f"without it are planned: {counted}"
        )
    raise ModelError(
        f"model.source: config.json has model_type {model_type!r}, which transformers cannot "
        f"build as a causal language model ({why_model_not_built(last_line, config)}); without "
        f"building are planned: {counted}"
    )


def why_model_not_built(last_line: str, config: Mapping[str, Any]) -> str:
    """The last line of transformers' error, or what it comes from: a library that is not installed,
    sizes that config.json leaves empty."""
    missing = re.search(r"`pip install ([\w.-]+)`", last_line)
    if missing is not None:
        return f"it needs the library {missing[1]}, which is not installed here"
    empty = sorted(
        name for name, value in config.items() if value is None and re.search(SIZE_NAMES, name)
    )
    if empty and re.match(r"(TypeError|AttributeError|ValueError)", last_line):
        return f"config.json has null in {', '.join(empty[:MOST_NAMES])}; {cut(last_line, 120)}"
    return last_line
