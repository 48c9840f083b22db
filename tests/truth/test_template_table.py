"""The table of real chat templates, on templates that are written here (chat_templates.py)."""

import os
from pathlib import Path

import pytest

from components.prepare_dataset.samples.samples import Sample
from tests.truth import template_table
from tests.truth.template_table import (
    CASES,
    REFUSED,
    REFUSES,
    REWRITTEN_LATER,
    SAME,
    SYSTEM_TALK,
    WRONG,
    Outcome,
    RealTemplate,
    outcomes,
    table,
    templates_in,
)
from tests.unit.prepare_dataset.chat_templates import (
    ALL,
    HISTORY_WITHOUT_REASONING,
    RENAMED_ROLE,
    TOOLS,
)


def _verdicts(text: str) -> dict[str, str]:
    return {each.case: each.verdict for each in outcomes(RealTemplate("t.jinja", text))}


@pytest.mark.parametrize("text", ALL.values(), ids=ALL)
def test_no_template_is_trained_otherwise_than_it_is_used(text: str) -> None:
    assert WRONG not in _verdicts(text).values()


def test_the_verdicts_say_what_a_template_can_do() -> None:
    tools = _verdicts(TOOLS)
    assert (tools[SYSTEM_TALK], tools["tool call"]) == (SAME, SAME)
    assert tools["reasoning by its key"] == REWRITTEN_LATER
    renamed = _verdicts(RENAMED_ROLE)
    assert renamed[SYSTEM_TALK] == REFUSES
    assert renamed["tool call"] == REFUSED
    assert _verdicts(ALL["prompt opens think"])["think tags"] == REWRITTEN_LATER


def _moved(sample: Sample) -> Sample:
    """Trained from a character too far on."""
    spans = tuple((start + 1, end) for start, end in sample.spans)
    return Sample(sample.text, spans, sample.notes)


def _cut(sample: Sample) -> Sample:
    """Without the end token."""
    return Sample(sample.text, tuple((start, end - 1) for start, end in sample.spans))


def _another_prompt(sample: Sample) -> Sample:
    spans = tuple((start + 1, end + 1) for start, end in sample.spans)
    return Sample(f" {sample.text}", spans)


def _first_alone(sample: Sample) -> Sample:
    return Sample(sample.text, sample.spans[:1])


@pytest.mark.parametrize("spoilt", [_moved, _cut, _another_prompt, _first_alone])
def test_what_is_trained_otherwise_is_seen(monkeypatch: pytest.MonkeyPatch, spoilt) -> None:
    right = template_table._samples
    monkeypatch.setattr(
        template_table, "_samples", lambda *given: tuple(map(spoilt, right(*given)))
    )
    assert _verdicts(ALL["chatml"])["three answers"] == WRONG


def test_the_table_has_each_template_once_with_the_reason_of_what_is_not_accepted(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "qwen.jinja").write_text(HISTORY_WITHOUT_REASONING, encoding="utf-8")
    (tmp_path / "again.jinja").write_text(HISTORY_WITHOUT_REASONING, encoding="utf-8")
    (template,) = templates_in([tmp_path])
    refused = Outcome(template.name, SYSTEM_TALK, REFUSES, "no system turn")
    lines = list(table([*outcomes(template), refused]))
    assert lines[0].startswith("a/qwen.jinja: ")
    assert f"    {SYSTEM_TALK}: the template refuses: no system turn" in lines
    assert any(line.startswith(f"1 templates x {len(CASES)} conversations: ") for line in lines)


@pytest.mark.slow
def test_real_templates_are_trained_as_they_are_used() -> None:
    folder = os.environ.get("HAGANE_TEMPLATES")
    if folder is None:
        pytest.skip("HAGANE_TEMPLATES names no folder of published chat templates (*.jinja)")
    found = [each for template in templates_in([Path(folder)]) for each in outcomes(template)]
    assert [each for each in found if each.verdict == WRONG] == []
