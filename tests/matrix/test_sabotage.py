"""One thing of a finished run is spoiled -> a line that names it, nothing published, `latest` where
it was: `make test-matrix`.

One tiny run is trained for all. A sabotage changes files, and where a thief of time would, the
manifests with them: then no checksum says it. What is not refused by checksums and provenance must
be refused by the fresh process that compares logits.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch
import yaml
from safetensors.torch import load_file, save_file

from components.evaluate.step import evaluate_run
from components.export_adapter.step import export_run
from components.shared.errors import HaganeError
from components.shared.step import open_run
from components.shared.store.layout import CHECKPOINTS, DATASET, PLAN
from components.shared.store.manifest import publish_folder, require_manifest
from components.shared.store.published import Claim, claim_version, make_latest, versions
from components.shared.store.publishing import publish_run
from components.shared.store.storage import LocalStore
from tests.support.trained_run import ATTEMPT, make_trained_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

EPOCH = "checkpoints/epoch-0001"
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Spoiled:
    """What a sabotage may change."""

    run: Path
    base: Path


Spoil = Callable[[Spoiled], object]


def republish(
    run: Path,
    folder: str,
    change: Callable[[Path], object],
    *,
    inputs: dict[str, str] | None = None,
) -> None:
    """The folder's files are changed, and its manifest says so."""
    store, manifest = LocalStore(run), require_manifest(LocalStore(run), folder)
    copy = run.parent / "republished"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run / folder, copy, ignore=shutil.ignore_patterns("epoch-*", "manifest.json"))
    change(copy)
    shutil.rmtree(run / folder) if folder != CHECKPOINTS else (
        run / folder / "manifest.json"
    ).unlink()
    publish_folder(
        store,
        folder,
        copy,
        made_by=manifest.made_by,
        inputs=inputs or manifest.inputs,
        facts=manifest.facts,
    )


def adapter(change: Callable[[Tensors], Tensors]) -> Spoil:
    """Of the last checkpoint."""

    def spoil(found: Spoiled) -> None:
        def changed(folder: Path) -> None:
            path = folder / ATTEMPT / "adapter_model.safetensors"
            save_file(
                {
                    name: tensor.clone().contiguous()
                    for name, tensor in change(load_file(path)).items()
                },
                path,
            )

        republish(found.run, EPOCH, changed)

    return spoil


def adapter_config(**fields: Any) -> Spoil:
    def changed(folder: Path) -> None:
        path = folder / ATTEMPT / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))

    return lambda found: republish(found.run, EPOCH, changed)


def without(name: str) -> Spoil:
    return lambda found: republish(
        found.run, EPOCH, lambda folder: (folder / ATTEMPT / name).unlink()
    )


def probe(change: Callable[[Tensors], Tensors]) -> Spoil:
    def changed(folder: Path) -> None:
        path = folder / "probe.safetensors"
        save_file(
            {name: tensor.clone().contiguous() for name, tensor in change(load_file(path)).items()},
            path,
        )

    return lambda found: republish(found.run, CHECKPOINTS, changed)


def prompts(change: Callable[[dict[str, Any]], dict[str, Any]], *, relink: bool = False) -> Spoil:
    """With `relink`, plan/ says that it was made from the changed dataset."""

    def changed(folder: Path) -> None:
        path = folder / "prompts.json"
        path.write_text(json.dumps(change(json.loads(path.read_bytes()))))

    def spoil(found: Spoiled) -> None:
        republish(found.run, DATASET, changed)
        if relink:
            republish(
                found.run,
                PLAN,
                lambda _: None,
                inputs={"dataset": require_manifest(LocalStore(found.run), DATASET).digest},
            )

    return spoil


def plan(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Spoil:
    def changed(folder: Path) -> None:
        path = folder / "plan.json"
        path.write_text(json.dumps(change(json.loads(path.read_bytes()))))

    return lambda found: republish(found.run, PLAN, changed)


def flipped(path: Callable[[Spoiled], Path]) -> Spoil:
    """A bit of the file's last byte, for which no manifest is changed."""

    def spoil(found: Spoiled) -> None:
        content = bytearray(path(found).read_bytes())
        content[-1] ^= 0x80
        path(found).write_bytes(content)

    return spoil


def base_json(name: str, **fields: Any) -> Spoil:
    def spoil(found: Spoiled) -> None:
        path = found.base / name
        path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))

    return spoil


def exchange_ids(found: Spoiled) -> None:
    path = found.base / "tokenizer.json"
    tree = json.loads(path.read_bytes())
    vocabulary = tree["model"]["vocab"]
    vocabulary["h"], vocabulary["e"] = vocabulary["e"], vocabulary["h"]
    path.write_text(json.dumps(tree))


