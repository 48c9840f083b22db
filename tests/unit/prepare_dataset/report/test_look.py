import json
from datetime import datetime
from pathlib import Path

import pytest

from components.prepare_dataset.__main__ import look
from components.prepare_dataset.report.look import dataset_lines
from components.prepare_dataset.source import load_source
from components.shared.errors import DataError
from components.shared.spec.file import parse_spec, spec_yaml
from components.shared.spec.run_spec import RunSpec
from tests.support.command_line import hagane
from tests.support.tiny_models import END, write_conversations

NAMES = ("first sample", "random sample", "longest sample", "least trained sample", "longest sample that was left out")


@pytest.fixture
def spec(tmp_path: Path, model_folder: Path) -> RunSpec:
    write_conversations(tmp_path / "train.jsonl", 40)
    long = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "12 " * 300}]}
    with (tmp_path / "train.jsonl").open("a") as stream:
        stream.write(json.dumps(long) + "\n")
    data = {"train": str(tmp_path / "train.jsonl"), "row_tokens": 300, "held_out_share": 0.2}
    return parse_spec({"name": "r", "store": str(tmp_path / "store"), "model": {"source": str(model_folder)}, "data": data})


def test_a_file_is_described_without_a_model(tmp_path: Path) -> None:
    records = [{"instruction": "q", "input": "", "output": f"a{n}\x1b[31m"} for n in range(3)]
    (tmp_path / "a.json").write_text(json.dumps([*records, records[0]]))
    lines = list(look(str(tmp_path / "a.json"), []))
    assert lines[:3] == ["form            alpaca", "conversations   4", "turns           4 user, 4 assistant"]
    assert "copies          1 conversations stand more than once" in lines
    assert "questions       1 different first ones; 4 conversations share theirs with another" in lines
    assert "  | a0\\x1b[31m" in lines


def test_a_spec_is_described_by_its_tokens_before_anything_is_dropped(spec: RunSpec) -> None:
    source = load_source(spec, now=datetime(2026, 11, 24))
    lines = list(dataset_lines(source, spec.data))
    (row,) = [line for line in lines if line.endswith("<- data.row_tokens")]
    size, fitting, tokens = row.split()[:3]
    assert (size, fitting) == ("300", f"{40 / 41:.1%}")
    assert 50 < float(tokens.removesuffix("%")) < 97
    assert any(line.startswith("warning: 1 conversations longer than data.row_tokens were left out: 2.4% of all") for line in lines)
    assert any(line.startswith("The longest sample that was left out, ") and "train.jsonl:41" in line for line in lines)


def test_samples_show_what_is_trained_on_and_its_tokens(spec: RunSpec) -> None:
    lines = list(dataset_lines(load_source(spec, now=datetime(2026, 11, 24)), spec.data))
    first = lines.index(next(line for line in lines if line.startswith("The first sample")))
    shown = lines[first + 1 : lines.index("", first)]
    assert sum("⟦" in line for line in shown) == sum(f"{END}⟧" in line for line in shown) > 0
    tokens = shown[shown.index("  tokens, as text=id, * trained on:") + 1 :]
    words = " ".join(line.strip() for line in tokens).split()
    assert words[0] == "<|bos|>=0"
    assert f"*{END}=3" in words
    trained = int(lines[first].split(" tokens, ")[1].split()[0])
    assert sum(word.startswith("*") for word in words) == trained


def test_samples_are_the_first_one_by_chance_the_longest_the_least_trained_and_a_dropped_one(spec: RunSpec) -> None:
    lines = list(dataset_lines(load_source(spec, now=datetime(2026, 11, 24)), spec.data))
    names = [line.split(",")[0] for line in lines if line.startswith("The ") and " trained on " in line]
    assert names[0] == "The first sample"
    assert names[-1] == "The longest sample that was left out"
    assert set(names) <= {f"The {name}" for name in NAMES}


def test_overrides_are_for_specs_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a file of records; name a spec"):
        list(look(str(tmp_path / "a.json"), ["data.row_tokens=8"]))


def test_the_command_prints_it_and_writes_nothing(spec: RunSpec, tmp_path: Path) -> None:
    event = json.dumps({"event": "failed", "problems": ["not an event of a program"]})
    talk = {"messages": [{"role": "user", "content": event}, {"role": "assistant", "content": "a"}]}
    (tmp_path / "b.jsonl").write_text(json.dumps(talk) + "\n")
    (tmp_path / "spec.yaml").write_text(spec_yaml(spec))
    done = hagane("data", tmp_path / "b.jsonl", work=tmp_path / "work")
    assert done.exit_code == 0
    assert "form            messages" in done.output
    described = hagane("data", tmp_path / "spec.yaml", "--set", "data.row_tokens=512", work=tmp_path / "work")
    assert described.exit_code == 0
    assert "100.0%   <- data.row_tokens" in described.output
    assert not (tmp_path / "store").exists()


def test_a_file_that_cannot_be_read_is_an_error_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"title": "x", "body": "y"}\n')
    done = hagane("data", tmp_path / "a.jsonl", work=tmp_path / "work")
    assert done.exit_code == 2
    assert done.errors[-1].endswith("data: {format: prompt_completion, columns: {prompt: title, completion: body}}")


def test_sources_of_which_nothing_is_trained_on_are_told(spec: RunSpec, tmp_path: Path) -> None:
    write_conversations(tmp_path / "other.jsonl", 5, seed=3)
    little = {"path": str(tmp_path / "other.jsonl"), "repeat": 1e-9}
    tree = spec.model_dump(mode="json")
    some = parse_spec({**tree, "data": {**tree["data"], "train": [spec.data.train_name, little]}})
    lines = list(dataset_lines(load_source(some, now=datetime(2026, 11, 24)), some.data))
    assert sum(line.startswith(f"warning: {little['path']}: no record of it is trained on") for line in lines) == 1
    none = parse_spec({**tree, "data": {**tree["data"], "train": [little]}})
    with pytest.raises(DataError, match=r"^data.train: no record is trained on, .* Fix: raise repeat, or leave it out$"):
        load_source(none, now=datetime(2026, 11, 24))
