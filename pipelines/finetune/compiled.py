"""A compiled pipeline and the names that stand for it. Without kfp, which takes half a second to import."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml


@dataclass(frozen=True)
class CompiledPipeline:
    """The pipeline's IR, and what the cluster needs beside it where there is any."""

    documents: tuple[dict[str, Any], ...]

    @property
    def name(self) -> str:
        """What the pipeline is called wherever it is kept."""
        return self.documents[0]["pipelineInfo"]["name"]

    @property
    def display_name(self) -> str:
        """What people are shown in its place."""
        return self.documents[0]["pipelineInfo"].get("displayName", self.name)

    @property
    def description(self) -> str:
        return self.documents[0]["pipelineInfo"].get("description", "")

    @property
    def spec(self) -> dict[str, Any]:
        return self.documents[0]

    @cached_property
    def content(self) -> bytes:
        """As one file. KFP's header comment, whose order of inputs is not stable, is left out."""
        return yaml.safe_dump_all(self.documents, sort_keys=True, width=120).encode()

    @cached_property
    def version(self) -> str:
        """12 hex digits of the sha256 of its bytes, so that another image, step or default is another version."""
        return hashlib.sha256(self.content).hexdigest()[:12]

    @property
    def version_name(self) -> str:
        """What this content is called in KFP: with the pipeline's name, as Kubernetes knows versions of all pipelines side by side."""
        return f"{self.name}-{self.version}"

    @property
    def version_description(self) -> str:
        """What tells versions apart for a person."""
        return f"Runs in {', '.join(self.images)}"

    @property
    def images(self) -> list[str]:
        """Every image that a step of it runs in."""
        return sorted({each["container"]["image"] for each in self.spec["deploymentSpec"]["executors"].values() if "container" in each})
