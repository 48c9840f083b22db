"""`hagane submit` and `hagane runs` as a person runs them, against the stand-in for KFP's server and a real S3 server."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.shared.storage import open_store
from pipelines.finetune import STEPS
from tests.command_line import HAGANE, Finished, environment, hagane, write_spec
from tests.kfp_server import KfpServer, kfp_server
from tests.s3_server import S3Server
from tests.tiny_models import make_model, write_conversations

IMAGES = Path(__file__).parents[2] / "images" / "images.yaml"
TASKS = [step.replace("_", "-") for step in STEPS]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and data, which stands for a claim that is seen here under the path that pods see it under."""
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
def told(server: KfpServer, s3: S3Server, tmp_path: Path) -> dict[str, str]:
    """The environment of a person who has told hagane where KFP and the store are; a home of their own."""
    return {"HAGANE_KFP_ENDPOINT": server.endpoint, "HOME": str(tmp_path), **s3.env}


def submit(tree: dict[str, Any], folder: Path, env: dict[str, str], *more: str) -> Finished:
    return hagane("submit", write_spec(folder / "spec.yaml", tree), *more, work=folder / "work", env=env)


def running(**states: str) -> dict[str, str]:
    return {name.replace("_", "-"): state for name, state in states.items()}


def test_from_an_empty_server_a_run_is_submitted_listed_and_looked_at(
    server: KfpServer, tree: dict[str, Any], told: dict[str, str], tmp_path: Path
) -> None:
    done = submit(tree, tmp_path, told)
    assert done.exit_code == 0, done.errors
    (pipeline,), (version,), (run,) = server.pipelines.values(), server.versions.values(), server.runs.values()
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
    server.advance(run["run_id"], "RUNNING", tasks=running(prepare_dataset="SUCCEEDED", render_config="RUNNING"))
    listed = hagane("runs", work=tmp_path, env=told)
    assert re.search(rf"tiny +RUNNING +render_config +\d{{4}}.* - +{re.escape(tree['store'])}/tiny +{run['run_id']}", listed.output)
    one = hagane("runs", run["run_id"], work=tmp_path, env=told)
    assert re.search(r"prepare_dataset +SUCCEEDED", one.output)
    assert link in one.output
    assert not (tmp_path / ".config").exists()  # where kfp.Client would write


def test_a_second_submit_uploads_nothing_and_other_images_are_a_new_version(
    server: KfpServer, tree: dict[str, Any], told: dict[str, str], tmp_path: Path
) -> None:
    assert submit(tree, tmp_path, told, "--no-plan").exit_code == 0
    server.advance(next(iter(server.runs)), "SUCCEEDED")
    again = submit(tree, tmp_path, told, "--no-plan", "--run-name", "again")
    assert "(was there)" in again.output
    assert len(server.called("POST /pipelines/upload_version")) == 1
    (tmp_path / "images.yaml").write_text(re.sub(r"(?m)^tag: .*$", "tag: 9.9.9", IMAGES.read_text()))
    other = submit(tree, tmp_path, told | {"HAGANE_IMAGES": str(tmp_path / "images.yaml")}, "--no-plan", "--set", "name=other")
    assert "(uploaded)" in other.output
    assert len(server.versions) == 2
    assert [run["display_name"] for run in server.runs.values()] == ["tiny", "again", "other"]
    assert len({run["pipeline_version_reference"]["pipeline_version_id"] for run in server.runs.values()}) == 2


