"""`hagane doctor` on a real cluster: healthy, and broken in one way each, which it names with its mend."""

import base64
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.cluster_run import NODE_GIB, NOTHING_STAYS_S
from tests.cluster.conftest import HOST, ROOT, TestNamespace, kubectl
from tests.cluster.launcher import kubeconfig_of
from tests.integration.test_pipeline import tiny_spec
from tests.support.command_line import HAGANE, Finished, environment, hagane
from tests.support.free_port import free_port
from tests.support.s3_server import S3Server

PYTORCHJOBS = "customresourcedefinition/pytorchjobs.kubeflow.org"


class Patient:
    """A namespace, and a spec for it."""

    def __init__(self, namespace: TestNamespace, s3: S3Server, folder: Path) -> None:
        self.namespace, self.folder, self.store = namespace, folder, s3.fresh_uri()
        tree = yaml.safe_load(tiny_spec(folder, store=self.store, precision="fp32").read_text())
        self.spec = folder / "spec.yaml"
        cluster = {"cpus": 0.1, "namespace": namespace.name}
        hardware = tree["hardware"] | {"host_memory_gib": NODE_GIB}
        self.spec.write_text(yaml.safe_dump(tree | {"backend": "pytorchjob", "hardware": hardware, "cluster": cluster}))

    def doctor(self, *arguments: str, env: dict[str, str] | None = None) -> Finished:
        return hagane("doctor", self.spec, *arguments, work=self.folder / "work", env=env)

    def left(self) -> list[Any]:
        return [*self.namespace.jobs(), *self.namespace.pods("app.kubernetes.io/name=hagane")]

    def wait_until_nothing_is_left(self) -> None:
        with suppress(AssertionError):  # then the line below shows what is there
            wait_until(lambda: self.left() == [])
        assert self.left() == []

    def set_secret(self, **values: str) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        metadata = {"name": "hagane-s3", "namespace": self.namespace.name}
        self.namespace.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})


@pytest.fixture
def patient(namespace: TestNamespace, s3: S3Server, tmp_path: Path) -> Patient:
    return Patient(namespace, s3, tmp_path)


def failures(done: Finished) -> list[str]:
    """Names of the checks that failed, each told in one line."""
    lines = [line for line in done.errors if not line.startswith("waiting for ")]
    assert all(line.startswith("error: ") for line in lines), lines
    assert done.exit_code == (2 if lines else 0), done.output
    return [line.split(": ")[1] for line in lines]


def wait_until(condition: Callable[[], bool], seconds: float = NOTHING_STAYS_S) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so within {seconds:.0f} s"
        time.sleep(0.2)


def pytorchjobs_are_served() -> bool:
    return subprocess.run(["kubectl", "get", "pytorchjobs"], capture_output=True, check=False).returncode == 0


def states(done: Finished) -> dict[str, str]:
    """Of each row of the table: check -> state."""
    rows = [line.split("  ") for line in done.output.splitlines()[1:]]
    return {row[0].strip(): next(word.strip() for word in row[1:] if word.strip()) for row in rows if row[0].strip()}


def test_a_healthy_cluster_is_found_so_and_nothing_is_left_in_it(patient: Patient) -> None:
    done = patient.doctor()
    assert failures(done) == [], done.output + "\n".join(done.errors)
    assert states(done) == {
        **dict.fromkeys(("cluster", "PyTorchJob", "permissions", "no more than that", "launcher's account", "nodes"), "ok"),
        **dict.fromkeys(("worker pod", "image", "ConfigMap hagane", "Secret hagane-s3", "store"), "ok"),
        **dict.fromkeys(("permissions of KFP", "KFP"), "skipped"),
    }
    assert f"put, get, list, delete and multipart under {patient.store}/tiny work from the pod" in done.output
    assert "sets AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in done.output
    assert patient.namespace.env["AWS_SECRET_ACCESS_KEY"] not in done.output
    patient.wait_until_nothing_is_left()


def test_the_launchers_own_account_needs_no_more_for_it_and_nodes_are_skipped(patient: Patient, tmp_path: Path) -> None:
    file = kubeconfig_of("hagane-launcher", patient.namespace, tmp_path)
    done = patient.doctor("--launcher", "self", env={"KUBECONFIG": str(file)})
    assert failures(done) == [], done.output
    assert states(done)["nodes"] == "skipped"
    assert states(done)["store"] == "ok"
    patient.wait_until_nothing_is_left()


def test_a_missing_permission_is_named_with_its_role_and_one_too_many_is_warned_of(patient: Patient) -> None:
    role = next(each for each in yaml.safe_load_all((ROOT / "k8s" / "base" / "launcher-role.yaml").read_text()) if each["kind"] == "Role")
    role["metadata"]["namespace"] = patient.namespace.name
    role["rules"][0]["verbs"].remove("watch")
    role["rules"].append({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]})
    patient.namespace.apply(role)
    done = patient.doctor()
    assert failures(done) == ["permissions"], done.output
    told = "hagane-launcher may not watch pytorchjobs.kubeflow.org; k8s/base/launcher-role.yaml grants it: kubectl apply -k k8s/overlays/"
    assert told in done.errors[0]
    assert states(done)["no more than that"] == "warning"
    assert "hagane-launcher may also get secrets" in done.output


def test_a_missing_secret_is_named_with_the_command_that_makes_it(patient: Patient) -> None:
    kubectl("-n", patient.namespace.name, "delete", "secret", "hagane-s3")
    done = patient.doctor()
    assert failures(done) == ["Secret hagane-s3", "store"], done.output
    assert f"kubectl -n {patient.namespace.name} create secret generic hagane-s3 --from-literal=" in done.errors[0]
    assert "no usable credentials" in done.errors[1]


