"""Prints how fast hagane, TRL and LLaMA-Factory make packed, masked rows of the same chats, and how
much memory each takes, one after the other, in one process each.

    python -m benchmarks.data_peers                               20 MB of chats, hagane alone
    python -m benchmarks.data_peers --modules /tmp/trl            and TRL, installed there
    python -m benchmarks.data_peers --modules /tmp/lf:/tmp/trl    and LLaMA-Factory

Neither is a dependency of hagane: `pip install --target /tmp/trl --no-deps trl datasets pandas
multiprocess dill xxhash`, and for the other `llamafactory==0.9.3 omegaconf antlr4-python3-runtime
fire termcolor` (0.9.5 wants torchaudio). What is not there, or cannot be imported beside hagane's
torch and transformers, is left out with the reason.

Speed is tokens in the rows for each second of processor time from the file of chats to the rows;
imports are left out for peers and counted for hagane. Memory is the largest sum of the resident
sizes of a program and its processes; what imports alone take stands behind it."""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from benchmarks.chat_data import CHATML, make_tokenizer, write_chats
from benchmarks.data_memory import ROW_TOKENS, prepared, resident_mb, taken

_RESULT = "peer: "
_MARKED = CHATML.replace(
    "{{ message['content'] }}<|im_end|>",
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>"
    "{% endgeneration %}{% else %}{{ message['content'] }}<|im_end|>{% endif %}",
)
"""TRL finds what the assistant wrote by these marks."""


@dataclass(frozen=True)
class Made:
    """What a peer says of its own work."""

    tokens: int
    cpu_s: float
    imports_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_peers", description=__doc__)
    parser.add_argument("--mb", type=int, default=20, help="size of the chats, in MB")
    parser.add_argument("--repeats", type=int, default=1, help="how often each is run, in turn")
    parser.add_argument("--folder", type=Path, help="where the chats are kept between runs")
    parser.add_argument("--modules", default="", help="folders that peers are imported from")
    parser.add_argument("--peer", choices=sorted(_PEERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    data = folder / f"{arguments.mb}.jsonl"
    if arguments.peer is not None:
        made = _PEERS[arguments.peer](folder, data)
        print(_RESULT + json.dumps(asdict(made)), flush=True)
        return
    if not (folder / "model" / "config.json").is_file():
        make_tokenizer(folder / "model")
    if not data.is_file():
        write_chats(data, arguments.mb * 1_000_000)
    for _ in range(arguments.repeats):
        print(_hagane(folder, data), flush=True)
        for name in _PEERS:
            print(_peer(name, folder, data, arguments.modules), flush=True)


def _hagane(folder: Path, data: Path) -> str:
    done = prepared(Path.cwd(), folder, data, processes=1)
    return _line("hagane", done.num_tokens, done.taken.cpu_s, done.taken.peak_mb)


def _peer(name: str, folder: Path, data: Path, modules: str) -> str:
    command = ["-m", "benchmarks.data_peers", "--peer", name, "--folder", str(folder)]
    command += ["--mb", data.stem]
    with tempfile.TemporaryFile("w+") as output:
        try:
            memory = taken(Path.cwd(), command, modules=modules, output=output)
        except subprocess.CalledProcessError:
            output.seek(0)
            return f"{name:<14} left out: {output.read().strip().splitlines()[-1]}"
        output.seek(0)
        said = next(line for line in output if line.startswith(_RESULT))
    made = Made(**json.loads(said.removeprefix(_RESULT)))
    line = _line(name, made.tokens, made.cpu_s, memory.peak_mb)
    return f"{line}, imports alone {made.imports_mb:.0f} MB"


def _line(name: str, num_tokens: int, cpu_s: float, peak_mb: float) -> str:
    speed = num_tokens / cpu_s / 1e6
    return (
        f"{name:<14} {num_tokens:,} tokens, {cpu_s:6.1f} s of CPU, {speed:.3f} M tokens per s, "
        f"{peak_mb:.0f} MB"
    )


def _trl(folder: Path, data: Path) -> Made:
    """SFTTrainer prepares its data as it is made; the model is as small as one can be."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    load_dataset = import_module("datasets").load_dataset
    config_of = import_module("trl.trainer.sft_config").SFTConfig
    trainer_of = import_module("trl.trainer.sft_trainer").SFTTrainer
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenizer.chat_template = _MARKED
    tokenizer.pad_token = "<|pad|>"  # noqa: S105 - no password
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    model = LlamaForCausalLM(config)
    imports_mb = resident_mb(os.getpid())
    start = time.process_time()
    with tempfile.TemporaryDirectory() as cache:
        settings = config_of(
            output_dir=cache,
            max_length=ROW_TOKENS,
            packing=True,
            assistant_only_loss=True,
            use_cpu=True,
            report_to="none",
        )
        chats = load_dataset("json", data_files=str(data), split="train", cache_dir=cache)
        trainer = trainer_of(model, settings, train_dataset=chats, processing_class=tokenizer)
        rows = trainer.train_dataset
        cpu_s = time.process_time() - start
        return Made(sum(map(len, rows["input_ids"])), cpu_s, imports_mb)


def _llama_factory(folder: Path, data: Path) -> Made:
    """Without a template of its own named, the tokenizer's is taken."""
    os.environ["DISABLE_VERSION_CHECK"] = "1"  # it names an older transformers
    from transformers import AutoTokenizer, Seq2SeqTrainingArguments

    get_dataset = import_module("llamafactory.data.loader").get_dataset
    template_of = import_module("llamafactory.data.template").get_template_and_fix_tokenizer
    data_arguments = import_module("llamafactory.hparams.data_args").DataArguments
    model_arguments = import_module("llamafactory.hparams.model_args").ModelArguments
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenizer.pad_token = "<|pad|>"  # noqa: S105 - no password
    imports_mb = resident_mb(os.getpid())
    start = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        tags = {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
        }
        described = {
            "file_name": str(data),
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": tags,
        }
        (Path(place) / "dataset_info.json").write_text(json.dumps({"chats": described}))
        settings = data_arguments(
            dataset="chats",
            dataset_dir=place,
            cutoff_len=ROW_TOKENS,
            packing=True,
            overwrite_cache=True,
        )
        rows = get_dataset(
            template_of(tokenizer, settings),
            model_arguments(model_name_or_path=str(folder / "model"), cache_dir=place),
            settings,
            Seq2SeqTrainingArguments(output_dir=place, do_train=True, use_cpu=True),
            stage="sft",
            tokenizer=tokenizer,
        )["train_dataset"]
        cpu_s = time.process_time() - start
        return Made(sum(map(len, rows["input_ids"])), cpu_s, imports_mb)


_PEERS: dict[str, Callable[[Path, Path], Made]] = {"TRL": _trl, "LLaMA-Factory": _llama_factory}


if __name__ == "__main__":
    main()
