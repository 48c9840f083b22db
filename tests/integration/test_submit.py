"""`hagane submit` and `hagane runs` as a person runs them, against the stand-in for KFP's server
and a real S3 server."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.shared.documents.failures import failure_of, write_failure
from components.shared.errors import DataError, RunFailed
from components.shared.store.storage import open_store
from tests.support.command_line import HAGANE, Finished, environment, hagane, write_spec
from tests.support.kfp import KfpServer, kfp_server, nodes
from tests.support.s3_server import S3Server
from tests.support.tiny_models import make_model, write_conversations

IMAGES = Path(__file__).parents[2] / "images" / "images.yaml"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and data, which stands for a claim that is seen here under the path
    that pods see it under."""
    folder = tmp_path_factory.mktemp("claim")
    make_model(folder / "model")
    write_conversations(folder / "train.jsonl", 24)
    return folder


@pytest.fixture
def server() -> Iterator[KfpServer]:
    with kfp_server() as running:
        yield running


@pytest.fixture
def tree(inputs: Path, s3: S3Server) -> dict[str, Any]:
    return {
        "name": "tiny",
        "store": s3.fresh_uri(),
        "backend": "pytorchjob",
        "model": {"source": str(inputs / "model")},
        "data": {"train": str(inputs / "train.jsonl"), "row_tokens": 256},
        "training": {"epochs": 2, "global_batch": 4},
        "lora": {"rank": 4},
        "hardware": {"num_nodes": 2, "host_memory_gib": 8},
        "cluster": {"claims": {"models": str(inputs)}},
    }


@pytest.fixture
def reported(server: KfpServer, s3: S3Server, tmp_path: Path) -> dict[str, str]:
    """The environment of a person who has set where KFP and the store are; a home of their
    own."""
    return {"HAGANE_KFP_ENDPOINT": server.endpoint, "HOME": str(tmp_path), **s3.env}


def submit(tree: dict[str, Any], folder: Path, env: dict[str, str], *more: str) -> Finished:
    return hagane(
        "submit", write_spec(folder / "spec.yaml", tree), *more, work=folder / "work", env=env
    )


def test_from_an_empty_server_a_run_is_submitted_listed_and_looked_at(
    server: KfpServer, tree: dict[str, Any], reported: dict[str, str], tmp_path: Path
) -> None:
    done = submit(tree, tmp_path, reported)
    assert done.exit_code == 0, done.errors
    (pipeline,), (version,), (run,) = (
        server.pipelines.values(),
        server.versions.values(),
        server.runs.values(),
    )
    link = f"{server.endpoint}/#/runs/details/{run['run_id']}"
    plan, *lines = done.output.splitlines()
    assert re.match(r"plan     LoRA of model .* fits 2 CPU processes", plan)
    assert lines == [
        f"version  {version['name']} (uploaded)",
        f"run      tiny {run['run_id']} in experiment hagane",
        f"link     {link}",
    ]
    assert pipeline["name"] == "hagane-finetune"
    assert re.fullmatch("hagane-finetune-[0-9a-f]{12}", version["name"])
    assert run["runtime_config"]["parameters"]["spec"]["training"]["epochs"] == 2
    assert server.experiments[run["experiment_id"]]["display_name"] == "hagane"
    assert re.search(
        r"tiny +waiting +- ", hagane("runs", work=tmp_path, env=reported).output
    )  # a run just created has no state
    server.advance(
        run["run_id"], "RUNNING", steps={"prepare_dataset": "SUCCEEDED", "render_config": "DRIVER"}
    )
    listed = hagane("runs", work=tmp_path, env=reported)
    assert re.search(
        (
            rf"tiny +running +render_config +\d{{4}}.* - +{re.escape(tree['store'])}/tiny "
            rf"+{run['run_id']}"
        ),
        listed.output,
    )
    one = hagane("runs", run["run_id"], work=tmp_path, env=reported)
    assert re.search(r"prepare_dataset +succeeded", one.output)
    assert link in one.output
    assert not (tmp_path / ".config").exists()  # where kfp.Client would write


