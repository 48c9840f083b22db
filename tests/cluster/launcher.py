"""The launcher's account of k8s/base as one who talks to a real API server: with its own token, and nothing else."""

import base64
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config

from components.launch_training.kubernetes_api.client import Cluster
from tests.cluster.conftest import TestNamespace, kubectl


def kubeconfig_of(account: str, namespace: TestNamespace, folder: Path) -> Path:
    """A kubeconfig that holds an account's token, for the namespace."""
    admin = yaml.safe_load(kubectl("config", "view", "--raw", "--minify", "--flatten"))
    (secret,) = namespace.core.read_namespaced_service_account(account, namespace.name).secrets
    token = base64.b64decode(namespace.core.read_namespaced_secret(secret.name, namespace.name).data["token"]).decode()
    context = {"cluster": admin["clusters"][0]["name"], "user": account, "namespace": namespace.name}
    written = {
        **{key: admin[key] for key in ("apiVersion", "kind", "clusters")},
        "users": [{"name": account, "user": {"token": token}}],
        "contexts": [{"name": account, "context": context}],
        "current-context": account,
    }
    file = folder / f"{account}.kubeconfig"
    file.write_text(yaml.safe_dump(written))
    return file


def cluster_as(file: Path) -> Cluster:
    """The launcher's own client with this kubeconfig; that of the tests stays as it was."""
    loader: Any = config.kube_config
    before, admin = loader.KUBE_CONFIG_DEFAULT_LOCATION, client.Configuration.get_default_copy()
    loader.KUBE_CONFIG_DEFAULT_LOCATION = str(file)
    try:
        return Cluster()
    finally:
        loader.KUBE_CONFIG_DEFAULT_LOCATION = before
        client.Configuration.set_default(admin)
