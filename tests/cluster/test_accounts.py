"""Every account that pipelines run under, on a real API server: it may do what hagane and KFP need,
and what else is refused."""

import base64
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from components.prepare_dataset.claim import check_account
from components.shared.errors import ClusterError
from components.shared.events import event_of
from components.shared.job import pod_account
from components.shared.job.permissions import (
    BIND,
    KFP_POD_PERMISSIONS,
    Permission,
    launcher_permissions,
)
from components.shared.log import set_up_log
from components.shared.spec.file import parse_spec
from tests.cluster.conftest import TestNamespace, kubectl
from tests.cluster.kfp_accounts import CRD, CallingPod, by_kfp, kfps_own, may, overlay_in
from tests.cluster.launcher import kubeconfig_of
from tests.support.command_line import environment
from tests.unit.k8s.test_schemas import OVERLAYS

PYTHON_IMAGE = os.environ.get(
    "HAGANE_TEST_PYTHON_IMAGE", "docker.io/library/python:3.11-slim-bookworm"
)
NEEDED = (*launcher_permissions("pytorchjob"), *KFP_POD_PERMISSIONS)
BEYOND = (
    Permission("get", "", "secrets", "another"),
    Permission("list", "", "secrets"),
    Permission("get", "", "configmaps", "another"),
    Permission("create", "", "pods"),
    Permission("delete", "", "pods"),
    Permission("delete", "argoproj.io", "workflowtaskresults"),
    Permission("create", "rbac.authorization.k8s.io", "rolebindings"),
    Permission("get", "", "nodes"),
)
ACCOUNTS = {
    "hagane-launcher": "kfp-single-user",
    "pipeline-runner": "kfp-single-user",
    "default-editor": "kfp-profile",
    "hagane-worker": "kfp-single-user",
}
"""Account -> the overlay that makes it enough."""


@pytest.fixture(scope="module")
def argo() -> Iterator[None]:
    """The API server knows Argo's results of tasks, which its executor writes."""
    kubectl("apply", "--validate=false", "-f", "-", given=yaml.safe_dump(CRD))
    kubectl(
        "wait",
        "--for=condition=Established",
        "crd/workflowtaskresults.argoproj.io",
        "--timeout=30s",
    )
    yield
    kubectl("delete", "crd", "workflowtaskresults.argoproj.io")


@pytest.fixture
def empty(argo: None) -> Iterator[TestNamespace]:
    """A namespace with what a stock KFP has in its own, and no account yet."""
    found = TestNamespace(
        f"test-{uuid.uuid4().hex[:8]}", client.CoreV1Api(), client.CustomObjectsApi(), {}
    )
    kubectl("create", "namespace", found.name)
    found.apply(*kfps_own(found.name))
    yield found
    found.core.delete_namespace(found.name)


def with_account(namespace: TestNamespace, account: str, overlay: str) -> None:
    """The account as KFP makes it, then the overlay."""
    if not account.startswith("hagane-"):
        namespace.apply(*by_kfp(account, namespace.name))
    namespace.apply(*overlay_in(overlay, namespace.name))
    end = time.monotonic() + 20
    while not namespace.core.read_namespaced_service_account(account, namespace.name).secrets:
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_enough_for_hagane_and_for_kfp(overlay: str, empty: TestNamespace) -> None:
    with_account(empty, "hagane-launcher", overlay)
    backends = ("pytorchjob", "trainjob")
    needed = {
        each
        for backend in backends
        for each in (*launcher_permissions(backend), *KFP_POD_PERMISSIONS)
    }
    known = {
        each for each in needed if each.group != "trainer.kubeflow.org"
    }  # can-i looks a kind up, and TrainJob is not served here
    assert {str(each) for each in known if not may("hagane-launcher", each, empty.name)} == set()
    assert {str(each) for each in BEYOND if may("hagane-launcher", each, empty.name)} == set()


