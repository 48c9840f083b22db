"""Blocks of the tutorials and how-to pages that are marked `run`: their commands, in order, in a
folder that has the files which the page names."""

import csv
import json
import os
from pathlib import Path

import pytest

from tests.support.doc_blocks import DOCS, blocks_of, pages
from tests.support.tiny_models import make_model
from tests.support.tutorials import ROOT, Command, run_commands

ENGLISH = [page for page in pages() if "ja" not in page.relative_to(DOCS).parts]
PAGES = [page for page in ENGLISH if any(block.is_run for block in blocks_of(page))]
"""The Japanese pages have the same blocks: tests/unit/site."""


AXOLOTL = """\
base_model: my-model
datasets:
  - path: pairs.json
    type: alpaca
output_dir: runs
adapter: lora
lora_r: 8
lora_alpha: 16
sequence_len: 256
micro_batch_size: 2
gradient_accumulation_steps: 2
num_epochs: 3
learning_rate: 0.0002
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Has pairs.json, pairs.csv, axolotl.yaml and the model my-model."""
    (tmp_path / "axolotl.yaml").write_text(AXOLOTL)
    make_model(tmp_path / "my-model", architecture="llama")
    pairs = [
        {"instruction": f"What is {number} + {number}?", "output": str(2 * number)}
        for number in range(60)
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    with (tmp_path / "pairs.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["instruction", "output"])
        writer.writeheader()
        writer.writerows(pairs)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_work_as_printed(page: Path, folder: Path) -> None:
    blocks = [block for block in blocks_of(page) if block.is_run]
    commands = [Command(line, 0) for block in blocks for line in block.lines]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HAGANE_WORK": str(folder / "work")}
    done = run_commands(commands, folder, env)
    assert [(line, code) for line, code, _ in done] == [(each.line, 0) for each in commands], done[
        -1
    ][2]
