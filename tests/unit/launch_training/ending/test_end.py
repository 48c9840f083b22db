import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.launch_training import reap
from components.launch_training.__main__ import kfp_end
from components.launch_training.ending.end import Ended, end
from components.launch_training.ending.notify import NOTIFY_VARIABLE
from components.shared.documents.failures import failure_of, read_failures, write_failure
from components.shared.errors import ClusterError, DataError, StoreDenied
from components.shared.html.links import LINK_VARIABLE, store_link
from components.shared.log import set_up_log
from components.shared.spec.file import parse_spec
from components.shared.step import claim_run
from components.shared.store.layout import REPORT, newest_key
from components.shared.store.manifest import publish_folder
from components.shared.store.series import Asked, Newest, note_asked
from components.shared.store.storage import LocalStore

LOG = set_up_log("end_run")


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Any]:
    return {"name": "r", "store": str(tmp_path / "store"), "model": {"source": "m"}, "data": {"train": "d"}, "backend": "pytorchjob"}


def _claimed_by(tree: dict[str, Any], kfp_run: str) -> None:
    note_asked(claim_run(parse_spec(tree)), Asked(series="r", fingerprint="f", kfp_run=kfp_run))


def _end(tree: dict[str, Any], *, state: str = "FAILED", error: str = "", when: str = "failure") -> Ended:
    return end(tree, {}, kfp_run="mine", state=state, error_message=error, notify_when=when, log=LOG)


