"""Trains the same packed rows by hagane, by a plain script of transformers, PEFT and DeepSpeed, and
by TRL and LLaMA-Factory where they are installed; prints tokens per second and peak memory of each.

    python -m benchmarks.train_peers                    hagane and the plain script
    python -m benchmarks.train_peers --trl /tmp/trl     and TRL, installed there
    python -m benchmarks.train_peers lora 1024          only cases that have both words
    python -m benchmarks.train_peers --repeats 3        each case three times

One process, bf16, a model of SmolLM2-135M's shape with random weights. A third of the tokens is not
trained. All take the DeepSpeed config, TrainingArguments and LoRA settings that hagane wrote; they
run one after the other, each in a process of its own. Speed is the tokens of a step by the median
of the steps' seconds; memory is the largest resident size of the training process. The loss is the
last step's: TRL packs conversations in another order, so its own differs. Other work on the
machine, or on its host, can change a speed by half between two runs: judge by several repeats.

benchmarks/data_peers.py says how TRL and LLaMA-Factory are installed, which are no dependencies of
hagane. Here LLaMA-Factory is 0.9.5, with what it needs of TRL 0.24 and an empty torchaudio.py in
`--llama-factory`: it imports both, and uses neither for this. What cannot be imported beside
hagane's torch and transformers, or takes too long, is left out with the reason.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.memory_truth import measured_peak, peak_of
from benchmarks.own_layers import ROW_TOKENS, row_of
from benchmarks.small_runs import SMOLLM2, Case, make_model, make_run
from components.shared.store.layout import CHECKPOINTS
from components.train.loop.rows import NOT_TRAINED, PackedRows, Row, collate

METHODS = (("lora", 0, "none"), ("full", 2, "none"), ("lora", 0, "nf4"))
"""Method, ZeRO stage, quantization."""
CASES = [
    Case(
        SMOLLM2,
        method,
        stage,
        offload=False,
        processes=1,
        row_tokens=row_tokens,
        precision="bf16",
        quantization=quantization,
    )
    for method, stage, quantization in METHODS
    for row_tokens in ROW_TOKENS
]
NUM_STEPS = 5
LONGEST_S = 600
"""What a peer's training may take."""
TIMED_OUT = 124
"""Exit code of coreutils' timeout."""
_RESULT = "peer: "


@dataclass(frozen=True)
class Trained:
    step_s: float
    loss: float
    peak_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_peers", description=__doc__)
    parser.add_argument("words", nargs="*", help="run only cases whose name has all of these")
    parser.add_argument("--repeats", type=int, default=1, help="how often each case is run")
    parser.add_argument("--trl", default="", help="folders that TRL is imported from")
    parser.add_argument("--llama-factory", default="", help="and those of LLaMA-Factory")
    parser.add_argument("--peer", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peer is not None:
        name, run, base = asked.peer
        print(_RESULT + json.dumps(asdict(PEERS[name](Path(run), Path(base)))), flush=True)
        return
    models = Path(tempfile.mkdtemp(prefix="hagane-peers-"))
    make_model(models / SMOLLM2, SMOLLM2)
    print("| case | program | tokens/s | peak | loss | hagane's speed | hagane's memory |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for case in CASES:
        if not all(word in case.name for word in asked.words):
            continue
        for _ in range(asked.repeats):
            print_case(case, models, {"TRL": asked.trl, "LLaMA-Factory": asked.llama_factory})
    shutil.rmtree(models)


def print_case(case: Case, models: Path, modules: dict[str, str]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=models))
    rows = packed_rows(case.row_tokens, 2 * NUM_STEPS)
    run, plan = make_run(folder, models / SMOLLM2, case, num_steps=NUM_STEPS, rows=rows)
    peak_bytes = sum(measured_peak(run, plan, folder / "work"))
    history = json.loads((Path(run) / CHECKPOINTS / "history.json").read_bytes())
    loss = history["steps"][-1]["loss"]
    hagane = Trained(history["seconds_per_step"], loss, peak_bytes)
    print(line_of(case, "hagane", hagane, hagane), flush=True)
    for name in PEERS:
        trained = peer(name, run, models / SMOLLM2, modules.get(name, ""))
        if isinstance(trained, Trained):
            print(line_of(case, name, trained, hagane), flush=True)
        else:
            print(f"| {case.name} | {name} | left out: {trained} | | | | |", flush=True)
    shutil.rmtree(folder)


def packed_rows(row_tokens: int, num_rows: int) -> list[Row]:
    rows = [row_of(row_tokens) for _ in range(num_rows)]
    for row in rows:
        row["labels"] = [
            NOT_TRAINED if index % 3 == 0 else token for index, token in enumerate(row["labels"])
        ]
    return rows


def line_of(case: Case, name: str, trained: Trained, hagane: Trained) -> str:
    tokens = 2 * case.row_tokens
    return (
        f"| {case.name} | {name} | {tokens / trained.step_s:.0f} | "
        f"{trained.peak_bytes / 2**30:.2f} GiB | {trained.loss:.4f} | "
        f"{trained.step_s / hagane.step_s:.2f}x | {hagane.peak_bytes / trained.peak_bytes:.2f}x |"
    )


def peer(name: str, run: str, base: Path, modules: str) -> Trained | str:
    """What a peer's training took, or why it is left out."""
    command = ["timeout", str(LONGEST_S), sys.executable, "-W", "ignore"]
    command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    command += ["-m", "benchmarks.train_peers", "--peer", name, run, str(base)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *filter(None, [modules])]),
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        "DISABLE_VERSION_CHECK": "1",  # LLaMA-Factory names an older transformers
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == TIMED_OUT:
        return f"not done after {LONGEST_S} s"
    for line in done.stdout.splitlines():
        if line.startswith(_RESULT):
            return Trained(**json.loads(line.removeprefix(_RESULT)))
    errors = [line for line in done.stderr.splitlines() if "Error" in line]
    return (errors or done.stderr.splitlines() or ["no result"])[0].strip()


