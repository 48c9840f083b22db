"""The stand-in for KFP's server against what a real one answered: keys, types, words and zero values are the same."""

import base64
import json
import re
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from pipelines.finetune.compiling import compiled_pipeline
from pipelines.kfp_api.client import KfpClient
from pipelines.kfp_api.connection import Connection
from pipelines.kfp_api.versions import upload_version
from tests.support.kfp import PREFIX, KfpServer, kfp_server
from tests.support.kfp.nodes import STEPS
from tests.support.kfp_answers import FOLDER, recorded

INDEX: list[dict[str, Any]] = json.loads((FOLDER / "index.json").read_text())
FREE = ("parameters", "pipeline_spec", "plugins_output", "platform_spec")
"""Fields whose content is the user's, or a plugin's."""
WORDS = ("state", "mode", "status", "storage_state")
OF_A_SITE = {"plugins_output"}
"""Keys that only a site with plugins has."""
NOT_SENT = {"description", "runtime_config", "parameters"}
"""Keys that are there when somebody sent them; hagane always does."""
IN = {"predicates": [{"operation": "IN", "key": "state", "string_values": {"values": ["PENDING", "RUNNING"]}}]}


class Answer(NamedTuple):
    status: int
    content_type: str
    body: Any


class Shape(NamedTuple):
    """What is compared of an answer, by the path of each field; all entries of a list count as one."""

    types: dict[str, set[str]]
    words: dict[str, set[str]]
    zeros: dict[str, set[str]]
    """Times before the year 2000: how the server says `none`."""


def shape(body: Any) -> Shape:
    found = Shape(defaultdict(set), defaultdict(set), defaultdict(set))
    _walk(body, "", found)
    return found


def _walk(tree: Any, where: str, found: Shape) -> None:
    name = where.rpartition(".")[2]
    found.types[where].add(type(tree).__name__)
    if isinstance(tree, dict) and name not in FREE:
        for key, value in tree.items():
            _walk(value, f"{where}.{key}", found)
    elif isinstance(tree, list):
        for value in tree:
            _walk(value, where, found)
    elif isinstance(tree, str) and name in WORDS:
        found.words[where].add(tree)
    elif isinstance(tree, str) and re.match(r"(0|1)\d{3}-\d\d-\d\dT", tree):
        found.zeros[where].add(tree)


@pytest.fixture(scope="module")
def content() -> bytes:
    return compiled_pipeline().content


