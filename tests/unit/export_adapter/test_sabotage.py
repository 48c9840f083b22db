"""One thing changed between training and export -> one line that names it, and no line for a sound run."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from components.export_adapter.provenance import base_problems, provenance_problems
from components.export_adapter.tokenizer import write_generation_config, write_tokenizer
from components.export_adapter.verification.comparison import stop_problems, verify_logits
from components.export_adapter.verification.probe import num_positions, probe_problems, turn_ends
from components.export_adapter.verification.text_checks import text_problems
from components.export_adapter.weights.adapter import adapter_problems, config_problems
from components.export_adapter.weights.full import weight_problems
from components.shared.documents.plan import Plan
from components.shared.documents.prompts import Prompts
from components.shared.spec.file import parse_spec
from components.shared.store.manifest import Manifest
from tests.support.made_plan import make_plan
from tests.support.tiny_models import make_model, write_conversations
from tests.support.trained_run import dataset_inputs, made_prompts

Tensors = dict[str, torch.Tensor]
VOCABULARY = 400


@dataclass
class Run:
    """What an export is checked by. A sabotage changes one of these."""

    base: Path
    export: Path
    prompts: Prompts
    plan: Plan
    dataset: Manifest
    planned: Manifest
    training: Manifest
    probe: Tensors
    exported: torch.Tensor
    generated: list[tuple[int, ...]]
    adapter: Tensors
    adapter_config: dict[str, Any]
    weights: Tensors


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Prompts]:
    folder = tmp_path_factory.mktemp("sabotage")
    base = make_model(folder / "base")
    prompts = made_prompts(base, write_conversations(folder / "all.jsonl", 24))
    (folder / "export").mkdir()
    write_tokenizer(base, prompts, folder / "export")
    write_generation_config(base, prompts, folder / "export")
    return base, folder / "export", prompts


@pytest.fixture
def run(folders: tuple[Path, Path, Prompts], tmp_path: Path) -> Run:
    base, export, prompts = folders
    spec = parse_spec({"name": "r", "store": "s", "model": {"source": "base"}, "data": {"train": "t.jsonl"}})
    plan = make_plan(spec)
    dataset = Manifest(folder="dataset", made_by="p", inputs=dataset_inputs(prompts), facts={"model_revision": None})
    logits_KV = torch.randn(num_positions(prompts), VOCABULARY, generator=torch.Generator().manual_seed(0))
    for end in turn_ends(prompts):
        logits_KV[end.row, end.token] = 20.0
    assert plan.lora is not None
    return Run(
        base=shutil.copytree(base, tmp_path / "base"),
        export=shutil.copytree(export, tmp_path / "export"),
        prompts=prompts,
        plan=plan,
        dataset=dataset,
        planned=Manifest(folder="plan", made_by="r", inputs={"dataset": dataset.digest}),
        training=Manifest(folder="checkpoints", made_by="t", inputs={"training": plan.training_digest}),
        probe={
            "tokens": torch.tensor([token for each in prompts.prompts for token in each.probe_ids]),
            "lengths": torch.tensor([each.probe_length for each in prompts.prompts]),
            "logits": logits_KV,
        },
        exported=logits_KV.clone(),
        generated=[(end.token,) for end in turn_ends(prompts)],
        adapter={name: torch.ones(shape) for name, shape in EXPECTED.items()},
        adapter_config=dict(plan.lora.peft_config),
        weights={"embed.weight": torch.ones(8, 4), "head.weight": torch.ones(8, 4)},
    )


EXPECTED = {"q.lora_A.weight": (2, 8), "q.lora_B.weight": (8, 2), "v.lora_A.weight": (2, 8), "v.lora_B.weight": (8, 2)}


def problems_of(run: Run) -> list[str]:
    """All that the export checks, in its order; logits only where the probe is sound."""
    assert run.plan.lora is not None
    found = [
        *provenance_problems(run.plan, run.prompts, dataset=run.dataset, planned=run.planned, training=run.training),
        *base_problems("base", run.base, run.prompts),
        *probe_problems(run.probe, run.prompts),
        *adapter_problems(run.adapter, EXPECTED),
        *config_problems(run.adapter_config, run.plan.lora.peft_config),
        *weight_problems(run.weights, {"embed.weight": torch.ones(8, 4), "head.weight": torch.ones(8, 4)}),
    ]
    if found:
        return found
    probe_KV = run.probe["logits"]
    base_KV = torch.randn(probe_KV.shape, generator=torch.Generator().manual_seed(1))
    verified = verify_logits(probe_KV, exported_TV=run.exported, exported_fp32_TV=run.exported, base_TV=base_KV, precision="fp32")
    _, stops = stop_problems(probe_KV, list(turn_ends(run.prompts)), run.generated, limit=verified.tolerance_max)
    return [*text_problems(run.export, run.prompts), *verified.problems, *stops]


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    tree = json.loads(path.read_text(encoding="utf-8"))
    change(tree)
    path.write_text(json.dumps(tree, ensure_ascii=False), encoding="utf-8")


def exchange_ids(folder: Path) -> None:
    """Two tokens that the prompts use have each other's ids."""

    def exchange(tree: dict[str, Any]) -> None:
        vocabulary = tree["model"]["vocab"]
        vocabulary["h"], vocabulary["e"] = vocabulary["e"], vocabulary["h"]

    edit(folder / "tokenizer.json", exchange)