@pytest.fixture
def reaped(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Runs whose job was to be deleted, and whether only one that this pipeline began. Not a real cluster: tests/cluster has that, and
    test_ownership.py which jobs go."""
    runs: list[tuple[str, bool]] = []

    def note(run: str, log: object, *, kfp_run: str, only_own: bool) -> list[str]:
        assert kfp_run in ("mine", "35966758")
        runs.append((run, only_own))
        return ["job"] if only_own and run.endswith("/begun-here") else []

    monkeypatch.setattr(reap, "reap_run", note)
    return runs


@pytest.mark.parametrize("state", ["CANCELLED", "CANCELED"])
def test_the_job_of_a_run_that_was_stopped_goes_and_the_page_says_what_is_safe(
    state: str, tree: dict[str, Any], reaped: list[tuple[str, bool]]
) -> None:
    _claimed_by(tree, "mine")
    page = _end(tree, state=state, error="task train was cancelled").page
    assert reaped == [(parse_spec(tree).run_uri, False)]
    assert page.startswith("# Run r was stopped\n\nNo checkpoint is committed yet. Started again under this name")
    assert "task train was cancelled" in page


@pytest.mark.parametrize(
    ("state", "how"),
    [
        *((state, "finished") for state in ("SUCCEEDED", "COMPLETE", "CACHED")),
        ("FAILED", "failed"),
        ("RUNNING", "ended (RUNNING)"),
    ],
)
def test_the_title_says_how_it_ended_in_the_words_of_a_server_and_of_kfp_local(
    state: str, how: str, tree: dict[str, Any], reaped: list[tuple[str, bool]]
) -> None:
    _claimed_by(tree, "mine")
    assert _end(tree, state=state).page.startswith(f"# Run r {how}\n")


def test_of_a_run_that_another_pipeline_claimed_only_a_job_begun_here_may_go(tree: dict[str, Any], reaped: list[tuple[str, bool]]) -> None:
    for name, told in (("r", "did not come to claim"), ("begun-here", "only job job, this one's, was deleted")):
        named = {**tree, "name": name}
        _claimed_by(named, "another")
        assert told in _end(named).page
        assert reaped.pop() == (parse_spec(named).run_uri, True)


def test_a_job_that_could_not_be_deleted_fails_the_task_after_all_was_told_once(
    tree: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    address: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _claimed_by(tree, "mine")

    def refuse(run: str, log: object, **_: object) -> list[str]:
        raise ClusterError("cluster: not allowed (403)")

    monkeypatch.setattr(reap, "reap_run", refuse)
    page = tmp_path / "summary.md"
    with pytest.raises(SystemExit) as ended:
        kfp_end(tree, {}, kfp_run="mine", notify_when="failure", state="COMPLETE", error_message=None, summary_path=str(page))
    assert ended.value.code == 2
    assert [(each["title"], each["state"]) for each in address] == [("Run r finished", "COMPLETE")]
    assert "- cluster: not allowed (403)\n- a job may still be running" in address[0]["text"]
    assert "not allowed (403)" in page.read_text()
    assert "No checkpoint is committed yet" in page.read_text()
    (failure,) = read_failures(LocalStore(Path(parse_spec(tree).run_uri)), "mine")
    assert (failure.step, failure.message.splitlines()[0]) == ("end_run", "cluster: not allowed (403)")
    monkeypatch.setattr(reap, "reap_run", lambda *_, **__: [])
    _end(tree, state="COMPLETE")
    assert read_failures(LocalStore(Path(parse_spec(tree).run_uri))) == ()
    assert page.read_text() in capsys.readouterr().out


def test_a_pipeline_that_found_nothing_new_says_whose_work_it_left_as_it_is(
    tree: dict[str, Any], reaped: list[tuple[str, bool]], tmp_path: Path
) -> None:
    _claimed_by(tree, "earlier")
    root = Path(parse_spec(tree).run_uri)
    store = LocalStore(root)
    newest = Newest(run=str(root), fingerprint="f", report=_report_digest(store, tmp_path))
    LocalStore(Path(tree["store"])).write_bytes(newest_key("r"), newest.model_dump_json().encode())
    for state in ("SUCCEEDED", "COMPLETE"):
        ended = end(tree, {"override_run_name": "r-{run}"}, kfp_run="mine", state=state, error_message="", notify_when="never", log=LOG)
        assert ended.page.startswith("# Nothing was done again: r-mine\n")


def _report_digest(store: LocalStore, folder: Path) -> str:
    (folder / "report").mkdir()
    return publish_folder(store, REPORT, folder / "report", made_by="write_report", inputs={}, facts={}).digest


def test_a_store_that_cannot_be_read_fails_the_task_and_is_notified(
    tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch, address: list[dict[str, Any]]
) -> None:
    def refuse(store: object, key: str) -> bytes:
        raise StoreDenied("store: wrong key")

    _claimed_by(tree, "mine")
    monkeypatch.setattr(LocalStore, "read_bytes", refuse)
    ended = _end(tree, state="COMPLETE")
    assert ended.problems[0] == "what is stored could not be read: store: wrong key"
    assert ended.problems[1].endswith(f"hagane reap {parse_spec(tree).run_uri}")
    assert len(address) == 1


def test_an_exit_task_that_runs_twice_notifies_once_and_shows_the_same_page(
    tree: dict[str, Any], reaped: list[tuple[str, bool]], address: list[dict[str, Any]]
) -> None:
    _claimed_by(tree, "mine")
    first, second = _end(tree), _end(tree)
    assert len(address) == 1
    assert first == second
    assert len(reaped) == 2


def test_a_notification_that_was_refused_is_sent_again_by_the_second_try(
    tree: dict[str, Any], reaped: list[tuple[str, bool]], address: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _claimed_by(tree, "mine")
    url = os.environ[NOTIFY_VARIABLE]
    monkeypatch.setenv(NOTIFY_VARIABLE, url.replace("hook", "refuse"))
    _end(tree)
    monkeypatch.setenv(NOTIFY_VARIABLE, url)
    _end(tree)
    assert len(address) == 2


def test_why_a_step_failed_is_in_the_page_and_in_the_notification(
    tree: dict[str, Any], reaped: list[tuple[str, bool]], address: list[dict[str, Any]]
) -> None:
    _claimed_by(tree, "mine")
    run = parse_spec(tree).run_uri
    for step, kfp_run in (("evaluate", "mine"), ("export_adapter", "earlier")):
        failure = failure_of(step, DataError("rows: none; add some"), ["event=begun"], at=datetime.now(UTC), kfp_run=kfp_run)
        write_failure(LocalStore(Path(run)), failure)
    page = _end(tree, error="said by KFP").page
    assert "evaluate: rows: none; add some" in page
    assert "event=begun" in page
    assert "evaluate: rows: none; add some" in address[0]["text"]
    assert "export_adapter" not in page
    assert "said by KFP" not in page
    assert f"{run}/ends/mine.json" in page


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What was posted to a real server of this machine."""
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if "refuse" not in self.path else 403)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv(NOTIFY_VARIABLE, f"http://127.0.0.1:{server.server_port}/hook?key=hush")
    yield posted
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("when", "state", "told"),
    [
        ("failure", "FAILED", 1),
        ("failure", "CANCELLED", 1),
        ("failure", "CANCELED", 1),
        ("failure", "RUNNING", 1),
        ("failure", "SUCCEEDED", 0),
        ("failure", "COMPLETE", 0),
        ("failure", "CACHED", 0),
        ("always", "SUCCEEDED", 1),
        ("always", "COMPLETE", 1),
        ("never", "FAILED", 0),
    ],
)
def test_who_wants_to_know_is_told(
    when: str, state: str, told: int, tree: dict[str, Any], reaped: list[tuple[str, bool]], address: list[dict[str, Any]]
) -> None:
    _claimed_by(tree, "mine")
    page = _end(tree, state=state, when=when).page
    assert len(address) == told
    assert all(each["text"].startswith("Run r ") and each["state"] == state for each in address)
    assert all(each["text"].endswith(f"`{parse_spec(tree).run_uri}`.") for each in address)
    assert "| step's folder | finished | look at |" in page


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:9/x?key=hush", "ConnectionRefusedError"),
        ("http://127.0.0.1:port/x?key=hush", "InvalidURL"),
        ("http://127.0.0.1:9/x y?key=hush", "InvalidURL"),
        ("http://127.0.0.1:9/é?key=hush", "UnicodeEncodeError"),
        ("http://[::1?key=hush", "ValueError"),
        ("file:///etc/passwd", "no http address"),
    ],
)
def test_an_address_that_does_not_answer_fails_nothing_and_is_never_shown(
    url: str, why: str, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(NOTIFY_VARIABLE, url)
    set_up_log("end_run")
    assert "# Run r failed" in _end({**tree, "backend": "local"}).page
    told = "".join(capsys.readouterr())
    assert why in told
    assert "hush" not in told
    assert "passwd" not in told


def test_a_place_in_s3_is_a_link_where_a_click_opens_it_and_else_a_plain_address(monkeypatch: pytest.MonkeyPatch) -> None:
    place = "s3://b/runs/r/report/report.html"
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", LINK_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    assert store_link(place) == f"`{place}`"  # a stock UI server cannot read Amazon's
    for elsewhere in ("https://minio.example.com", "http://minio-service.example.com:9000"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", elsewhere)
        assert store_link(place) == f"`{place}`"
    for own in ("http://minio-service.kubeflow:9000", "http://seaweedfs.kubeflow.svc.cluster.local:8333", "http://minio-service:9000"):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", own)
        assert store_link(place) == f"[{place}](artifacts/get?source=minio&bucket=b&key=runs/r/report/report.html)"
    monkeypatch.setenv(LINK_VARIABLE, "https://console.example.com/{bucket}?prefix={key}")
    assert store_link("s3://b/a key") == "[s3://b/a key](https://console.example.com/b?prefix=a%20key)"
    assert store_link("/folder/r") == "`/folder/r`"


def test_a_run_of_kfp_local_leaves_no_word_of_its_end_in_the_store(tree: dict[str, Any], reaped: list[tuple[str, bool]]) -> None:
    _claimed_by(tree, "35966758")
    page = end(tree, {}, kfp_run="35966758", state="FAILED", error_message="", notify_when="never", log=LOG).page
    run = LocalStore(Path(parse_spec(tree).run_uri))
    assert list(run.list("ends/")) == []
    assert "ends/" not in page
