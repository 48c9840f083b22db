import re
from pathlib import Path

import pytest
import yaml

from components.shared.images import IN_THE_REPOSITORY, read_images
from components.shared.kfp_face import image
from images.push import write_digests
from pipelines.finetune import STEPS
from tests.command_line import hagane

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


def test_every_image_of_the_yaml_is_one_of_images_yaml_and_the_trainers_is_told_to_the_launcher() -> None:
    tree = yaml.safe_load(GOLDEN.read_text())
    named = {executor["container"]["image"] for executor in tree["deploymentSpec"]["executors"].values()}
    launch = tree["root"]["dag"]["tasks"]["launch-training"]["inputs"]["parameters"]["train_image"]
    named.add(launch["runtimeValue"]["constant"])
    images = read_images(IN_THE_REPOSITORY)
    assert named == {images.of(component) for component in images.components}


@pytest.mark.parametrize("change", ["tag: 0.1.1", "  train: train-cuda"], ids=["a tag", "the trainer's image alone"])
def test_a_changed_image_name_changes_the_version_of_the_pipeline(change: str, tmp_path: Path) -> None:
    key = change.partition(":")[0]
    changed = re.sub(rf"(?m)^{key}: .*$", change, IN_THE_REPOSITORY.read_text())
    (tmp_path / "images.yaml").write_text(changed)
    usual = hagane("compile", tmp_path / "a.yaml", work=tmp_path)
    other = hagane("compile", tmp_path / "b.yaml", work=tmp_path, env={"HAGANE_IMAGES": str(tmp_path / "images.yaml")})
    versions = [done.output.split()[-1] for done in (usual, other)]
    assert all(re.fullmatch("[0-9a-f]{12}", version) for version in versions)
    assert versions[0] != versions[1]
    assert change.partition(": ")[2] in (tmp_path / "b.yaml").read_text()


def test_a_schedule_is_refused_images_that_may_move(tmp_path: Path) -> None:
    done = hagane("compile", tmp_path / "a.yaml", "--pinned", work=tmp_path)
    assert done.exit_code == 2
    assert len(done.errors) == len(set(read_images(IN_THE_REPOSITORY).components.values()))
    assert all("is a tag, which can be moved" in line for line in done.errors)
    assert not (tmp_path / "a.yaml").exists()
    pinned = dict.fromkeys(read_images(IN_THE_REPOSITORY).components.values(), "sha256:" + "1" * 64)
    (tmp_path / "images.yaml").write_text(IN_THE_REPOSITORY.read_text())
    write_digests(tmp_path / "images.yaml", "registry.example.com/hagane", pinned)
    done = hagane("compile", tmp_path / "a.yaml", "--pinned", work=tmp_path, env={"HAGANE_IMAGES": str(tmp_path / "images.yaml")})
    assert done.exit_code == 0, done.errors
    assert (tmp_path / "a.yaml").read_text().count("@sha256:" + "1" * 64) == 7