def change_prompts(run: Run, **values: Any) -> None:
    run.prompts = run.prompts.model_copy(update=values)
    run.dataset = run.dataset.model_copy(update={"inputs": dataset_inputs(run.prompts)})
    run.planned = run.planned.model_copy(update={"inputs": {"dataset": run.dataset.digest}})


def other_template(run: Run) -> None:
    (run.export / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")


def shorten_probe(run: Run) -> None:
    tokens = run.probe["tokens"][:1]
    run.probe = {"tokens": tokens, "lengths": torch.tensor([1]), "logits": run.probe["logits"][:1]}


def shorten_a_prompt(run: Run) -> None:
    lengths = run.probe["lengths"].clone()
    tokens = run.probe["tokens"].split(lengths.tolist())
    run.probe["tokens"] = torch.cat([tokens[0][:1], *tokens[1:]])
    run.probe["lengths"][0] = 1


def other_token(run: Run) -> None:
    run.probe["tokens"][5] += 1


def set_item(mapping: dict[str, Any], name: str, value: Any) -> None:
    mapping[name] = value


def scale_logits(run: Run) -> None:
    run.exported = run.exported * 1.01


def base_in_place(run: Run) -> None:
    run.exported = torch.randn(run.exported.shape, generator=torch.Generator().manual_seed(1))


def logits_nan(run: Run) -> None:
    run.exported[3] = float("nan")


def one_logit(run: Run) -> None:
    run.exported[3, 7] += 0.01


def foreign_manifest(manifest: Manifest, name: str) -> Manifest:
    return manifest.model_copy(update={"inputs": {**manifest.inputs, name: "0" * 64}})


def other_dataset(run: Run) -> None:
    run.planned = foreign_manifest(run.planned, "dataset")


def other_training(run: Run) -> None:
    run.training = foreign_manifest(run.training, "training")


def edited_prompts(run: Run) -> None:
    run.prompts = run.prompts.model_copy(update={"chat_template": "{{ messages }}"})


def other_revision(run: Run) -> None:
    model = run.plan.model.model_copy(update={"revision": "abc123"})
    run.plan = run.plan.model_copy(update={"model": model})


SABOTAGES: dict[str, tuple[Callable[[Run], object], str]] = {
    # the base model
    "two token ids exchanged in the base's tokenizer": (lambda r: exchange_ids(r.base), "base': tokenizer.json: found sha256"),
    "tokenizer.json deleted from the base": (lambda r: (r.base / "tokenizer.json").unlink(), "base' holds no tokenizer.json"),
    "tokenizer_config.json of the base edited": (
        lambda r: edit(r.base / "tokenizer_config.json", lambda t: t.update(eos_token="<|pad|>")),
        "base': tokenizer_config.json: found sha256",
    ),
    "a template put beside the base's tokenizer": (
        lambda r: (r.base / "chat_template.jinja").write_text("x"),
        "base' holds a chat_template.jinja",
    ),
    "config.json of the base edited": (
        lambda r: edit(r.base / "config.json", lambda t: t.update(rope_theta=5)),
        "base': config.json: found sha256",
    ),
    "generation_config.json of the base edited": (
        lambda r: (r.base / "generation_config.json").write_text("{}"),
        "base': generation_config.json: found sha256",
    ),
    # folders of the run that do not belong together
    "plan of another dataset": (other_dataset, "plan: was made from another dataset"),
    "checkpoints of another training": (other_training, "checkpoints: are of another training"),
    "prompts.json with another template": (edited_prompts, "dataset/prompts.json: has another chat template"),
    "another revision of the base": (other_revision, "plan: model.revision: found 'abc123'"),
    # the probe
    "probe of one token": (shorten_probe, "holds 1 prompts, the data has 4"),
    "one prompt of the probe cut to one token": (shorten_a_prompt, "prompt 1 has 1 tokens, the data's has"),
    "another token in the probe": (other_token, "prompt 1 has token"),
    "probe without lengths": (lambda r: r.probe.pop("lengths"), "holds no lengths"),
    "probe's tokens cut": (lambda r: set_item(r.probe, "tokens", r.probe["tokens"][:-3]), "tokens, its lengths say"),
    "half of the probe's logits": (lambda r: set_item(r.probe, "logits", r.probe["logits"][:16]), "its logits have shape [16, 400]"),
    "probe that is not finite": (lambda r: r.probe["logits"].fill_(float("inf")), "its logits are not finite"),
    "probe of equal logits": (lambda r: r.probe["logits"].zero_(), "its logits are all equal"),
    "no prompts at all": (lambda r: change_prompts(r, prompts=()), "prompts.json holds no prompt"),
    # the adapter
    "emptied tensor": (lambda r: set_item(r.adapter, "q.lora_A.weight", torch.zeros(0, 8)), "1 matrices are empty"),
    "every B zero": (lambda r: [r.adapter[n].zero_() for n in r.adapter if "_B" in n], "all 2 B matrices are zero"),
    "matrix absent": (lambda r: r.adapter.pop("v.lora_A.weight"), "1 matrices are absent"),
    "matrix of another layer": (lambda r: set_item(r.adapter, "o.lora_A.weight", torch.ones(2, 8)), "that the plan does not train"),
    "matrix of another rank": (lambda r: set_item(r.adapter, "q.lora_A.weight", torch.ones(4, 8)), "of another shape"),
    "NaN in a matrix": (lambda r: r.adapter["q.lora_A.weight"].fill_(float("nan")), "1 matrices are not finite"),
    "alpha doubled": (lambda r: set_item(r.adapter_config, "lora_alpha", 64.0), "lora_alpha: found 64.0, the plan has 32.0"),
    "rank changed": (lambda r: set_item(r.adapter_config, "r", 8), "r: found 8, the plan has 16"),
    "a target left out": (lambda r: set_item(r.adapter_config, "target_modules", ["q_proj"]), "target_modules: found ['q_proj']"),
    # a full model
    "half a shard": (lambda r: r.weights.pop("head.weight"), "weight head.weight is absent"),
    "weight of another model": (lambda r: set_item(r.weights, "x.weight", torch.ones(1)), "weight x.weight is not the base model's"),
    "weight of another shape": (lambda r: set_item(r.weights, "head.weight", torch.ones(4, 4)), "weight head.weight has shape [4, 4]"),
    "NaN in a weight": (lambda r: r.weights["embed.weight"].fill_(float("nan")), "weight embed.weight is not finite"),
    # the export's files
    "two token ids exchanged in the export": (
        lambda r: exchange_ids(r.export),
        "its tokenizer.json is not the one that encoded the data",
    ),
    "another tokenizer class": (
        lambda r: edit(r.export / "tokenizer_config.json", lambda t: t.update(tokenizer_class="Qwen2Tokenizer")),
        "its tokenizer gives other token ids for 3 of 4 prompts",
    ),
    "special tokens taken apart": (
        lambda r: edit(r.export / "tokenizer_config.json", lambda t: t.update(split_special_tokens=True)),
        "its tokenizer gives other token ids for 4 of 4 prompts",
    ),
    "tokenizer.json deleted from the export": (lambda r: (r.export / "tokenizer.json").unlink(), "it holds no tokenizer.json"),
    "tokenizer.json edited without effect on the prompts": (
        lambda r: edit(r.export / "tokenizer.json", lambda t: t.update(version="1.1")),
        "its tokenizer.json is not the one that encoded the data",
    ),
    "another chat template": (other_template, "its chat template is not the one that wrote"),
    "chat template deleted": (lambda r: drop_template(r.export), "its chat template is not the one that wrote"),
    "another bos in tokenizer_config.json": (
        lambda r: edit(r.export / "tokenizer_config.json", lambda t: t.update(bos_token="<|pad|>")),
        "its chat template writes 4 of 4 prompts differently",
    ),
    "generation_config.json deleted": (lambda r: (r.export / "generation_config.json").unlink(), "it holds no generation_config.json"),
    "another end token": (
        lambda r: edit(r.export / "generation_config.json", lambda t: t.update(eos_token_id=7)),
        "its generation_config.json stops at [7]",
    ),
    "no end token": (
        lambda r: edit(r.export / "generation_config.json", lambda t: t.pop("eos_token_id")),
        "its generation_config.json stops at []",
    ),
    "end token never trained": (lambda r: change_prompts(r, end_token_ids=()), "the model was never taught to stop"),
    # what the export computes
    "logits scaled by 1 %": (scale_logits, "standard deviations from the trained model's"),
    "one logit of 12,800 moved": (one_logit, "standard deviations from the trained model's"),
    "base in place of the export": (base_in_place, "the base model is as near to the trained model"),
    "NaN in the logits": (logits_nan, "standard deviations from the trained model's"),
    "generation that goes on": (lambda r: set_list(r.generated, (5, 6, 7, 8)), "it does not stop at 1 of 4 turn ends"),
}  # fmt: skip


def drop_template(export: Path) -> None:
    (export / "chat_template.jinja").unlink()
    edit(export / "tokenizer_config.json", lambda tree: tree.update(chat_template="{{ messages }}"))


def set_list(items: list[tuple[int, ...]], value: tuple[int, ...]) -> None:
    items[0] = value


def test_a_sound_run_has_no_problems(run: Run) -> None:
    assert problems_of(run) == []


@pytest.mark.parametrize("name", SABOTAGES)
def test_every_sabotage_has_a_line_of_its_own(run: Run, name: str) -> None:
    spoil, line = SABOTAGES[name]
    spoil(run)
    assert any(line in problem for problem in problems_of(run)), problems_of(run)


def test_the_prompts_end_turns_and_hold_special_tokens(run: Run) -> None:
    special = set(AutoTokenizer.from_pretrained(run.base).all_special_ids)
    assert len(list(turn_ends(run.prompts))) == 4
    assert all(special & set(prompt.probe_ids) for prompt in run.prompts.prompts)
    assert len({prompt.probe_length for prompt in run.prompts.prompts}) > 1