def test_a_second_submit_uploads_nothing_and_other_images_are_a_new_version(
    server: KfpServer, tree: dict[str, Any], reported: dict[str, str], tmp_path: Path
) -> None:
    assert submit(tree, tmp_path, reported, "--no-plan").exit_code == 0
    server.advance(next(iter(server.runs)), "SUCCEEDED")
    again = submit(tree, tmp_path, reported, "--no-plan", "--run-name", "again")
    assert "(was there)" in again.output
    assert len(server.called("POST /pipelines/upload_version")) == 1
    (tmp_path / "images.yaml").write_text(
        re.sub(r"(?m)^tag: .*$", "tag: 9.9.9", IMAGES.read_text())
    )
    other = submit(
        tree,
        tmp_path,
        reported | {"HAGANE_IMAGES": str(tmp_path / "images.yaml")},
        "--no-plan",
        "--set",
        "name=other",
    )
    assert "(uploaded)" in other.output
    assert len(server.versions) == 2
    assert [run["display_name"] for run in server.runs.values()] == ["tiny", "again", "other"]
    assert (
        len(
            {
                run["pipeline_version_reference"]["pipeline_version_id"]
                for run in server.runs.values()
            }
        )
        == 2
    )


def test_a_second_run_of_a_folder_is_refused_with_the_link_of_the_active_one(
    server: KfpServer, tree: dict[str, Any], reported: dict[str, str], tmp_path: Path
) -> None:
    assert submit(tree, tmp_path, reported, "--no-plan").exit_code == 0
    (first,) = server.runs
    (tmp_path / "images.yaml").write_text(
        re.sub(r"(?m)^tag: .*$", "tag: 9.9.9", IMAGES.read_text())
    )
    for state in (
        "waiting",
        "running",
    ):  # just created it has no state, and no filter of the server finds it
        again = submit(
            tree,
            tmp_path,
            reported | {"HAGANE_IMAGES": str(tmp_path / "images.yaml")},
            "--no-plan",
            "--run-name",
            "again",
        )
        assert again.exit_code == 2
        assert again.errors[-1] == (
            f"error: run 'tiny' is {state} and writes to {tree['store']}/tiny too: "
            f"{server.endpoint}/#/runs/details/{first}; wait for its end, cancel it (hagane runs "
            f"{first} --cancel), or set another name"
        )
        server.advance(first, "RUNNING")
    assert (len(server.runs), len(server.versions)) == (1, 1)
    assert submit(tree, tmp_path, reported, "--no-plan", "--set", "name=other").exit_code == 0


def test_waiting_shows_steps_in_order_progress_once_and_every_restart(
    server: KfpServer,
    tree: dict[str, Any],
    reported: dict[str, str],
    s3_env: S3Server,
    tmp_path: Path,
) -> None:
    store = open_store(f"{tree['store']}/tiny")
    job = {"job": "tiny", "namespace": "team"}
    starting = {
        **job,
        "phase": "starting",
        "detail": "all pods run; the processes meet",
        "restarts": 0,
    }
    training = {
        **job,
        "phase": "running",
        "detail": "",
        "restarts": 1,
        "done": 3,
        "total": 10,
        "loss": 2.5,
        "tokens_s": 80,
        "left_s": 90.0,
    }
    stamps = [{"at": f"2999-01-01T00:00:0{second}+00:00"} for second in range(4)]
    written = [
        state | at
        for state, at in zip([starting, starting, training, training], stamps, strict=True)
    ]
    done: dict[str, nodes.StepState] = {
        "claim_run": "SUCCEEDED",
        "prepare_dataset": "CACHED",
        "render_config": "SUCCEEDED",
    }
    server.course = [
        {"state": "PENDING"},
        {"state": "RUNNING", "steps": {"prepare_dataset": "RUNNING"}},
    ]
    server.course += [
        {"state": "RUNNING", "steps": {**done, "launch_training": "RUNNING"}} for _ in range(4)
    ]
    server.course += [{"state": "SUCCEEDED"}]

    def write_progress(_: str) -> None:
        if written and len(server.course) < 5:
            store.write_bytes("progress.json", json.dumps(written.pop(0)).encode())

    server.on_look = write_progress
    ended = submit(tree, tmp_path, reported, "--no-plan", "--wait")
    assert ended.exit_code == 0, ended.errors
    lines = [" ".join(line.split()) for line in ended.output.splitlines()]
    shown = [line for line in lines if re.match(r"\d/\d|training:|waits|was done|3/10", line)]
    assert shown == [
        "waits to be started",
        "1/6 prepare_dataset",
        "was done before",
        "2/6 render_config",
        "3/6 launch_training",
        "training: starting: all pods run; the processes meet",
        "training: the job's pods were started anew (1 time so far)",
        "3/10 steps loss 2.500 80 tokens/s 90 s left",
        "4/6 export_adapter",
        "5/6 evaluate",
        "6/6 write_report",
    ]
    assert f"its report is {tree['store']}/tiny/report, which cannot be read from here" in " ".join(
        lines
    )