def base_weights(change: Callable[[Tensors], Tensors]) -> Spoil:
    def spoil(found: Spoiled) -> None:
        path = found.base / "model.safetensors"
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return spoil


def with_nan(tensors: Tensors) -> Tensors:
    name = next(name for name in tensors if "lora_B" in name or "mlp" in name)
    tensors[name].view(-1)[0] = torch.nan
    return tensors


def swapped_layers(tensors: Tensors) -> Tensors:
    return {
        name.replace("layers.0.", "layers.X.")
        .replace("layers.1.", "layers.0.")
        .replace("layers.X.", "layers.1."): t
        for name, t in tensors.items()
    }


def first_only(tensors: Tensors) -> Tensors:
    return {
        "tokens": tensors["tokens"][:1],
        "lengths": torch.tensor([1]),
        "logits": tensors["logits"][:1],
    }


def of_base(found: Spoiled) -> None:
    """The probe is the untrained model's: an adapter without effect would pass."""
    from transformers import AutoModelForCausalLM

    from components.export_adapter.verification.logits import prompt_logits
    from components.shared.documents.prompts import read_prompts

    logits = prompt_logits(
        AutoModelForCausalLM.from_pretrained(found.base).eval(), read_prompts(found.run / DATASET)
    )
    probe(lambda tensors: {**tensors, "logits": logits})(found)


