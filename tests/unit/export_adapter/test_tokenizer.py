"""What is written beside an export's weights can be loaded, whatever the base brings."""

import json
from pathlib import Path

import pytest
from transformers import GenerationConfig

from components.export_adapter.tokenizer import write_generation_config
from components.shared.prompts import Prompts

SAMPLING = {"temperature": 0.6, "top_p": 0.9, "top_k": 20}
PROMPTS = Prompts(chat_template="{{ messages }}", end_token_ids=(3,), base_files=(), prompts=())


@pytest.mark.parametrize("said", [{}, {"do_sample": False}, {"do_sample": True}])
def test_sampling_values_of_the_base_stay_beside_the_end_tokens(tmp_path: Path, said: dict) -> None:
    base, local = tmp_path / "base", tmp_path / "export"
    base.mkdir()
    local.mkdir()
    settings = {"eos_token_id": 2, **SAMPLING, **said}
    (base / "generation_config.json").write_text(json.dumps(settings))
    write_generation_config(base, PROMPTS, local)
    written = json.loads((local / "generation_config.json").read_text())
    assert written == settings | {"eos_token_id": [2, 3]}
    loaded = GenerationConfig.from_pretrained(local)
    assert (loaded.eos_token_id, loaded.top_p) == ([2, 3], 0.9)


def test_a_base_without_generation_config_gets_that_of_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "eos_token_id": [2, 7], "pad_token_id": 1, **SAMPLING}))
    (tmp_path / "export").mkdir()
    write_generation_config(tmp_path, PROMPTS, tmp_path / "export")
    loaded = GenerationConfig.from_pretrained(tmp_path / "export")
    assert (loaded.eos_token_id, loaded.pad_token_id) == ([2, 3, 7], 1)
