"""The compiled pipeline -> a version of it in KFP, uploaded only where its content is new."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import kfp_server_api

from components.shared.errors import KfpExists, KfpMissing, SpecError
from pipelines.finetune.compiled import CompiledPipeline
from pipelines.kfp_api.client import KfpClient, equals
from pipelines.kfp_api.limits import name_problems, tag_problems

TAGS = {"managed-by": "hagane"}
"""On each version that is uploaded from here, where the server keeps tags. A key holds no dot
(limits.py)."""


@dataclass(frozen=True)
class UploadedVersion:
    """A version that is in KFP."""

    pipeline_id: str
    version_id: str
    name: str
    is_new: bool
    """Whether this call uploaded it."""


def ensure_version(kfp: KfpClient, pipeline: CompiledPipeline) -> UploadedVersion:
    """The version of this content is in KFP; its name is made of the content, so one of the same
    name is not sent again.

    Raises:
        KfpError: the server did not take it.
    """
    pipeline_id, _ = ensure_pipeline(
        kfp, pipeline.name, display_name=pipeline.display_name, description=pipeline.description
    )
    found = find_version(kfp, pipeline_id, pipeline.version_name)
    if found is not None:
        return UploadedVersion(
            pipeline_id, found.pipeline_version_id, pipeline.version_name, is_new=False
        )
    try:
        made = upload_version(
            kfp,
            pipeline_id,
            pipeline.version_name,
            pipeline.content,
            description=pipeline.version_description,
        )
    except KfpExists:  # somebody else's submit was faster by a moment
        found = find_version(kfp, pipeline_id, pipeline.version_name)
        if found is None:
            raise
        return UploadedVersion(
            pipeline_id, found.pipeline_version_id, pipeline.version_name, is_new=False
        )
    return UploadedVersion(
        pipeline_id, made.pipeline_version_id, pipeline.version_name, is_new=True
    )


def find_pipeline(kfp: KfpClient, name: str) -> Any:
    """The pipeline of this name; None where there is none."""
    within = kfp.scope()
    try:
        return kfp.ask(
            f"look for pipeline {name}",
            kfp.pipelines.pipeline_service_get_pipeline_by_name,
            name,
            **within,
        )
    except KfpMissing:
        return None


def ensure_pipeline(
    kfp: KfpClient, name: str, *, display_name: str, description: str
) -> tuple[str, bool]:
    """The id of the pipeline of this name, and whether this call made it. What it has, it has as
    versions."""
    found = find_pipeline(kfp, name)
    if found is not None:
        return found.pipeline_id, False
    asked = kfp_server_api.V2beta1Pipeline(
        name=name, display_name=display_name, description=description, namespace=kfp.namespace
    )
    try:
        return kfp.ask(
            f"make pipeline {name}", kfp.pipelines.pipeline_service_create_pipeline, asked
        ).pipeline_id, True
    except KfpExists:
        found = find_pipeline(kfp, name)
        if found is None:
            raise
        return found.pipeline_id, False


def find_version(kfp: KfpClient, pipeline_id: str, name: str) -> Any:
    """The pipeline's version of this name; None where there is none."""
    listed = kfp.pages(
        f"look for version {name}",
        kfp.pipelines.pipeline_service_list_pipeline_versions,
        "pipeline_versions",
        pipeline_id,
        filter=equals("name", name),
    )
    return next(iter(listed), None)


def upload_version(
    kfp: KfpClient, pipeline_id: str, name: str, content: bytes, *, description: str
) -> Any:
    """A version of this name and content is in KFP.

    Raises:
        KfpExists: one of the name is there.
        SpecError: KFP takes no such name or tag; nothing was sent.
    """
    problems = [
        *name_problems("version", name, where="version"),
        *tag_problems(TAGS, where=f"version {name}"),
    ]
    if problems:
        raise SpecError(*problems)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.yaml"
        file.write_bytes(content)
        return kfp.ask(
            f"upload version {name}",
            kfp.uploads.upload_pipeline_version,
            str(file),
            name=name,
            pipelineid=pipeline_id,
            description=description,
            tags=json.dumps(TAGS),
        )


def list_versions(
    kfp: KfpClient, pipeline: Any, *, order: Literal["asc", "desc"] = "asc"
) -> Iterator[Any]:
    """The versions of a pipeline that the server gave, oldest first, or newest first."""
    return kfp.pages(
        f"list versions of {pipeline.name}",
        kfp.pipelines.pipeline_service_list_pipeline_versions,
        "pipeline_versions",
        pipeline.pipeline_id,
        sort_by=f"created_at {order}",
    )
