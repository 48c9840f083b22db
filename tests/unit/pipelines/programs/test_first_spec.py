"""What `hagane init` proposes for records and a model."""

import json
from pathlib import Path

import pytest
import yaml

from components.shared.errors import ModelError
from components.shared.spec.run_spec import RunSpec
from pipelines.programs.first_spec import Looked, first_spec, has_template, template_for


def proposed(num_conversations: int, *, template: str | None = None, full: bool = False) -> RunSpec:
    looked = Looked("alpaca", num_conversations, is_japanese=False)
    text = first_spec(
        looked,
        name="my-run",
        store="runs",
        model="a/b",
        data="d.json",
        template=template,
        full=full,
    )
    return RunSpec.model_validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("num_conversations", "global_batch"), [(60, 4), (80, 8), (198, 8), (20, 2), (3, 2)]
)
def test_few_conversations_get_more_steps(num_conversations: int, global_batch: int) -> None:
    spec = proposed(num_conversations)
    assert (spec.data.packing, spec.training.epochs) == (False, 5)
    assert spec.training.global_batch == global_batch


def test_many_conversations_are_packed_and_read_three_times() -> None:
    spec = proposed(50_000, full=True)
    assert (spec.data.packing, spec.training.epochs) == ("auto", 3)
    assert (spec.data.row_tokens, spec.training.method) == ("auto", "full")


@pytest.mark.parametrize(("is_japanese", "name"), [(True, "alpaca-ja"), (False, "alpaca")])
def test_a_model_without_a_template_gets_one_in_the_datas_language(
    tmp_path: Path, is_japanese: bool, name: str
) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{}")
    template = template_for(Looked("alpaca", 60, is_japanese), str(tmp_path))
    assert template is not None
    assert (template.name, template.is_file()) == (f"{name}.jinja", True)
    assert proposed(60, template=template.name).data.chat_template == template.name


def test_a_template_is_seen_in_either_place_and_known_by_name(tmp_path: Path) -> None:
    assert not has_template("cyberagent/open-calm-7b")
    assert has_template("somebody/unknown")
    assert not has_template(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "x"}))
    assert has_template(str(tmp_path))
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "chat_template.jinja").write_text("x")
    assert has_template(str(tmp_path))


@pytest.mark.parametrize("place", ["a: b", "#x", "データ/会話.json", "{run}", "'"])
def test_a_path_is_itself_again_in_yaml(place: str) -> None:
    looked = Looked("alpaca", 60, is_japanese=False)
    text = first_spec(
        looked, name="my-run", store=place, model=place, data=place, template=place, full=False
    )
    spec = RunSpec.model_validate(yaml.safe_load(text))
    assert (spec.store, spec.model.source, spec.data.train) == (place, place, place)


def test_settings_that_are_no_json_are_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: cannot be read as JSON"):
        has_template(str(tmp_path))
