"""`hagane doctor` where no cluster is asked, or none answers; on a real one:
tests/cluster/test_doctor.py."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from components.shared.documents.findings import Finding
from pipelines.kfp_api.connection import Asked
from pipelines.programs.doctor import findings_table, kfp_finding
from pipelines.screens.run import open_console
from tests.support.command_line import hagane
from tests.support.example_plans import ROOT
from tests.support.free_port import free_port
from tests.support.kfp import kfp_server


@pytest.fixture(autouse=True)
def no_file_of_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HAGANE_KFP_CONFIG", str(tmp_path / "none"))


@pytest.mark.parametrize(("multi_user", "mode"), [(True, "multi-user"), (False, "single-user")])
def test_kfps_answer_is_reported_with_its_mode(multi_user: bool, mode: str) -> None:
    with kfp_server(multi_user=multi_user) as server:
        finding = kfp_finding(Asked(endpoint=server.endpoint))
    assert (finding.state, finding.found) == (
        "ok",
        f"{server.endpoint} answers, {mode}, pipelines kept in database",
    )


def test_through_the_uis_address_nothing_of_the_answer_is_lost() -> None:
    with kfp_server() as server:
        server.through_ui = True
        finding = kfp_finding(Asked(endpoint=server.endpoint))
    assert finding.found == f"{server.endpoint} answers, single-user, pipelines kept in database"


def test_a_page_to_log_in_and_a_server_that_is_not_there_are_failures() -> None:
    with kfp_server() as server:
        server.login_page()
        finding = kfp_finding(Asked(endpoint=server.endpoint))
    assert finding.state == "failed"
    assert "HAGANE_KFP_TOKEN" in finding.line
    assert kfp_finding(Asked(endpoint=f"http://127.0.0.1:{free_port()}")).state == "failed"


def test_an_endpoint_that_is_none_is_a_failure_and_no_endpoint_is_skipped() -> None:
    assert kfp_finding(Asked()).state == "skipped"
    assert kfp_finding(Asked(endpoint="file:///etc/passwd")).state == "failed"


def test_the_table_has_a_row_each_with_what_to_do_below_what_was_found() -> None:
    console = open_console()
    findings = [
        Finding(check="a", state="ok", found="[there]"),
        Finding(check="b", state="failed", found="gone", fix="bring it back"),
    ]
    with console.capture() as captured:
        console.print(findings_table(findings))
    assert [line.split() for line in captured.get().splitlines()[1:]] == [
        ["a", "ok", "[there]"],
        ["b", "failed", "gone"],
        ["fix:", "bring", "it", "back"],
    ]


def test_a_spec_that_needs_no_cluster_is_refused_with_the_way_to_ask_all_the_same(
    tmp_path: Path,
) -> None:
    done = hagane("doctor", ROOT / "specs" / "demo.yaml", work=tmp_path)
    assert (done.exit_code, done.output) == (2, "")
    said = (
        "error: backend: got 'local', which needs no cluster; set backend: pytorchjob, or --set "
        "backend=pytorchjob"
    )
    assert done.errors == [f"{said}, or check this machine by --gpu"]


def test_without_a_cluster_one_line_says_so_and_kfp_is_still_asked(tmp_path: Path) -> None:
    port = free_port()
    env = {"KUBECONFIG": str(tmp_path / "none"), "HAGANE_KFP_ENDPOINT": f"http://127.0.0.1:{port}"}
    done = hagane("doctor", work=tmp_path, env=env)
    assert done.exit_code == 2
    assert [line.split(": ")[1] for line in done.errors] == ["cluster", "KFP"]
    assert "set KUBECONFIG" in done.errors[0]


def test_fixes_are_printed_and_failed_checks_still_end_with_2(tmp_path: Path) -> None:
    env = {"KUBECONFIG": str(tmp_path / "none")}
    done = hagane("doctor", "--print-fixes", work=tmp_path, env=env)
    assert done.exit_code == 2
    assert "# not fixed by an object: cluster: " in done.output
    assert [line.split(": ")[1] for line in done.errors if "error: " in line] == ["cluster"]


class EmptyCluster(BaseHTTPRequestHandler):
    """An API server that has nothing, and whose version is known. A real one is too slow here:
    tests/cluster."""

    def do_GET(self) -> None:
        if self.path.startswith("/version"):
            version = dict.fromkeys(("gitCommit", "gitTreeState", "buildDate", "goVersion"), "")
            more = {"compiler": "", "platform": "", "major": "1", "minor": "31"}
            self.answer(200, version | more | {"gitVersion": "v1.31.0"})
        else:
            self.answer(404, {"kind": "Status", "code": 404, "message": "not found"})

    def do_POST(self) -> None:
        self.do_GET()

    def answer(self, code: int, document: Mapping[str, object]) -> None:
        body = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def kubeconfig(folder: Path) -> Iterator[Path]:
    """Of an empty cluster; its context names no namespace."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), EmptyCluster)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": address}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (folder / "config").write_text(yaml.safe_dump(document))
    try:
        yield folder / "config"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("arguments", "namespaces"),
    [([], {"default"}), (["--namespace", "ml"], {"ml"}), (["--launcher", "self"], set())],
)
def test_fixes_are_for_the_namespace_and_the_account_that_doctor_looked_at(
    tmp_path: Path, arguments: list[str], namespaces: set[str]
) -> None:
    with kubeconfig(tmp_path) as file:
        env = {"KUBECONFIG": str(file)}
        done = hagane("doctor", "--print-fixes", *arguments, work=tmp_path, env=env)
    objects = [each for each in yaml.safe_load_all(done.output) if each]
    assert done.exit_code == 2
    assert {each["metadata"]["namespace"] for each in objects} == namespaces
    assert any(each["kind"] == "ServiceAccount" for each in objects) == bool(namespaces)


def test_fixes_and_json_together_are_refused(tmp_path: Path) -> None:
    done = hagane("doctor", "--print-fixes", "--json", work=tmp_path)
    assert (done.exit_code, done.output, len(done.errors)) == (2, "", 1)
    assert "--print-fixes prints YAML and --json prints JSON" in done.errors[0]


def test_a_plan_that_is_refused_is_a_finding_beside_the_others(tmp_path: Path) -> None:
    spec = ROOT / "specs" / "plans" / "swallow-70b-full-8x80gb.yaml"
    done = hagane(
        "doctor",
        spec,
        "--set",
        "backend=pytorchjob",
        work=tmp_path,
        env={"KUBECONFIG": str(tmp_path / "none")},
    )
    assert [line.split(": ")[1] for line in done.errors] == ["plan"] * 4 + ["cluster"]
    assert "the training does not fit" in done.errors[0]


def test_gpus_are_checked_only_for_a_spec(tmp_path: Path) -> None:
    done = hagane("doctor", "--gpu", work=tmp_path)
    assert (done.exit_code, done.output) == (2, "")
    assert "--gpu needs a spec" in done.errors[0]
