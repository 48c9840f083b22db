from pathlib import Path

import pytest
import yaml

from components.shared.kfp_face import image
from pipelines.finetune import STEPS

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
GOLDEN = Path(__file__).parents[2] / "golden" / "finetune.yaml"


def test_compiling_twice_gives_the_same_bytes_and_those_in_git(tmp_path: Path) -> None:
    from pipelines.compiling import compile_pipeline

    compile_pipeline(tmp_path / "a.yaml")
    compile_pipeline(tmp_path / "b.yaml")
    assert (tmp_path / "a.yaml").read_bytes() == (tmp_path / "b.yaml").read_bytes() == GOLDEN.read_bytes()


def test_every_step_runs_in_its_own_image_and_installs_nothing() -> None:
    executors = yaml.safe_load(GOLDEN.read_text())["deploymentSpec"]["executors"]
    assert {name.removeprefix("exec-").replace("-", "_") for name in executors} == set(STEPS)
    for step in STEPS:
        container = executors[f"exec-{step.replace('_', '-')}"]["container"]
        assert container["image"] == image(step)
        assert "pip" not in " ".join(container["command"])