def test_a_wrong_bucket_is_named(patient: Patient) -> None:
    done = patient.doctor("--set", "store=s3://no-such-bucket/runs")
    assert failures(done) == ["store"], done.output
    assert "no bucket 'no-such-bucket' at http://" in done.errors[0]
    assert "create it (`aws s3 mb s3://no-such-bucket`), or name one that exists in `store`" in done.errors[0]


def test_a_wrong_key_is_named_with_where_the_workers_take_it_from(patient: Patient) -> None:
    patient.set_secret(AWS_ACCESS_KEY_ID="nobody", AWS_SECRET_ACCESS_KEY="not-the-right-one")
    done = patient.doctor()
    assert failures(done) == ["store"], done.output
    assert "the store does not know the access key; check AWS_ACCESS_KEY_ID" in done.errors[0]
    assert f"the workers' environment comes from ConfigMap hagane, Secret hagane-s3 in namespace {patient.namespace.name}" in done.errors[0]
    assert "not-the-right-one" not in done.output + done.errors[0]


def test_an_endpoint_that_pods_do_not_reach_is_named_though_this_machine_may_reach_it(patient: Patient) -> None:
    kubectl(
        "-n", patient.namespace.name, "patch", "configmap", "hagane", "--type=merge", "-p",
        f'{{"data": {{"AWS_ENDPOINT_URL_S3": "http://{HOST}:{free_port()}"}}}}',
    )  # fmt: skip
    done = patient.doctor()
    assert failures(done) == ["store"], done.output
    assert "no answer" in done.errors[0]
    assert "check AWS_ENDPOINT_URL_S3 and the network" in done.errors[0]


def images_with(folder: Path, **fields: str) -> dict[str, str]:
    """The environment in which images.yaml says something else of these."""
    file = folder / "images.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load((ROOT / "images" / "images.yaml").read_text()) | fields))
    return {"HAGANE_IMAGES": str(file)}


def test_a_gpu_that_no_node_has_is_named_and_all_else_is_looked_at(patient: Patient, tmp_path: Path) -> None:
    here = images_with(tmp_path, train_on_gpus="train")  # the image for GPUs is 6 GB, and not in a cluster for tests
    done = patient.doctor("--set", "hardware.gpu=rtx4090", "--set", "hardware.host_memory_gib=12", "--set", "cluster.queue=gpus", env=here)
    assert failures(done) == ["Kueue", "nodes"], done.output
    (line,) = [line for line in done.errors if line.startswith("error: nodes")]
    assert "1 without nvidia.com/gpu" in line
    assert "add GPU nodes and their device plugin" in line
    assert states(done)["store"] == "ok"


def test_an_image_that_cannot_be_pulled_and_a_missing_account_are_named(patient: Patient, tmp_path: Path) -> None:
    done = patient.doctor(env=images_with(tmp_path, tag="never-built"))
    assert failures(done) == ["image"], done.output
    assert "never-built" in done.errors[0]
    done = patient.doctor("--set", "cluster.service_account=nobody")
    assert failures(done) == ["worker pod"], done.output
    assert 'serviceaccount "nobody" not found' in done.errors[-1]


def test_an_api_server_that_does_not_answer_is_one_line_within_seconds(patient: Patient, tmp_path: Path) -> None:
    dead = kubeconfig_of("hagane-launcher", patient.namespace, tmp_path)
    config = yaml.safe_load(dead.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{free_port()}"
    dead.write_text(yaml.safe_dump(config))
    begun = time.monotonic()
    done = patient.doctor(env={"KUBECONFIG": str(dead)})
    assert time.monotonic() - begun < 30
    assert failures(done) == ["cluster"]
    assert "does not answer" in done.errors[0]
    assert "check KUBECONFIG" in done.errors[0]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_doctor_that_is_stopped_takes_its_pod_with_it(patient: Patient, how: signal.Signals) -> None:
    command = [*HAGANE, "doctor", str(patient.spec), "--set", "cluster.node_selector.nowhere=here"]  # its pod waits for ever
    with subprocess.Popen(
        command, env=environment(patient.folder / "work"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        end = time.monotonic() + 60
        while not patient.left():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        os.killpg(process.pid, how) if how == signal.SIGINT else process.send_signal(how)  # a terminal sends Ctrl-C to the whole group
        assert process.wait(30) == 128 + how
    patient.wait_until_nothing_is_left()


def test_a_cluster_without_pytorchjobs_is_named_and_the_store_is_tried_from_a_plain_pod(patient: Patient, tmp_path: Path) -> None:
    definition = yaml.safe_load(kubectl("get", PYTORCHJOBS, "-o", "yaml"))
    wait_until(lambda: kubectl("get", "pytorchjobs", "--all-namespaces", "-o", "name") == "", 90)  # others would be lost
    kept = {key: value for key, value in definition["metadata"].items() if key in ("name", "labels")}
    kubectl("delete", PYTORCHJOBS)
    try:
        done = patient.doctor()
        plain = [*patient.namespace.pods("app.kubernetes.io/name=hagane")]
    finally:
        again = {**{key: definition[key] for key in ("apiVersion", "kind", "spec")}, "metadata": kept}
        kubectl("create", "--validate=false", "-f", "-", given=yaml.safe_dump(again))
        wait_until(pytorchjobs_are_served)
    assert failures(done) == ["PyTorchJob"], done.output
    assert "this cluster has no PyTorchJob kubeflow.org/v1" in done.errors[0]
    assert "install Kubeflow's training operator 1.9" in done.errors[0]
    assert states(done)["store"] == "ok"
    assert all(pod.metadata.deletion_timestamp for pod in plain)
    assert failures(patient.doctor()) == []  # the operator takes jobs again