def test_a_second_run_of_a_folder_is_refused_with_the_link_of_the_active_one(
    server: KfpServer, tree: dict[str, Any], told: dict[str, str], tmp_path: Path
) -> None:
    assert submit(tree, tmp_path, told, "--no-plan").exit_code == 0
    (first,) = server.runs
    server.advance(first, "RUNNING")
    (tmp_path / "images.yaml").write_text(re.sub(r"(?m)^tag: .*$", "tag: 9.9.9", IMAGES.read_text()))
    again = submit(tree, tmp_path, told | {"HAGANE_IMAGES": str(tmp_path / "images.yaml")}, "--no-plan", "--run-name", "again")
    assert again.exit_code == 2
    assert again.errors[-1] == (
        f"error: run 'tiny' is RUNNING and writes to {tree['store']}/tiny too: {server.endpoint}/#/runs/details/{first}; wait for its "
        "end, terminate it on its page, or set another name"
    )
    assert (len(server.runs), len(server.versions)) == (1, 1)
    assert submit(tree, tmp_path, told, "--no-plan", "--set", "name=other").exit_code == 0


def test_waiting_shows_steps_progress_and_checkpoints_and_ends_as_the_run_does(
    server: KfpServer, tree: dict[str, Any], told: dict[str, str], s3_env: S3Server, tmp_path: Path
) -> None:
    progress = {"phase": "running", "detail": "", "done": 3, "total": 10, "loss": 2.5, "tokens_s": 80, "left_s": 90.0}
    open_store(f"{tree['store']}/tiny").write_bytes("progress.json", json.dumps(progress).encode())
    server.course = [
        {"state": "PENDING"},
        {"state": "RUNNING", "tasks": running(prepare_dataset="RUNNING")},
        {"state": "RUNNING", "tasks": running(prepare_dataset="SUCCEEDED", render_config="SUCCEEDED", launch_training="RUNNING")},
        {"state": "SUCCEEDED", "tasks": dict.fromkeys(TASKS, "SUCCEEDED")},
    ]
    done = submit(tree, tmp_path, told, "--no-plan", "--wait")
    assert done.exit_code == 0, done.errors
    for part in (
        "waits to be started",
        "1/6   prepare_dataset",
        "finished after",
        "3/6   launch_training",
        "3/10 steps  loss 2.500",
        "6/6",
    ):
        assert part in done.output, done.output
    assert f"its report is {tree['store']}/tiny/report, which cannot be read from here" in " ".join(done.output.split())


def test_a_failed_run_is_exit_code_1_with_the_steps_error(
    server: KfpServer, tree: dict[str, Any], told: dict[str, str], tmp_path: Path
) -> None:
    by_display_name = {"Claim the run": "SUCCEEDED", "Prepare the dataset": "FAILED"}
    server.course = [{"state": "FAILED", "tasks": by_display_name, "error": "data.train: no such object"}]
    done = submit(tree, tmp_path, told, "--no-plan", "--wait")
    assert (done.exit_code, done.errors[-2]) == (1, "error: prepare_dataset: data.train: no such object")
    server.course = [{"state": "CANCELED"}]
    done = submit(tree, tmp_path, told, "--no-plan", "--wait")
    assert (done.exit_code, done.errors[-2]) == (1, "error: run 'tiny' was terminated")


def test_a_wait_that_cannot_open_the_store_from_here_follows_kfp_alone_and_ends_as_the_run_does(
    server: KfpServer, tree: dict[str, Any], told: dict[str, str], tmp_path: Path
) -> None:
    server.course = [{"state": "RUNNING", "tasks": running(launch_training="RUNNING")}, {"state": "SUCCEEDED"}]
    done = submit(tree, tmp_path, told | {"AWS_PROFILE": "no-such-profile"}, "--no-plan", "--wait")
    assert done.exit_code == 0, done.errors
    output = " ".join(done.output.split())
    assert output.count("the store cannot be read from here, so steps made and losses are not shown") == 1
    assert "3/6 launch_training" in output
    assert "which cannot be read from here" in output


