"""Every call of the API that the stand-in answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.kfp import definitions, runs, schedules
from tests.support.kfp.answers import Tree
from tests.support.kfp.server import KfpServer


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    """Below the prefix, with `{names}` as the published client writes them."""
    handler: Callable[..., Any]
    answer: str = "object"
    """Published model of the answer."""
    query: tuple[str, ...] = ()
    body: str | None = None
    """Published model of the body; None for none, `multipart` for a file."""


def healthz(server: KfpServer, query: dict[str, str]) -> Tree:
    """The API server's own words; through the UI's address they are the UI server's."""
    if server.through_ui:
        own = {
            "buildDate": "",
            "frontendCommitHash": "",
            "frontendTagName": "",
            "apiServerReady": True,
            "apiServerCommitHash": "unknown",
        }
        reported = {
            "apiServerTagName": server.tag_name,
            "apiServerMultiUser": server.multi_user,
            "multi_user": server.multi_user,
        }
        return {**own, **reported, "pipelineStore": "database"}
    return {
        "commit_sha": "unknown",
        "tag_name": server.tag_name,
        "multi_user": server.multi_user,
        "pipeline_store": "database",
    }


PAGE = ("page_token", "page_size", "sort_by", "filter")
_SCOPE = (*PAGE, "namespace", "experiment_id")
_EXPERIMENT, _PIPELINE, _VERSION = (
    "/experiments/{experiment_id}",
    "/pipelines/{pipeline_id}",
    "/versions/{pipeline_version_id}",
)
_RUN, _JOB, _LIST = "/runs/{run_id}", "/recurringruns/{recurring_run_id}", "V2beta1List{}Response"
_UPLOAD = ("name", "display_name", "description", "tags")
_PIPELINES, _VERSIONS = _LIST.format("Pipelines"), _LIST.format("PipelineVersions")
_ONE, _MADE = "V2beta1PipelineVersion", "V2beta1RecurringRun"

ROUTES = (
    Route("GET", "/healthz", healthz, "V2beta1GetHealthzResponse"),
    Route(
        "GET",
        "/experiments",
        definitions.list_experiments,
        _LIST.format("Experiments"),
        (*PAGE, "namespace"),
    ),
    Route(
        "POST",
        "/experiments",
        definitions.create_experiment,
        "V2beta1Experiment",
        body="V2beta1Experiment",
    ),
    Route("GET", _EXPERIMENT, definitions.get_experiment, "V2beta1Experiment"),
    Route("DELETE", _EXPERIMENT, definitions.delete_experiment),
    Route("POST", _EXPERIMENT + ":archive", definitions.archive_experiment),
    Route("POST", _EXPERIMENT + ":unarchive", definitions.unarchive_experiment),
    Route("GET", "/pipelines", definitions.list_pipelines, _PIPELINES, (*PAGE, "namespace")),
    Route(
        "POST", "/pipelines", definitions.create_pipeline, "V2beta1Pipeline", body="V2beta1Pipeline"
    ),
    Route(
        "GET",
        "/pipelines/names/{name}",
        definitions.get_pipeline_by_name,
        "V2beta1Pipeline",
        ("namespace",),
    ),
    Route("GET", _PIPELINE, definitions.get_pipeline, "V2beta1Pipeline"),
    Route("DELETE", _PIPELINE, definitions.delete_pipeline, query=("cascade",)),
    Route("GET", _PIPELINE + "/versions", definitions.list_versions, _VERSIONS, PAGE),
    Route("GET", _PIPELINE + _VERSION, definitions.get_version, _ONE),
    Route("DELETE", _PIPELINE + _VERSION, definitions.delete_version),
    Route(
        "POST",
        "/pipelines/upload",
        definitions.upload_pipeline,
        "V2beta1Pipeline",
        (*_UPLOAD, "namespace"),
        "multipart",
    ),
    Route(
        "POST",
        "/pipelines/upload_version",
        definitions.upload_version,
        _ONE,
        (*_UPLOAD, "pipelineid"),
        "multipart",
    ),
    Route("GET", "/runs", runs.list_runs, _LIST.format("Runs"), _SCOPE),
    Route("POST", "/runs", runs.create_run, "V2beta1Run", ("experiment_id",), "V2beta1Run"),
    Route("GET", _RUN, runs.get_run, "V2beta1Run", ("experiment_id",)),
    Route("DELETE", _RUN, runs.delete_run, query=("experiment_id",)),
    Route("POST", _RUN + ":terminate", runs.terminate_run, query=("experiment_id",)),
    Route("POST", _RUN + ":retry", runs.retry_run, query=("experiment_id",)),
    Route("POST", _RUN + ":archive", runs.archive_run, query=("experiment_id",)),
    Route("POST", _RUN + ":unarchive", runs.unarchive_run, query=("experiment_id",)),
    Route(
        "GET",
        "/recurringruns",
        schedules.list_recurring_runs,
        _LIST.format("RecurringRuns"),
        _SCOPE,
    ),
    Route("POST", "/recurringruns", schedules.create_recurring_run, _MADE, body=_MADE),
    Route("GET", _JOB, schedules.get_recurring_run, _MADE),
    Route("DELETE", _JOB, schedules.delete_recurring_run, query=("propagation_policy",)),
    Route("POST", _JOB + ":enable", schedules.enable_recurring_run),
    Route("POST", _JOB + ":disable", schedules.disable_recurring_run),
)
