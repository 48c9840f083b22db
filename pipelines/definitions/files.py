"""The compiled pipeline <-> files in Git: a Pipeline and a PipelineVersion
(pipelines.kubeflow.org/v2beta1), one object a file.

    DIR/pipelines/hagane-finetune.yaml                   first: a version needs its pipeline
    DIR/versions/hagane-finetune-<12 hex digits>.yaml    named after its content

In KFP's Kubernetes-native mode its REST API makes the object of a version `<pipeline>-<version>`,
with the version's name in spec.versionName
(backend/src/crd/kubernetes/v2beta1/pipelineversion_types.go, NewPipelineVersionName); so do these
files, that a version which Git and `hagane submit` both bring is one object.

The same folder serves KFP in Kubernetes-native mode, where Argo CD, Flux or kubectl apply it, and
its database mode, where `hagane apply` sends it. Files of older versions stay: schedules and past
runs refer to their versions by name."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from components.shared.errors import RunFailed, SpecError
from components.shared.job.training_job import write_whole
from components.shared.spec.yaml_text import read_yaml
from pipelines.finetune.compiled import CompiledPipeline

API_VERSION = "pipelines.kubeflow.org/v2beta1"
FOLDERS = {"Pipeline": "pipelines", "PipelineVersion": "versions"}
MOST_BYTES = 2 * 1024 * 1024
"""Of a file: ten times the pipeline of today."""
LABELS = {"app.kubernetes.io/name": "hagane", "app.kubernetes.io/managed-by": "hagane"}
WAVES = {"Pipeline": "0", "PipelineVersion": "1"}
UNPRUNED = {
    "argocd.argoproj.io/sync-options": "Prune=false",
    "kustomize.toolkit.fluxcd.io/prune": "disabled",
}
"""A file taken out of Git removes nothing from the cluster: a version may have schedules, and with
a Pipeline go all its versions."""
Change = Literal["written", "unchanged", "removed"]


@dataclass(frozen=True)
class Definition:
    """A pipeline, or a version of one."""

    kind: Literal["Pipeline", "PipelineVersion"]
    name: str
    namespace: str | None
    pipeline: str
    """Name of the pipeline: its own, or the one it is a version of."""
    display_name: str
    description: str
    documents: tuple[dict[str, Any], ...] = ()
    """Of a version: the pipeline's IR, and what a cluster needs beside it where there is any."""

    @property
    def object_name(self) -> str:
        """What Kubernetes calls it."""
        if self.kind == "Pipeline":
            return self.name
        return f"{self.pipeline}-{self.name}"

    @property
    def path(self) -> str:
        """Its file in the folder."""
        return f"{FOLDERS[self.kind]}/{self.name}.yaml"

    @property
    def content(self) -> bytes:
        """Of a version: what is uploaded."""
        return CompiledPipeline(self.documents).content

    def manifest(self) -> dict[str, Any]:
        """The object, as Kubernetes takes it."""
        metadata: dict[str, Any] = {"name": self.object_name}
        if self.namespace is not None:
            metadata["namespace"] = self.namespace
        metadata["labels"] = dict(LABELS)
        metadata["annotations"] = {"argocd.argoproj.io/sync-wave": WAVES[self.kind], **UNPRUNED}
        spec: dict[str, Any] = {"displayName": self.display_name, "description": self.description}
        if self.kind == "PipelineVersion":
            spec |= {
                "versionName": self.name,
                "pipelineName": self.pipeline,
                "pipelineSpec": self.documents[0],
            }
            if len(self.documents) > 1:
                spec["platformSpec"] = self.documents[1]
        return {"apiVersion": API_VERSION, "kind": self.kind, "metadata": metadata, "spec": spec}

    def text(self) -> str:
        """Its file: the same bytes every time."""
        return yaml.safe_dump(self.manifest(), sort_keys=False, allow_unicode=True, width=120)


def definitions_of(
    compiled: CompiledPipeline, namespace: str | None
) -> tuple[Definition, Definition]:
    """The pipeline and the version that stand for this content."""
    pipeline = Definition(
        "Pipeline",
        compiled.name,
        namespace,
        compiled.name,
        compiled.display_name,
        compiled.description,
    )
    version = Definition(
        "PipelineVersion",
        compiled.version_name,
        namespace,
        compiled.name,
        compiled.version_name,
        compiled.version_description,
        compiled.documents,
    )
    return pipeline, version


