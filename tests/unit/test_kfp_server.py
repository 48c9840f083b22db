"""The stand-in for KFP's server, compared with the published client: paths, parameters, models, and
what the client reads."""

import inspect
import json
import re
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import kfp_server_api
import pytest
from kfp_server_api import api as published_apis

from tests.support.kfp import PREFIX, ROUTES, KfpServer, kfp_server, unknown_fields

PIPELINE = """
pipelineInfo: {name: p}
schemaVersion: 2.1.0
deploymentSpec: {executors: {}}
root: {dag: {tasks: {}}, inputDefinitions: {parameters: {spec: {parameterType: STRUCT}}}}
"""
API: Any = kfp_server_api


class Published(NamedTuple):
    query: tuple[str, ...]
    body: str | None
    answer: str


@cache
def published_calls() -> dict[tuple[str, str], Published]:
    """(method, path) of every call that the published client can make: its query parameters, its
    body's model, its answer's."""
    found: dict[tuple[str, str], Published] = {}
    for name in (name for name in dir(published_apis) if name.endswith("ServiceApi")):
        service = getattr(published_apis, name)
        for _, method in inspect.getmembers(service, inspect.isfunction):
            source = inspect.getsource(method)
            call = re.search(r"call_api\(\s*'([^']+)', '([A-Z]+)'", source)
            if call is None:
                continue
            found[call[2], call[1]] = Published(
                tuple(re.findall(r"query_params.append\(\('(\w+)'", source)),
                _body_of(source),
                _first(r"response_type='([\w\[\]]+)'", source) or "",
            )
    return found


def _body_of(source: str) -> str | None:
    if "local_var_files['uploadfile']" in source:
        return "multipart"
    sent = _first(r"body_params = local_var_params\['(\w+)'\]", source)
    return None if sent is None else _first(rf":type {sent}: (\w+)", source)


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return None if found is None else found[1]


@pytest.fixture
def server() -> Iterator[KfpServer]:
    with kfp_server() as running:
        yield running


class Client:
    """The published client; each answer it read is compared with the JSON that came."""

    package: str
    """A file that holds a pipeline."""

    def __init__(self, server: KfpServer, token: str | None = None) -> None:
        settings = API.Configuration(
            host=server.endpoint, api_key={"authorization": token} if token else None
        )
        settings.api_key_prefix["authorization"] = "Bearer"
        self.api = API.ApiClient(settings)

    def __call__(self, function: str, *arguments: Any, **options: Any) -> Any:
        service = next(
            each
            for name, each in vars(published_apis).items()
            if name.endswith("ServiceApi") and hasattr(each, function)
        )
        answer = getattr(service(self.api), function)(*arguments, **options)
        came = json.loads(self.api.last_response.data)
        if (
            not isinstance(answer, dict) and "healthz" not in function
        ):  # which says more than its published model
            assert _plain(self.api.sanitize_for_serialization(answer)) == _plain(came), function
        return answer


def _plain(tree: Any) -> Any:
    """Times in one spelling."""
    return json.loads(re.sub(r'(\d\d:\d\d:\d\d)(Z|\+00:00)"', r'\1Z"', json.dumps(tree)))


@pytest.fixture
def client(server: KfpServer, tmp_path: Path) -> Client:
    client = Client(server)
    client.package = str(tmp_path / "p.yaml")
    Path(client.package).write_text(PIPELINE)
    return client


def uploaded(client: Client, name: str = "p") -> tuple[str, str]:
    pipeline = client(
        "pipeline_service_create_pipeline", API.V2beta1Pipeline(name=name, display_name=name)
    )
    version = client(
        "upload_pipeline_version", client.package, name=f"{name}-1", pipelineid=pipeline.pipeline_id
    )
    return pipeline.pipeline_id, version.pipeline_version_id


def run_of(pipeline_id: str, version_id: str, **more: Any) -> Any:
    reference = API.V2beta1PipelineVersionReference(
        pipeline_id=pipeline_id, pipeline_version_id=version_id
    )
    config = API.V2beta1RuntimeConfig(parameters={"spec": {"name": "a"}})
    return API.V2beta1Run(
        **{
            "display_name": "a run",
            "pipeline_version_reference": reference,
            "runtime_config": config,
            **more,
        }
    )


