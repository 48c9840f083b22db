"""Prints how much memory the check, prepare_dataset and the start of training take for data of
several sizes, and the processor time of prepare_dataset beside that of the tokenizer alone on the
same texts.

    python -m benchmarks.data_memory                        20 and 200 MB, this checkout
    python -m benchmarks.data_memory --before ../other      also of another checkout, in turn

Memory is the sum of the resident sizes of a program and its processes, sampled every 50 ms; of what
training maps into memory, the anonymous part, since the kernel takes the rest back. Speed is by
processor time, which others on the machine disturb least."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.chat_data import make_tokenizer, write_chats

ROW_TOKENS = 2048
_SAMPLED_S = 0.05
_MB = 1_000_000
_START = (
    "from pathlib import Path; import sys; from components.train.loop.rows import PackedRows"
    "; rows = PackedRows(Path(sys.argv[1])); rows[len(rows) - 1]"
)
_START_MEMORY = (
    "; print([line.split()[1] for line in open('/proc/self/status') if "
    "line.startswith('RssAnon')][0])"
)


@dataclass(frozen=True)
class Taken:
    seconds: float
    cpu_s: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_memory", description=__doc__)
    parser.add_argument(
        "--mb", type=int, nargs="+", default=[20, 200], help="sizes of the data, in MB"
    )
    parser.add_argument(
        "--processes",
        type=int,
        nargs="+",
        default=[1, 2],
        help="processes that render and tokenise",
    )
    parser.add_argument(
        "--before", type=Path, help="another checkout of hagane, which is measured too"
    )
    parser.add_argument("--folder", type=Path, help="where the data is kept between runs")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    if not (folder / "model" / "config.json").is_file():
        make_tokenizer(folder / "model")
    for size in arguments.mb:
        data = folder / f"{size}.jsonl"
        if not data.is_file():
            write_chats(data, size * _MB)
        print(f"{size} MB", flush=True)
        rows = [("this checkout", Path.cwd(), processes) for processes in arguments.processes]
        if arguments.before is not None:
            rows.insert(0, ("before", arguments.before.absolute(), None))
        for name, tree, processes in rows:
            print("  " + _line(name, tree, processes, folder, data), flush=True)
        shutil.rmtree(folder / "store", ignore_errors=True)


def _line(name: str, tree: Path, processes: int | None, folder: Path, data: Path) -> str:
    store = folder / "store" / str(time.time_ns())
    if processes is None:
        how = []
    else:
        how = ["--processes", str(processes)]
    spec = {"name": "b", "store": str(store), "model": {"source": str(folder / "model")}}
    spec["data"] = {"train": str(data), "row_tokens": ROW_TOKENS, "too_long": "drop"}
    store.mkdir(parents=True)
    (store / "spec.yaml").write_text(json.dumps(spec))
    command = ["-m", "components.prepare_dataset", "--spec", str(store / "spec.yaml"), *how]
    checked = _run(tree, [*command, "--check"])
    prepared = _run(tree, command)
    dataset = store / "b" / "dataset"
    facts = json.loads((dataset / "manifest.json").read_bytes())["facts"]
    quality = json.loads((dataset / "quality.json").read_bytes())
    num_tokens = facts["num_tokens"] + quality["held_out"]["tokens"]
    raw_s = _raw_cpu_seconds(folder / "model", data)
    if processes:
        shown = f"{name}, {processes} processes"
    else:
        shown = name
    started = _start_mb(tree, dataset / "train.parquet")
    return (
        f"{shown:<28} check {checked.seconds:6.1f} s {checked.peak_mb:5.0f} MB   prepare "
        f"{prepared.seconds:6.1f} s {prepared.cpu_s:6.1f} s CPU {prepared.peak_mb:5.0f} MB   rows "
        f"open {started:4.0f} MB   {num_tokens / prepared.cpu_s / 1e6:.2f} M tokens per s of CPU, "
        f"{raw_s / prepared.cpu_s:.0%} of encode_batch_fast alone ({raw_s:.1f} s)"
    )


def _run(tree: Path, command: list[str]) -> Taken:
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "HAGANE_WORK": str(tree / ".hagane" / "benchmark"),
        "HF_HUB_OFFLINE": "1",
    }
    start = time.monotonic()
    program = subprocess.Popen(
        [sys.executable, *command], cwd=tree, env=environment, stdout=subprocess.DEVNULL
    )
    peak = 0
    while True:
        pid, status, usage = os.wait4(program.pid, os.WNOHANG)
        if pid:
            break
        peak = max(peak, sum(_resident(each) for each in _with_children(program.pid)))
        time.sleep(_SAMPLED_S)
    program.returncode = os.waitstatus_to_exitcode(status)
    if program.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {program.returncode}")
    return Taken(time.monotonic() - start, usage.ru_utime + usage.ru_stime, peak / _MB)


def _with_children(pid: int) -> Iterable[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from _with_children(int(child))


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _start_mb(tree: Path, rows: Path) -> float:
    """Anonymous memory of a process that opens the training rows and reads one, less that of one
    that only imports what it needs."""
    found: list[int] = []
    for program in (_START.partition("; rows")[0], _START):
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        command = [sys.executable, "-c", program + _START_MEMORY, str(rows)]
        found.append(
            int(
                subprocess.run(
                    command, cwd=tree, env=environment, check=True, capture_output=True, text=True
                ).stdout
            )
        )
        if len(found) == 1 and not rows.with_suffix(".arrow").is_file() and tree == Path.cwd():
            unpack = (
                "from pathlib import Path; import sys; from components.train.loop.rows import "
                "unpack_rows; unpack_rows(Path(sys.argv[1]))"
            )
            subprocess.run(
                [sys.executable, "-c", unpack, str(rows)], cwd=tree, env=environment, check=True
            )
    return max(0, found[1] - found[0]) * 1024 / _MB


def _raw_cpu_seconds(model: Path, data: Path) -> float:
    """What `encode_batch_fast` takes for the texts alone, in batches of 1,000."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    seconds = 0.0
    batch: list[str] = []
    with data.open(encoding="utf-8") as stream:
        for line in stream:
            turns = json.loads(line)["messages"]
            batch.append(
                "<|bos|>"
                + "".join(
                    f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns
                )
            )
            if len(batch) == 1000:
                seconds += _timed(tokenizer, batch)
                batch = []
    return seconds + (_timed(tokenizer, batch) if batch else 0)


def _timed(tokenizer: Tokenizer, batch: list[str]) -> float:
    start = time.process_time()  # of all threads
    tokenizer.encode_batch_fast(batch, add_special_tokens=False)
    return time.process_time() - start


if __name__ == "__main__":
    main()
