"""What came from outside is printed short, on one line, without secrets and without what a terminal obeys."""

import io

import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from components.shared.errors import HaganeError
from components.shared.printable import first_problems, is_secret_name, markdown_code, printable, shown, without_secrets
from pipelines.screens.run import PlainConsole


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\x9b31m", "\\x9b31m"),
        ("\ud800", "\\ud800"),
        ("é日本 — 'x'", "é日本 — 'x'"),
    ],
)
def test_control_characters_are_escaped_and_all_else_stays(text: str, printed: str) -> None:
    assert printable(text) == printed


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ("x" * 5_000_000, "'" + "x" * 78 + "…"),
        (10**5000, "a number of more than 4,000 digits"),
        ([1] * 10_000, "[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, ...]"),
        ({"aws_secret_access_key": "s3cret", "epochs": 1}, "{'aws_secret_access_key': '***', 'epochs': 1}"),
        ("three", "'three'"),
        (0, "0"),
    ],
    ids=["long text", "long number", "long list", "a secret inside", "text", "number"],
)
def test_a_value_is_shown_short(value: object, printed: str) -> None:
    assert shown(value) == printed


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        *(
            (name, True)
            for name in ("aws_secret_access_key", "HF_TOKEN", "password", "apiKey", "api-key", "x.client_secret", "credentials")
        ),
        *((name, False) for name in ("row_tokens", "answer_tokens", "secrets", "name", "keep", "chat_template", "tokenizer")),
    ],
)
def test_a_secret_is_known_by_its_name(name: str, is_secret: bool) -> None:
    assert is_secret_name(name) == is_secret


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("got 's3://b/p#token=abc'", "got 's3://b/p#***'"),
        ("https://me:pw@host/a?X-Amz-Signature=1&b=2#c", "https://***@host/a?***#***"),
        ("/bucket/key?X-Amz-Credential=AKIA failed", "/bucket/key?*** failed"),
        ("hf://owner/name@v1/a.jsonl: gated", "hf://owner/name@v1/a.jsonl: gated"),
        ("hf://me:pw@host/a", "hf://***@host/a"),
        ("see http://host/#/runs/details/12", "see http://host/#/runs/details/12"),
        ("did you mean 'a'? see s3://bucket/key", "did you mean 'a'? see s3://bucket/key"),
    ],
)
def test_addresses_lose_user_query_and_fragment(text: str, printed: str) -> None:
    assert without_secrets(text) == printed


def test_problems_that_were_counted_before_are_counted_again() -> None:
    once = first_problems(f"p{n}" for n in range(70))
    assert once[-1] == "and 20 more problems"
    assert first_problems([*once, *once])[-1] == "and 90 more problems"
    assert first_problems(once) == once


def test_an_error_is_one_line_a_problem_whatever_it_holds() -> None:
    error = HaganeError("a\nb\x1b[31m", "x" * 5000)
    assert error.problems[0] == "a\\nb\\x1b[31m"
    assert len(error.problems[1]) == 2000


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_models_answer_reaches_a_terminal_without_control_sequences(is_terminal: bool) -> None:
    out = io.StringIO()
    console = PlainConsole(file=out, force_terminal=is_terminal, color_system=None, width=100, markup=False, highlight=False)
    answer = "\x1b[2J\x1b]0;owned\x07 12\u202e"
    table = Table(box=None, show_header=False)
    table.add_row("tuned", Text(answer))
    console.print(Panel(table))
    console.print(f"question {answer}")
    assert not any(mark in out.getvalue() for mark in ("\x1b", "\x07", "\u202e"))
    assert "\\x1b[2J" in out.getvalue()


@pytest.mark.parametrize("text", ["plain", "a`b", "``<script>alert(1)</script>", "`", "x\ny"])
def test_code_in_markdown_ends_where_it_should(text: str) -> None:
    code = markdown_code(text)
    fence = code[: len(code) - len(code.lstrip("`"))]
    assert code.endswith(fence)
    assert fence not in code[len(fence) : -len(fence)]
    assert "\n" not in code
