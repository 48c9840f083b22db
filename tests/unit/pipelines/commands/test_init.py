"""What `hagane init` does with the answers of a person at a terminal."""

import io
import json
from pathlib import Path

import pytest

from components.shared.errors import SpecError
from pipelines.commands.init import init
from pipelines.commands.new_file import write_together


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_wrong_answer_is_said_and_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "chat_template.jinja").write_text("x")
    (tmp_path / "pairs.json").write_text(json.dumps([{"instruction": "q", "output": "a"}] * 3))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", Terminal("./nowhere\nmodel\nnone.json\npairs.json\n"))
    init(with_plan=False)
    printed = capsys.readouterr()
    first, second = (printed.out + printed.err).split("Error: ")[1:]
    assert first.startswith("--model: got './nowhere'")
    assert second.startswith("none.json: no such file")
    assert "source: model" in (tmp_path / "spec.yaml").read_text()


def test_files_written_together_are_all_there_or_none(tmp_path: Path) -> None:
    files = {tmp_path / "spec.yaml": "a", tmp_path / "alpaca.jinja": "b"}
    with write_together(files):
        assert all(file.is_file() for file in files)
    assert all(file.is_file() for file in files)
    with pytest.raises(SpecError), write_together(files):
        raise SpecError("no plan")
    assert not any(file.exists() for file in files)
