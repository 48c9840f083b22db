"""Each benchmark still makes a row of its table; what stands there is read by people."""

import os
import re
import shutil
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
def test_a_benchmark_sets_what_happened_beside_the_plan(
    program: str, words: list[str], row: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{program}", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    header, _, *rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert "planned" in header or "predicted" in header
    assert len(rows) == 1
    assert rows[0].startswith(row)
    assert rows[0].count("|") == header.count("|")


@pytest.mark.skipif(
    shutil.which("g++") is None, reason="DeepSpeed's CPU Adam is compiled; install g++"
)
def test_both_adams_of_the_host_make_the_same_steps_and_are_timed() -> None:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.cpu_adam",
        "--parameters",
        "1e5",
        "--steps",
        "3",
        "--threads",
        "1",
    ]
    env = {**os.environ, "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| 1 |")]
    assert [row.split("|")[2].strip() for row in rows] == [
        "DeepSpeed's compiled CPU Adam",
        "torch's fused AdamW",
        "DeepSpeed's / torch's",
    ]
    moved, differ = re.findall(r"[\d.]+e-\d+|[\d.]+", done.stdout.splitlines()[-1])[:2]
    assert float(differ) < float(moved) / 10