def test_a_failed_run_is_exit_code_1_with_the_reason_that_its_step_left_in_the_store(
    server: KfpServer,
    tree: dict[str, Any],
    reported: dict[str, str],
    s3_env: S3Server,
    tmp_path: Path,
) -> None:
    server.course = [
        {"state": "RUNNING"},
        {"state": "FAILED", "steps": {"claim_run": "SUCCEEDED", "prepare_dataset": "FAILED"}},
    ]
    error = DataError("data.train: no such object", "data.held_out: no such object")

    def fail(run_id: str) -> None:
        write_failure(
            open_store(f"{tree['store']}/tiny"),
            failure_of("prepare_dataset", error, [], at=datetime.now(UTC), kfp_run=run_id),
        )

    server.on_look = fail
    done = submit(tree, tmp_path, reported, "--no-plan", "--wait")
    reason = [
        "prepare_dataset: data.train: no such object",
        "prepare_dataset: data.held_out: no such object",
    ]
    assert (done.exit_code, done.errors[-3:-1]) == (1, [f"error: {line}" for line in reason])
    (run,) = server.runs
    assert "\n".join(reason) in hagane("runs", run, work=tmp_path, env=reported).output


def test_a_run_that_missed_its_gate_is_failed_and_shows_the_rule_and_its_numbers(
    server: KfpServer,
    tree: dict[str, Any],
    reported: dict[str, str],
    s3_env: S3Server,
    tmp_path: Path,
) -> None:
    """What a step that misses its gate leaves in the store is made by tests/runs."""
    store = open_store(f"{tree['store']}/tiny")
    done = ("claim_run", "prepare_dataset", "render_config", "launch_training", "export_adapter")
    steps: dict[str, nodes.StepState] = {**dict.fromkeys(done, "SUCCEEDED"), "evaluate": "FAILED"}
    server.course = [{"state": "FAILED", "steps": steps}]
    gate = (
        "gate: held-out loss must fall below the base model's by more than noise: found 5.9 -> 6.1"
    )

    def fail(run_id: str) -> None:
        failure = failure_of("evaluate", RunFailed(gate), [], at=datetime.now(UTC), kfp_run=run_id)
        write_failure(store, failure)

    server.on_look = fail
    ended = submit(tree, tmp_path, reported, "--no-plan", "--wait")
    (run,) = server.runs
    assert (ended.exit_code, ended.errors[-2]) == (1, f"error: evaluate: {gate}")
    assert server.runs[run]["state"] == "FAILED"
    shown = hagane("runs", run, work=tmp_path, env=reported).output
    assert re.search(r"export_adapter +succeeded", shown)
    assert re.search(r"evaluate +failed", shown)
    assert re.search(r"write_report +not run", shown)
    assert f"evaluate: {gate}" in shown