@pytest.mark.parametrize(("task", "display_name"), [("claim_run", "Claim the run"), ("end_run", "How it ended")])
def test_a_task_before_or_after_the_steps_is_named_when_it_fails(
    server: KfpServer, tree: dict[str, Any], told: dict[str, str], tmp_path: Path, task: str, display_name: str
) -> None:
    server.course = [{"state": "RUNNING", "tasks": {display_name: "RUNNING"}}]
    server.course += [{"state": "FAILED", "tasks": {display_name: "FAILED"}, "error": "store: bucket is not there"}]
    done = submit(tree, tmp_path, told, "--no-plan", "--wait")
    assert (done.exit_code, done.errors[-2]) == (1, f"error: {task}: store: bucket is not there")
    (run,) = server.runs
    shown = hagane("runs", run, work=tmp_path, env=told).output
    assert f"{task}: store: bucket is not there" in shown
    assert re.search(rf"{task} +FAILED", shown)
    server.advance(run, "RUNNING", tasks={display_name: "RUNNING"})
    assert re.search(rf"tiny +RUNNING +{task} ", hagane("runs", work=tmp_path, env=told).output)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_leaves_the_run_and_says_so(
    server: KfpServer, tree: dict[str, Any], told: dict[str, str], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    spec = write_spec(tmp_path / "spec.yaml", tree)
    command = [*HAGANE, "submit", str(spec), "--no-plan", "--wait"]
    process = subprocess.Popen(command, env=environment(tmp_path) | told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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
    assert run["state"] == "PENDING"


def test_a_server_that_fails_while_it_is_asked_again_and_again_does_not_end_the_wait(
    server: KfpServer, tree: dict[str, Any], told: dict[str, str], tmp_path: Path
) -> None:
    server.fail("GET /runs/.", 503, times=2)
    server.drop("GET /runs/.", times=1)
    server.course = [{"state": "SUCCEEDED"}]
    done = submit(tree, tmp_path, told, "--no-plan", "--wait")
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
    server: KfpServer, tree: dict[str, Any], told: dict[str, str], tmp_path: Path, status: int, advice: str
) -> None:
    server.fail(".", status)
    done = submit(tree, tmp_path, told, "--no-plan")
    assert (done.exit_code, done.output) == (2, "")
    (line,) = [line for line in done.errors if not line.startswith("note: ")]
    assert line.startswith(f"error: KFP at {server.endpoint}: cannot ")
    assert advice in line


def test_a_slow_server_and_one_that_is_gone_are_one_line(
    server: KfpServer, tree: dict[str, Any], told: dict[str, str], tmp_path: Path
) -> None:
    server.slow(".", 3)
    done = submit(tree, tmp_path, told | {"HAGANE_KFP_TIMEOUT_S": "0.3"}, "--no-plan")
    assert (done.exit_code, done.errors[-1].count("no answer within 0.3 s")) == (2, 1)
    done = submit(tree, tmp_path, told | {"HAGANE_KFP_ENDPOINT": "http://127.0.0.1:9"}, "--no-plan")
    assert (done.exit_code, done.errors[-1].count("nothing listens there")) == (2, 1)


def test_once_something_was_begun_a_failure_is_exit_code_1_and_the_same_command_goes_on(
    server: KfpServer, tree: dict[str, Any], told: dict[str, str], tmp_path: Path
) -> None:
    server.fail("POST /runs$", 500, times=1)
    done = submit(tree, tmp_path, told, "--no-plan")
    assert done.exit_code == 1
    assert "cannot start run 'tiny'" in done.errors[-1]
    assert submit(tree, tmp_path, told, "--no-plan").output.count("(was there)") == 1
    server.advance(next(iter(server.runs)), "SUCCEEDED")
    server.drop("POST /runs$", after=True)
    done = submit(tree, tmp_path, told, "--no-plan")
    assert done.exit_code == 1
    assert "it may have been obeyed all the same" in done.errors[-1]


def test_a_plans_refusal_stops_before_anything_is_sent(
    server: KfpServer, tree: dict[str, Any], told: dict[str, str], tmp_path: Path
) -> None:
    tree["lora"]["targets"] = ["query_key_value"]
    done = submit(tree, tmp_path, told)
    assert done.exit_code == 2
    [error] = done.errors
    assert error.startswith("error: lora.targets: 'query_key_value' is no layer")
    assert server.asked == []


def test_what_a_cluster_does_not_see_is_refused_field_by_field(
    server: KfpServer, tree: dict[str, Any], told: dict[str, str], inputs: Path, tmp_path: Path
) -> None:
    tree |= {"backend": "local", "store": "runs", "cluster": {}}
    tree["data"]["chat_template"] = "specs/templates/chatml.jinja"
    done = submit(tree, tmp_path, told)
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
    server: KfpServer, tree: dict[str, Any], told: dict[str, str], tmp_path: Path
) -> None:
    done = submit(tree, tmp_path, told, "--no-plan", "--run-name", "n" * 256, "--service-account", "A", "--experiment", "")
    assert (done.exit_code, server.asked) == (2, [])
    assert [line.split(": ")[1] for line in done.errors if line.startswith("error: ")] == [
        "--run-name",
        "--experiment",
        "--service-account",
    ]
    tree["evaluation"] = {"questions": ["Who is {{user}}?"]}
    done = submit(tree, tmp_path, told, "--no-plan")
    assert (done.exit_code, server.asked) == (2, [])
    assert done.errors[0].startswith("error: evaluation.questions.0: found 'Who is {{user}}?', allowed text without '{{'")


