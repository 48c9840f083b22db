import json
import math
from pathlib import Path

from components.train.model.walk import build, special_float, walk
from tests.support.small_models import small_config


def test_a_config_with_an_infinite_field_is_read_as_transformers_5_writes_it(tmp_path: Path) -> None:
    small_config("mamba2").save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    assert '"__float__": "Infinity"' in text
    config = json.loads(text, object_hook=special_float)
    assert math.isinf(config["time_step_limit"][1])
    assert walk(build(config))["model_type"] == "mamba2"