@pytest.mark.parametrize("in_pods_own_node", [True, False])
def test_a_step_that_left_no_reason_in_the_store_has_one_in_its_log_that_the_server_keeps(
    server: KfpServer,
    tree: dict[str, Any],
    reported: dict[str, str],
    tmp_path: Path,
    in_pods_own_node: bool,
) -> None:
    problems = """problems="['override_epochs=-1: must be \\"1\\"']" level=error"""
    log = (
        "event=claimed component=claim_run\nevent=failed component=claim_run exit_code=2 "
        f"{problems}\n"
    )
    server.on_look = lambda run: server.print_log(
        run, "claim_run", log, in_pods_own_node=in_pods_own_node
    )
    server.course = [{"state": "FAILED", "steps": {"claim_run": "FAILED"}}]
    done = submit(tree, tmp_path, reported, "--no-plan", "--wait")
    assert (done.exit_code, done.errors[-2]) == (
        1,
        'error: claim_run: override_epochs=-1: must be "1"',
    )
    (run,) = server.runs
    shown = hagane("runs", run, work=tmp_path, env=reported).output
    assert 'claim_run: override_epochs=-1: must be "1"' in shown
    assert re.search(r"claim_run +failed", shown)
    assert re.search(r"prepare_dataset +not run +- +-", shown)


def test_a_run_that_somebody_terminated_was_cancelled(
    server: KfpServer, tree: dict[str, Any], reported: dict[str, str], tmp_path: Path
) -> None:
    server.course = [
        {"state": "RUNNING", "steps": {"launch_training": "RUNNING"}},
        {"state": "CANCELING"},
        {"state": "FAILED"},
    ]
    done = submit(tree, tmp_path, reported, "--no-plan", "--wait")
    assert "is being cancelled" in done.output
    assert done.exit_code == 1
    assert done.errors[-2].startswith("error: run 'tiny' was cancelled at 20")
    (run,) = server.runs
    assert re.search(
        r"launch_training +cancelled", hagane("runs", run, work=tmp_path, env=reported).output
    )


def test_a_run_whose_exit_task_failed_is_no_success(
    server: KfpServer, tree: dict[str, Any], reported: dict[str, str], tmp_path: Path
) -> None:
    server.course = [{"state": "SUCCEEDED", "steps": {"end_run": "FAILED"}}]
    server.on_look = lambda run: server.print_log(run, "end_run", "cannot reach the cluster\n")
    done = submit(tree, tmp_path, reported, "--no-plan", "--wait")
    left = "end_run failed, so a training job may be left"
    assert (done.exit_code, done.errors[-3:-1]) == (
        1,
        ["error: end_run: cannot reach the cluster", f"error: {left}; see `hagane reap`"],
    )
    assert re.search(
        rf"tiny +succeeded, {left}",
        " ".join(hagane("runs", work=tmp_path, env=reported | {"COLUMNS": "250"}).output.split()),
    )


