"""docs/kfp.md on a real API server: the whole tutorial, those commands included that need a cluster.

Argo CD and Flux are not there: their kinds are made here, with open schemas, so that what the tutorial applies for them is parsed and kept.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.definitions.files import LABELS
from tests.cluster.conftest import kubectl
from tests.cluster.test_definitions import KINDS
from tests.integration.test_kfp_tutorial import COMMANDS, tutorial_env
from tests.support.kfp import kfp_server
from tests.support.tutorials import run_commands

CONTROLLERS = {
    "applications.argoproj.io": ("v1alpha1", "Application"),
    "gitrepositories.source.toolkit.fluxcd.io": ("v1", "GitRepository"),
    "kustomizations.kustomize.toolkit.fluxcd.io": ("v1", "Kustomization"),
}
NAMESPACES = ("kubeflow", "argocd", "flux-system")


def open_crd(name: str, version: str, kind: str) -> dict[str, Any]:
    plural, _, group = name.partition(".")
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [{"name": version, "served": True, "storage": True, "schema": schema}]
    spec = {"group": group, "names": names, "scope": "Namespaced", "versions": versions}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def controllers() -> Iterator[None]:
    """The kinds of Argo CD and Flux, and the namespaces of the tutorial; what was made here is gone afterwards."""
    there = kubectl("get", "crd,namespace", "--output", "name")
    if not all(f"/{kind}" in there for kind in KINDS.split(",")):
        pytest.skip(f"needs the CRDs {KINDS} of kubeflow/pipelines, manifests/kustomize/base/crds")
    if any(f"/{name}" in there.split() for name in CONTROLLERS):
        pytest.skip("Argo CD or Flux is installed here, which this test would set to work")
    made = [name for name in NAMESPACES if f"namespace/{name}" not in there.split()]
    for name in made:
        kubectl("create", "namespace", name)
    crds = [open_crd(name, *kind) for name, kind in CONTROLLERS.items()]
    kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": crds}))
    kubectl("wait", "--for=condition=Established", "--timeout=30s", *(f"crd/{name}" for name in CONTROLLERS))
    yield
    kubectl("delete", "crd", *CONTROLLERS)
    kubectl("delete", KINDS, "--namespace", "kubeflow", "--selector", ",".join(f"{key}={value}" for key, value in LABELS.items()))
    for name in made:
        kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.usefixtures("controllers")
def test_every_command_of_the_tutorial_does_what_it_says_on_a_cluster(tmp_path: Path) -> None:
    repository = tmp_path / "training"
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    with kfp_server() as server:
        done = run_commands(COMMANDS, repository, tutorial_env(tmp_path, server.endpoint))
    assert [(line, code) for line, code, _ in done] == [(each.line, each.expected) for each in COMMANDS], done[-1][2]
    output = {line: said for line, _, said in done}
    applied = output["kubectl apply -R -f definitions"].splitlines()
    assert applied[0] == "pipeline.pipelines.kubeflow.org/hagane-finetune created"
    assert applied[1].startswith("pipelineversion.pipelines.kubeflow.org/hagane-finetune-")
    kept = json.loads(kubectl("get", *[",".join(CONTROLLERS)], "--all-namespaces", "--output", "json"))["items"]
    assert sorted(each["kind"] for each in kept) == ["Application", "GitRepository", "Kustomization", "Kustomization"]
