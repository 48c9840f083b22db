"""Where the server is found, and every way in which it fails, reported in one line."""

import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.shared.errors import (
    HaganeError,
    KfpError,
    KfpExists,
    KfpMissing,
    KfpUnreachable,
    SpecError,
)
from pipelines.kfp_api.active_runs import active_runs
from pipelines.kfp_api.client import Health, KfpClient
from pipelines.kfp_api.connection import Asked, Connection, find_connection
from pipelines.kfp_api.versions import find_pipeline, upload_version
from tests.support.free_port import free_port
from tests.support.kfp import KfpServer, kfp_server
from tests.support.kfp.runs import add_run

TOKEN = "quite-a-secret"


@pytest.fixture
def server() -> Iterator[KfpServer]:
    with kfp_server() as running:
        yield running


def client(endpoint: str, **settings: Any) -> KfpClient:
    given: dict[str, Any] = {
        "namespace": None,
        "token": None,
        "ca_file": None,
        "ui": endpoint,
        "timeout_s": 5.0,
        **settings,
    }
    return KfpClient(Connection(endpoint=endpoint, **given))


def list_runs(kfp: KfpClient) -> list[Any]:
    return list(kfp.pages("list runs", kfp.runs.run_service_list_runs, "runs", **kfp.scope()))


def refused(kfp: KfpClient) -> HaganeError:
    with pytest.raises(KfpError) as error:
        list_runs(kfp)
    assert error.value.exit_code == 2
    (line,) = error.value.problems
    assert "\n" not in line
    assert TOKEN not in line
    return error.value


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (401, KfpError, "it wants a token: set HAGANE_KFP_TOKEN or --token-file"),
        (403, KfpError, "you may not: set --namespace"),
        (404, KfpMissing, "(404)"),
        (409, KfpExists, "something of this name is there"),
        (
            500,
            KfpError,
            "see the log of its deployment ml-pipeline, then run the same command again",
        ),
        (503, KfpError, "the server failed"),
    ],
)
def test_a_refusal_is_one_line_with_what_the_server_said_and_what_to_do(
    server: KfpServer, status: int, kind: type[KfpError], advice: str
) -> None:
    server.fail("GET /runs", status)
    error = refused(client(server.endpoint))
    assert type(error) is kind
    assert str(error).startswith(
        f"KFP at {server.endpoint}: cannot list runs: set to answer {status} ({status})"
    )
    assert advice in str(error)


def test_a_slow_server_is_given_up_in_time_and_asked_once(server: KfpServer) -> None:
    server.slow("GET /runs", 2)
    error = refused(client(server.endpoint, timeout_s=0.2))
    assert isinstance(error, KfpUnreachable)
    assert "no answer within 0.2 s" in str(error)
    assert len(server.called("GET /runs")) == 1


def test_a_connection_broken_off_is_reported(server: KfpServer) -> None:
    server.drop("GET /runs", times=9)
    assert "the connection was broken off; run the same command again" in str(
        refused(client(server.endpoint))
    )


def test_nothing_there_is_reported_and_no_library_speaks(caplog: pytest.LogCaptureFixture) -> None:
    assert "nothing listens there; check the address" in str(
        refused(client(f"http://127.0.0.1:{free_port()}"))
    )
    assert "no host of this name" in str(refused(client("http://no-such-host.invalid")))
    assert caplog.text == ""


def test_a_page_to_log_in_is_no_answer(server: KfpServer) -> None:
    server.login_page()
    assert "the answer is text/html, not KFP's; a proxy's page to log in has this form" in str(
        refused(client(server.endpoint))
    )


def test_another_web_servers_404_is_not_taken_for_a_thing_that_kfp_does_not_have(
    server: KfpServer,
) -> None:
    server.no_such_page()
    error = refused(client(server.endpoint))
    assert not isinstance(error, KfpMissing)
    assert (
        "404 Not Found; check that the address is KFP's API: behind Kubeflow's gateway it ends "
        "in /pipeline"
    ) in str(error)
    with pytest.raises(KfpError):
        find_pipeline(client(server.endpoint), "hagane-finetune")


