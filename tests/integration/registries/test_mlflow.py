"""`hagane publish --mlflow`: MLflow's own client against MLflow's own server.

MLflow is in no lock file; `make test-registries` gets it into a folder of its own.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode

import pytest

from components.shared.store.storage import open_store
from tests.integration.registries.conftest import MakeRun
from tests.support.command_line import Finished, hagane
from tests.support.free_port import free_port

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None or importlib.util.find_spec("flask") is None,
    reason="needs MLflow's server, which no lock file has: run make test-registries",
)
PASSWORD = "nobodysPassword"


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real server, its tables in SQLite."""
    folder = tmp_path_factory.mktemp("mlflow")
    address = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", address.rpartition(":")[2], "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(address, server, folder / "log")
            yield address
        finally:
            os.killpg(server.pid, 15)
            server.wait()


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/health"):
                return
        except URLError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def asked(address: str, call: str, body: Any = None, **query: str) -> Any:
    """The answer of MLflow's REST API, without its client."""
    url = f"{address}/api/2.0/mlflow/{call}" + (f"?{urlencode(query)}" if query else "")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def publish(run: str, address: str, name: str, tmp_path: Path, **env: str) -> Finished:
    arguments = ("publish", run, "--name", name, "--mlflow", address)
    return hagane(*arguments, work=tmp_path / "work", env=env)


def test_a_published_version_has_a_run_and_a_model_version_once(
    run_in_s3: str, mlflow: str, tmp_path: Path
) -> None:
    store = run_in_s3.rpartition("/")[0]
    done = publish(run_in_s3, mlflow, "support", tmp_path)
    assert done.exit_code == 0, done.errors
    assert done.output.splitlines() == [
        f"support v1  {store}/published/support/v0001",
        f"MLflow    version 1 (made) at {mlflow}",
    ]
    entry = asked(mlflow, "model-versions/get", name="support", version="1")["model_version"]
    assert entry["source"] == f"{store}/published/support/v0001/adapter"
    assert entry["status"] == "READY"
    lineage = json.loads(open_store(store).read_bytes("published/support/v0001/lineage.json"))
    tags = {each["key"]: each["value"] for each in entry["tags"]}
    assert tags["hagane.run"] == run_in_s3
    assert tags["hagane.version"] == "v1"
    assert tags["hagane.dataset_sha256"] == lineage["dataset"]["manifest_sha256"]
    run = asked(mlflow, "runs/get", run_id=entry["run_id"])["run"]
    assert run["info"]["status"] == "FINISHED"
    params = {each["key"]: each["value"] for each in run["data"]["params"]}
    assert (params["training.method"], params["training.epochs"]) == ("lora", "1")
    assert params["lora.rank"] == "4"
    plan = json.loads(open_store(run_in_s3).read_bytes("plan/plan.json"))
    assert params["training.lr_peak"] == str(plan["learning_rate"])
    assert params["training.micro_batch"] == str(plan["steps"]["micro_batch"])
    assert params["zero.stage"] == str(plan["zero"]["stage"])
    assert params["lora.targets"] == ", ".join(plan["lora"]["target_modules"])
    assert "auto" not in params.values()
    metrics = {each["key"]: each["value"] for each in run["data"]["metrics"]}
    evaluation = json.loads(open_store(run_in_s3).read_bytes("evaluation/evaluation.json"))
    assert metrics["base.loss"] == evaluation["base"]["loss"]
    assert metrics["tuned.loss"] == evaluation["tuned"]["loss"]
    curve = {"run_id": entry["run_id"], "metric_key": "held_out_loss"}
    points = asked(mlflow, "metrics/get-history", **curve)["metrics"]
    assert [point["value"] for point in points] == [6.0, 5.0]
    again = publish(run_in_s3, mlflow, "support", tmp_path)
    assert again.output.splitlines() == [
        "support: this export was published before; nothing is changed",
        f"MLflow    version 1 (was there) at {mlflow}",
    ]
    found = asked(mlflow, "model-versions/search", filter="name = 'support'")
    assert len(found["model_versions"]) == 1


def test_a_run_that_broke_off_is_made_anew_and_only_the_whole_one_is_used(
    run_in_s3: str, mlflow: str, tmp_path: Path
) -> None:
    assert publish(run_in_s3, mlflow, "halved", tmp_path).exit_code == 0
    entry = asked(mlflow, "model-versions/get", name="halved", version="1")["model_version"]
    whole = entry["run_id"]
    # As a program leaves it that was killed before it had said all of the run.
    asked(mlflow, "runs/update", {"run_id": whole, "status": "RUNNING"})
    request = urllib.request.Request(
        f"{mlflow}/api/2.0/mlflow/model-versions/delete",
        json.dumps({"name": "halved", "version": "1"}).encode(),
        {"Content-Type": "application/json"},
        method="DELETE",
    )
    urllib.request.urlopen(request).close()
    assert publish(run_in_s3, mlflow, "halved", tmp_path).exit_code == 0
    entry = asked(mlflow, "model-versions/get", name="halved", version="2")["model_version"]
    assert entry["run_id"] != whole
    assert asked(mlflow, "runs/get", run_id=whole)["run"]["info"]["lifecycle_stage"] == "deleted"


def test_what_cannot_be_entered_is_refused_before_anything_is_published(
    make_run: MakeRun, run_in_s3: str, mlflow: str, tmp_path: Path
) -> None:
    in_a_folder = publish(make_run(str(tmp_path / "folder")), mlflow, "support", tmp_path)
    nobody = publish(run_in_s3, "http://127.0.0.1:9", "support", tmp_path)
    secret = publish(run_in_s3, f"http://me:{PASSWORD}@127.0.0.1:9", "support", tmp_path)
    no_address = publish(run_in_s3, "databricks", "support", tmp_path)
    done = [in_a_folder, nobody, secret, no_address]
    assert [each.exit_code for each in done] == [2, 2, 2, 2]
    assert "MLflow takes no folder as the source of a model" in in_a_folder.errors[-1]
    assert "http://127.0.0.1:9 does not answer as MLflow" in nobody.errors[-1]
    assert "the address holds credentials" in secret.errors[-1]
    assert "must be an address such as https://host:port" in no_address.errors[-1]
    said = "".join(each.output + "".join(each.errors) for each in done)
    assert PASSWORD not in said
    assert list(open_store(run_in_s3.rpartition("/")[0]).list("published/")) == []
