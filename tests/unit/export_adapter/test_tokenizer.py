"""What is written beside an export's weights can be loaded, whatever the base brings."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, GenerationConfig

from components.export_adapter.tokenizer import write_generation_config, write_tokenizer
from components.export_adapter.verification.text_checks import text_problems
from components.shared.documents.prompts import Prompts
from tests.support.tiny_models import CHATML, make_tokenizer, write_conversations
from tests.support.trained_run import made_prompts

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


@pytest.mark.parametrize("model_type", ["llama", "deepseek_v3"])
def test_an_export_needs_no_tokenizer_class_of_the_bases_code(tmp_path: Path, model_type: str) -> None:
    base, local = make_tokenizer(tmp_path / "base"), tmp_path / "export"
    expected = AutoTokenizer.from_pretrained(base)("12 plus 7")["input_ids"]
    settings = json.loads((base / "tokenizer_config.json").read_text())
    foreign = {"tokenizer_class": "EvilTokenizer", "auto_map": {"AutoTokenizer": ["evil.EvilTokenizer", None]}}
    (base / "tokenizer_config.json").write_text(json.dumps(settings | foreign))
    local.mkdir()
    (local / "config.json").write_text(json.dumps({"model_type": model_type}))
    write_tokenizer(base, PROMPTS, local)
    assert AutoTokenizer.from_pretrained(local)("12 plus 7")["input_ids"] == expected


def test_line_ends_of_another_system_in_the_template_are_no_difference(tmp_path: Path) -> None:
    base = make_tokenizer(tmp_path / "base", chat_template=CHATML.replace("\n", "\r\n"))
    (base / "generation_config.json").write_text("{}")
    prompts, local = made_prompts(base, write_conversations(tmp_path / "all.jsonl", 24)), tmp_path / "export"
    assert "\r\n" in prompts.chat_template
    local.mkdir()
    write_tokenizer(base, prompts, local)
    write_generation_config(base, prompts, local)
    assert text_problems(local, prompts) == []