class Situation:
    """The stand-in with a pipeline of hagane in it, brought to where the recorded answers were given."""

    def __init__(self, server: KfpServer, content: bytes) -> None:
        self.server, self.content = server, content
        self.kfp = KfpClient(Connection(endpoint=server.endpoint, namespace=None, token=None, ca_file=None, ui=""))
        self.pipeline = self.ask("POST", "/pipelines", {"name": "hello", "display_name": "hello"}).body["pipeline_id"]
        upload_version(self.kfp, self.pipeline, "v10", content, description="")
        (self.version,) = server.versions

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        sent = urllib.request.Request(f"{self.server.endpoint}{PREFIX}{path}", method=method)
        if body is not None:
            sent.data = json.dumps(body).encode()
        return self._answer(sent)

    def upload(self, path: str, content: bytes) -> Answer:
        sent = urllib.request.Request(f"{self.server.endpoint}{PREFIX}{path}", method="POST")
        sent.add_header("Content-Type", "multipart/form-data; boundary=b")
        head = b'--b\r\nContent-Disposition: form-data; name="uploadfile"; filename="p.yaml"\r\n\r\n'
        sent.data = head + content + b"\r\n--b--\r\n"
        return self._answer(sent)

    def tagged(self, tags: dict[str, str]) -> Answer:
        return self.upload(f"{VERSION}name=v11&pipelineid={self.pipeline}&tags={quote(json.dumps(tags))}", self.content)

    def _answer(self, sent: urllib.request.Request) -> Answer:
        try:
            with urllib.request.urlopen(sent) as came:
                return Answer(came.status, came.headers["Content-Type"], json.loads(came.read()))
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers["Content-Type"], json.loads(error.read()))

    def run(self, **parameters: Any) -> Answer:
        reference = {"pipeline_id": self.pipeline, "pipeline_version_id": self.version}
        body = {"display_name": "x", "pipeline_version_reference": reference, "runtime_config": {"parameters": parameters}}
        return self.ask("POST", "/runs", body)

    def advanced(self, *course: tuple[str, dict[str, Any]]) -> Answer:
        run_id = self.run(spec={"name": "x"}).body["run_id"]
        for state, steps in course:
            if state == "retry":
                self.ask("POST", f"/runs/{run_id}:retry")
            elif state == "terminate":
                self.ask("POST", f"/runs/{run_id}:terminate")
            else:
                self.server.advance(run_id, state, steps=steps)
        return self.ask("GET", f"/runs/{run_id}")

    def schedule(self) -> str:
        body = {
            "display_name": "often",
            "description": "kept",
            "pipeline_version_reference": {"pipeline_id": self.pipeline, "pipeline_version_id": self.version},
            "runtime_config": {"parameters": {"spec": {"name": "x"}}},
            "trigger": {"cron_schedule": {"cron": "0 0 * * * *"}},
            "max_concurrency": "1",
            "no_catchup": True,
            "mode": "DISABLE",
        }
        return self.ask("POST", "/recurringruns", body).body["recurring_run_id"]

    def through_ui(self) -> Answer:
        self.server.through_ui = True
        return self.ask("GET", "/healthz")

    def listed(self) -> Answer:
        """A page of the three newest of four runs: one that a schedule started, one that is running, one that has succeeded."""
        older = self.advanced(AT_WORK).body["run_id"]
        self.server.runs[older]["created_at"] = "2026-01-01T00:00:00Z"
        self.server.advance(self.server.trigger(self.schedule()), "RUNNING", steps={"claim_run": "RUNNING"})
        self.advanced(AT_WORK)
        self.advanced(AT_WORK, ("SUCCEEDED", {}))
        return self.ask("GET", f"/runs?page_size=3&sort_by={quote('created_at desc')}")

    def active(self, *, page: int) -> Answer:
        for _ in range(3):
            self.advanced(AT_WORK)
        first = self.ask("GET", f"/runs?page_size=1&filter={quote(json.dumps(IN))}")
        return first if page == 1 else self.ask("GET", f"/runs?page_size=1&page_token={first.body['next_page_token']}")

    def filtered_with_a_token(self) -> Answer:
        token = self.active(page=1).body["next_page_token"]
        return self.ask("GET", f"/runs?page_size=1&filter={quote(json.dumps(IN))}&page_token={token}")


DONE: dict[str, Any] = dict.fromkeys(STEPS, "SUCCEEDED")
SO_FAR = {"claim_run": "SUCCEEDED", "prepare_dataset": "SUCCEEDED", "render_config": "SUCCEEDED"}
AT_WORK = ("RUNNING", {"claim_run": "SUCCEEDED", "prepare_dataset": "RUNNING"})
TRAINING = ("RUNNING", SO_FAR | {"launch_training": "RUNNING"})
FAILED = ("FAILED", SO_FAR | {"launch_training": "FAILED"})
CACHED = ("SUCCEEDED", DONE | {"prepare_dataset": "CACHED", "render_config": "CACHED"})
VERSION = "/pipelines/upload_version?"
NOBODY = "00000000-0000-0000-0000-000000000000"

