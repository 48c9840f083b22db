"""Definitions in Git on a real API server with the real CRDs of KFP: applied in order, applied again, compared.

KFP's own server, whose webhook refuses a version before its pipeline and any change of one, is not there: that order is kept is seen from
what is applied, and from waves and folders.
"""

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from components.shared.job.images import IN_THE_REPOSITORY
from tests.cluster.conftest import kubectl
from tests.support.command_line import Finished, hagane

KINDS = "pipelines.pipelines.kubeflow.org,pipelineversions.pipelines.kubeflow.org"


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace of its own, in a cluster that has KFP's CRDs."""
    there = kubectl("get", "crd", "--output", "name")
    if not all(f"crd/{kind}" in there or f"/{kind}" in there for kind in KINDS.split(",")):
        pytest.skip(f"needs the CRDs {KINDS} of kubeflow/pipelines, manifests/kustomize/base/crds")
    name = f"test-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def compiled(folder: Path, tag: str, *more: str) -> str:
    """Definitions with images of this tag are in the folder. Returns the version's name."""
    images = folder.parent / "images.yaml"
    images.write_text(re.sub(r"(?m)^tag: .*$", f"tag: {tag}", IN_THE_REPOSITORY.read_text()))
    done = hagane("compile", "--manifests", folder, *more, work=folder.parent, env={"HAGANE_IMAGES": str(images)})
    assert done.exit_code == 0, done.errors
    found = re.search(r"(?:written|unchanged) .*/versions/(.*)\.yaml", done.output)
    assert found is not None
    return found[1]


def diff(folder: Path) -> Finished:
    return hagane("diff", folder, "--kubernetes", work=folder.parent)


def apply(folder: Path) -> list[str]:
    """kubectl's line for each file, in its order."""
    return [re.sub(r"\.pipelines\.kubeflow\.org", "", line) for line in kubectl("apply", "-R", "-f", str(folder)).splitlines()]


def test_definitions_are_applied_in_order_then_unchanged_and_new_content_is_a_new_object(namespace: str, tmp_path: Path) -> None:
    folder = tmp_path / "definitions"
    first = compiled(folder, "1.0.0", "--namespace", namespace)
    before = diff(folder)
    assert (before.exit_code, before.output.splitlines()[-1]) == (1, "2 differences")
    assert apply(folder) == ["pipeline/hagane-finetune created", f"pipelineversion/hagane-finetune-{first} created"]
    assert (diff(folder).exit_code, diff(folder).output) == (0, "0 differences\n")
    assert apply(folder) == ["pipeline/hagane-finetune unchanged", f"pipelineversion/hagane-finetune-{first} unchanged"]

    second = compiled(folder, "2.0.0")
    assert second != first
    shown = diff(folder)
    assert shown.exit_code == 1
    assert f"+ version {second}: only in Git" in shown.output
    assert re.search(r"    \+ .*image: localhost/hagane/export:2\.0\.0", shown.output)
    assert set(apply(folder)[1:]) == {
        f"pipelineversion/hagane-finetune-{first} unchanged",
        f"pipelineversion/hagane-finetune-{second} created",
    }
    assert diff(folder).exit_code == 0

    kept = json.loads(kubectl("get", KINDS, "--namespace", namespace, "--output", "json"))["items"]
    assert [each["kind"] for each in kept] == ["Pipeline", "PipelineVersion", "PipelineVersion"]
    written = yaml.safe_load((folder / "versions" / f"{second}.yaml").read_text())
    (there,) = (each for each in kept if each["spec"].get("versionName") == second)
    assert there["spec"] == written["spec"]  # the CRD keeps every field


def test_what_somebody_changed_in_the_cluster_is_told(namespace: str, tmp_path: Path) -> None:
    folder = tmp_path / "definitions"
    version = compiled(folder, "1.0.0", "--namespace", namespace)
    apply(folder)
    patch = json.dumps([{"op": "replace", "path": "/spec/pipelineSpec/pipelineInfo/name", "value": "something-else"}])
    kubectl("patch", KINDS.partition(",")[2], f"hagane-finetune-{version}", "--namespace", namespace, "--type=json", "--patch", patch)
    kubectl(
        "patch",
        KINDS.partition(",")[0],
        "hagane-finetune",
        "--namespace",
        namespace,
        "--type=merge",
        "--patch",
        '{"spec":{"displayName":"x"}}',
    )
    shown = diff(folder)
    assert shown.exit_code == 1
    assert f"~ version {version}: differs" in shown.output
    assert "    -  name: something-else" in shown.output
    assert "~ pipeline hagane-finetune: differs" in shown.output
    assert "    -displayName: x" in shown.output


def test_a_folder_and_a_namespace_without_right_are_told_in_one_line(namespace: str, tmp_path: Path) -> None:
    compiled(tmp_path / "definitions", "1.0.0", "--namespace", "default")
    env = {"KUBECONFIG": str(tmp_path / "nobody")}
    done = hagane("diff", tmp_path / "definitions", "--kubernetes", work=tmp_path, env=env)
    assert (done.exit_code, len(done.errors)) == (2, 1)
    assert done.errors[0].startswith("error: kubectl: ")