def test_a_wait_that_cannot_open_the_store_from_here_follows_kfp_alone_and_ends_as_the_run_does(
    server: KfpServer, tree: dict[str, Any], reported: dict[str, str], tmp_path: Path
) -> None:
    server.course = [
        {"state": "RUNNING", "steps": {"launch_training": "RUNNING"}},
        {"state": "SUCCEEDED"},
    ]
    done = submit(
        tree, tmp_path, reported | {"AWS_PROFILE": "no-such-profile"}, "--no-plan", "--wait"
    )
    assert done.exit_code == 0, done.errors
    output = " ".join(done.output.split())
    assert (
        output.count("the store cannot be read from here, so steps made and losses are not shown")
        == 1
    )
    assert "3/6 launch_training" in output
    assert "which cannot be read from here" in output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_leaves_the_run_and_says_so(
    server: KfpServer,
    tree: dict[str, Any],
    reported: dict[str, str],
    tmp_path: Path,
    number: signal.Signals,
    code: int,
) -> None:
    spec = write_spec(tmp_path / "spec.yaml", tree)
    command = [*HAGANE, "submit", str(spec), "--no-plan", "--wait"]
    process = subprocess.Popen(
        command,
        env=environment(tmp_path) | reported,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not server.called("GET /runs/."):
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    (run,) = server.runs.values()
    last = errors.splitlines()[-1]
    assert process.returncode == code
    assert last.startswith("error: no longer followed; the run goes on")
    assert last.endswith(run["run_id"])
    assert not server.called(":terminate")
    assert "state" not in run


def test_a_server_that_fails_while_it_is_asked_again_and_again_does_not_end_the_wait(
    server: KfpServer, tree: dict[str, Any], reported: dict[str, str], tmp_path: Path
) -> None:
    server.fail("GET /runs/.", 503, times=2)
    server.drop("GET /runs/.", times=1)
    server.course = [{"state": "SUCCEEDED"}]
    done = submit(tree, tmp_path, reported, "--no-plan", "--wait")
    assert done.exit_code == 0, done.errors
    assert " ".join(done.output.split()).count("the run goes on, and is asked for again") == 1


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "it wants a token: set HAGANE_KFP_TOKEN or --token-file"),
        (403, "set --namespace to one of yours"),
        (404, "(404)"),
        (409, "something of this name is there"),
        (500, "the server failed"),
    ],
)
def test_each_refusal_of_the_server_is_one_line_and_exit_code_2(
    server: KfpServer,
    tree: dict[str, Any],
    reported: dict[str, str],
    tmp_path: Path,
    status: int,
    advice: str,
) -> None:
    server.fail(".", status)
    done = submit(tree, tmp_path, reported, "--no-plan")
    assert (done.exit_code, done.output) == (2, "")
    (line,) = [line for line in done.errors if not line.startswith("note: ")]
    assert line.startswith(f"error: KFP at {server.endpoint}: cannot ")
    assert advice in line


def test_a_slow_server_and_one_that_is_gone_are_one_line(
    server: KfpServer, tree: dict[str, Any], reported: dict[str, str], tmp_path: Path
) -> None:
    server.slow(".", 3)
    done = submit(tree, tmp_path, reported | {"HAGANE_KFP_TIMEOUT_S": "0.3"}, "--no-plan")
    assert (done.exit_code, done.errors[-1].count("no answer within 0.3 s")) == (2, 1)
    done = submit(
        tree, tmp_path, reported | {"HAGANE_KFP_ENDPOINT": "http://127.0.0.1:9"}, "--no-plan"
    )
    assert (done.exit_code, done.errors[-1].count("nothing listens there")) == (2, 1)


def test_once_something_was_begun_a_failure_is_exit_code_1_and_the_same_command_goes_on(
    server: KfpServer, tree: dict[str, Any], reported: dict[str, str], tmp_path: Path
) -> None:
    server.fail("POST /runs$", 500, times=1)
    done = submit(tree, tmp_path, reported, "--no-plan")
    assert done.exit_code == 1
    assert "cannot start run 'tiny'" in done.errors[-1]
    assert submit(tree, tmp_path, reported, "--no-plan").output.count("(was there)") == 1
    server.advance(next(iter(server.runs)), "SUCCEEDED")
    server.drop("POST /runs$", after=True)
    done = submit(tree, tmp_path, reported, "--no-plan")
    assert done.exit_code == 1
    assert "it may have been obeyed all the same" in done.errors[-1]


def test_a_plans_refusal_stops_before_anything_is_sent(
    server: KfpServer, tree: dict[str, Any], reported: dict[str, str], tmp_path: Path
) -> None:
    tree["lora"]["targets"] = ["query_key_value"]
    done = submit(tree, tmp_path, reported)
    assert done.exit_code == 2
    [error] = done.problems
    assert error.startswith("error: lora.targets: 'query_key_value' is no layer")
    assert server.asked == []


