"""A whole run on a base in 4 bits: trained, verified with it, merged."""

import json
from pathlib import Path

import pytest
import yaml

from tests.integration.test_pipeline import ZERO3, assert_run_verified, tiny_spec

pytestmark = pytest.mark.slow


def test_a_base_in_4_bits_becomes_a_verified_adapter_and_a_merged_model(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, zero=ZERO3, precision="bf16")
    tree = yaml.safe_load(spec.read_text())
    tree["model"]["quantization"] = "nf4"
    spec.write_text(json.dumps({**tree, "export": {"merge": True}}))
    assert_run_verified(spec, tmp_path)
    run = tmp_path / "store/tiny"
    config = json.loads((run / "adapter/adapter_config.json").read_bytes())
    assert config["base_model_name_or_path"] == str(tmp_path / "model")
    for part in ("adapter", "merged"):
        proof = json.loads((run / part / "verification.json").read_bytes())
        assert proof["passed"], proof["problems"]
    assert "quantization_config" not in json.loads((run / "merged/config.json").read_bytes())
    assert "trained on 4-bit weights" in (run / "adapter/README.md").read_text()
