"""A run's folders up to finished checkpoints, really trained on a tiny model, for tests of what
comes after training."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from components.shared.documents.plan import Plan
from components.shared.documents.prompts import (
    PROBE_POSITIONS,
    PROMPTS,
    Prompt,
    Prompts,
    base_files,
)
from components.shared.documents.tokenizer_sample import (
    TOKENIZER_SAMPLE,
    SampleText,
    TokenizerSample,
)
from components.shared.spec.file import parse_spec, spec_yaml
from components.shared.store.layout import CHECKPOINTS, DATASET, PLAN, SPEC, checkpoint_folder
from components.shared.store.manifest import publish_folder, require_manifest
from components.shared.store.storage import LocalStore
from tests.support.made_plan import make_plan
from tests.support.tiny_models import make_model, write_conversations

Architecture = Literal["llama", "gpt_neox"]
Method = Literal["lora", "full"]
Row = dict[str, list[int]]
ATTEMPT = "a1b2c3"


def make_trained_run(
    folder: Path,
    *,
    architecture: Architecture,
    method: Method,
    precision: str = "fp32",
    tied: bool = False,
    **settings: Any,
) -> str:
    """URI of a run whose dataset/, plan/ and checkpoints/ are finished, after one epoch on 8 rows.
    `settings` are of the spec."""
    base = make_model(folder / "base", architecture=architecture)
    if tied:
        tie_embeddings(base)
    spec = parse_spec(
        {
            "name": "tiny",
            "store": str(folder / "store"),
            "model": {"source": str(base)},
            "data": {"train": "train.jsonl", "row_tokens": 128},
            "training": {"method": method, "precision": precision, "epochs": 1},
            "lora": {"rank": 4},
            **settings,
        }
    )
    store = LocalStore(Path(spec.run_uri))
    store.write_bytes(SPEC, spec_yaml(spec).encode())
    conversations = write_conversations(folder / "all.jsonl", 24)
    rows, prompts = packed_rows(base, conversations), made_prompts(base, conversations)
    write_dataset(store, folder / "dataset", train=rows[:8], held_out=rows[8:], prompts=prompts)
    plan = make_plan(spec, architecture=architecture, num_rows=8)
    write_plan(store, plan, folder / "plan")
    local = folder / "trained"
    names = (
        train_lora(base, plan, rows, local, prompts)
        if method == "lora"
        else train_full(base, plan, local, prompts)
    )
    write_checkpoints(store, local, names, plan)
    return spec.run_uri


def tie_embeddings(base: Path) -> None:
    """The model in `base` uses its input embedding as its head, and its file holds that once."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base, tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(base)


def packed_rows(base: Path, conversations: Path) -> list[Row]:
    """Two conversations a row, trained on all but the first three tokens of each."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = [
        json.loads(line)["messages"]
        for line in conversations.read_text(encoding="utf-8").splitlines()
    ]
    ids = [
        tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
        for messages in texts
    ]
    return [
        {
            "input_ids": first + second,
            "labels": [-100] * 3 + first[3:] + [-100] * 3 + second[3:],
            "lengths": [len(first), len(second)],
        }
        for first, second in zip(ids[::2], ids[1::2], strict=True)
    ]


def made_prompts(base: Path, conversations: Path) -> Prompts:
    """Four conversations of the held-out part, each ended by the tokenizer's end token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    lines = conversations.read_text(encoding="utf-8").splitlines()
    prompts: list[Prompt] = []
    for line in (lines[16], lines[17], lines[19], lines[20]):
        messages = json.loads(line)["messages"]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        last = max(place for place, token in enumerate(ids) if token == tokenizer.eos_token_id)
        said = tuple(messages)
        prompts.append(
            Prompt(
                messages=said,
                text=text,
                token_ids=tuple(ids),
                probe_length=last + 1,
                ends_turn=True,
            )
        )
    return Prompts(
        chat_template=tokenizer.chat_template,
        end_token_ids=(tokenizer.eos_token_id,),
        base_files=base_files(base),
        prompts=tuple(prompts),
    )


def dataset_inputs(prompts: Prompts) -> dict[str, str]:
    """What the dataset's manifest says of the chat template."""
    return {"template": hashlib.sha256(prompts.chat_template.encode()).hexdigest()}