def plain(run: Path, base: Path) -> Trained:
    """What people write by hand: AutoModelForCausalLM, get_peft_model and Trainer."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, set_seed

    settings = TrainingArguments(**settings_of(run))
    set_seed(settings.seed)
    model = AutoModelForCausalLM.from_pretrained(base, **loading_of(run))
    if lora := lora_of(run):
        model = get_peft_model(model, lora)
    trainer = Trainer(
        model,
        settings,
        data_collator=collate,  # pyright: ignore[reportArgumentType]
        train_dataset=PackedRows(run / "dataset" / "train.parquet"),
    )
    return trained_by(trainer)


def trl(run: Path, base: Path) -> Trained:
    """SFTTrainer packs the conversations by itself, to rows of the same length."""
    from transformers import AutoModelForCausalLM, set_seed

    dataset_of = import_module("datasets").Dataset.from_list
    config_of = import_module("trl.trainer.sft_config").SFTConfig
    trainer_of = import_module("trl.trainer.sft_trainer").SFTTrainer
    rows = PackedRows(run / "dataset" / "train.parquet")
    more = {"packing": True, "max_length": rows.longest, "loss_type": "nll"}
    settings = config_of(**settings_of(run), **more)
    set_seed(settings.seed)
    trainer = trainer_of(
        AutoModelForCausalLM.from_pretrained(base, **loading_of(run)),
        settings,
        train_dataset=dataset_of(conversations_of(rows)),
        processing_class=made_tokenizer(),
        peft_config=lora_of(run),
    )
    return trained_by(trainer)


def llama_factory(run: Path, base: Path) -> Trained:
    """Its model and trainer, and its collator for packed rows (`neat_packing`)."""
    hparams = import_module("llamafactory.hparams")
    data = import_module("llamafactory.data")
    load_model = import_module("llamafactory.model").load_model
    trainer_of = import_module("llamafactory.train.sft.trainer").CustomSeq2SeqTrainer
    rows = PackedRows(run / "dataset" / "train.parquet")
    lora = lora_of(run)
    asked = {"stage": "sft", "do_train": True, "template": "empty", "dataset": "rows"}
    asked |= {"packing": True, "neat_packing": True, "cutoff_len": rows.longest}
    asked |= {"model_name_or_path": str(base), "finetuning_type": "lora" if lora else "full"}
    asked |= {"disable_gradient_checkpointing": True}  # as hagane's plan has it
    if lora:
        asked |= {"lora_rank": lora.r, "lora_alpha": int(lora.lora_alpha)}
        asked |= {"lora_target": ",".join(lora.target_modules)}
    if "quantization_config" in loading_of(run):
        asked |= {"quantization_bit": 4, "quantization_method": "bnb"}
    model_args, data_args, settings, method, _ = hparams.get_train_args(settings_of(run) | asked)
    tokenizer = made_tokenizer()
    template = data.get_template_and_fix_tokenizer(tokenizer, data_args)
    model = load_model(tokenizer, model_args, method, is_trainable=True)
    collator = data.SFTDataCollatorWith4DAttentionMask(
        template=template,
        model=model,
        pad_to_multiple_of=8,
        label_pad_token_id=NOT_TRAINED,
        block_diag_attn=True,
        attn_implementation=model.config._attn_implementation,
        compute_dtype=model_args.compute_dtype,
        tokenizer=tokenizer,
        processor=None,
    )
    trainer = trainer_of(
        model=model,
        args=settings,
        finetuning_args=method,
        data_collator=collator,
        train_dataset=[numbered(row) for row in rows],
        tokenizer=tokenizer,
        processor=None,
    )
    return trained_by(trainer)


def numbered(row: Row) -> dict[str, list[int]]:
    """A row as LLaMA-Factory packs it: its attention mask holds each conversation's number."""
    mask = [place for place, length in enumerate(row["lengths"], 1) for _ in range(length)]
    return {"input_ids": row["input_ids"], "labels": row["labels"], "attention_mask": mask}


