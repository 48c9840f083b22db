"""Model folders that would end in a traceback, a hang or foreign code later are refused by one line
each, before anything is paid."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.shared.errors import ModelError
from components.shared.model.source import ResolvedModel, planned_config
from tests.support.tiny_models import make_model

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("good") / "model")


@pytest.fixture
def model(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "model")


def problems_of(folder: Path) -> tuple[str, ...]:
    with pytest.raises(ModelError) as caught:
        planned_config(ResolvedModel(folder, revision=None))
    return caught.value.problems


@pytest.mark.parametrize(
    ("field", "value", "reported"),
    [
        ("hidden_size", 0, "hidden_size: got 0, must be a whole number from 1 to 16777216"),
        ("hidden_size", -64, "hidden_size: got -64, must be"),
        ("hidden_size", "64", "hidden_size: got '64', must be"),
        ("hidden_size", float("nan"), "hidden_size: got nan, must be"),
        ("hidden_size", True, "hidden_size: got True, must be"),
        ("intermediate_size", [1, -2], "intermediate_size: got -2, must be"),
        (
            "num_hidden_layers",
            10**9,
            "num_hidden_layers: got 1000000000, must be a whole number from 1 to 10000",
        ),
        ("num_attention_heads", 0, "num_attention_heads: got 0, must be"),
        ("vocab_size", 10**12, "vocab_size: got 1000000000000, must be"),
        ("max_position_embeddings", "x", "max_position_embeddings: got 'x', must be"),
        (
            "model_type",
            "../../evil",
            "model_type: got '../../evil', must be the name of an architecture",
        ),
        ("model_type", "<script>alert(1)</script>", "model_type: got '<script>"),
        ("rms_norm_eps", float("nan"), "rms_norm_eps: got nan, must be a finite number"),
        (
            "rope_parameters",
            {"rope_type": "evil", "rope_theta": 1},
            "rope_parameters: got rope_type 'evil', allowed: default, linear",
        ),
        (
            "rope_parameters",
            {"rope_type": "default", "rope_theta": "x"},
            "rope_parameters: got rope_theta 'x', must be a finite number",
        ),
        ("layer_types", ["<script>"], "layer_types: got ['<script>'], must be a list of names"),
        ("dtype", "float99", "dtype: got 'float99', allowed: float64, float32"),
        (
            "_attn_implementation",
            "kernels-community/evil",
            "which is code of a hub repository; take the field out",
        ),
        (
            "quantization_config",
            {"quant_method": "evil"},
            "quantization_config: got quant_method 'evil', allowed: mxfp4, bitsandbytes",
        ),
    ],
)
def test_a_field_that_stands_for_no_model_is_named(
    model: Path, field: str, value: Any, reported: str
) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, field: value}))
    (problem,) = problems_of(model)
    assert reported in problem


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        (
            '{"hidden_size": ' + "9" * 5000 + "}",
            "cannot be read as JSON: it has a number of more than 4,300 digits",
        ),
        ("[" * 100_000, "cannot be read as JSON: it is nested too deeply"),
        ("[]", "found list, must be a JSON object"),
    ],
    ids=["a long number", "deep", "a list"],
)
def test_a_config_that_is_no_json_object_is_named(model: Path, text: str, reported: str) -> None:
    (model / "config.json").write_text(text)
    (problem,) = problems_of(model)
    assert reported in problem


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 100)


def with_a_header(header: bytes, length: int | None = None) -> Damage:
    length = len(header) if length is None else length
    return lambda file: file.write_bytes(length.to_bytes(8, "little") + header)


def as_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def only_pickled(file: Path) -> None:
    file.rename(file.with_name("pytorch_model.bin"))


def with_an_index(places: object) -> Damage:
    return lambda file: file.with_name("model.safetensors.index.json").write_text(
        json.dumps({"weight_map": places})
    )


@pytest.mark.parametrize(
    ("damage", "reported"),
    [
        (truncated, "model.safetensors: is not whole: its header tells of"),
        (
            with_a_header(b"", 2**62),
            (
                "is no whole safetensors file: it has 8 bytes, its header would have "
                "4,611,686,018,427,387,904"
            ),
        ),
        (with_a_header(b"{}", 1000), "is no whole safetensors file"),
        (with_a_header(b"[1]"), "its header is no JSON object"),
        (with_a_header(b"[" * 100_000), "its header is no JSON object"),
        (
            with_a_header(b'{"a": {"data_offsets": "x"}}'),
            "its header does not say where its tensors are",
        ),
        (
            with_a_header(
                b'{"a": {"dtype": "F32", "shape": [25000000000000], "data_offsets": [0, '
                b"100000000000000]}}"
            ),
            "is not whole",
        ),
        (lambda file: os.truncate(file, 0), "is no whole safetensors file: it has 0 bytes"),
        (as_a_pipe, "model.safetensors: is no file"),
        (
            only_pickled,
            (
                "holds weights only as 'pytorch_model.bin', which hagane does not open: such "
                "files may run code"
            ),
        ),
        (
            with_an_index({"a": "../../etc/passwd"}),
            "names files outside of the folder: '../../etc/passwd'",
        ),
        (with_an_index({"a": "/etc/passwd"}), "names files outside of the folder"),
        (
            with_an_index({f"w{n}": f"model-{n}.safetensors" for n in range(9)}),
            "names files that are not there: 'model-0.safetensors', ",
        ),
        (with_an_index({"a": 5}), "is no index: it has no weight_map of names"),
        (with_an_index(None), "is no index"),
    ],
)
def test_weights_that_cannot_be_loaded_are_named(
    model: Path, damage: Damage, reported: str
) -> None:
    damage(model / "model.safetensors")
    (problem,) = problems_of(model)
    assert reported in problem


def test_a_config_that_is_a_pipe_is_not_waited_for(model: Path) -> None:
    as_a_pipe(model / "config.json")
    assert "is no file, must be a JSON file" in problems_of(model)[0]


def test_a_good_model_with_pickled_weights_beside_it_is_read(model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(b"never opened")
    assert planned_config(ResolvedModel(model, revision=None))["model_type"] == "llama"


def test_a_folder_with_a_config_alone_can_be_planned_for(model: Path) -> None:
    (model / "model.safetensors").unlink()
    assert planned_config(ResolvedModel(model, revision=None))["hidden_size"]