def write_dataset(
    store: LocalStore, local: Path, *, train: list[Row], held_out: list[Row], prompts: Prompts
) -> None:
    local.mkdir()
    (local / PROMPTS).write_text(prompts.model_dump_json())
    texts = tuple(SampleText(text=each.text, ids=each.token_ids) for each in prompts.prompts)
    sample = TokenizerSample(tokenizer_class="PreTrainedTokenizerFast", texts=texts)
    (local / TOKENIZER_SAMPLE).write_text(sample.model_dump_json())
    for name, rows in (("train", train), ("held_out", held_out)):
        pq.write_table(pa.Table.from_pylist(rows), local / f"{name}.parquet")
    facts = {
        "num_conversations": 2 * len(train),
        "num_rows": len(train),
        "held_out_conversations": 2 * len(held_out),
        "held_out_rows": len(held_out),
        "num_tokens": sum(len(row["input_ids"]) for row in train),
        "num_trained_tokens": sum(label != -100 for row in train for label in row["labels"]),
        "row_tokens": 128,
        "model_revision": None,
    }
    publish_folder(
        store,
        DATASET,
        local,
        made_by="prepare_dataset",
        inputs=dataset_inputs(prompts),
        facts=facts,
    )


def write_plan(store: LocalStore, plan: Plan, local: Path) -> None:
    local.mkdir()
    (local / "plan.json").write_text(plan.model_dump_json())
    inputs = {"dataset": require_manifest(store, DATASET).digest}
    publish_folder(store, PLAN, local, made_by="render_config", inputs=inputs, facts={})


def write_checkpoints(store: LocalStore, local: Path, names: list[str], plan: Plan) -> None:
    """The named files of `local` are the committed checkpoint of epoch 1; its probe and a history
    are in checkpoints/."""
    epoch, results = local.with_name("epoch"), local.with_name("results")
    for name in names:
        (epoch / ATTEMPT / name).parent.mkdir(parents=True, exist_ok=True)
        (local / name).rename(epoch / ATTEMPT / name)
    step = plan.steps.total_steps
    losses = {"epoch": 1, "step": step, "loss": 5.5, "held_out_loss": 5.0}
    made = {"num_processes": 1, "zero_stage": plan.zero.stage}
    of_steps = {
        "steps_per_epoch": plan.steps.steps_per_epoch,
        "micro_batch": plan.steps.micro_batch,
    }
    publish_folder(
        store,
        checkpoint_folder(1),
        epoch,
        made_by="train",
        inputs={},
        facts=losses | made | of_steps,
    )
    results.mkdir()
    (local / "probe.safetensors").rename(results / "probe.safetensors")
    history = {
        "start_held_out_loss": 6.0,
        "seconds": 1.5,
        "tokens": 1000,
        "epochs": [losses],
        "steps": [],
    }
    (results / "history.json").write_text(json.dumps(history))
    publish_folder(
        store,
        CHECKPOINTS,
        results,
        made_by="train",
        inputs={"training": plan.training_digest},
        facts={"num_epochs": 1},
    )


def train_lora(base: Path, plan: Plan, rows: list[Row], local: Path, prompts: Prompts) -> list[str]:
    """`local` holds an adapter as PEFT saves it and the probe of the trained model. Returns the
    checkpoint's files."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    assert plan.lora is not None
    config = LoraConfig(**plan.lora.peft_config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config
        )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    for row in rows[:8] * 8:  # enough to learn where a turn ends
        tokens_1T = torch.tensor([row["input_ids"][: row["lengths"][0]]])
        model(input_ids=tokens_1T, labels=tokens_1T, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(local)
    model.eval()
    with torch.no_grad():
        logits = [
            model(input_ids=torch.tensor([each.probe_ids]), use_cache=False).logits[
                0, -PROBE_POSITIONS:
            ]
            for each in prompts.prompts
        ]
    probe = {
        "tokens": torch.tensor([token for each in prompts.prompts for token in each.probe_ids]),
        "lengths": torch.tensor([each.probe_length for each in prompts.prompts]),
        "logits": torch.cat(logits),
    }
    save_file(probe, local / "probe.safetensors")
    return ["adapter_model.safetensors", "adapter_config.json"]


def train_full(base: Path, plan: Plan, local: Path, prompts: Prompts) -> list[str]:
    """`local` holds a real DeepSpeed checkpoint, the probe, and trained.safetensors. Returns the
    checkpoint's files."""
    command = [
        sys.executable,
        "-m",
        "tests.integration.deepspeed_checkpoint",
        str(base),
        str(local),
    ]
    local.mkdir()
    (local / PROMPTS).write_text(prompts.model_dump_json())
    command += [plan.precision, str(plan.zero.stage)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [
        "latest",
        *(path.relative_to(local).as_posix() for path in local.glob("global_step*/*")),
    ]
