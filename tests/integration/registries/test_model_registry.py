"""`hagane publish --model-registry`: Kubeflow's own client against its published API schema.

The registry's server is not on PyPI. Here a stand-in answers, and reads every body by
the client's classes of the schema. The client is in no lock file; `make test-registries` gets
it into a folder of its own.
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.shared.store.storage import open_store
from tests.integration.registries.conftest import MakeRun
from tests.support.command_line import Finished, hagane
from tests.support.hub_repository import hub_repository
from tests.support.model_registry import ModelRegistryServer, model_registry_server

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("model_registry") is None,
    reason="needs the package model-registry, which no lock file has: run make test-registries",
)
TOKEN = "nobodysToken"


@pytest.fixture
def registry() -> Iterator[ModelRegistryServer]:
    with model_registry_server(token=TOKEN) as running:
        yield running


def publish(run: str, address: str, tmp_path: Path, *, token: str = TOKEN) -> Finished:
    (tmp_path / "token").write_text(token)
    arguments = ("publish", run, "--name", "support", "--model-registry", address)
    env = {"KF_PIPELINES_SA_TOKEN_PATH": str(tmp_path / "token")}
    done = hagane(*arguments, work=tmp_path / "work", env=env)
    assert TOKEN not in done.output + "".join(done.errors)
    return done


def test_a_published_version_is_a_model_a_version_and_an_artifact_once(
    run_in_s3: str, registry: ModelRegistryServer, tmp_path: Path
) -> None:
    store = run_in_s3.rpartition("/")[0]
    done = publish(run_in_s3, registry.address, tmp_path)
    assert done.exit_code == 0, done.errors
    assert done.output.splitlines() == [
        f"support v1  {store}/published/support/v0001",
        f"registry  support v1 (made) at {registry.address}",
    ]
    (model,), (version,), (artifact,) = registry.models, registry.versions, registry.artifacts
    assert (model["name"], version["name"]) == ("support", "v1")
    assert version["registeredModelId"] == model["id"]
    assert artifact["parent"] == version["id"]
    assert artifact["uri"] == f"{store}/published/support/v0001/adapter"
    assert artifact["modelFormatName"] == "peft"
    facts = version["customProperties"]
    assert facts["hagane.run"]["string_value"] == run_in_s3
    evaluation = json.loads(open_store(run_in_s3).read_bytes("evaluation/evaluation.json"))
    assert facts["tuned.loss"]["double_value"] == evaluation["tuned"]["loss"]
    again = publish(run_in_s3, registry.address, tmp_path)
    assert again.output.splitlines()[1] == f"registry  support v1 (was there) at {registry.address}"
    assert (len(registry.versions), len(registry.artifacts)) == (1, 1)


def test_a_version_of_another_model_is_left_alone(
    run_in_s3: str, registry: ModelRegistryServer, tmp_path: Path
) -> None:
    registry.models.append({"id": "1", "name": "support"})
    registry.versions.append({"id": "1", "name": "v1", "registeredModelId": "1"})
    done = publish(run_in_s3, registry.address, tmp_path)
    assert done.exit_code == 1
    assert done.errors[-1] == (
        f"error: {registry.address}: no entry for support v1, which is published: it has another "
        "v1 of support, with the artifact nothing. Fix: publish under another --name; to archive "
        "that one does not free its name"
    )
    assert registry.artifacts == []


def test_a_push_that_broke_off_before_its_artifact_is_ended_by_the_same_command(
    run_in_s3: str, registry: ModelRegistryServer, tmp_path: Path
) -> None:
    store = run_in_s3.rpartition("/")[0]
    registry.refused = "POST .*/artifacts"
    first = publish(run_in_s3, registry.address, tmp_path)
    assert first.exit_code == 1
    assert (len(registry.versions), registry.artifacts) == (1, [])
    registry.refused = None
    done = publish(run_in_s3, registry.address, tmp_path)
    assert done.exit_code == 0, done.errors
    assert done.output.splitlines()[1] == f"registry  support v1 (made) at {registry.address}"
    (version,), (artifact,) = registry.versions, registry.artifacts
    assert (artifact["parent"], artifact["name"]) == (version["id"], "support")
    assert artifact["uri"] == f"{store}/published/support/v0001/adapter"
    assert artifact["modelFormatName"] == "peft"
    again = publish(run_in_s3, registry.address, tmp_path)
    assert again.output.splitlines()[1] == f"registry  support v1 (was there) at {registry.address}"


def test_a_registry_that_fails_after_its_check_does_not_stop_the_next(
    run_in_s3: str, registry: ModelRegistryServer, tmp_path: Path
) -> None:
    registry.healthy_requests = 1
    (tmp_path / "token").write_text(TOKEN)
    with hub_repository("my-org/support", token="hf_notARealToken") as hub:
        env = {**hub.env, "HF_HOME": str(tmp_path / "home")}
        env["KF_PIPELINES_SA_TOKEN_PATH"] = str(tmp_path / "token")
        arguments = ("publish", run_in_s3, "--name", "support", "--push-to-hub", "my-org/support")
        more = ("--model-registry", registry.address)
        done = hagane(*arguments, *more, work=tmp_path / "work", env=env)
        assert done.exit_code == 1
        assert done.output.splitlines()[1:] == [
            f"hub       {hub.endpoint}/my-org/support at v1 (made)"
        ]
    assert done.errors[-1].startswith(
        f"error: {registry.address}: no entry for support v1, which is published: "
        "ServiceException: (503)"
    )


def test_what_cannot_be_entered_is_refused_before_anything_is_published(
    make_run: MakeRun, run_in_s3: str, registry: ModelRegistryServer, tmp_path: Path
) -> None:
    denied = publish(run_in_s3, registry.address, tmp_path, token="anothersToken")
    nobody = publish(run_in_s3, "http://127.0.0.1:9", tmp_path)
    assert [denied.exit_code, nobody.exit_code] == [2, 2]
    assert "does not answer as a Model Registry (UnauthorizedException" in denied.errors[-1]
    assert "http://127.0.0.1:9 does not answer as a Model Registry" in nobody.errors[-1]
    assert "anothersToken" not in "".join(denied.errors)
    assert list(open_store(run_in_s3.rpartition("/")[0]).list("published/")) == []