def test_every_right_of_four_accounts(empty: TestNamespace) -> None:
    """Run with -s to see the table."""
    for account, overlay in ACCOUNTS.items():
        with_account(empty, account, overlay)
    table = {
        str(each): {account: may(account, each, empty.name) for account in ACCOUNTS}
        for each in (*NEEDED, *BEYOND)
    }
    print("\n| may | " + " | ".join(ACCOUNTS) + " |\n|---|" + "---|" * len(ACCOUNTS))
    for right, answers in table.items():
        print(
            f"| {right} | "
            + " | ".join("yes" if answer else "no" for answer in answers.values())
            + " |"
        )
    for each in NEEDED:
        expected = {account: account != "hagane-worker" for account in ACCOUNTS}
        assert table[str(each)] == expected, each
    for each in BEYOND:
        answers = {
            account: answer
            for account, answer in table[str(each)].items()
            if account != "pipeline-runner"
        }
        assert not any(answers.values()), (
            each
        )  # what KFP lets its own account do beside that is not hagane's to say


@pytest.mark.parametrize("account", list(ACCOUNTS))
def test_pods_like_those_of_kfp_do_what_they_must_under_each_account(
    account: str, empty: TestNamespace
) -> None:
    with_account(empty, account, ACCOUNTS[account])
    pod = CallingPod(account, empty.name, PYTHON_IMAGE)
    empty.apply(pod.manifest())
    answers = json.loads(printed(pod, empty))
    print(f"\n{account}: {answers}")
    if account == "hagane-worker":
        assert set(answers.values()) == {403}
        return
    for what, status in answers.items():
        if what.startswith("refused: ") and account != "pipeline-runner":
            assert status == 403, what
        elif not what.startswith("refused: "):
            assert status in (200, 201), what
    assert answers["refused: get secret elsewhere"] == 403


def test_the_stock_account_of_kfp_lacks_two_rights_and_the_launcher_alone_lacks_kfps(
    empty: TestNamespace,
) -> None:
    """What was missing before: the overlay adds just that."""
    empty.apply(*by_kfp("pipeline-runner", empty.name))
    lacking = [str(each) for each in NEEDED if not may("pipeline-runner", each, empty.name)]
    assert lacking == ["list events", "watch events"]
    without = [
        each
        for each in overlay_in("kfp-single-user", empty.name)
        if each["metadata"]["name"] != "hagane-kfp-pod"
    ]
    empty.apply(*without)
    lacking = [str(each) for each in NEEDED if not may("hagane-launcher", each, empty.name)]
    assert lacking == [str(each) for each in KFP_POD_PERMISSIONS]


def test_the_doctor_judges_each_account_by_what_hagane_and_kfp_need(
    empty: TestNamespace, tmp_path: Path
) -> None:
    controller = {"templateDefaults": "retryStrategy: {limit: '2', retryPolicy: OnError}"}
    metadata = {"name": "workflow-controller-configmap", "namespace": empty.name}
    empty.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": controller})
    empty.apply(*by_kfp("pipeline-runner", empty.name))
    found = findings("pipeline-runner", empty, tmp_path)
    assert found["permissions"] == (
        "failed",
        "pipeline-runner may not list, watch events",
        f"k8s/base/launcher-role.yaml grants it: {BIND}",
    )
    for account in ("pipeline-runner", "hagane-launcher"):
        with_account(empty, account, "kfp-single-user")
        found = findings(account, empty, tmp_path)
        checks = ("permissions", "permissions of KFP", "no more than that", "KFP's retries")
        assert {name: found[name][0] for name in checks} == dict.fromkeys(checks, "ok"), found
    assert (
        "retryPolicy OnError: a pod that is lost is started again, a step that failed is not"
        in found["KFP's retries"][1]
    )
    assert found["permissions of KFP"][1].startswith(
        "hagane-launcher may do all 4 things that KFP's driver"
    )