def test_what_a_cluster_does_not_see_is_refused_field_by_field(
    server: KfpServer, tree: dict[str, Any], reported: dict[str, str], inputs: Path, tmp_path: Path
) -> None:
    tree |= {"backend": "local", "store": "runs", "cluster": {}}
    tree["data"]["chat_template"] = str(Path("specs/templates/chatml.jinja").absolute())
    done = submit(tree, tmp_path, reported)
    assert done.exit_code == 2
    assert [line.removeprefix("error: ").partition(":")[0] for line in done.errors] == [
        "backend",
        "store",
        "data.train",
        "data.chat_template",
        "model.source",
    ]
    assert server.asked == []


def test_what_kfp_or_argo_would_not_take_as_it_is_is_refused_before_anything_is_sent(
    server: KfpServer, tree: dict[str, Any], reported: dict[str, str], tmp_path: Path
) -> None:
    done = submit(
        tree,
        tmp_path,
        reported,
        "--no-plan",
        "--run-name",
        "n" * 256,
        "--service-account",
        "A",
        "--experiment",
        "",
    )
    assert (done.exit_code, server.asked) == (2, [])
    assert [line.split(": ")[1] for line in done.errors if line.startswith("error: ")] == [
        "--run-name",
        "--experiment",
        "--service-account",
    ]
    tree["evaluation"] = {"questions": ["Who is {{user}}?"]}
    done = submit(tree, tmp_path, reported, "--no-plan")
    assert (done.exit_code, server.asked) == (2, [])
    assert done.problems[0].startswith(
        "error: evaluation.questions.0: found 'Who is {{user}}?', allowed text without '{{'"
    )


@pytest.mark.parametrize("address", ["https://example.com/train.jsonl", "gs://bucket/train.jsonl"])
def test_data_at_another_address_than_a_stores_is_refused(
    server: KfpServer, tree: dict[str, Any], reported: dict[str, str], tmp_path: Path, address: str
) -> None:
    tree["data"]["train"] = address
    done = submit(tree, tmp_path, reported, "--no-plan")
    assert (done.exit_code, server.asked) == (2, [])
    assert done.problems == [
        (
            f"error: data.train: {address!r} is no object of an S3 store; put it into the store "
            "and name it s3://…"
        )
    ]


def test_data_in_a_store_and_a_store_without_keys_are_noted_and_left_to_the_first_steps(
    server: KfpServer, tree: dict[str, Any], reported: dict[str, str], s3: S3Server, tmp_path: Path
) -> None:
    tree["data"]["train"] = "s3://bucket/train.jsonl"
    without_keys = {**reported, **dict.fromkeys(s3.env, "")}
    done = submit(tree, tmp_path, without_keys)
    assert done.exit_code == 0, done.errors
    notes = [line for line in done.errors if line.startswith("note: ")]
    for part in (
        "the store was not tried from here",
        "model.source lies on claim models",
        "the data was not read here",
    ):
        assert sum(part in line for line in notes) == 1, done.errors
    assert re.search(
        r"plan     fits with .*, micro-batch \d+; steps and hours once the data is read",
        done.output,
    )


def test_many_users_are_submitted_to_by_namespace_and_token(
    tree: dict[str, Any], reported: dict[str, str], tmp_path: Path
) -> None:
    with kfp_server(multi_user=True, token="secret-of-mine") as server:
        token = tmp_path / "token"
        token.write_text("secret-of-mine\n")
        token.chmod(0o600)
        config = tmp_path / "kfp.yaml"
        lab = {"endpoint": server.endpoint, "namespace": "team-a", "token_file": str(token)}
        config.write_text(yaml.safe_dump({"current": "lab", "contexts": {"lab": lab}}))
        config.chmod(0o600)
        done = submit(
            tree,
            tmp_path,
            {**reported, "HAGANE_KFP_ENDPOINT": "", "HAGANE_KFP_CONFIG": str(config)},
            "--no-plan",
        )
        assert done.exit_code == 0, done.errors
        (run,) = server.runs.values()
        assert server.experiments[run["experiment_id"]]["namespace"] == "team-a"
        assert [pipeline["namespace"] for pipeline in server.pipelines.values()] == ["team-a"]
    assert "secret-of-mine" not in done.output + "".join(done.errors)
