"""Experiments, pipelines and their versions."""

import json
import uuid
from typing import Any

import yaml

from tests.support.kfp.answers import Refused, Tree
from tests.support.kfp.lists import page
from tests.support.kfp.server import KfpServer, found, now

Query = dict[str, str]
REFUSED_UPLOAD = "Failed to create a pipeline version"
"""All that the upload of a version says when the pipeline is not there, the name is taken, or one
may not."""


def list_experiments(server: KfpServer, query: Query) -> Tree:
    server.check_namespace(query.get("namespace", ""))
    listed = [
        each
        for each in server.experiments.values()
        if each["namespace"] == query.get("namespace", "")
    ]
    return page(
        "experiments",
        listed,
        query,
        ("experiment_id", "id", "name", "display_name", "created_at", "storage_state"),
    )


def create_experiment(server: KfpServer, query: Query, body: Tree) -> Tree:
    server.check_namespace(body.get("namespace", ""))
    name = body.get("display_name", "")
    if not name:
        raise Refused(3, "Experiment name is empty. Please specify a valid experiment name")
    if len(name.encode()) > 128:
        raise Refused(3, "Experiment.Name length cannot exceed 128")
    names = [
        each["display_name"].lower()
        for each in server.experiments.values()
        if each["namespace"] == body.get("namespace", "")
    ]
    if name.lower() in names:
        raise Refused(
            6,
            (
                f"Failed to create a new experiment. The name {name} already exists. Please "
                "specify a new name"
            ),
        )
    return server.add_experiment(body)


def get_experiment(server: KfpServer, query: Query, experiment_id: str) -> Tree:
    return found(server.experiments, "Experiment", experiment_id)


def archive_experiment(server: KfpServer, query: Query, experiment_id: str) -> Tree:
    found(server.experiments, "Experiment", experiment_id)["storage_state"] = "ARCHIVED"
    return {}


def unarchive_experiment(server: KfpServer, query: Query, experiment_id: str) -> Tree:
    found(server.experiments, "Experiment", experiment_id)["storage_state"] = "AVAILABLE"
    return {}


def delete_experiment(server: KfpServer, query: Query, experiment_id: str) -> Tree:
    found(server.experiments, "Experiment", experiment_id)
    del server.experiments[experiment_id]
    return {}


def list_pipelines(server: KfpServer, query: Query) -> Tree:
    listed = [
        each
        for each in server.pipelines.values()
        if _namespace(each) == server.pipeline_namespace(query)
    ]
    return page(
        "pipelines",
        listed,
        query,
        ("pipeline_id", "id", "name", "display_name", "created_at", "description"),
    )


def create_pipeline(server: KfpServer, query: Query, body: Tree) -> Tree:
    return _add_pipeline(server, body, server.pipeline_namespace(body))


def get_pipeline(server: KfpServer, query: Query, pipeline_id: str) -> Tree:
    return found(server.pipelines, "Pipeline", pipeline_id)


def get_pipeline_by_name(server: KfpServer, query: Query, name: str) -> Tree:
    namespace = server.pipeline_namespace(query)
    listed = [
        each
        for each in server.pipelines.values()
        if (each["name"], _namespace(each)) == (name, namespace)
    ]
    if not listed:
        doing = (
            f"Failed to get a pipeline with name {name} and namespace {namespace}. Check error "
            "stack.: ResourceNotFoundError: "
        )
        raise Refused(5, f"Namespace/Pipeline {namespace}/{name} not found", doing=doing)
    return listed[0]


def delete_pipeline(server: KfpServer, query: Query, pipeline_id: str) -> Tree:
    found(server.pipelines, "Pipeline", pipeline_id)
    versions = [key for key, each in server.versions.items() if each["pipeline_id"] == pipeline_id]
    if versions and query.get("cascade") != "true":
        raise Refused(
            3,
            (
                f"Failed to delete pipeline {pipeline_id} as it has {len(versions)} versions; "
                "delete them or set cascade"
            ),
        )
    for version_id in versions:
        del server.versions[version_id]
    del server.pipelines[pipeline_id]
    return {}


def list_versions(server: KfpServer, query: Query, pipeline_id: str) -> Tree:
    found(server.pipelines, "Pipeline", pipeline_id)
    listed = [each for each in server.versions.values() if each["pipeline_id"] == pipeline_id]
    keys = ("pipeline_version_id", "id", "name", "display_name", "created_at", "description")
    return page("pipeline_versions", listed, query, keys)


