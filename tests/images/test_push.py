"""`make push` to a real registry: distribution's own server, of Debian's package docker-registry, on this machine alone."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from components.shared.errors import HaganeError
from components.shared.job.images import IN_THE_REPOSITORY, Images, read_images
from images.push import push_all, write_digests
from pipelines.local.engine import Engine

SMALL = 'FROM scratch\nCOPY NAME /NAME\nLABEL org.opencontainers.image.revision="{revision}" hagane.test=push\n'
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of an empty registry."""
    if shutil.which("docker-registry") is None:
        pytest.skip("no registry to push to: install Debian's package docker-registry")
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    storage = {"filesystem": {"rootdirectory": str(folder / "data")}}
    (folder / "config.yml").write_text(yaml.safe_dump({"version": 0.1, "storage": storage, "http": {"addr": address}}))
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        _wait_for(address, server)
        yield address
    finally:
        server.terminate()
        server.wait()


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    host, port = address.split(":")
    for _ in range(100):
        assert server.poll() is None
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"no registry at {address}")


@pytest.fixture
def small(engine: Engine) -> Iterator[Images]:
    """Names of images that are gone after the test."""
    images = Images(repository="localhost/hagane-push-test", tag="1", components={"train": "train", "evaluate": "export"})
    yield images
    engine.output("rmi", "--force", *set(engine.output("images", "--quiet", "--filter", "label=hagane.test=push").split()))


def build_small(engine: Engine, images: Images, folder: Path, *, revision: str) -> None:
    """The images are there, of one file each."""
    for name in images.components.values():
        context = folder / name
        context.mkdir()
        (context / "NAME").write_text(name)
        (context / "Dockerfile").write_text(SMALL.format(revision=revision))
        engine.output("build", "--quiet", "--tag", images.name(name), str(context))


def test_digests_in_images_yaml_are_those_of_the_registry(
    engine: Engine, registry: str, small: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAGANE_PUSH_FLAGS", "--tls-verify=false" if engine.program == "podman" else "")
    build_small(engine, small, tmp_path, revision="a" * 40)
    digests = push_all(engine, small, f"{registry}/team")
    file = tmp_path / "images.yaml"
    file.write_text(IN_THE_REPOSITORY.read_text())
    write_digests(file, f"{registry}/team", digests)
    for name, digest in digests.items():
        assert read_images(file).name(name) == f"{registry}/team/{name}@{digest}"
        request = urllib.request.Request(f"http://{registry}/v2/team/{name}/manifests/{digest}", headers={"Accept": MANIFEST})
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["schemaVersion"] == 2
    assert len(set(digests.values())) == 2


def test_images_of_uncommitted_files_and_missing_ones_are_refused_before_the_first_push(
    engine: Engine, registry: str, small: Images, tmp_path: Path
) -> None:
    build_small(engine, small, tmp_path, revision="b" * 40 + "-dirty")
    images = small.model_copy(update={"components": small.components | {"render_config": "not-built"}})
    with pytest.raises(HaganeError) as raised:
        push_all(engine, images, f"{registry}/refused")
    assert ["not on this machine" in problem or "must be from a commit" in problem for problem in raised.value.problems] == [True] * 3
    with urllib.request.urlopen(f"http://{registry}/v2/_catalog") as answer:
        assert [name for name in json.load(answer)["repositories"] if name.startswith("refused")] == []


def test_an_image_for_gpus_goes_along_if_it_is_of_the_same_commit(engine: Engine, registry: str, small: Images, tmp_path: Path) -> None:
    build_small(engine, small, tmp_path, revision="d" * 40)
    images = small.model_copy(update={"train_on_gpus": "train-cuda"})
    engine.output("rmi", "--force", "--ignore", images.training(on_gpus=True))
    flags = {"HAGANE_PUSH_FLAGS": "--tls-verify=false" if engine.program == "podman" else ""}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(*flags.popitem())
        assert set(push_all(engine, images, f"{registry}/gpus")) == {"train", "export"}
        for revision, is_pushed in (("e" * 40, False), ("d" * 40, True)):
            (tmp_path / "train" / "Dockerfile").write_text(SMALL.format(revision=revision))
            engine.output("build", "--quiet", "--tag", images.training(on_gpus=True), str(tmp_path / "train"))
            if is_pushed:
                assert "train-cuda" in push_all(engine, images, f"{registry}/gpus")
            else:
                with pytest.raises(HaganeError, match="must be from one commit"):
                    push_all(engine, images, f"{registry}/gpus")


def test_a_push_that_fails_is_told_in_one_line(engine: Engine, small: Images, tmp_path: Path) -> None:
    build_small(engine, small, tmp_path, revision="c" * 40)
    with pytest.raises(HaganeError, match="the push failed: "):
        push_all(engine, small, "127.0.0.1:1/nobody")
