"""Prints how much memory the check, prepare_dataset and the start of training take for data of
several sizes, and the processor time of prepare_dataset beside that of the tokenizer alone on the
same texts.

    python -m benchmarks.data_memory                        20 and 200 MB, this checkout
    python -m benchmarks.data_memory --before ../other      also of another checkout, in turn
    python -m benchmarks.data_memory --mb 20 --repeats 5    the median share of 5, and the spread

Memory is the sum of the resident sizes of a program and its processes, sampled every 50 ms; of what
training maps into memory, the anonymous part, since the kernel takes the rest back. Speed is by
processor time, which others on the machine disturb least; the tokenizer alone is run before each
repeat, in one thread, which takes the least of it."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

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


@dataclass(frozen=True)
class Prepared:
    taken: Taken
    checked: Taken
    num_tokens: int
    """In training and held-out rows."""
    started_mb: float
    """Anonymous memory by which training grows as it opens the rows."""


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
    parser.add_argument("--repeats", type=int, default=1, help="how often each is run, in turn")
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
        shares: dict[str, list[float]] = {}
        for _ in range(arguments.repeats):
            raw_s = _raw_cpu_seconds(folder / "model", data)
            for name, tree, processes in rows:
                done = prepared(tree, folder, data, processes)
                shown = name if processes is None else f"{name}, {processes} processes"
                shares.setdefault(shown, []).append(raw_s / done.taken.cpu_s)
                print(f"  {_line(shown, done, raw_s)}", flush=True)
                shutil.rmtree(folder / "store")
        for shown, found in shares.items():
            print(f"  {shown:<28} {_spread(found)}", flush=True)


def prepared(tree: Path, folder: Path, data: Path, processes: int | None) -> Prepared:
    """Both the check and the dataset, made in `folder`/store by the checkout `tree`."""
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
    checked = taken(tree, [*command, "--check"])
    made = taken(tree, command)
    dataset = store / "b" / "dataset"
    facts = json.loads((dataset / "manifest.json").read_bytes())["facts"]
    quality = json.loads((dataset / "quality.json").read_bytes())
    num_tokens = facts["num_tokens"] + quality["held_out"]["tokens"]
    return Prepared(made, checked, num_tokens, _start_mb(tree, dataset / "train.parquet"))


def _line(shown: str, done: Prepared, raw_s: float) -> str:
    made, checked = done.taken, done.checked
    return (
        f"{shown:<28} check {checked.seconds:6.1f} s {checked.peak_mb:5.0f} MB   prepare "
        f"{made.seconds:6.1f} s {made.cpu_s:6.1f} s CPU {made.peak_mb:5.0f} MB   rows open "
        f"{done.started_mb:4.0f} MB   {done.num_tokens / made.cpu_s / 1e6:.2f} M tokens per s of "
        f"CPU, {raw_s / made.cpu_s:.0%} of encode_batch_fast alone ({raw_s:.1f} s)"
    )


def _spread(shares: list[float]) -> str:
    return (
        f"share of encode_batch_fast: median {statistics.median(shares):.2f}, from "
        f"{min(shares):.2f} to {max(shares):.2f} in {len(shares)} repeats"
    )


def taken(
    tree: Path, command: list[str], *, modules: str = "", output: IO[str] | None = None
) -> Taken:
    """What a program of the checkout takes, with all its processes. `modules` are more folders that
    it imports from; what it prints goes to `output`. Raises CalledProcessError where it fails."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tree}{os.pathsep}{modules}",
        "HAGANE_WORK": str(tree / ".hagane" / "benchmark"),
        "HF_HUB_OFFLINE": "1",
    }
    start = time.monotonic()
    program = subprocess.Popen(
        [sys.executable, *command],
        cwd=tree,
        env=environment,
        stdout=output or subprocess.DEVNULL,
        stderr=output,
    )
    peak = 0.0
    while True:
        pid, status, usage = os.wait4(program.pid, os.WNOHANG)
        if pid:
            break
        peak = max(peak, sum(resident_mb(each) for each in _with_children(program.pid)))
        time.sleep(_SAMPLED_S)
    program.returncode = os.waitstatus_to_exitcode(status)
    if program.returncode:
        raise subprocess.CalledProcessError(program.returncode, command)
    return Taken(time.monotonic() - start, usage.ru_utime + usage.ru_stime, peak)


def _with_children(pid: int) -> Iterable[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from _with_children(int(child))


def resident_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") / _MB


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
    """What `encode_batch_fast` takes for the texts alone, in batches of 1,000 and in one thread."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        return _raw_cpu_seconds_of(model, data)
    finally:
        del os.environ["TOKENIZERS_PARALLELISM"]  # programs that are started choose by themselves


def _raw_cpu_seconds_of(model: Path, data: Path) -> float:
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