BEFORE_EXPORT: dict[str, tuple[Spoil, str]] = {
    "two ids exchanged in the base's tokenizer": (
        exchange_ids,
        "tokenizer.json: found sha256 .*, the data was prepared with",
    ),
    "the base's tokenizer.json deleted": (
        lambda found: (found.base / "tokenizer.json").unlink(),
        "holds no tokenizer.json",
    ),
    "the base's tokenizer settings edited": (
        base_json("tokenizer_config.json", eos_token="<|pad|>"),
        "tokenizer_config.json: found sha256",
    ),
    "another chat template in the base": (
        lambda found: (found.base / "chat_template.jinja").write_text("{{ messages }}"),
        "holds a chat_template.jinja, the data was prepared without one",
    ),
    "another config of the base": (
        base_json("config.json", rms_norm_eps=0.1),
        "config.json: found sha256",
    ),
    "a generation config added to the base": (
        lambda found: (found.base / "generation_config.json").write_text('{"eos_token_id": 7}'),
        "generation_config.json",
    ),
    "a sign flipped in the base's weights": (
        flipped(lambda found: found.base / "model.safetensors"),
        "standard deviations from the trained",
    ),
    "NaN in the base's weights": (
        base_weights(with_nan),
        "standard deviations from the trained model's",
    ),
    "layers exchanged in the base": (
        base_weights(swapped_layers),
        "standard deviations from the trained model's",
    ),
    "an emptied matrix": (
        adapter(lambda t: {**t, next(iter(t)): torch.zeros(0, 64)}),
        "1 matrices are empty",
    ),
    "every B zero": (
        adapter(lambda t: {n: w * ("lora_B" not in n) for n, w in t.items()}),
        "all 14 B matrices are zero",
    ),
    "a layer's matrices absent": (
        adapter(lambda t: {n: w for n, w in t.items() if "layers.1." not in n}),
        "14 matrices are absent",
    ),
    "matrices of a layer that is not there": (
        adapter(lambda t: {**t, "base_model.model.x.lora_A.weight": torch.ones(4, 64)}),
        "of layers that",
    ),
    "matrices of another rank": (
        adapter(lambda t: {n: w[:2] if "lora_A" in n else w[:, :2] for n, w in t.items()}),
        "of another shape than the plan's rank",
    ),
    "NaN in a matrix": (adapter(with_nan), "1 matrices are not finite"),
    "layers exchanged in the adapter": (
        adapter(swapped_layers),
        "standard deviations from the trained model's",
    ),
    "B larger by a hundredth": (
        adapter(lambda t: {n: w * 1.01 if "lora_B" in n else w for n, w in t.items()}),
        "standard deviations from",
    ),
    "A and B with the other sign": (
        adapter(lambda t: {n: -w if "lora_A" in n else w for n, w in t.items()}),
        "standard deviations from",
    ),
    "another scale in the adapter's config": (
        adapter_config(lora_alpha=64.0),
        "lora_alpha: found 64",
    ),
    "fewer layers in the adapter's config": (
        adapter_config(target_modules=["q_proj"]),
        "target_modules: found",
    ),
    "no config beside the adapter": (
        without("adapter_config.json"),
        "holds no adapter_config.json",
    ),
    "no adapter in the checkpoint": (
        without("adapter_model.safetensors"),
        "holds no adapter_model.safetensors",
    ),
    "a byte of the adapter flipped": (
        flipped(lambda found: found.run / EPOCH / ATTEMPT / "adapter_model.safetensors"),
        "damaged: found",
    ),
    "the adapter's file deleted": (
        lambda found: (found.run / EPOCH / ATTEMPT / "adapter_model.safetensors").unlink(),
        "is not there, though its manifest names it",
    ),
    "the checkpoint's manifest deleted": (
        lambda found: (found.run / EPOCH / "manifest.json").unlink(),
        "last checkpoint there is of epoch none",
    ),
    "a probe of one token": (probe(first_only), "holds 1 prompts, the data has 4"),
    "a probe of other tokens": (
        probe(lambda t: {**t, "tokens": t["tokens"] + 1}),
        "prompt 1 has token",
    ),
    "a probe without lengths": (
        probe(lambda t: {n: w for n, w in t.items() if n != "lengths"}),
        "holds no lengths",
    ),
    "a probe of NaN": (
        probe(lambda t: {**t, "logits": t["logits"] * torch.nan}),
        "its logits are not finite",
    ),
    "a probe of equal logits": (
        probe(lambda t: {**t, "logits": torch.ones_like(t["logits"])}),
        "its logits are all equal",
    ),
    "a probe of the untrained model": (of_base, "standard deviations from the trained model's"),
    "a byte of the probe flipped": (
        flipped(lambda found: found.run / CHECKPOINTS / "probe.safetensors"),
        "probe.safetensors: damaged",
    ),
    "prompts left out": (
        prompts(lambda tree: {**tree, "prompts": tree["prompts"][:1]}),
        "plan: was made from another dataset",
    ),
    "prompts left out, and the plan linked to it": (
        prompts(lambda tree: {**tree, "prompts": tree["prompts"][:1]}, relink=True),
        "holds 4 prompts, the data has 1",
    ),
    "another template, and the plan linked to it": (
        prompts(lambda tree: {**tree, "chat_template": tree["chat_template"] + " "}, relink=True),
        "prompts.json: has another chat template",
    ),
    "an end token that was never trained": (
        prompts(lambda tree: {**tree, "end_token_ids": []}, relink=True),
        "was never taught to stop",
    ),
    "prompts.json deleted": (
        lambda found: republish(
            found.run, DATASET, lambda folder: (folder / "prompts.json").unlink()
        ),
        "prompts.json: found no such file",
    ),
    "a plan of another training": (
        plan(lambda tree: {**tree, "training_digest": "8" * 64}),
        "checkpoints: are of another training",
    ),
    "another revision of the base": (
        plan(lambda tree: {**tree, "model": {**tree["model"], "revision": "a" * 40}}),
        "plan: model.revision: found",
    ),
    "a plan of another rank": (
        plan(lambda tree: {**tree, "lora": {**tree["lora"], "rank": 8}}),
        "found 4, the plan has 8|of another shape",
    ),
}


def exported(change: Callable[[Path], object]) -> Spoil:
    """The export that was verified is changed, and its manifest says so; the evaluation before it
    stays."""

    def spoil(found: Spoiled) -> None:
        republish(found.run, "adapter", change)

    return spoil


