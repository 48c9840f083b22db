import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.shared.job.images import read_images
from components.shared.spec.file import parse_spec
from components.shared.spec.run_spec import RunSpec
from pipelines.local.containers import container_problems, container_settings, unreadable

ENDPOINT = "AWS_ENDPOINT_URL_S3"


def spec_at(folder: Path, **model: str) -> RunSpec:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data/train.jsonl").write_text("")
    (folder / "model").mkdir(exist_ok=True)
    return parse_spec(
        {
            "name": "demo",
            "store": "s3://bucket/runs",
            "model": {"source": str(folder / "model"), **model},
            "data": {"train": "data/train.jsonl"},
        }
    )


def test_files_of_the_spec_are_read_only_at_the_paths_that_the_spec_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = container_settings(spec_at(tmp_path), uid=7).run_arguments()
    bound = {mount["Target"]: mount for mount in arguments["mounts"] if mount["Type"] == "bind"}
    assert {str(tmp_path / "data/train.jsonl"), str(tmp_path / "model")} <= set(bound)
    assert all(mount["ReadOnly"] and mount["Source"] == target for target, mount in bound.items())
    assert arguments["working_dir"] == str(tmp_path)
    assert (arguments["user"], arguments["read_only"], arguments["cap_drop"]) == ("7:0", True, ["ALL"])


def test_a_model_in_the_home_folder_is_found_in_the_containers_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    arguments = container_settings(spec_at(tmp_path, source="~/model"), uid=7).run_arguments()
    assert ("/hagane/model", str(tmp_path / "model")) in [(mount["Target"], mount["Source"]) for mount in arguments["mounts"]]


def test_a_hub_id_is_no_file_to_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = container_settings(spec_at(tmp_path, source="org/name"), uid=7).read_only_paths
    assert Path("org/name") not in paths
    assert Path("data/train.jsonl") in paths


@pytest.mark.parametrize(
    ("endpoint", "network"),
    [("http://127.0.0.1:9000", "host"), ("http://localhost:9000", "host"), ("https://s3.example.com", "bridge"), ("", "bridge")],
)
def test_only_a_store_of_this_machine_alone_takes_the_machines_network(
    endpoint: str, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ENDPOINT, endpoint)
    assert container_settings(spec_at(tmp_path), uid=7).network == network


def test_of_the_environment_only_what_a_step_needs_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    certificates = tmp_path / "ca.pem"
    certificates.write_text("")
    for name, value in {"AWS_REGION": "eu-1", "MY_TOKEN": "secret", "AWS_CA_BUNDLE": str(certificates)}.items():
        monkeypatch.setenv(name, value)
    settings = container_settings(spec_at(tmp_path), uid=7)
    assert settings.environment["AWS_REGION"] == "eu-1"
    assert settings.environment["AWS_CA_BUNDLE"] == str(certificates)
    assert certificates in settings.read_only_paths
    assert "MY_TOKEN" not in settings.environment


@pytest.mark.parametrize(("mode", "readable"), [(0o600, False), (0o644, True), (0o640, True)], ids=["owner", "all", "group 0"])
def test_files_that_the_containers_user_cannot_read_are_found(mode: int, readable: bool, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir(mode=0o755)
    file = folder / "model.safetensors"
    file.touch()
    file.chmod(mode)
    if file.stat().st_gid != 0 and mode == 0o640:
        pytest.skip("files here are not of group 0")
    assert unreadable(folder, 1000660000) == (None if readable else file)


def test_a_gpu_is_refused_where_no_container_would_get_one(tmp_path: Path) -> None:
    tree = {"name": "t", "store": "s3://b/r", "model": {"source": "org/m"}, "data": {"train": "s3://b/d"}, "hardware": {"gpu": "t4"}}
    engine: Any = SimpleNamespace(has_image=lambda _: True)
    (problem,) = container_problems(parse_spec(tree), read_images(), engine, uid=os.getuid() or 7)
    assert problem.startswith("hardware: names a GPU, but --runner docker hands none to its containers")
