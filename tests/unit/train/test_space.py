import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.shared.errors import SpaceError
from components.shared.spec.file import spec_from_parameter
from components.shared.step import step_log
from components.train import __main__ as program
from components.train.__main__ import check_space, prepare_job
from tests.support.made_plan import make_plan


def test_a_node_with_less_room_than_the_plan_needs_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(spec_from_parameter({"name": "t", "store": "s", "model": {"source": "m"}, "data": {"train": "d"}}))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=plan.checkpoints.work_bytes))
    check_space(tmp_path, plan)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=plan.checkpoints.work_bytes - 1))
    with pytest.raises(SpaceError, match=r"GB are free in .*, the plan's checkpoints need"):
        check_space(tmp_path, plan)


def test_files_of_a_killed_try_are_gone_before_the_room_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(spec_from_parameter({"name": "t", "store": "s", "model": {"source": "m"}, "data": {"train": "d"}}))
    for folder in ("plan", "checkpoints/checkpoint-1", "resume/step-1"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "plan" / "plan.json").write_text(plan.model_dump_json())
    for name, stands_for in (("open_run", lambda _: (None, None)), ("work_folder", lambda *_: tmp_path), ("fetch_folder", lambda *_: None)):
        monkeypatch.setattr(program, name, stands_for)
    monkeypatch.setattr(program.dist, "barrier", lambda: None)
    monkeypatch.setitem(os.environ, "LOCAL_RANK", "0")
    seen: list[list[str]] = []

    def disk_usage(path: Path) -> SimpleNamespace:
        seen.append([each.name for each in path.iterdir()])
        return SimpleNamespace(free=0)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    with step_log("train") as log, pytest.raises(SpaceError):
        prepare_job("run", log)
    assert seen == [["plan"]]