@pytest.mark.parametrize("address", ["https://example.com/train.jsonl", "gs://bucket/train.jsonl"])
def test_data_at_another_address_than_a_stores_is_refused(
    server: KfpServer, tree: dict[str, Any], told: dict[str, str], tmp_path: Path, address: str
) -> None:
    tree["data"]["train"] = address
    done = submit(tree, tmp_path, told, "--no-plan")
    assert (done.exit_code, server.asked) == (2, [])
    assert done.errors == [f"error: data.train: {address!r} is no object of an S3 store; put it into the store and name it s3://…"]


def test_data_in_a_store_and_a_store_without_keys_are_noted_and_left_to_the_first_steps(
    server: KfpServer, tree: dict[str, Any], told: dict[str, str], s3: S3Server, tmp_path: Path
) -> None:
    tree["data"]["train"] = "s3://bucket/train.jsonl"
    without_keys = {**told, **dict.fromkeys(s3.env, "")}
    done = submit(tree, tmp_path, without_keys)
    assert done.exit_code == 0, done.errors
    notes = [line for line in done.errors if line.startswith("note: ")]
    for part in ("the store was not tried from here", "model.source lies on claim models", "the data was not read here"):
        assert sum(part in line for line in notes) == 1, done.errors
    assert re.search(r"plan     fits with .*, micro-batch \d+; steps and hours once the data is read", done.output)


def test_many_users_are_submitted_to_by_namespace_and_token(tree: dict[str, Any], told: dict[str, str], tmp_path: Path) -> None:
    with kfp_server(multi_user=True, token="secret-of-mine") as server:
        token = tmp_path / "token"
        token.write_text("secret-of-mine\n")
        token.chmod(0o600)
        config = tmp_path / "kfp.yaml"
        lab = {"endpoint": server.endpoint, "namespace": "team-a", "token_file": str(token)}
        config.write_text(yaml.safe_dump({"current": "lab", "contexts": {"lab": lab}}))
        config.chmod(0o600)
        done = submit(tree, tmp_path, {**told, "HAGANE_KFP_ENDPOINT": "", "HAGANE_KFP_CONFIG": str(config)}, "--no-plan")
        assert done.exit_code == 0, done.errors
        (run,) = server.runs.values()
        assert server.experiments[run["experiment_id"]]["namespace"] == "team-a"
        assert [pipeline["namespace"] for pipeline in server.pipelines.values()] == ["team-a"]
    assert "secret-of-mine" not in done.output + "".join(done.errors)
