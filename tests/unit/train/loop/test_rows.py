import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from components.render_config.cost import timing
from components.train.loop.rows import (
    GPU_MULTIPLE,
    NOT_TRAINED,
    PackedRows,
    Row,
    collate,
    inputs_of,
    unpack_rows,
)
from components.train.loop.trainer import collate_numbered
from tests.support.small_models import small_model
from tests.support.tiny_models import make_model

ROWS: list[Row] = [
    {"input_ids": [5, 6, 7, 8, 9], "labels": [5, 6, 7, 8, 9], "lengths": [3, 2]},
    {"input_ids": [4, 3], "labels": [NOT_TRAINED, 3], "lengths": [2]},
]


def _parquet(path: Path, rows: list[Row], *, row_group_size: int = 1024) -> Path:
    pq.write_table(pa.Table.from_pylist([*rows]), path, row_group_size=row_group_size)
    return path


def test_rows_are_read_as_they_were_written_from_every_row_group(tmp_path: Path) -> None:
    rows = PackedRows(_parquet(tmp_path / "train.parquet", ROWS * 50, row_group_size=7))
    assert [rows[index] for index in range(len(rows))] == ROWS * 50
    assert rows.several


def test_rows_are_mapped_into_memory_and_not_read(tmp_path: Path) -> None:
    row: Row = {"input_ids": [5] * 1000, "labels": [5] * 1000, "lengths": [1000]}
    path = _parquet(tmp_path / "train.parquet", [row] * 20_000, row_group_size=500)
    unpack_rows(path)
    program = (
        "import sys; from pathlib import Path; from components.train.loop.rows import "
        "PackedRows\ndef anonymous(): return int(next(line for line in open('/proc/self/status') "
        "if line.startswith('RssAnon')).split()[1])\nbefore = anonymous(); rows = "
        "PackedRows(Path(sys.argv[1])); rows[len(rows) - 1]; print(anonymous() - before)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True
    )
    assert path.with_suffix(".arrow").stat().st_size > 160e6
    assert int(found.stdout) < 16_000  # kB


def test_unpacked_rows_are_made_anew_for_other_rows(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "train.parquet", ROWS)
    unpack_rows(path)
    _parquet(path, ROWS[1:])
    unpack_rows(path)
    assert len(PackedRows(path)) == 1


def test_positions_restart_at_each_conversation_and_at_padding() -> None:
    batch = collate(ROWS)
    assert "position_ids" in batch
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]]


def test_nothing_is_learned_at_a_seam_or_on_padding() -> None:
    labels = collate(ROWS)["labels"].tolist()
    assert labels == [
        [NOT_TRAINED, 6, 7, NOT_TRAINED, 9],
        [NOT_TRAINED, 3, NOT_TRAINED, NOT_TRAINED, NOT_TRAINED],
    ]


@pytest.mark.parametrize(("longest", "num_tokens"), [(200, 64), (64, 64), (40, 40)])
def test_a_gpus_rows_are_padded_to_few_lengths_and_never_beyond_the_longest(
    longest: int, num_tokens: int
) -> None:
    batch = collate_numbered(list(enumerate(ROWS)), longest=longest)
    assert batch["input_ids"].shape == (2, num_tokens)
    assert batch["labels"][0, :5].tolist() == [NOT_TRAINED, 6, 7, NOT_TRAINED, 9]
    assert set(batch["labels"][0, 5:].tolist()) == {NOT_TRAINED}
    assert collate_numbered(list(enumerate(ROWS)))["input_ids"].shape == (2, 5)
    assert GPU_MULTIPLE == timing.GPU_MULTIPLE


def test_rows_of_one_conversation_need_no_positions() -> None:
    batch = collate([ROWS[1], {"input_ids": [5, 6, 7], "labels": [5, 6, 7], "lengths": [3]}])
    assert batch.keys() == {"input_ids", "labels"}
    assert batch["input_ids"].tolist() == [[4, 3, 0], [5, 6, 7]]
    assert batch["labels"].tolist() == [[NOT_TRAINED, 3, NOT_TRAINED], [NOT_TRAINED, 6, 7]]


@pytest.mark.parametrize("model_type", ["gpt_oss", "bloom", "mamba2", "qwen3_next", "opt"])
def test_a_padded_conversation_gets_the_logits_it_gets_alone(model_type: str) -> None:
    model = small_model(model_type)
    batch = collate(
        [{"input_ids": list(range(3, 30)), "labels": list(range(3, 30)), "lengths": [27]}, ROWS[1]]
    )
    with torch.no_grad():
        padded = model(**inputs_of(batch, torch.device("cpu"))).logits[1, :2]
        alone = model(input_ids=torch.tensor([ROWS[1]["input_ids"]])).logits[0]
    assert torch.allclose(padded, alone, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_a_packed_conversation_gets_the_logits_it_gets_alone(architecture, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path, architecture=architecture))
    batch = collate(ROWS)
    with torch.no_grad():
        packed = model(**inputs_of(batch, torch.device("cpu")), use_cache=False).logits
        alone = model(input_ids=torch.tensor([[8, 9]]), use_cache=False).logits
    # fp32 sums in another order: a few units in the last place of logits near 1.
    assert torch.allclose(packed[0, 3:5], alone[0], atol=1e-5)