def exported_weights(factor: float) -> Spoil:
    def changed(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        save_file(
            {name: factor * w if "lora_B" in name else w for name, w in load_file(path).items()},
            path,
        )

    return exported(changed)


def refused_verification(folder: Path) -> None:
    path = folder / "verification.json"
    path.write_text(
        json.dumps(
            {
                **json.loads(path.read_bytes()),
                "passed": False,
                "problems": ["its logits are elsewhere"],
            }
        )
    )


def edited_gate(found: Spoiled) -> None:
    path = found.run / "evaluation/evaluation.json"
    path.write_text(path.read_text().replace('"improved"', '"Improved"'))


AFTER_EXPORT: dict[str, tuple[Spoil, str]] = {
    "an export that is weaker than the verified one": (
        exported_weights(0.5),
        "adapter_model.safetensors is not the file that was verified",
    ),
    "an export that pulls the other way": (
        exported_weights(-4),
        "held-out loss must fall below the base model's by more than noise: .* worse",
    ),
    "another template in the export": (
        exported(lambda folder: (folder / "chat_template.jinja").write_text("{{ messages }}")),
        "chat_template.jinja is not the file that was verified",
    ),
    "an export whose verification failed": (
        exported(refused_verification),
        "its verification failed: its logits are elsewhere",
    ),
    "a byte of the export flipped": (
        flipped(lambda found: found.run / "adapter/adapter_model.safetensors"),
        "damaged: found",
    ),
    "a byte of the held-out rows flipped": (
        flipped(lambda found: found.run / "dataset/held_out.parquet"),
        "held_out.parquet: damaged",
    ),
}
ONLY_PUBLISHED: dict[str, tuple[Spoil, str]] = {
    "an export that the evaluation is not of": (
        exported_weights(1.0001),
        "evaluation/ is of another export",
    ),
    "an evaluation edited by hand": (edited_gate, "evaluation.json: damaged"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run exported and evaluated, and another model published before it, as v1."""
    folder = tmp_path_factory.mktemp("sabotage")
    run = make_trained_run(folder, architecture="llama", method="lora")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAGANE_WORK", str(folder / "work"))
        export_run(run, structlog.get_logger())
        evaluate_run(run, structlog.get_logger())
        store = LocalStore(folder / "store")
        (folder / "before").mkdir()
        (folder / "before/adapter_model.safetensors").write_bytes(b"another model")
        number = claim_version(store, "support", Claim(run="another", export="another"))
        publish_folder(
            store,
            "published/support/v0001",
            folder / "before",
            made_by="publish",
            inputs={},
            facts={"export": "adapter"},
        )
        make_latest(store, "support", number, why="published", instead_of=0)
        spec = Path(run, "spec.yaml")
        spec.write_text(
            yaml.safe_dump(
                {**yaml.safe_load(spec.read_text()), "publish": {"name": "support"}},
                sort_keys=False,
            )
        )
        yield folder


@pytest.fixture
def found(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spoiled]:
    """A copy of the store; the base, which the plan names by its path, is put back after the
    test."""
    monkeypatch.setenv("HAGANE_WORK", str(tmp_path / "work"))
    shutil.copytree(folder / "store", tmp_path / "store")
    run, base = tmp_path / "store/tiny", folder / "base"
    spec = run / "spec.yaml"
    spec.write_text(spec.read_text().replace(str(folder / "store"), str(tmp_path / "store")))
    kept = shutil.copytree(base, tmp_path / "kept")
    yield Spoiled(run, base)
    shutil.rmtree(base)
    shutil.copytree(kept, base)


def refused(found: Spoiled, act: Callable[[], object], line: str) -> None:
    """The act is refused with the line, and what is published is as it was."""
    place = found.run.parent / "published"
    before = {path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}
    with pytest.raises(HaganeError, match=line) as error:
        act()
    print("  ", error.value.problems[0])
    assert {
        path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()
    } == before
    assert [(each.label, each.is_latest) for each in versions(LocalStore(found.run.parent))] == [
        ("v1", True)
    ]


@pytest.mark.parametrize("name", BEFORE_EXPORT)
def test_run_that_was_spoiled_before_its_export_is_refused(name: str, found: Spoiled) -> None:
    for step in ("adapter", "evaluation"):
        shutil.rmtree(found.run / step)
    spoil, line = BEFORE_EXPORT[name]
    spoil(found)
    refused(
        found,
        lambda: (
            export_run(str(found.run), structlog.get_logger()),
            evaluate_run(str(found.run), structlog.get_logger()),
        ),
        line,
    )
    assert not (found.run / "adapter").exists()


@pytest.mark.parametrize("name", AFTER_EXPORT)
def test_run_that_was_spoiled_after_its_export_is_refused(name: str, found: Spoiled) -> None:
    shutil.rmtree(found.run / "evaluation")
    spoil, line = AFTER_EXPORT[name]
    spoil(found)
    refused(found, lambda: evaluate_run(str(found.run), structlog.get_logger()), line)


@pytest.mark.parametrize("name", ONLY_PUBLISHED)
def test_run_that_was_spoiled_after_its_evaluation_is_refused(
    name: str, found: Spoiled, tmp_path: Path
) -> None:
    spoil, line = ONLY_PUBLISHED[name]
    spoil(found)
    store, spec = open_run(str(found.run))
    refused(
        found, lambda: publish_run(store, spec, name="support", work=tmp_path / "publish"), line
    )


def test_run_that_nobody_spoiled_is_published(found: Spoiled) -> None:
    export_run(str(found.run), structlog.get_logger())
    evaluate_run(str(found.run), structlog.get_logger())
    assert [(each.label, each.is_latest) for each in versions(LocalStore(found.run.parent))] == [
        ("v1", False),
        ("v2", True),
    ]
