"""A published adapter is measured on the base as that adapter was trained on it."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from components.evaluate.measure import looking
from components.evaluate.measure.looking import Look, Models, PublishedExport, at_published
from components.shared.documents.plan import Precision
from components.shared.documents.results import BaseModel
from components.shared.errors import RunFailed

HUB = BaseModel(hub_id="org/base", commit="a" * 40)


class _Model:
    def eval(self) -> "_Model":
        return self


class _Look:
    def at(self, model: object, *, questions: bool) -> None:
        """Nothing is measured."""


def export(folder: Path, base: BaseModel) -> Path:
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    (folder / "adapter_config.json").write_text("{}")
    (folder / "base.json").write_text(base.model_dump_json(exclude_none=True))
    return folder


def in_4_bits(base: BaseModel, precision: Precision | None) -> BaseModel:
    return base.model_copy(update={"quantized_from": precision})


def measured_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, published: BaseModel, own: BaseModel
) -> Precision | None:
    """What the base is quantized from while the published adapter is on it."""
    loaded: list[Precision | None] = []

    def load(models: Models) -> _Model:
        loaded.append(models.quantized_from)
        return _Model()

    def adapted(model: _Model, adapter: Path) -> _Model:
        return model

    monkeypatch.setattr(looking, "load_base", load)
    monkeypatch.setattr(looking.PeftModel, "from_pretrained", adapted)
    models = Models(
        base=folder,
        export=export(folder / "own", own),
        dtype=torch.float32,
        published=PublishedExport(export(folder / "published", published), "p v1"),
        quantized_from=own.quantized_from,
    )
    at_published(models, cast("Look", cast("Any", _Look())))
    (found,) = loaded
    return found


@pytest.mark.parametrize("published", ["bf16", None])
@pytest.mark.parametrize("own", ["bf16", "fp32", None])
def test_the_base_is_held_as_the_published_adapter_was_trained_on_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    published: Precision | None,
    own: Precision | None,
) -> None:
    found = measured_on(
        tmp_path, monkeypatch, published=in_4_bits(HUB, published), own=in_4_bits(HUB, own)
    )
    assert found == published


def test_another_base_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = HUB.model_copy(update={"commit": "b" * 40})
    with pytest.raises(RunFailed, match="is an adapter of another base model"):
        measured_on(tmp_path, monkeypatch, published=other, own=HUB)
