"""The wheel as a newcomer has it: built, installed into an empty environment far from the
repository, without torch. `make test-wheel`; it needs a package index."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.example_plans import ROOT

MOST_BYTES = 1_500_000
UV = Path(sys.executable).with_name("uv")
SPEC = """\
name: seven-billion
store: runs
model: {source: elyza-7b}
data: {train: pairs.json, chat_template: chatml.jinja}
hardware: {gpu: rtx4090, host_memory_gib: 64}
"""
DATA_SUFFIXES = {".yaml", ".json", ".jinja"}


def run(*command: str | Path, work: Path) -> subprocess.CompletedProcess[str]:
    left_out = ("PYTHONPATH", "VIRTUAL_ENV", "HAGANE_IMAGES")
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    return subprocess.run(
        [str(part) for part in command],
        cwd=work,
        env=env | {"HF_HUB_OFFLINE": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("wheel")
    done = run(UV, "build", "--quiet", "--out-dir", folder, ROOT, work=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def place(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment that holds the wheel, a spec, records and a model's config."""
    folder = tmp_path_factory.mktemp("outside")
    assert not folder.is_relative_to(ROOT)
    run(UV, "venv", "--quiet", "--python", sys.executable, "env", work=folder)
    began = time.monotonic()
    python = folder / "env" / "bin" / "python"
    installed = run(UV, "pip", "install", "--quiet", "--python", python, wheel, work=folder)
    assert installed.returncode == 0, installed.stderr
    print(f"{wheel.stat().st_size:,} bytes, installed in {time.monotonic() - began:.1f} s")
    shutil.copytree(ROOT / "specs" / "models" / "elyza-7b", folder / "elyza-7b")
    shutil.copy(ROOT / "specs" / "templates" / "chatml.jinja", folder)
    (folder / "spec.yaml").write_text(SPEC)
    pairs = [{"instruction": f"What is {n}?", "output": f"It is {n}."} for n in range(60)]
    (folder / "pairs.json").write_text(json.dumps(pairs))
    return folder


def hagane(*arguments: str, place: Path) -> str:
    done = run(place / "env" / "bin" / "hagane", *arguments, work=place)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_is_small_and_holds_every_data_file_of_its_packages(wheel: Path) -> None:
    assert wheel.stat().st_size < MOST_BYTES
    held = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith(".py")}
    listed = subprocess.check_output(
        ["git", "ls-files", "components", "pipelines"], cwd=ROOT, text=True
    )
    needed = {name for name in listed.splitlines() if Path(name).suffix in DATA_SUFFIXES}
    assert len(needed) >= 6
    assert needed <= held
    outside = "components/shared/own_files"
    assert f"{outside}/images/images.yaml" in held
    assert f"{outside}/specs/from-the-ui.yaml" in held
    assert f"{outside}/specs/templates/alpaca-ja.jinja" in held


def test_an_index_would_take_both_archives(built: Path) -> None:
    archives = sorted(built.glob("hagane-*"))
    assert [archive.suffix for archive in archives] == [".whl", ".gz"]
    tool = (UV, "tool", "run", "--quiet", "--from", "twine==6.2.0", "twine")
    done = run(*tool, "check", "--strict", *archives, work=built)
    assert done.returncode == 0, done.stdout + done.stderr


def test_torch_is_not_installed(place: Path) -> None:
    packages = {each.name for each in (place / "env").glob("lib/python*/site-packages/*")}
    assert "pydantic" in packages
    assert packages.isdisjoint({"torch", "transformers", "deepspeed", "peft", "laptop", "tests"})


def test_a_7b_model_is_planned(place: Path) -> None:
    arguments = ("--rows", "5000", "--out", "plan", "--json")
    plan: dict[str, Any] = json.loads(hagane("plan", "spec.yaml", *arguments, place=place))
    assert plan["steps"]["total_steps"] == 1875
    assert "<html" in (place / "plan" / "page.html").read_text()


def test_a_first_spec_is_written_and_data_is_looked_at(place: Path) -> None:
    said = hagane("data", "pairs.json", place=place)
    assert re.search(r"^conversations +60$", said, re.MULTILINE)
    arguments = ("--model", "elyza-7b", "--data", "pairs.json", "--out", "new.yaml", "--no-plan")
    hagane("init", *arguments, place=place)
    assert "alpaca" in (place / "new.yaml").read_text()


def test_the_pipeline_is_compiled(place: Path) -> None:
    hagane("compile", "finetune.yaml", place=place)
    assert "name: hagane-finetune" in (place / "finetune.yaml").read_text()


@pytest.mark.parametrize("arguments", [["--version"], ["doctor", "--help"], ["models", "elyza"]])
def test_other_commands_start(arguments: list[str], place: Path) -> None:
    assert hagane(*arguments, place=place)


@pytest.mark.parametrize("command", ["run", "chat"])
def test_a_command_that_trains_names_the_extra(command: str, place: Path) -> None:
    done = run(place / "env" / "bin" / "hagane", command, "spec.yaml", work=place)
    assert done.returncode == 2
    assert "pip install 'hagane[train]'" in done.stderr
    assert "Traceback" not in done.stderr