def schedule_of(pipeline_id: str, version_id: str) -> Any:
    run = run_of(pipeline_id, version_id)
    return API.V2beta1RecurringRun(
        display_name="nightly",
        pipeline_version_reference=run.pipeline_version_reference,
        runtime_config=run.runtime_config,
        trigger=API.V2beta1Trigger(cron_schedule=API.V2beta1CronSchedule(cron="0 0 3 * * *")),
        max_concurrency="1",
        mode="ENABLE",
    )


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_is_one_of_the_published_client_with_its_parameters_body_and_answer(
    route: Any,
) -> None:
    published = published_calls()[route.method, PREFIX + route.path]
    assert (set(route.query), route.body, route.answer) == (
        set(published.query),
        published.body,
        published.answer,
    )


def test_what_the_published_client_can_call_and_the_stand_in_cannot_is_known() -> None:
    absent = published_calls().keys() - {(route.method, PREFIX + route.path) for route in ROUTES}
    assert sorted(path.removeprefix(PREFIX) for method, path in absent if method != "PATCH") == [
        "/auth",
        "/filters",
        "/pipelines/create",
        "/pipelines/{pipeline_id}/versions",
        "/scheduledworkflows",
        "/visualizations/{namespace}",
        "/workflows",
    ]


def test_the_published_client_reads_every_answer_whole(server: KfpServer, client: Client) -> None:
    assert client("healthz_service_get_healthz").multi_user is False
    experiment = client(
        "experiment_service_create_experiment", API.V2beta1Experiment(display_name="e")
    ).experiment_id
    client("experiment_service_get_experiment", experiment)
    client("experiment_service_archive_experiment", experiment)
    client("experiment_service_unarchive_experiment", experiment)
    assert client("experiment_service_list_experiments").total_size == 2
    pipeline, version = uploaded(client)
    client("pipeline_service_get_pipeline", pipeline)
    assert client("pipeline_service_get_pipeline_by_name", "p").pipeline_id == pipeline
    assert client("pipeline_service_list_pipelines").total_size == 1
    assert (
        client("pipeline_service_get_pipeline_version", pipeline, version).pipeline_spec[
            "schemaVersion"
        ]
        == "2.1.0"
    )
    assert client("pipeline_service_list_pipeline_versions", pipeline).total_size == 1
    run = client(
        "run_service_create_run", run_of(pipeline, version, experiment_id=experiment)
    ).run_id
    server.advance(run, "FAILED", steps={"prepare_dataset": "SUCCEEDED", "render_config": "FAILED"})
    read = client("run_service_get_run", run)
    states = {task.display_name: task.state for task in read.run_details.task_details}
    assert (read.state, read.error, states["render-config"], states["evaluate"]) == (
        "FAILED",
        None,
        "FAILED",
        None,
    )
    client("run_service_retry_run", run)
    client("run_service_terminate_run", run)
    client("run_service_archive_run", run)
    client("run_service_unarchive_run", run)
    assert client("run_service_list_runs", experiment_id=experiment).runs[0].state == "CANCELING"
    job = client(
        "recurring_run_service_create_recurring_run", schedule_of(pipeline, version)
    ).recurring_run_id
    assert server.runs[server.trigger(job)]["recurring_run_id"] == job
    client("recurring_run_service_disable_recurring_run", job)
    assert client("recurring_run_service_get_recurring_run", job).status == "DISABLED"
    client("recurring_run_service_enable_recurring_run", job)
    assert client("recurring_run_service_list_recurring_runs").total_size == 1
    client("recurring_run_service_delete_recurring_run", job)
    client("run_service_delete_run", run)
    client("pipeline_service_delete_pipeline_version", pipeline, version)
    client("pipeline_service_delete_pipeline", pipeline)
    client("experiment_service_delete_experiment", experiment)
    assert client("upload_pipeline", client.package, name="q").name == "q"
    paths = [
        (each.method, re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|(?<=names/)p", "{id}", each.path))
        for each in server.asked
    ]
    assert set(paths) == {(route.method, re.sub(r"{\w+}", "{id}", route.path)) for route in ROUTES}


def test_a_field_that_no_published_model_has_is_found() -> None:
    assert unknown_fields(
        "V2beta1Run",
        {"run_id": "a", "runtime_config": {"parameters": {"any": 1}, "colour": "red"}},
        "run",
    ) == ["run.runtime_config.colour: V2beta1RuntimeConfig has no such field"]
    assert unknown_fields("V2beta1Run", {"state": "DONE"})[0].startswith(
        ".state: 'DONE' is none of"
    )
    assert unknown_fields("V2beta1RecurringRun", {"max_concurrency": 1}) == [
        ".max_concurrency: 1 is no str"
    ]


def test_a_request_with_an_unknown_field_or_query_parameter_is_refused(
    server: KfpServer, client: Client
) -> None:
    server.experiments["odd"] = {"experiment_id": "odd", "namespace": "", "colour": "red"}
    with pytest.raises(API.ApiException, match="V2beta1Experiment has no such field"):
        client("experiment_service_get_experiment", "odd")
    with pytest.raises(API.ApiException, match="no query parameter"):
        client.api.call_api(f"{PREFIX}/healthz", "GET", query_params=[("colour", "red")])
    with pytest.raises(API.ApiException, match="has no such path"):
        client.api.call_api(f"{PREFIX}/nothing", "GET")


def test_pages_hold_every_object_once_and_a_token_holds_for_its_criteria_only(
    server: KfpServer, client: Client
) -> None:
    for number in range(25):
        client(
            "experiment_service_create_experiment", API.V2beta1Experiment(display_name=f"e{number}")
        )
    names: list[str] = []
    token = ""
    while True:
        page = client(
            "experiment_service_list_experiments",
            page_token=token,
            page_size=10,
            sort_by="display_name desc",
        )
        names += [each.display_name for each in page.experiments]
        token = page.next_page_token
        if not token:
            break
    assert (len(names), names) == (
        26,
        sorted({"Default", *(f"e{number}" for number in range(25))}, reverse=True),
    )
    token = client("experiment_service_list_experiments", page_size=10).next_page_token
    with pytest.raises(API.ApiException, match="does not match"):
        client("experiment_service_list_experiments", page_token=token, sort_by="name")
    assert (
        client("experiment_service_list_experiments", page_token=token, page_size=30).total_size
        == 26
    )


def test_a_filter_of_several_values_cannot_be_sent_again_with_a_token_and_need_not_be(
    server: KfpServer, client: Client
) -> None:
    source = uploaded(client)
    runs = [client("run_service_create_run", run_of(*source)).run_id for _ in range(3)]
    for run in runs[1:]:
        server.advance(run, "RUNNING")
    active = {
        "predicates": [
            {"operation": "IN", "key": "state", "string_values": {"values": ["PENDING", "RUNNING"]}}
        ]
    }
    page = client("run_service_list_runs", page_size=1, filter=json.dumps(active))
    assert page.total_size == 2  # the first has no state, so that no filter finds it
    with pytest.raises(API.ApiException, match="page token does not match"):
        client(
            "run_service_list_runs",
            page_size=1,
            filter=json.dumps(active),
            page_token=page.next_page_token,
        )
    rest = client("run_service_list_runs", page_size=1, page_token=page.next_page_token)
    assert {page.runs[0].run_id, rest.runs[0].run_id} == set(runs[1:])
    assert rest.next_page_token is None
    running = {"predicates": [{"operation": "EQUALS", "key": "state", "string_value": "RUNNING"}]}
    token = client("run_service_list_runs", page_size=1, filter=json.dumps(running)).next_page_token
    assert (
        client(
            "run_service_list_runs", page_size=1, filter=json.dumps(running), page_token=token
        ).total_size
        == 2
    )


def test_filters_are_read_as_kfp_client_sends_them(
    server: KfpServer, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    from kfp.client import Client as KfpSdkClient

    uploaded(client, "one")
    pipeline, _ = uploaded(client, "two")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        sdk = KfpSdkClient(host=server.endpoint)
    assert sdk.get_pipeline_id("two") == pipeline
    assert sdk.get_experiment(experiment_name="Default").display_name == "Default"
    with pytest.raises(ValueError, match="No experiment is found"):
        sdk.get_experiment(experiment_name="nothing")
    capsys.readouterr()


def test_errors_have_the_bodies_of_the_gateway_and_of_the_upload_paths(
    server: KfpServer, client: Client
) -> None:
    with pytest.raises(API.ApiException) as missing:
        client("run_service_get_run", "no-such-run")
    assert missing.value.status == 404
    assert json.loads(missing.value.body)["details"][0]["message"] == "Run no-such-run not found"
    pipeline, _ = uploaded(client)
    with pytest.raises(API.ApiException) as taken:
        client("upload_pipeline_version", client.package, name="p-1", pipelineid=pipeline)
    assert (taken.value.status, json.loads(taken.value.body)["error_message"]) == (
        409,
        "Failed to create a pipeline version",
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"display_name": ""}, "run name is empty"),
        ({"pipeline_version_reference": None}, "Cannot find a pipeline source"),
        ({"runtime_config": API.V2beta1RuntimeConfig(parameters={})}, "parameter spec is required"),
        (
            {"runtime_config": API.V2beta1RuntimeConfig(parameters={"spec": "text"})},
            "must be STRUCT",
        ),
        (
            {"runtime_config": API.V2beta1RuntimeConfig(parameters={"spec": {}, "other": 1})},
            "not required by pipeline: other",
        ),
        (
            {
                "runtime_config": API.V2beta1RuntimeConfig(
                    parameters={"spec": {"a": "{{inputs.x}}"}}
                )
            },
            "failed to resolve {{inputs.x}}",
        ),
    ],
)
def test_a_run_without_what_it_needs_is_refused(
    client: Client, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(API.ApiException, match=complaint):
        client("run_service_create_run", run_of(*uploaded(client), **change))


def test_users_are_kept_apart_by_namespace_and_a_token_is_asked_for() -> None:
    with kfp_server(multi_user=True, token="secret") as server:
        server.forbidden.add("theirs")
        with pytest.raises(API.ApiException) as nobody:
            Client(server)("experiment_service_list_experiments", namespace="mine")
        client = Client(server, "secret")
        client(
            "experiment_service_create_experiment",
            API.V2beta1Experiment(display_name="e", namespace="mine"),
        )
        assert client("experiment_service_list_experiments", namespace="yours").experiments is None
        assert client("experiment_service_list_experiments", namespace="mine").total_size == 1
        with pytest.raises(API.ApiException) as theirs:
            client("experiment_service_list_experiments", namespace="theirs")
        with pytest.raises(API.ApiException, match="namespace is required"):
            client("run_service_list_runs")
    assert (nobody.value.status, theirs.value.status) == (401, 403)


def test_a_run_goes_on_by_one_entry_of_its_course_for_each_look(
    server: KfpServer, client: Client
) -> None:
    run = client("run_service_create_run", run_of(*uploaded(client))).run_id
    assert server.runs[run].get("state") is None
    server.course = [
        {"state": "RUNNING", "steps": {"prepare_dataset": "RUNNING"}},
        {"state": "SUCCEEDED"},
    ]
    assert [client("run_service_get_run", run).state for _ in range(3)] == [
        "RUNNING",
        "SUCCEEDED",
        "SUCCEEDED",
    ]


def test_a_deleted_schedule_takes_its_active_run_along_unless_reported_to_leave_it(
    server: KfpServer, client: Client
) -> None:
    pipeline, version = uploaded(client)
    states = []
    for policy in ({}, {"propagation_policy": "ORPHAN"}):
        job = client(
            "recurring_run_service_create_recurring_run", schedule_of(pipeline, version)
        ).recurring_run_id
        run = server.trigger(job)
        client("recurring_run_service_delete_recurring_run", job, **policy)
        states.append(server.runs[run].get("state"))
    assert states == ["FAILED", None]


def test_a_terminated_run_ends_as_failed_and_a_retried_one_goes_on_without_its_exit_task(
    server: KfpServer, client: Client
) -> None:
    run = client("run_service_create_run", run_of(*uploaded(client))).run_id
    server.advance(run, "RUNNING", steps={"launch_training": "RUNNING"})
    client("run_service_terminate_run", run)
    server.advance(run, "FAILED")
    client("run_service_retry_run", run)
    read = client("run_service_get_run", run)
    assert [each.state for each in read.state_history] == [
        "PENDING",
        None,
        "RUNNING",
        "CANCELING",
        "FAILED",
        "RUNNING",
    ]
    states = {task.display_name: task.state for task in read.run_details.task_details}
    assert states["end-run"] == "SUCCEEDED"
    assert "launch-training" not in states


def test_a_schedule_that_is_turned_on_starts_what_it_missed(
    server: KfpServer, client: Client
) -> None:
    for catches_up, started in ((False, 1), (True, 2)):
        asked = schedule_of(*uploaded(client, f"p{catches_up}"))
        asked.no_catchup = not catches_up
        job = client("recurring_run_service_create_recurring_run", asked).recurring_run_id
        client("recurring_run_service_disable_recurring_run", job)
        server.tick(job)
        server.tick(job)
        assert not any(run.get("recurring_run_id") == job for run in server.runs.values())
        client("recurring_run_service_enable_recurring_run", job)
        assert sum(run.get("recurring_run_id") == job for run in server.runs.values()) == started


def test_a_tag_with_a_dot_and_a_pipeline_that_one_may_not_use_are_400(
    server: KfpServer, client: Client
) -> None:
    pipeline, _ = uploaded(client)
    refused = {
        "p-2": {"tags": json.dumps({"a.b": "c"}), "pipelineid": pipeline},
        "p-3": {"pipelineid": "none"},
    }
    for (name, options), reason in zip(
        refused.items(),
        ("must not contain '.'", "Failed to create a pipeline version"),
        strict=True,
    ):
        with pytest.raises(API.ApiException, match=reason) as error:
            client("upload_pipeline_version", client.package, name=name, **options)
        assert error.value.status == 400
