"""From a model and records to a spec and its plan, by one command."""

import json
from pathlib import Path

import pytest

from components.shared.spec.file import load_spec
from tests.support.command_line import Finished, hagane
from tests.support.tiny_models import make_model

QUESTIONS = [f"What is {number} + {number}?" for number in range(60)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_model(tmp_path / "model", architecture="llama")
    pairs = [
        {"instruction": question, "output": str(2 * number)}
        for number, question in enumerate(QUESTIONS)
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    return tmp_path


def init(folder: Path, *options: str | Path) -> Finished:
    return hagane("init", "--out", folder / "spec.yaml", *options, work=folder / "work")


def test_sixty_pairs_become_a_spec_and_its_plan(folder: Path) -> None:
    done = init(folder, "--model", folder / "model", "--data", folder / "pairs.json")
    assert done.exit_code == 0, done.errors
    text = (folder / "spec.yaml").read_text()
    assert "# 60 conversations, alpaca" in text
    assert text in done.output
    assert "5 epochs" in done.output
    assert f"hagane run {folder / 'spec.yaml'}" in done.output


def test_a_spec_that_is_there_stays_as_it_is(folder: Path) -> None:
    (folder / "spec.yaml").write_text("name: mine\n")
    done = init(folder, "--model", folder / "model", "--data", folder / "pairs.json")
    assert (done.exit_code, len(done.errors)) == (2, 1)
    assert "is there already, and is not overwritten" in done.errors[0]
    assert (folder / "spec.yaml").read_text() == "name: mine\n"


def test_what_is_missing_is_named_where_nobody_can_be_asked(folder: Path) -> None:
    done = init(folder, "--model", folder / "model")
    assert done.exit_code == 2
    assert done.errors == [
        "error: --data: is missing; there is no terminal to ask in. Fix: add --data"
    ]


def test_data_that_is_not_there_leaves_no_spec_behind(folder: Path) -> None:
    done = init(folder, "--model", folder / "model", "--data", folder / "none.json")
    assert done.exit_code == 2
    assert "none.json" in done.errors[0]
    assert not (folder / "spec.yaml").exists()


def test_a_spec_in_another_folder_names_the_same_files(folder: Path) -> None:
    """What is typed counts from the current folder, what is in the spec from the spec."""
    (folder / "specs").mkdir()
    arguments = ("--model", "model", "--data", "pairs.json", "--out", "specs/spec.yaml")
    done = hagane("init", *arguments, "--name", "sixty", work=folder / "work", cwd=folder)
    assert done.exit_code == 0, done.errors
    spec = load_spec(folder / "specs" / "spec.yaml")
    assert spec.data.train == str(folder / "pairs.json")
    assert spec.model.source == str(folder / "model")
    assert spec.store == str(folder / "runs")
    again = hagane("plan", "spec.yaml", "--json", work=folder / "work", cwd=folder / "specs")
    assert again.exit_code == 0, again.errors


def test_a_template_is_copied_beside_the_spec(folder: Path) -> None:
    (folder / "model" / "chat_template.jinja").unlink(missing_ok=True)
    settings = folder / "model" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": None}))
    done = init(folder, "--model", folder / "model", "--data", folder / "pairs.json")
    assert done.exit_code == 0, done.errors
    assert "  chat_template: alpaca.jinja  # the model brings none" in done.output
    assert (folder / "alpaca.jinja").is_file()


@pytest.mark.parametrize("plan", ["--plan", "--no-plan"])
@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--name", "My Run", "--name: got 'My Run', must be 1 to 50 small letters"),
        ("--model", "./nowhere", "--model: got './nowhere', which is no folder here"),
        ("--data", "none.json", "none.json"),
    ],
)
def test_a_wrong_answer_is_refused_at_once_and_leaves_nothing(
    folder: Path, option: str, value: str, said: str, plan: str
) -> None:
    options = {"--model": "model", "--data": "pairs.json", "--name": "sixty"} | {option: value}
    words = [word for pair in options.items() for word in pair]
    before = sorted(folder.iterdir())
    done = hagane("init", *words, plan, work=folder / "work", cwd=folder)
    assert (done.exit_code, len(done.errors)) == (2, 1)
    assert done.errors[0].startswith("error: ")
    assert said in done.errors[0]
    assert sorted(folder.iterdir()) == before


def test_a_spec_that_cannot_be_planned_is_not_left_behind(folder: Path) -> None:
    """Nor the chat template that was copied for it."""
    for name in ("chat_template.jinja", "tokenizer.json"):
        (folder / "model" / name).unlink(missing_ok=True)
    settings = folder / "model" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": None}))
    done = init(folder, "--model", folder / "model", "--data", folder / "pairs.json")
    assert done.exit_code == 2
    assert "tokenizer.json: no such file" in done.problems[0]
    assert done.problems[-1].endswith("or write it without a plan by --no-plan")
    assert not (folder / "spec.yaml").exists()
    assert not (folder / "alpaca.jinja").exists()