def test_a_token_in_a_file_is_read_again_for_each_request(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    file.chmod(0o600)
    with kfp_server(token="first") as server:
        kfp = KfpClient(find_connection(Asked(endpoint=server.endpoint, token_file=file), {}))
        assert list_runs(kfp) == []
        server.token = "second"
        file.write_text("second")
        assert list_runs(kfp) == []


def test_a_wrong_token_is_reported_without_showing_it() -> None:
    with kfp_server(token="another") as server:
        error = refused(client(server.endpoint, token=TOKEN))
        assert "the token is not known there or has run out" in str(error)
        assert list_runs(client(server.endpoint, token="another")) == []


def test_many_users_need_a_namespace_and_one_user_gets_none() -> None:
    with kfp_server(multi_user=True) as server:
        assert "set --namespace or HAGANE_KFP_NAMESPACE" in str(refused(client(server.endpoint)))
        assert list_runs(client(server.endpoint, namespace="mine")) == []
        server.forbidden.add("theirs")
        assert "you may not in namespace 'theirs'" in str(
            refused(client(server.endpoint, namespace="theirs"))
        )
    with kfp_server() as server:
        assert list_runs(client(server.endpoint, namespace="mine")) == []


class _Redirecting(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", "/dex/auth")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


def test_active_runs_past_a_page_are_all_found_and_those_without_a_state_yet_too(
    server: KfpServer,
) -> None:
    runs = [
        add_run(server, {"display_name": f"r{number}", "pipeline_spec": {"root": {}}})["run_id"]
        for number in range(450)
    ]
    for run in runs[:-5]:
        server.runs[run]["state"] = "RUNNING"
        server.runs[run]["created_at"] = "2026-01-01T00:00:00Z"
    for run in runs[:7]:
        server.runs[run]["state"] = "FAILED"
    found = [run.run_id for run in active_runs(client(server.endpoint))]
    assert (len(found), set(found)) == (443, set(runs[7:]))
    assert server.called("GET /runs")[-1].query.keys() == {"page_size", "page_token"}


def test_a_run_that_never_got_a_state_is_active_for_an_hour_after_it_was_created(
    server: KfpServer,
) -> None:
    made = {
        age: add_run(server, {"display_name": age, "pipeline_spec": {"root": {}}})
        for age in ("now", "58", "62", "1 year")
    }
    for age, minutes in (("58", 58), ("62", 62), ("1 year", 525_600)):
        made[age]["created_at"] = (
            f"{datetime.now(UTC) - timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"
        )
    assert {run.display_name for run in active_runs(client(server.endpoint))} == {"now", "58"}


@pytest.mark.parametrize("through_ui", [False, True])
def test_health_is_read_in_the_spelling_of_the_api_and_of_the_ui(
    server: KfpServer, through_ui: bool
) -> None:
    server.through_ui, server.tag_name = through_ui, "2.17.0"
    assert client(server.endpoint).health == Health(
        multi_user=False, pipeline_store="database", tag_name="2.17.0"
    )


@pytest.mark.parametrize("through_ui", [False, True])
def test_an_old_server_can_be_read_and_a_run_of_it_cancelled_but_nothing_else_is_sent(
    server: KfpServer, through_ui: bool
) -> None:
    server.through_ui, server.tag_name = through_ui, "2.5.0"
    run = add_run(server, {"display_name": "r", "pipeline_spec": {"root": {}}})["run_id"]
    kfp = client(server.endpoint)
    assert [each.run_id for each in list_runs(kfp)] == [run]
    kfp.ask("cancel", kfp.runs.run_service_terminate_run, run)
    assert "found version 2.5.0, older than 2.14: runs and schedules can be shown" in str(
        kfp.warning_of_age
    )
    with pytest.raises(KfpError) as error:
        upload_version(kfp, "p", "v1", b"a: 1", description="")
    assert "found version 2.5.0, allowed 2.14 or newer" in str(error.value)
    assert "its first step fails" in str(error.value)
    with pytest.raises(KfpError, match=r"allowed 2\.14 or newer"):
        kfp.experiment_id("new")
    assert [str(each) for each in server.called("^(POST|DELETE)")] == [
        f"POST /runs/{run}:terminate"
    ]


def test_a_server_that_takes_the_pipeline_or_names_no_version_is_not_warned_of(
    server: KfpServer,
) -> None:
    for taken in ("2.14.0", "v2.17.3", "3.0.0", "unknown", ""):
        server.tag_name = taken
        kfp = client(server.endpoint)
        assert kfp.warning_of_age is None
        assert kfp.experiment_id("new") is not None


def test_the_sentence_of_a_fault_is_shown_where_the_details_hold_none(server: KfpServer) -> None:
    server.fail("GET /runs", 500)
    assert "set to answer 500 (500)" in str(refused(client(server.endpoint)))


def test_an_upload_that_kfp_gives_no_reason_for_says_what_it_may_be(server: KfpServer) -> None:
    kfp = client(server.endpoint)
    with pytest.raises(KfpError) as error:
        upload_version(kfp, "no-such-pipeline", "v1", b"a: 1", description="")
    assert (
        "Failed to create a pipeline version (400); KFP gives no reason: you may not upload "
        "here, or the pipeline is gone"
    ) in str(error.value)


def test_a_redirect_to_a_login_is_not_followed() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Redirecting) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        error = refused(client(f"http://127.0.0.1:{http.server_port}"))
        http.shutdown()
        thread.join()
    assert "it leads elsewhere, to a page to log in" in str(error)


def test_a_certificate_of_no_known_authority_is_reported_and_its_authority_can_be_named(
    tmp_path: Path,
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    made += [
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("localhost", 0), _Redirecting) as http:
        http.socket = context.wrap_socket(http.socket, server_side=True)
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        address = f"https://localhost:{http.server_port}"
        untrusted, trusted = refused(client(address)), refused(client(address, ca_file=certificate))
        http.shutdown()
        thread.join()
    assert "TLS: " in str(untrusted)
    assert "set HAGANE_KFP_CA_FILE" in str(untrusted)
    assert "it leads elsewhere" in str(trusted)


def contexts(folder: Path, text: str, mode: int = 0o600) -> dict[str, str]:
    path = folder / "kfp.yaml"
    path.write_text(text)
    path.chmod(mode)
    return {"HAGANE_KFP_CONFIG": str(path)}


CONTEXTS = """
current: lab
contexts:
  lab: {endpoint: "https://lab.example.com/pipeline/", namespace: team-a, token_file: TOKEN_FILE}
  site: {endpoint: "https://site.example.com", token_env: SITE_TOKEN}
"""


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "token").chmod(0o600)
    env = contexts(tmp_path, CONTEXTS.replace("TOKEN_FILE", str(tmp_path / "token")))
    lab = find_connection(Asked(), env)
    assert (lab.endpoint, lab.namespace, lab.token) == (
        "https://lab.example.com/pipeline",
        "team-a",
        TOKEN,
    )
    assert TOKEN not in repr(lab)
    site = find_connection(
        Asked(context="site", namespace="b"), env | {"SITE_TOKEN": "t", "HAGANE_KFP_NAMESPACE": "c"}
    )
    assert (site.endpoint, site.namespace, site.token) == ("https://site.example.com", "b", "t")
    other = find_connection(Asked(), env | {"HAGANE_KFP_ENDPOINT": "http://localhost:8080"})
    assert (other.endpoint, other.namespace, other.token) == ("http://localhost:8080", None, None)
    of_another = find_connection(
        Asked(endpoint="http://a"),
        {**env, "HAGANE_KFP_TOKEN": "x", "HAGANE_KFP_ENDPOINT": "http://b"},
    )
    assert (of_another.endpoint, of_another.token) == ("http://a", None)
    assert (
        find_connection(Asked(endpoint="http://a"), {**env, "HAGANE_KFP_TOKEN": "x"}).token == "x"
    )


PROD = """
contexts:
  prod: {endpoint: "https://prod.example.com/", namespace: team-a, token_file: TOKEN_FILE, ui: "https://ui.prod.example.com", ca_file: CA}
  bare: {endpoint: "https://bare.example.com"}
"""  # noqa: E501
OF_THE_LAB = {
    "HAGANE_KFP_ENDPOINT": "https://lab.example.com",
    "HAGANE_KFP_NAMESPACE": "team-lab",
    "HAGANE_KFP_UI": "https://ui.lab.example.com",
    "HAGANE_KFP_CA_FILE": "/no/such/lab.pem",
    "HAGANE_KFP_TOKEN": "of the lab",
}


def test_a_server_named_by_a_flag_counts_more_than_the_variables_of_another(
    tmp_path: Path,
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    (tmp_path / "ca.pem").write_text("")
    env = (
        contexts(
            tmp_path,
            PROD.replace("TOKEN_FILE", str(tmp_path / "token")).replace(
                "CA", str(tmp_path / "ca.pem")
            ),
        )
        | OF_THE_LAB
    )
    prod = find_connection(Asked(context="prod"), env)
    assert (prod.endpoint, prod.namespace, prod.token) == (
        "https://prod.example.com",
        "team-a",
        TOKEN,
    )
    assert (prod.ui, prod.ca_file) == ("https://ui.prod.example.com", tmp_path / "ca.pem")
    bare = find_connection(Asked(context="bare"), env)
    assert (bare.endpoint, bare.namespace, bare.token) == ("https://bare.example.com", None, None)
    assert (bare.ui, bare.ca_file) == ("https://bare.example.com", None)
    assert find_connection(Asked(context="prod", namespace="b"), env).namespace == "b"


def test_what_the_named_context_leaves_open_variables_say_where_they_name_no_other_server(
    tmp_path: Path,
) -> None:
    env = contexts(tmp_path, PROD) | {"HAGANE_KFP_TOKEN": TOKEN, "HAGANE_KFP_NAMESPACE": "c"}
    bare = find_connection(Asked(context="bare"), env)
    assert (bare.endpoint, bare.namespace, bare.token) == ("https://bare.example.com", "c", TOKEN)


def test_a_pods_own_token_is_found(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of the pod")
    env = {
        "HAGANE_KFP_CONFIG": str(tmp_path / "none"),
        "KF_PIPELINES_SA_TOKEN_PATH": str(tmp_path / "token"),
    }
    assert find_connection(Asked(endpoint="http://ml-pipeline:8888"), env).token == "of the pod"


@pytest.mark.parametrize(
    ("asked", "env", "line"),
    [
        (Asked(), {}, "KFP: no server is named; set --endpoint or HAGANE_KFP_ENDPOINT"),
        (Asked(endpoint="kfp.example.com"), {}, "got 'kfp.example.com', must be an address"),
        (Asked(endpoint="https://me:pass@kfp.example.com"), {}, "holds a user name or password"),
        (
            Asked(endpoint="http://a", token_file=Path("no/such")),
            {},
            "token file: no file 'no/such'",
        ),
        (
            Asked(endpoint="http://a"),
            {"HAGANE_KFP_TIMEOUT_S": "soon"},
            "HAGANE_KFP_TIMEOUT_S: got 'soon'",
        ),
        (Asked(context="lab"), {}, "context 'lab' is asked for, but there is no"),
    ],
)
def test_what_names_no_server_is_reported(
    asked: Asked, env: dict[str, str], line: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError) as error:
        find_connection(asked, {"HAGANE_KFP_CONFIG": str(tmp_path / "none"), **env})
    assert line in str(error.value)
    assert "pass@" not in str(error.value)


def test_files_that_others_could_read_or_write_are_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(SpecError, match="others may read this token; run chmod 600"):
        find_connection(
            Asked(), contexts(tmp_path, CONTEXTS.replace("TOKEN_FILE", str(tmp_path / "token")))
        )
    with pytest.raises(SpecError, match="others may write to it"):
        find_connection(Asked(), contexts(tmp_path, CONTEXTS, mode=0o666))


def test_a_token_written_into_the_file_is_refused_and_not_shown(tmp_path: Path) -> None:
    env = contexts(tmp_path, f"contexts: {{lab: {{endpoint: 'http://a', token: {TOKEN}}}}}")
    with pytest.raises(
        SpecError, match=r"contexts\.lab\.token: Extra inputs are not permitted"
    ) as error:
        find_connection(Asked(context="lab"), env)
    assert TOKEN not in str(error.value)