def findings(
    account: str, namespace: TestNamespace, folder: Path
) -> dict[str, tuple[str, str, str]]:
    """Check -> state, what was found, how to fix it; as an admin asks about the account."""
    command = [
        sys.executable,
        "-m",
        "components.launch_training.doctor",
        "--launcher",
        account,
        "--namespace",
        namespace.name,
    ]
    env = {**environment(folder), "HAGANE_LOG": "json"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    events = [event for event in map(event_of, done.stdout.splitlines()) if event is not None]
    print("\n".join(f"{event['check']}: {event['state']}: {event['found']}" for event in events))
    return {event["check"]: (event["state"], event["found"], event["fix"]) for event in events}


def printed(pod: CallingPod, namespace: TestNamespace) -> str:
    """What the pod printed, when it has ended; a skip where the node has no image for it."""
    end = time.monotonic() + 120
    while True:
        status: Any = namespace.core.read_namespaced_pod(pod.name, pod.namespace).status
        if status.phase in ("Succeeded", "Failed"):
            return namespace.core.read_namespaced_pod_log(
                pod.name, pod.namespace, _preload_content=False
            ).data.decode()
        waiting = [
            each.state.waiting.reason
            for each in status.container_statuses or []
            if each.state.waiting is not None
        ]
        if {"ErrImagePull", "ImagePullBackOff"} & set(waiting):
            pytest.skip(
                f"the node has no image {pod.image}: load it, or name another in "
                "HAGANE_TEST_PYTHON_IMAGE"
            )
        assert time.monotonic() < end, status
        time.sleep(0.3)


@pytest.fixture
def as_pod_of(empty: TestNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """This process asks the API server as a pod of the account would: by its token, in the first
    second of a run."""

    def become(account: str) -> None:
        kubeconfig = yaml.safe_load(kubeconfig_of(account, empty, tmp_path).read_text())
        cluster = kubeconfig["clusters"][0]["cluster"]
        host, _, port = cluster["server"].removeprefix("https://").rpartition(":")
        (tmp_path / "token").write_text(kubeconfig["users"][0]["user"]["token"])
        (tmp_path / "namespace").write_text(empty.name)
        (tmp_path / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        monkeypatch.setattr(pod_account, "ACCOUNT", tmp_path)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)

    return become


SPEC = parse_spec(
    {
        "name": "r",
        "store": "s3://b/r",
        "model": {"source": "m"},
        "data": {"train": "d"},
        "backend": "pytorchjob",
    }
)


@pytest.mark.parametrize("account", ["hagane-launcher", "pipeline-runner", "default-editor"])
def test_the_first_second_of_a_run_finds_nothing_missing_with_the_overlay(
    account: str, empty: TestNamespace, as_pod_of: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with_account(empty, account, ACCOUNTS[account])
    as_pod_of(account)
    check_account(SPEC, set_up_log("claim"))
    assert "kfp_may_not" not in capsys.readouterr().out


def test_the_first_second_of_a_run_names_what_is_missing_and_the_file_that_grants_it(
    empty: TestNamespace, as_pod_of: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    empty.apply(*by_kfp("pipeline-runner", empty.name))
    with_account(empty, "hagane-worker", "kfp-single-user")
    kubectl("-n", empty.name, "delete", "rolebinding", "hagane-pipeline-runner")
    as_pod_of("pipeline-runner")
    with pytest.raises(ClusterError) as caught:
        check_account(SPEC, set_up_log("claim"))
    start = (
        f"in namespace {empty.name}: not allowed (403); k8s/base/launcher-role.yaml grants it. "
        "Fix: kubectl apply -k k8s/overlays/"
    )
    assert [
        line.startswith(f"cluster: may not {verb} events {start}")
        for verb, line in zip(("list", "watch"), caught.value.problems, strict=True)
    ] == [True, True]
    as_pod_of("hagane-worker")
    with pytest.raises(ClusterError):
        check_account(SPEC, set_up_log("claim"))
    warned = capsys.readouterr().out
    assert warned.count("event=kfp_may_not") == len(KFP_POD_PERMISSIONS)
    assert "granted_by=k8s/base/kfp-pod-role.yaml" in warned
