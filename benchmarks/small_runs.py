"""Small models of random weights and rows of random tokens, planned and trained by hagane's own
programs: what benchmarks measure."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.shared.documents.plan import Plan
from components.shared.documents.prompts import PROMPTS, Prompt, Prompts
from components.shared.documents.tokenizer_sample import TOKENIZER_SAMPLE, TokenizerSample
from components.shared.spec.file import parse_spec, spec_yaml
from components.shared.spec.run_spec import RunSpec
from components.shared.store.layout import DATASET, SPEC
from components.shared.store.manifest import publish_folder
from components.shared.store.storage import LocalStore

if TYPE_CHECKING:  # torch takes seconds, and memory of a process that measures others
    from components.train.loop.rows import Row

VOCABULARY = 32_000
SMOLLM2 = "llama-smollm2"
SHAPES: dict[str, dict[str, Any]] = {
    "llama-4M": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "llama-5M": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 12,
        "num_attention_heads": 4,
    },
    "llama-30M": {
        "hidden_size": 320,
        "intermediate_size": 864,
        "num_hidden_layers": 8,
        "num_attention_heads": 5,
    },
    "llama-135M": {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "llama-350M": {
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 22,
        "num_attention_heads": 16,
    },
    SMOLLM2: {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49_152,
        "tie_word_embeddings": True,
    },
    "gpt_neox-30M": {
        "hidden_size": 320,
        "intermediate_size": 1280,
        "num_hidden_layers": 8,
        "num_attention_heads": 5,
    },
    "gpt_neox-160M": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 15,
        "num_attention_heads": 12,
    },
    "gpt_neox-350M": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 22,
        "num_attention_heads": 16,
    },
}


@dataclass(frozen=True)
class Case:
    model: str
    method: str
    stage: int
    offload: bool
    processes: int
    row_tokens: int = 256
    checkpointing: bool = False
    precision: str = "fp32"
    quantization: str = "none"

    @property
    def name(self) -> str:
        if self.offload:
            offload = "+offload"
        else:
            offload = ""
        more = [
            *(["checkpointing"] if self.checkpointing else []),
            *([] if self.precision == "fp32" else [self.precision]),
            *([] if self.quantization == "none" else [self.quantization]),
        ]
        return " ".join(
            [
                self.model,
                self.method,
                f"ZeRO-{self.stage}{offload}",
                f"{self.processes}p",
                f"{self.row_tokens}t",
                *more,
            ]
        )


def config_of(model: str) -> dict[str, Any]:
    fixed = {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    }
    return {"model_type": model.partition("-")[0], **fixed, **SHAPES[model]}


def make_model(folder: Path, model: str) -> None:
    """Random fp32 weights; made by a process of its own, so that this one stays small."""
    program = (
        "import sys, json, torch; from transformers import AutoConfig, AutoModelForCausalLM;fields "
        "= json.loads(sys.argv[2]); config = AutoConfig.for_model(fields.pop('model_type'), "
        "**fields);AutoModelForCausalLM.from_config(config, "
        "dtype=torch.float32).save_pretrained(sys.argv[1])"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(folder), json.dumps(config_of(model))],
        check=True,
    )


def spec_of(folder: Path, base: Path, case: Case) -> RunSpec:
    """An optimizer step is of two rows a process."""
    zero = {"stage": case.stage, "offload_optimizer": "cpu" if case.offload else "none"}
    if case.offload and case.stage == 3:
        zero["offload_parameters"] = "cpu"
    else:
        zero["offload_parameters"] = "none"
    return parse_spec(
        {
            "name": "truth",
            "store": str(folder / "store"),
            "model": {"source": str(base), "quantization": case.quantization},
            "data": {"train": "none.jsonl", "row_tokens": case.row_tokens},
            "training": {
                "method": case.method,
                "precision": case.precision,
                "epochs": 1,
                "micro_batch": 1,
                "global_batch": 2 * case.processes,
                "gradient_checkpointing": case.checkpointing,
            },
            "lora": {"rank": 16},
            "zero": zero,
            "hardware": {"processes_per_node": case.processes},
        }
    )


def prompts_of(token_ids: list[int]) -> Prompts:
    """One prompt of made-up tokens: what these runs train on has no text."""
    prompt = Prompt(
        text="", token_ids=tuple(token_ids), probe_length=min(len(token_ids), 16), ends_turn=False
    )
    return Prompts(chat_template="", end_token_ids=(), base_files=(), prompts=(prompt,))


def rows_of(case: Case, num_rows: int) -> "list[Row]":
    """Rows of one conversation each, of which every token is trained."""
    tokens = [[(7 * i + r) % VOCABULARY for i in range(case.row_tokens)] for r in range(num_rows)]
    return [{"input_ids": row, "labels": row, "lengths": [len(row)]} for row in tokens]


def make_run(
    folder: Path,
    base: Path,
    case: Case,
    *,
    num_steps: int,
    rows: "list[Row] | None" = None,
) -> tuple[str, Plan]:
    """URI and plan of a run whose dataset/ and plan/ are finished; without `rows`, with those of
    rows_of."""
    spec = spec_of(folder, base, case)
    rows = rows or rows_of(case, 2 * num_steps * case.processes)
    store = LocalStore(Path(spec.run_uri))
    store.write_bytes(SPEC, spec_yaml(spec).encode())
    table = pa.Table.from_pylist(rows)  # pyright: ignore[reportArgumentType]
    local = folder / "dataset"
    local.mkdir()
    pq.write_table(table, local / "train.parquet")
    pq.write_table(table.slice(0, 1), local / "held_out.parquet")
    sample = TokenizerSample(tokenizer_class="PreTrainedTokenizerFast", texts=())
    (local / TOKENIZER_SAMPLE).write_text(sample.model_dump_json())
    (local / PROMPTS).write_text(prompts_of(rows[0]["input_ids"]).model_dump_json())
    facts = {
        "num_rows": len(rows),
        "num_tokens": len(rows) * case.row_tokens,
        "row_tokens": case.row_tokens,
        "held_out_rows": 1,
        "model_revision": None,
    }
    publish_folder(store, DATASET, local, made_by="prepare_dataset", inputs={}, facts=facts)
    subprocess.run(
        [sys.executable, "-m", "components.render_config", "--run", spec.run_uri],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return spec.run_uri, Plan.model_validate_json(
        (Path(spec.run_uri) / "plan" / "plan.json").read_bytes()
    )
