"""Each benchmark that trains for its table still makes a row of it; what stands there is read by people."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("program", "words", "row"),
    [
        ("memory_truth", ["llama-30M", "lora"], "| llama-30M lora ZeRO-0 1p 256t | "),
        ("time_truth", ["llama-4M", "lora"], "| llama-4M lora ZeRO-0 1p 256t | "),
    ],
)
def test_a_benchmark_sets_what_happened_beside_the_plan(program: str, words: list[str], row: str) -> None:
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{program}", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    header, _, *rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert "planned" in header or "predicted" in header
    assert len(rows) == 1
    assert rows[0].startswith(row)
    assert rows[0].count("|") == header.count("|")
