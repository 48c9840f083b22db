"""The audit passes only for what was audited. A program in place of pip-audit: no database of
vulnerabilities can be reached from tests."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from images import audit

CLEAN = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "a", "skip_reason": "the database does not know it"}
VULNERABLE = {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}


@pytest.fixture
def exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def run(answer: Any, *arguments: str) -> int:
        program = tmp_path / "pip-audit"
        program.write_text(
            f"#!{sys.executable}\nprint({json.dumps(answer)!r})\n"
            if answer
            else "#!/bin/sh\necho no route >&2; exit 1\n"
        )
        program.chmod(0o755)
        monkeypatch.setattr(audit.sysconfig, "get_path", lambda _: str(tmp_path))
        monkeypatch.setattr(sys, "argv", ["images.audit", *arguments])
        with pytest.raises(SystemExit) as ended:
            audit.main()
        return int(ended.value.code or 0)

    return run


@pytest.mark.parametrize(
    "packages", [[SKIPPED], [CLEAN, SKIPPED], []], ids=["nothing", "a part", "no package"]
)
def test_what_could_not_be_audited_fails_unless_that_is_accepted(
    packages: list, exit_code, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code({"dependencies": packages}) == 1
    assert "lock files are not audited in whole" in capsys.readouterr().out
    assert exit_code({"dependencies": packages}, "--accept-not-audited") == 0


def test_a_database_that_does_not_answer_fails_unless_that_is_accepted(
    exit_code, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(None) == 1
    assert ": not audited: no route\n" in capsys.readouterr().out
    assert exit_code(None, "--accept-not-audited") == 0


def test_a_known_vulnerability_fails_whatever_is_accepted(
    exit_code, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code({"dependencies": [CLEAN]}) == 0
    assert exit_code({"dependencies": [VULNERABLE, SKIPPED]}, "--accept-not-audited") == 1
    assert "a 1: PYSEC-1, fixed in 2" in capsys.readouterr().out