PEERS: dict[str, Callable[[Path, Path], Trained]] = {
    "plain script": plain,
    "TRL": trl,
    "LLaMA-Factory": llama_factory,
}


def settings_of(run: Path) -> dict[str, Any]:
    """TrainingArguments as hagane wrote them, with its DeepSpeed config; nothing is saved."""
    written = json.loads((run / "plan" / "training_args.json").read_bytes())
    return {
        **written,
        "deepspeed": str(run / "plan" / "deepspeed.json"),
        "output_dir": str(run / "peer"),
        "save_strategy": "no",
        "use_cpu": True,
    }


def loading_of(run: Path) -> dict[str, Any]:
    """Arguments of from_pretrained: bf16, and 4 bits where the run's plan says so."""
    import torch
    from transformers import BitsAndBytesConfig

    plan = json.loads((run / "plan" / "plan.json").read_bytes())
    if plan["model"]["quantization"] == "none":
        return {"dtype": torch.bfloat16}
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_quant_storage=torch.bfloat16,
    )
    return {"dtype": torch.bfloat16, "quantization_config": quantization}


def lora_of(run: Path) -> Any:
    """A LoraConfig, or None in full training."""
    from peft import LoraConfig

    file = run / "plan" / "lora.json"
    if not file.is_file():
        return None
    return LoraConfig(**json.loads(file.read_bytes()))


def conversations_of(rows: PackedRows) -> list[dict[str, list[int]]]:
    found: list[dict[str, list[int]]] = []
    for row in rows:
        start = 0
        for length in row["lengths"]:
            piece = slice(start, start + length)
            found.append({"input_ids": row["input_ids"][piece], "labels": row["labels"][piece]})
            start += length
    return found


def made_tokenizer() -> Any:
    """A tokenizer of one word: the rows are token ids already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1}
    words_only = Tokenizer(models.WordLevel(words, unk_token="<pad>"))  # noqa: S106 - no password
    return PreTrainedTokenizerFast(
        tokenizer_object=words_only,
        pad_token="<pad>",  # noqa: S106 - no password
        eos_token="<eos>",  # noqa: S106 - no password
    )


def trained_by(trainer: Any) -> Trained:
    """Trains; seconds of a step are counted from the end of the one before."""
    from transformers import TrainerCallback

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    trainer.add_callback(Clock())
    trainer.train()
    seconds = statistics.median(after - before for before, after in pairwise(ends))
    loss = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1]
    return Trained(seconds, loss, peak_of(os.getpid()))


if __name__ == "__main__":
    main()
