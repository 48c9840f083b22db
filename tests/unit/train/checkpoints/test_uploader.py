import sys
from pathlib import Path

import pytest
import structlog

from components.train.checkpoints.uploader import BackgroundUploads
from tests.unit.train.checkpoints.test_commit import part

ANSWERS = """#!/bin/sh
while read line; do
    echo "a library says something"
    echo '{"event": "checkpoint", "step": 10}'
done
"""


def test_what_is_no_answer_is_told_and_the_next_answer_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program beside training is a shell script here: no real one can be made to print what it should not."""
    program = tmp_path / "program"
    program.write_text(ANSWERS)
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with structlog.testing.capture_logs() as told:
        uploads = BackgroundUploads("run", structlog.get_logger())
        for epoch in (1, 2, 3):
            uploads.submit(part(tmp_path / "w", 0, epoch=epoch, num_processes=1))
        uploads.finish()
    assert uploads.problem is None
    assert [each["event"] for each in told] == ["uploader_said", "checkpoint"] * 3
