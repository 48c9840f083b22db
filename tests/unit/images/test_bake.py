import json
import re
from pathlib import Path

import pytest
import yaml

from components.shared.errors import HaganeError
from components.shared.job.images import IN_THE_REPOSITORY, read_images
from images import names
from images.bake import BAKE_FILE, read_bake
from images.push import push_all, write_digests
from images.table import excess
from pipelines.local.engine import Engine

ROOT = Path(__file__).parents[3]
GIVEN = {"REPOSITORY": "registry.example.com/h", "VERSION": "1.2", "REVISION": "abc", "UNUSED": "x"}


def test_targets_have_what_they_inherit_what_they_say_and_the_variables_given() -> None:
    train = read_bake(GIVEN, ["train"])[0]
    assert train.tags == ("registry.example.com/h/train:1.2",)
    assert (train.dockerfile, train.context, train.stage) == ("images/Dockerfile", ".", "train")
    assert (train.args["TORCH"], train.args["REVISION"], train.args["LOCK"]) == (
        "torch-cpu",
        "abc",
        "train",
    )
    assert train.args["BASE"] == "docker.io/library/python:3.11-slim-bookworm"
    command = train.build_command("podman", ["--pull=never"])
    assert command[:6] == ["podman", "build", "--file", "images/Dockerfile", "--target", "train"]
    assert command[-2:] == ["--pull=never", "."]
    assert "REVISION=abc" in command


def test_groups_hold_groups_and_cuda_is_in_none_that_is_built_by_default() -> None:
    default = [target.name for target in read_bake({})]
    assert default == ["prepare", "render", "launch", "train", "export"]
    assert [target.name for target in read_bake({}, ["all"])] == [*default, "train-cuda"]
    with pytest.raises(KeyError, match="nosuch"):
        read_bake({}, ["nosuch", "train"])


def test_a_quote_in_a_variable_stays_inside_its_string() -> None:
    assert read_bake({"VERSION": 'a"b'}, ["prepare"])[0].args["VERSION"] == 'a"b'


def test_the_bake_file_builds_just_what_images_yaml_names_from_locks_that_are_there() -> None:
    targets = {target.name: target for target in read_bake({}, ["all"])}
    assert set(read_images(IN_THE_REPOSITORY).components.values()) | {"train-cuda"} == set(targets)
    for target in targets.values():
        assert (ROOT / "requirements" / f"{target.args['LOCK']}.txt").exists()
        assert f"FROM runtime AS {target.stage}\n" in (ROOT / target.dockerfile).read_text()
    for component, image in read_images(IN_THE_REPOSITORY).components.items():
        assert f"components/{component}" in targets[image].args["CODE"].split()


def test_every_variable_of_the_bake_file_is_used() -> None:
    text = BAKE_FILE.read_text()
    assert [name for name in json.loads(text)["variable"] if f"${{{name}}}" not in text] == []


def test_pushed_digests_are_written_and_all_other_lines_stay(tmp_path: Path) -> None:
    file = tmp_path / "images.yaml"
    file.write_text(IN_THE_REPOSITORY.read_text())
    digest = "sha256:" + "0" * 64
    for registry in ("registry.example.com/first", "registry.example.com/second"):
        write_digests(file, registry, {"prepare": digest, "train": digest})
    images = read_images(file)
    assert images.name("prepare") == f"registry.example.com/second/prepare@{digest}"
    assert images.name("render") == f"registry.example.com/second/render:{images.tag}"
    before, after = IN_THE_REPOSITORY.read_text().splitlines(), file.read_text().splitlines()
    assert [line for line in before if line not in after] == [
        "repository: localhost/hagane",
        "digests: {}",
    ]
    assert (
        yaml.safe_load(file.read_text())["components"]
        == yaml.safe_load(IN_THE_REPOSITORY.read_text())["components"]
    )


OTHER = "sha256:" + "1" * 64


def with_an_image_of_elsewhere(folder: Path) -> Path:
    """images.yaml as docs/result.md says for lm-evaluation-harness, after a push."""
    tree = yaml.safe_load(IN_THE_REPOSITORY.read_text())
    tree["components"]["evaluate"] = "export-lm-eval"
    tree["digests"] = {"export-lm-eval": OTHER, "train-cuda": OTHER}
    file = folder / "images.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return file


def test_a_push_keeps_the_digest_of_an_image_that_is_not_built_here_and_of_no_other(
    tmp_path: Path,
) -> None:
    file = with_an_image_of_elsewhere(tmp_path)
    digest = "sha256:" + "0" * 64
    with file.open("a") as more:
        more.write("has_lm_eval: true\n")
    write_digests(file, "registry.example.com/h", {"train": digest})
    images = read_images(file)
    assert images.digests == {"export-lm-eval": OTHER, "train": digest}
    assert images.has_lm_eval


def test_an_image_that_is_not_built_here_is_neither_pushed_nor_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = with_an_image_of_elsewhere(tmp_path)
    monkeypatch.setenv("HAGANE_IMAGES", str(file))
    names.main()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["train-cuda"]
    no_images = Engine("false")
    with pytest.raises(HaganeError) as raised:
        push_all(no_images, read_images(file), "registry.example.com/h")
    missing = "\n".join(raised.value.problems)
    assert "/train:" in missing
    assert "export-lm-eval" not in missing


def test_a_size_over_its_bound_and_a_new_package_are_reported() -> None:
    bounds = {"prepare": {"torch": 0, "dependencies": 1000, "packages": 30}}
    assert (
        excess("prepare", {"torch": 0, "dependencies": 1020, "code": 2000, "packages": 30}, bounds)
        == []
    )
    reported = excess(
        "prepare", {"torch": 0, "dependencies": 1021, "code": 3501, "packages": 31}, bounds
    )
    assert [line.split(";")[0] for line in reported] == [
        "image prepare: dependencies is 1,021, must be at most 1,020",
        "image prepare: code is 3,501, must be at most 3,500",
        "image prepare: packages is 31, must be at most 30",
    ]
    assert (
        "has no bound"
        in excess("new", {"torch": 0, "dependencies": 0, "code": 0, "packages": 0}, bounds)[0]
    )


def stage(name: str) -> str:
    """The lines of one stage of the Dockerfile, its comments left out."""
    text = (ROOT / "images" / "Dockerfile").read_text().partition(f" AS {name}\n")[2]
    lines = text.partition("\nFROM ")[0].splitlines()
    return "\n".join(line for line in lines if not line.startswith("#"))


def test_only_the_image_for_cuda_looks_for_the_driver_and_switches_compiling_off() -> None:
    settings = (
        "LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64",
        ":/usr/local/nvidia/bin",
    )
    settings += (
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        "TORCH_DISABLE_NATIVE_JIT=1",
        "TRITON_CACHE_DIR=/tmp/",
    )
    assert [each for each in settings if each not in stage("train-cuda")] == []
    assert "nvidia" not in stage("runtime") + stage("train")
    assert "NVIDIA_VISIBLE_DEVICES" not in stage("runtime") + stage("train-cuda")


def test_the_image_for_cuda_has_the_path_and_the_entry_point_of_the_other() -> None:
    (path,) = re.findall(r"PATH=(/opt/hagane\S+)", stage("runtime"))
    assert f"PATH={path}:/usr/local/nvidia/bin" in stage("train-cuda")
    assert stage("train") in stage("train-cuda")