def get_version(
    server: KfpServer, query: Query, pipeline_id: str, pipeline_version_id: str
) -> Tree:
    version = found(server.versions, "PipelineVersion", pipeline_version_id)
    if version["pipeline_id"] != pipeline_id:
        raise Refused(5, f"PipelineVersion {pipeline_version_id} not found")
    return version


def delete_version(
    server: KfpServer, query: Query, pipeline_id: str, pipeline_version_id: str
) -> Tree:
    get_version(server, query, pipeline_id, pipeline_version_id)
    del server.versions[pipeline_version_id]
    return {}


def upload_pipeline(server: KfpServer, query: Query, filename: str, content: bytes) -> Tree:
    name = query.get("name") or query.get("display_name") or filename
    spec = _spec_of(content)
    try:
        made = _add_pipeline(
            server,
            {**_given(query, "description", "display_name"), "name": name},
            server.pipeline_namespace(query),
        )
    except Refused as refused:
        raise Refused(
            6 if refused.code == 6 else 3, "Failed to create a pipeline and a pipeline version"
        ) from None
    _add_version(
        server,
        made["pipeline_id"],
        {"name": name, **_given(query, "description", "display_name")},
        spec,
    )
    return made


def upload_version(server: KfpServer, query: Query, filename: str, content: bytes) -> Tree:
    tags = json.loads(query["tags"]) if "tags" in query else {}
    for key, value in tags.items():
        _check_tag(key, value)
    kept = server.pipelines.get(query.get("pipelineid", ""))
    if kept is None or _namespace(kept) in server.forbidden:
        raise Refused(3, REFUSED_UPLOAD)
    body: Tree = {"name": query.get("name") or query.get("display_name") or filename}
    body |= _given(query, "description", "display_name")
    return _add_version(
        server, query["pipelineid"], body | ({"tags": tags} if tags else {}), _spec_of(content)
    )


def _check_tag(key: str, value: str) -> None:
    if "." in key:
        raise Refused(3, f"tag key \"{key}\" must not contain '.' character")
    if not 1 <= len(key) <= 63 or len(value) > 63:
        raise Refused(3, f'tag "{key}" exceeds maximum length of 63 characters')


def _add_pipeline(server: KfpServer, body: Tree, namespace: str) -> Tree:
    if not body.get("name"):
        raise Refused(3, "name is required")
    if any(
        (each["name"], _namespace(each)) == (body["name"], namespace)
        for each in server.pipelines.values()
    ):
        reason = (
            f"Failed to create a new pipeline. The name {body['name']} already exist. Please "
            "specify a new name"
        )
        raise Refused(
            6,
            reason,
            doing="Failed to create a pipeline due to server error: Already exist error: ",
        )
    made = {
        "pipeline_id": str(uuid.uuid4()),
        "display_name": body["name"],
        **body,
        "created_at": now(),
    }
    made |= {"namespace": namespace} if namespace else {}
    server.pipelines[made["pipeline_id"]] = made
    return made


def _add_version(server: KfpServer, pipeline_id: str, body: Tree, spec: Tree) -> Tree:
    if any(
        (each["pipeline_id"], each["name"]) == (pipeline_id, body["name"])
        for each in server.versions.values()
    ):
        raise Refused(6, REFUSED_UPLOAD)
    ids = {"pipeline_id": pipeline_id, "pipeline_version_id": str(uuid.uuid4())}
    made = {**ids, "display_name": body["name"], **body, "created_at": now(), "pipeline_spec": spec}
    server.versions[ids["pipeline_version_id"]] = made
    return made


def _spec_of(content: bytes) -> Tree:
    """The pipeline's IR, beside the platform's where the file has one, as the real server gives
    them back."""
    try:
        documents: list[Any] = [each for each in yaml.safe_load_all(content) if each]
    except yaml.YAMLError:
        documents = []
    if not documents or not {"pipelineInfo", "root", "deploymentSpec"} <= documents[0].keys():
        raise Refused(3, "unknown template format")
    return (
        documents[0]
        if len(documents) == 1
        else {"pipeline_spec": documents[0], "platform_spec": documents[1]}
    )


def _namespace(pipeline: Tree) -> str:
    """A server of one user names none."""
    return pipeline.get("namespace", "")


def _given(query: Query, *names: str) -> Tree:
    return {name: query[name] for name in names if name in query}