def write_definitions(
    folder: Path, compiled: CompiledPipeline, namespace: str | None, *, prune: bool
) -> Iterator[tuple[str, Change]]:
    """Both files are in the folder, each whole or not at all; gives every file and what became of
    it.

    Without a namespace, the one that is in the folder stays. With `prune`, files of this pipeline's
    other versions are gone.
    """
    wanted = definitions_of(compiled, namespace or _namespace_of(folder, compiled.name))
    for each in wanted:
        file = folder / each.path
        if file.is_file() and file.read_text(encoding="utf-8") == each.text():
            yield each.path, "unchanged"
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, each.text())
        yield each.path, "written"
    if prune:
        names = {each.name for each in wanted}
        for other in read_definitions(folder):
            if (
                other.kind == "PipelineVersion"
                and other.pipeline == compiled.name
                and other.name not in names
            ):
                (folder / other.path).unlink()
                yield other.path, "removed"


def check_fresh(folder: Path, compiled: CompiledPipeline, namespace: str | None) -> None:
    """The folder has both files as the pipeline at hand is compiled to. Older versions are no
    matter.

    Raises:
        RunFailed: one line for each file that is missing or stale.
    """
    lines = []
    for each in definitions_of(compiled, namespace or _namespace_of(folder, compiled.name)):
        file = folder / each.path
        if not file.is_file():
            lines.append(
                f"{file}: is not there; run hagane compile --manifests {folder} and commit what it "
                "writes"
            )
        elif file.read_text(encoding="utf-8") != each.text():
            lines.append(
                f"{file}: is stale; run hagane compile --manifests {folder} and commit what it "
                "writes"
            )
    if lines:
        raise RunFailed(*lines)


def read_definitions(folder: Path) -> list[Definition]:
    """What the folder defines, pipelines first.

    Raises:
        SpecError: it holds none, or a file is no such object, or a version is not what its name
            says; one line each.
    """
    found: list[Definition] = []
    problems: list[str] = []
    for name in FOLDERS.values():
        for file in sorted((folder / name).glob("*.yaml")):
            try:
                found.append(_read(file))
            except SpecError as error:
                problems += error.problems
    known = {each.name for each in found if each.kind == "Pipeline"}
    problems += [
        (
            f"{folder / each.path}: is of pipeline {each.pipeline!r}, which no file in "
            f"{folder / 'pipelines'} defines"
        )
        for each in found
        if each.pipeline not in known
    ]
    if not found and not problems:
        problems.append(
            f"{folder}: holds no pipelines/*.yaml or versions/*.yaml; hagane compile --manifests "
            f"{folder} writes them"
        )
    if problems:
        raise SpecError(*problems)
    return found


def from_manifest(tree: dict[str, Any]) -> Definition:
    """The definition in an object of either kind, from a file or a cluster. Raises KeyError,
    TypeError for other objects."""
    kind, metadata, spec = tree["kind"], tree["metadata"], tree.get("spec") or {}
    if tree["apiVersion"] != API_VERSION or kind not in FOLDERS:
        raise KeyError(kind)
    if kind == "PipelineVersion":
        documents = (spec["pipelineSpec"],)
    else:
        documents = ()
    if spec.get("platformSpec"):
        documents += (spec["platformSpec"],)
    if kind == "PipelineVersion":
        pipeline = spec["pipelineName"]
    else:
        pipeline = metadata["name"]
    return Definition(
        kind,
        _logical_name(metadata["name"], spec, pipeline)
        if kind == "PipelineVersion"
        else metadata["name"],
        metadata.get("namespace"),
        pipeline,
        spec.get("displayName", metadata["name"]),
        spec.get("description", ""),
        documents,
    )


def _logical_name(object_name: str, spec: dict[str, Any], pipeline: str) -> str:
    """A version's name as KFP has it, also where a server keeps no versionName."""
    if spec.get("versionName"):
        return spec["versionName"]
    if object_name.startswith(f"{pipeline}-{pipeline}-"):
        return object_name.removeprefix(f"{pipeline}-")
    return object_name


def _namespace_of(folder: Path, pipeline: str) -> str | None:
    file = folder / FOLDERS["Pipeline"] / f"{pipeline}.yaml"
    if file.is_file():
        return _read(file).namespace
    return None


def _read(file: Path) -> Definition:
    try:
        read = from_manifest(read_yaml(file, most_bytes=MOST_BYTES).tree)
    except (KeyError, TypeError, AttributeError):
        raise SpecError(
            f"{file}: is no Pipeline or PipelineVersion of {API_VERSION}; hagane compile "
            "--manifests writes these files"
        ) from None
    if read.path != f"{file.parent.name}/{file.name}":
        raise SpecError(f"{file}: holds {read.kind} {read.name!r}, whose file is {read.path}")
    if read.kind == "PipelineVersion":
        actual = CompiledPipeline(read.documents)
        if actual.version_name != read.name:
            raise SpecError(
                f"{file}: was changed by hand: its content is version {actual.version_name}; "
                "change the pipeline, then run hagane compile --manifests"
            )
    return read
