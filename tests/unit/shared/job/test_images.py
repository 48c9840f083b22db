from pathlib import Path

import pytest

from components.shared.errors import SpecError
from components.shared.job.images import LOCAL_IMAGES, read_images, refuse_local_images

DIGEST = "sha256:" + "a" * 64
GOOD = f"""
repository: registry.example.com:5000/team/hagane
tag: 1.0.0
components: {{prepare_dataset: prepare, train: train}}
digests: {{train: "{DIGEST}"}}
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "images.yaml"
    file.write_text(text)
    return file


def test_a_name_ends_in_the_digest_where_it_is_known_and_else_in_the_tag(tmp_path: Path) -> None:
    images = read_images(written(tmp_path, GOOD))
    assert images.of("train") == f"registry.example.com:5000/team/hagane/train@{DIGEST}"
    assert images.of("prepare_dataset") == "registry.example.com:5000/team/hagane/prepare:1.0.0"


def test_images_that_may_move_are_reported_each_in_a_line(tmp_path: Path) -> None:
    reported = read_images(written(tmp_path, GOOD)).moving()
    assert len(reported) == 1
    assert "hagane/prepare:1.0.0 is a tag" in reported[0]


def test_the_workers_image_is_another_on_gpus_and_asked_for_only_where_it_is_named(
    tmp_path: Path,
) -> None:
    pushed_without = read_images(written(tmp_path, f"train_on_gpus: train-cuda\n{GOOD}"))
    images = pushed_without.model_copy(update={"digests": {}})
    assert images.training(on_gpus=False) == images.of("train")
    assert images.training(on_gpus=True) == "registry.example.com:5000/team/hagane/train-cuda:1.0.0"
    assert images.training(on_gpus=True) in images.names()
    assert len(images.moving()) == len(images.names())
    for without in (pushed_without, read_images(written(tmp_path, GOOD))):
        assert len(without.names()) == len(images.names()) - 1
        with pytest.raises(SpecError, match="train_on_gpus: names no image that was pushed"):
            without.training(on_gpus=True)


def test_every_wrong_field_is_reported_in_a_line_of_its_own(tmp_path: Path) -> None:
    file = written(
        tmp_path, "repository: Reg istry\ntag: 1\ndigests: {train: sha256:12}\nmore: x\n"
    )
    with pytest.raises(SpecError) as raised:
        read_images(file)
    reported = raised.value.problems
    assert sorted(line.removeprefix(f"{file}: ").split(":")[0] for line in reported) == [
        *("components", "digests.train", "more", "repository", "tag"),
    ]
    assert any("repository: got 'Reg istry', must be a registry" in line for line in reported)
    assert any("components: missing, must name an image" in line for line in reported)


@pytest.mark.parametrize("text", ["[1", "", "just words"], ids=["no YAML", "nothing", "no mapping"])
def test_a_file_that_is_no_mapping_is_reported(text: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"images\.yaml:(1:)? "):
        read_images(written(tmp_path, text))


def test_the_environment_may_name_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAGANE_IMAGES", str(written(tmp_path, GOOD)))
    assert read_images().tag == "1.0.0"
    monkeypatch.setenv("HAGANE_IMAGES", str(tmp_path / "not-there.yaml"))
    with pytest.raises(SpecError, match="HAGANE_IMAGES must name a file"):
        read_images()


def test_a_component_without_an_image_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"components\.evaluate: missing"):
        read_images(written(tmp_path, GOOD)).of("evaluate")


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1:5000"])
def test_images_that_no_cluster_can_pull_are_refused_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    text = GOOD.replace("registry.example.com:5000", host)
    images = read_images(written(tmp_path, text))
    monkeypatch.delenv(LOCAL_IMAGES)
    with pytest.raises(SpecError, match=f"{host}/team/hagane/….*Fix: make push REGISTRY="):
        refuse_local_images(images)
    refuse_local_images(read_images(written(tmp_path, GOOD)))
    monkeypatch.setenv(LOCAL_IMAGES, "1")
    refuse_local_images(images)
