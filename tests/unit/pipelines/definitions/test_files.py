"""Definitions in Git: what is written, that it is what KFP's own compiler writes, and what a change by hand comes to."""

import ast
import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions

from components.shared.errors import RunFailed, SpecError
from pipelines.definitions.diff import differences
from pipelines.definitions.files import Definition, check_fresh, definitions_of, from_manifest, read_definitions, write_definitions
from pipelines.finetune.compiled import CompiledPipeline
from pipelines.finetune.compiling import compiled_pipeline
from pipelines.finetune.pipeline import finetune

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def compiled() -> CompiledPipeline:
    return compiled_pipeline()


def changed(compiled: CompiledPipeline, description: str) -> CompiledPipeline:
    """The same pipeline with another description."""
    first, *rest = compiled.documents
    return CompiledPipeline(({**first, "pipelineInfo": {**first["pipelineInfo"], "description": description}}, *rest))


def written(folder: Path, compiled: CompiledPipeline, *, namespace: str | None = None, prune: bool = False) -> dict[str, str]:
    return dict(write_definitions(folder, compiled, namespace, prune=prune))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_object_a_file_the_same_bytes_every_time(compiled: CompiledPipeline, tmp_path: Path) -> None:
    pipeline, version = "pipelines/hagane-finetune.yaml", f"versions/{compiled.version_name}.yaml"
    assert written(tmp_path / "a", compiled) == {pipeline: "written", version: "written"}
    assert written(tmp_path / "b", compiled) == {pipeline: "written", version: "written"}
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert written(tmp_path / "a", compiled) == {pipeline: "unchanged", version: "unchanged"}
    assert [each.name for each in read_definitions(tmp_path / "a")] == ["hagane-finetune", compiled.version_name]


def test_the_objects_are_those_of_kfps_compiler_with_labels_and_waves(compiled: CompiledPipeline, tmp_path: Path) -> None:
    options: Any = KubernetesManifestOptions(
        pipeline_name="hagane-finetune",
        pipeline_display_name=compiled.display_name,
        pipeline_version_name=f"hagane-finetune-{compiled.version_name}",  # as KFP's REST API calls the object
        namespace="kubeflow",
        include_pipeline_manifest=True,
    )
    compiler.Compiler().compile(
        finetune,  # pyright: ignore[reportArgumentType]
        str(tmp_path / "theirs.yaml"),
        kubernetes_manifest_format=True,
        kubernetes_manifest_options=options,
    )
    theirs = {each["kind"]: each for each in yaml.safe_load_all((tmp_path / "theirs.yaml").read_text())}
    for ours in (copy.deepcopy(each.manifest()) for each in definitions_of(compiled, "kubeflow")):
        other = theirs[ours["kind"]]
        assert (ours["apiVersion"], ours["metadata"]["name"]) == (other["apiVersion"], other["metadata"]["name"])
        for spec in (ours["spec"], other["spec"]):  # theirs ships each component's source with its comments
            for executor in spec.get("pipelineSpec", {}).get("deploymentSpec", {}).get("executors", {}).values():
                executor["container"]["command"] = [ast.dump(ast.parse(executor["container"]["command"][-1]))]
        for key in ("pipelineName", "pipelineSpec", "platformSpec"):
            assert ours["spec"].get(key) == other["spec"].get(key)
        assert ours["spec"].keys() - other["spec"].keys() == ({"versionName"} if ours["kind"] == "PipelineVersion" else set())
        assert other["spec"].keys() <= ours["spec"].keys()
    waves = [each.manifest()["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"] for each in definitions_of(compiled, None)]
    assert waves == ["0", "1"]


def test_a_version_is_known_by_its_own_name_whatever_its_object_is_called(compiled: CompiledPipeline) -> None:
    _, version = definitions_of(compiled, "kubeflow")
    manifest = version.manifest()
    assert manifest["metadata"]["name"] == f"hagane-finetune-{compiled.version_name}"
    assert from_manifest(manifest) == version
    del manifest["spec"]["versionName"]  # a CRD of before 2.17 keeps none
    assert from_manifest(manifest).name == compiled.version_name
    manifest["metadata"]["name"] = compiled.version_name  # as hagane wrote it before
    assert from_manifest(manifest).name == compiled.version_name


