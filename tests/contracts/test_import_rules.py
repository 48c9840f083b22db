"""Each rule of .importlinter is broken once in a copy of the tree, and `lint-imports` must then name it."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.example_plans import ROOT

PACKAGES = ("components", "laptop", "pipelines")
IMPORTING = "import {}\n"

# Rule -> the module that breaks it, and what that module imports. Modules named `unnamed` are new: no rule can list them.
BREACHES = [
    ("siblings", "components/evaluate/unnamed.py", "components.train.loop.rows"),
    ("layers", "components/shared/unnamed.py", "components.evaluate.measure.answers"),
    ("layers", "components/train/unnamed.py", "pipelines.screens.run"),
    ("faces", "pipelines/unnamed.py", "components.render_config.planner"),
    ("faces", "pipelines/finetune/compiling.py", "components.launch_training.kubernetes_api.client"),
    ("faces", "pipelines/unnamed.py", "components.train.__main__"),
    ("laptop", "laptop/unnamed.py", "components.train.model.loading"),
    ("laptop", "laptop/unnamed.py", "pipelines.screens.run"),
    ("torch", "components/shared/unnamed.py", "torch"),
    ("torch", "components/prepare_dataset/unnamed.py", "transformers"),
    ("torch", "pipelines/unnamed.py", "deepspeed"),
    ("tokenizers", "components/train/loop/rows.py", "tokenizers"),
    ("tokenizers", "components/shared/unnamed.py", "rensa"),
    ("pyarrow", "components/render_config/unnamed.py", "pyarrow.parquet"),
    ("kfp", "components/render_config/planner.py", "kfp"),
    ("kfp", "laptop/unnamed.py", "kfp_server_api"),
    ("kfp-server", "pipelines/submit/submitting.py", "kfp_server_api"),
    ("kfp-server", "pipelines/unnamed.py", "kfp_server_api"),
    ("boto3", "components/shared/step.py", "boto3"),
    ("boto3", "pipelines/unnamed.py", "botocore.exceptions"),
    ("kubernetes", "components/launch_training/ending/end.py", "kubernetes"),
    ("kubernetes", "components/launch_training/unnamed.py", "kubernetes.client"),
    ("kubernetes", "components/launch_training/job/unnamed.py", "kubernetes.client"),
]


@pytest.fixture
def copied_tree(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    # The command's own folder goes first on sys.path, so that the copy is read, not the installed tree.
    program = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as lint; lint()"
    command = [sys.executable, "-c", program, "--no-cache"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


def rule_names() -> dict[str, str]:
    rules = configparser.ConfigParser()
    rules.read(ROOT / ".importlinter")
    prefix = "importlinter:contract:"
    return {part.removeprefix(prefix): rules[part]["name"] for part in rules if part.startswith(prefix)}


def test_a_copy_of_the_tree_as_it_stands_keeps_every_rule(copied_tree: Path) -> None:
    done = lint_imports(copied_tree)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("rule", "module", "imported"), BREACHES)
def test_a_broken_rule_is_reported(copied_tree: Path, rule: str, module: str, imported: str) -> None:
    path = copied_tree / module
    old_text = path.read_text() if path.exists() else ""
    path.write_text(IMPORTING.format(imported) + old_text)
    done = lint_imports(copied_tree)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{rule_names()[rule]} BROKEN" in done.stdout


def test_every_rule_is_broken_by_some_breach() -> None:
    assert {rule for rule, _, _ in BREACHES} == set(rule_names())
