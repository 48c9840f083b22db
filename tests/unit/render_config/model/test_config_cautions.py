"""What of a config.json training does not follow is said on the plan."""

from typing import Any

import pytest

from components.render_config.model.config_cautions import config_cautions

LLAMA: dict[str, Any] = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def test_an_ordinary_config_gets_no_warning() -> None:
    assert list(config_cautions(LLAMA)) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mup_scale": 2}, "reads no field mup_scale for the type llama"),
        ({f"x{n}": 1 for n in range(8)}, "x0, x1, x2, x3, x4, x5 and 2 more"),
        (
            {"auto_map": {"AutoConfig": "a.B"}},
            "code of its own (auto_map), which hagane does not run",
        ),
        ({"architectures": ["LlamaForSequenceClassification"]}, "has no output layer for tokens"),
        (
            {
                "model_type": "gemma3",
                "text_config": {"model_type": "gemma3_text"},
                "vision_config": {"x": 1},
            },
            "only the text part is trained; vision_config",
        ),
    ],
)
def test_what_training_does_not_follow_is_one_line(fields: dict[str, Any], words: str) -> None:
    (line,) = config_cautions(LLAMA | fields)
    assert words in line