def test_new_content_is_a_new_file_and_the_old_one_stays_unless_pruned(compiled: CompiledPipeline, tmp_path: Path) -> None:
    other = changed(compiled, "another")
    written(tmp_path, compiled, namespace="kubeflow")
    written(tmp_path, other)
    assert len(list((tmp_path / "versions").iterdir())) == 2
    assert {each.namespace for each in read_definitions(tmp_path)} == {"kubeflow"}
    assert written(tmp_path, other, prune=True)[f"versions/{compiled.version_name}.yaml"] == "removed"
    assert [path.stem for path in (tmp_path / "versions").iterdir()] == [other.version_name]


def test_pruning_never_removes_what_was_just_written(compiled: CompiledPipeline, tmp_path: Path) -> None:
    first, *rest = compiled.documents
    no_number = {**first, "x-limit": float("nan")}  # read again, it is not equal to itself
    pruned = written(tmp_path, CompiledPipeline((no_number, *rest)), prune=True)
    assert list(pruned.values()) == ["written", "written"]
    assert len(list((tmp_path / "versions").iterdir())) == 1


def test_stale_files_are_told(compiled: CompiledPipeline, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="is not there; run hagane compile --manifests"):
        check_fresh(tmp_path, compiled, None)
    written(tmp_path, compiled, namespace="kubeflow")
    check_fresh(tmp_path, compiled, None)
    with pytest.raises(RunFailed) as stale:
        check_fresh(tmp_path, changed(compiled, "another"), None)
    assert [line.partition(": ")[2][:8] for line in stale.value.problems] == ["is stale", "is not t"]


def test_a_version_changed_by_hand_is_refused(compiled: CompiledPipeline, tmp_path: Path) -> None:
    written(tmp_path, compiled)
    file = tmp_path / "versions" / f"{compiled.version_name}.yaml"
    file.write_text(file.read_text().replace("exec-evaluate", "exec-evil"))
    with pytest.raises(SpecError, match="was changed by hand: its content is version hagane-finetune-"):
        read_definitions(tmp_path)


@pytest.mark.parametrize(
    ("path", "text", "complaint"),
    [
        ("versions/a.yaml", "{", "not YAML"),
        ("versions/a.yaml", "kind: Deployment", "is no Pipeline or PipelineVersion of pipelines.kubeflow.org/v2beta1"),
        (
            "pipelines/other.yaml",
            "{apiVersion: pipelines.kubeflow.org/v2beta1, kind: Pipeline, metadata: {name: p}}",
            "whose file is pipelines/p.yaml",
        ),
    ],
)
def test_a_file_that_is_no_definition_is_told(path: str, text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    with pytest.raises(SpecError, match=complaint):
        read_definitions(tmp_path)


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="holds no pipelines"):
        read_definitions(tmp_path)


def told(wanted: list[Definition], there: list[Definition]) -> list[str]:
    return [line for each in differences(wanted, there) for line in each.told.splitlines()]


def test_a_difference_is_readable_and_numbers_are_compared_as_numbers(compiled: CompiledPipeline) -> None:
    old, new = list(definitions_of(compiled, None)), list(definitions_of(changed(compiled, "another"), None))
    assert told(old, old) == []
    lines = told([*new], old)
    assert lines[0] == "~ pipeline hagane-finetune: differs"
    assert f"+ version {new[1].name}: only in Git" in lines
    assert f"- version {old[1].name}: only in the cluster" in lines
    assert "    +  description: another" in lines
    assert f"    -  description: {compiled.description}" in lines or any(line.startswith("    -  description:") for line in lines)
    as_json = Definition("PipelineVersion", "v", None, "p", "v", "", ({"a": 5, "b": [1.5]},))
    as_yaml = Definition("PipelineVersion", "v", None, "p", "v", "", ({"a": 5.0, "b": [1.5]},))
    assert told([as_yaml], [as_json]) == []
