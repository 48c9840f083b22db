"""Definitions in Git -> KFP over REST: what is missing is uploaded, pipelines first; what is there
already is left as it is.

The button in KFP's UI offers the version that was uploaded last, so the one that the code at hand
compiles to goes last.
"""

import time
from collections.abc import Iterator
from typing import Any

from components.shared.errors import SpecError
from pipelines.definitions.diff import is_ours
from pipelines.definitions.files import Definition
from pipelines.kfp_api.client import FINISHED, KfpClient
from pipelines.kfp_api.versions import (
    ensure_pipeline,
    find_pipeline,
    find_version,
    list_versions,
    upload_version,
)

A_SECOND = 1.0
"""KFP counts a version's age in whole seconds (CreatedAtInSec): of two within one, either may count
as the newest."""


def apply_definitions(
    kfp: KfpClient, wanted: list[Definition], *, current: str
) -> Iterator[tuple[str, str]]:
    """Every definition is in KFP, the version `current` uploaded last; gives what each is and what
    became of it, as it is done.

    Raises:
        SpecError: the files name another namespace than the one that is talked to.
        KfpError: the server did not do it; what was done before stays, and the same command goes
            on.
    """
    _check_namespace(kfp, wanted)
    ids: dict[str, str] = {}
    for each in wanted:
        if each.kind == "Pipeline":
            ids[each.name], is_new = ensure_pipeline(
                kfp, each.name, display_name=each.display_name, description=each.description
            )
            yield f"pipeline {each.name}", "created" if is_new else "unchanged"
    has_uploaded = False
    versions = [each for each in wanted if each.kind == "PipelineVersion"]
    for each in sorted(versions, key=lambda version: version.name == current):
        if find_version(kfp, ids[each.pipeline], each.name) is not None:
            yield f"version {each.name}", "unchanged"
            continue
        if each.name == current and has_uploaded:
            time.sleep(A_SECOND)
        upload_version(
            kfp, ids[each.pipeline], each.name, each.content, description=each.description
        )
        has_uploaded = True
        yield f"version {each.name}", "created"


def newest_version(kfp: KfpClient, pipeline: str) -> str | None:
    """The version of a pipeline that the UI's button offers, by its name; None where there is
    none."""
    found = find_pipeline(kfp, pipeline)
    if found is None:
        newest = None
    else:
        newest = next(iter(list_versions(kfp, found, order="desc")), None)
    if newest is None:
        return None
    return newest.name


def prune_versions(kfp: KfpClient, wanted: list[Definition]) -> Iterator[tuple[str, str]]:
    """Versions that hagane named and Git does not have are gone from KFP, but for those that a
    schedule or an active run uses."""
    names = {each.name for each in wanted}
    used: dict[str, str] | None = None
    for pipeline in (each for each in wanted if each.kind == "Pipeline"):
        kept = find_pipeline(kfp, pipeline.name)
        for version in [] if kept is None else list(list_versions(kfp, kept)):
            if version.name in names or not is_ours(version.name, pipeline.name):
                continue
            if used is None:
                used = _users(kfp)
            if version.pipeline_version_id in used:
                yield (
                    f"version {version.name}",
                    f"kept: {used[version.pipeline_version_id]} uses it",
                )
                continue
            delete = kfp.pipelines.pipeline_service_delete_pipeline_version
            kfp.ask(
                f"remove version {version.name}",
                delete,
                version.pipeline_id,
                version.pipeline_version_id,
            )
            yield f"version {version.name}", "removed"


def _users(kfp: KfpClient) -> dict[str, str]:
    """Id of a version -> a schedule or an active run that would break without it."""
    found: dict[str, str] = {}
    for run in kfp.pages("list runs", kfp.runs.run_service_list_runs, "runs", **kfp.scope()):
        if run.state not in FINISHED:
            found[_version_of(run)] = f"run {run.display_name!r}"
    jobs = kfp.recurring_runs.recurring_run_service_list_recurring_runs
    for job in kfp.pages("list recurring runs", jobs, "recurring_runs", **kfp.scope()):
        found[_version_of(job)] = f"recurring run {job.display_name!r}"
    return found


def _version_of(started: Any) -> str:
    if started.pipeline_version_reference:
        return started.pipeline_version_reference.pipeline_version_id
    return ""


def _check_namespace(kfp: KfpClient, wanted: list[Definition]) -> None:
    if kfp.namespace is None:
        return
    others = sorted(
        {each.namespace for each in wanted if each.namespace not in (None, kfp.namespace)}
    )
    if others:
        raise SpecError(
            f"the files are for namespace {', '.join(others)}, but KFP is talked to in "
            f"{kfp.namespace}; set --namespace"
        )