SITUATIONS: dict[str, Callable[[Situation], Answer]] = {
    "healthz": lambda at: at.ask("GET", "/healthz"),
    "healthz-through-the-ui": lambda at: at.through_ui(),
    "pipeline": lambda at: at.ask("GET", "/pipelines/names/hello"),
    "pipeline-missing": lambda at: at.ask("GET", "/pipelines/names/nothere"),
    "pipeline-exists": lambda at: at.ask("POST", "/pipelines", {"name": "hello"}),
    "upload-no-pipeline": lambda at: at.upload("/pipelines/upload?name=a", b"a: 1"),
    "upload-pipeline-exists": lambda at: at.upload("/pipelines/upload?name=hello", at.content),
    "version": lambda at: at.tagged({"managed-by": "hagane"}),
    "version-bad-tag": lambda at: at.tagged({"a.b": "c"}),
    "version-no-pipeline": lambda at: at.upload(f"{VERSION}name=v11&pipelineid={NOBODY}", at.content),
    "version-exists": lambda at: at.upload(f"{VERSION}name=v10&pipelineid={at.pipeline}", at.content),
    "run-created": lambda at: at.run(spec={"name": "x"}),
    "run-unknown-parameter": lambda at: at.run(nothere=1),
    "run-unresolved-braces": lambda at: at.run(spec={"name": "{{inputs.x}}"}),
    "run-missing": lambda at: at.ask("GET", f"/runs/{NOBODY}"),
    "run-running": lambda at: at.advanced(AT_WORK),
    "run-training": lambda at: at.advanced(TRAINING),
    "run-succeeded": lambda at: at.advanced(TRAINING, ("SUCCEEDED", DONE)),
    "run-cached": lambda at: at.advanced(AT_WORK, CACHED),
    "run-failed": lambda at: at.advanced(TRAINING, FAILED),
    "run-failed-at-once": lambda at: at.advanced(AT_WORK, ("FAILED", {})),
    "run-cancelled": lambda at: at.advanced(TRAINING, ("terminate", {}), FAILED),
    "run-retried": lambda at: at.advanced(TRAINING, FAILED, ("retry", {}), ("SUCCEEDED", DONE)),
    "runs": lambda at: at.listed(),
    "runs-active-page-1": lambda at: at.active(page=1),
    "runs-active-page-2": lambda at: at.active(page=2),
    "runs-filter-and-token": lambda at: at.filtered_with_a_token(),
    "runs-bad-token": lambda at: at.ask("GET", "/runs?page_token=abc"),
    "recurring-runs": lambda at: (at.schedule(), at.ask("GET", "/recurringruns"))[1],
    "recurring-run": lambda at: at.ask("GET", f"/recurringruns/{at.schedule()}"),
    "recurring-run-missing": lambda at: at.ask("GET", f"/recurringruns/{NOBODY}"),
}


@pytest.fixture
def situation(content: bytes) -> Iterator[Situation]:
    with kfp_server() as server:
        yield Situation(server, content)


def test_every_recorded_answer_has_its_situation() -> None:
    assert {each["file"].removesuffix(".json") for each in INDEX} == SITUATIONS.keys()
    assert {each["file"] for each in INDEX} | {"index.json"} == {file.name for file in FOLDER.glob("*.json")}


@pytest.mark.parametrize("entry", INDEX, ids=lambda entry: entry["file"].removesuffix(".json"))
def test_the_stand_in_answers_as_the_real_server_did(entry: dict[str, Any], situation: Situation) -> None:
    name = entry["file"].removesuffix(".json")
    answer, real = SITUATIONS[name](situation), shape(recorded(name))
    assert (answer.status, answer.content_type) == (entry["status"], entry["content_type"])
    made = shape(answer.body)
    missing = {where for where in real.types.keys() - made.types.keys() if where.rpartition(".")[2] not in OF_A_SITE}
    assert missing == set()
    assert {where for where in made.types.keys() - real.types.keys() if where.rpartition(".")[2] not in NOT_SENT} == set()
    for where, types in made.types.items():
        assert types <= real.types.get(where, types), where
    for where, words in made.words.items():
        assert words <= _all_words(where), where
    assert made.zeros == real.zeros


def test_what_a_token_says_is_what_the_real_servers_says(situation: Situation) -> None:
    made = json.loads(base64.b64decode(situation.active(page=1).body["next_page_token"]))
    real = json.loads(base64.b64decode(recorded("runs-active-page-1")["next_page_token"]))
    assert made.keys() == real.keys()
    changes = {"SortByFieldValue", "KeyFieldValue", "Filter"}
    assert {key: value for key, value in made.items() if key not in changes} == {
        key: value for key, value in real.items() if key not in changes
    }
    assert made["Filter"].keys() == real["Filter"].keys()
    assert made["Filter"]["IN"].keys() == real["Filter"]["IN"].keys()


def _all_words(where: str) -> set[str]:
    """Every word that a recorded answer of any run has at this path, or at the same one in a list of runs."""
    words: set[str] = set()
    for entry in INDEX:
        for path, seen in shape(recorded(entry["file"].removesuffix(".json"))).words.items():
            if path.removeprefix(".runs").removeprefix(".recurringRuns") == where.removeprefix(".runs").removeprefix(".recurringRuns"):
                words |= seen
    return words
