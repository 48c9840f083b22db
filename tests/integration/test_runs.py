"""`hagane runs` as a person runs it, on what a real server answered and on runs of the stand-in for it."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.shared.documents.run_end import RunEnd, write_end
from components.shared.store.storage import open_store
from tests.support.command_line import Finished, hagane
from tests.support.kfp import KfpServer, kfp_server
from tests.support.kfp.runs import add_run
from tests.support.kfp_answers import keep_run

SPEC = {"name": "tiny", "store": "runs", "backend": "pytorchjob", "model": {"source": "org/m"}, "data": {"train": "s3://a/train.jsonl"}}


@pytest.fixture
def server() -> Iterator[KfpServer]:
    with kfp_server() as running:
        yield running


class Person:
    """Somebody with a terminal, and a run of theirs."""

    def __init__(self, server: KfpServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        spec = {
            "pipelineInfo": {"name": "hagane-finetune"},
            "root": {"inputDefinitions": {"parameters": {"spec": {"parameterType": "STRUCT"}}}},
        }
        self.run = add_run(server, {"display_name": "tiny", "pipeline_spec": spec, "runtime_config": {"parameters": {"spec": SPEC}}})[
            "run_id"
        ]

    def runs(self, *words: str, **variables: str) -> Finished:
        env = {"HAGANE_KFP_ENDPOINT": self.server.endpoint, "HOME": str(self.folder), "COLUMNS": "200", **variables}
        return hagane("runs", *words, work=self.folder, env=env)


@pytest.fixture
def person(server: KfpServer, tmp_path: Path) -> Person:
    return Person(server, tmp_path)


def test_the_runs_of_an_old_server_are_shown_after_one_line_that_says_what_will_not_work(server: KfpServer, person: Person) -> None:
    server.tag_name = "2.5.0"
    for words in ([], [person.run]):
        done = person.runs(*words)
        assert done.exit_code == 0, done.errors
        (warning,) = done.errors
        assert warning.startswith(f"warning: KFP at {server.endpoint}: found version 2.5.0, older than 2.14")
        assert "submit, apply and whatever else changes the server is refused" in warning
    assert "run tiny  waiting" in done.output


@pytest.mark.parametrize(("zone", "started"), [("Asia/Tokyo", "2026-11-30 06:48"), ("America/New_York", "2026-11-29 16:48")])
def test_a_step_that_is_running_has_no_end_in_any_time_zone(server: KfpServer, person: Person, zone: str, started: str) -> None:
    run = keep_run(server, "run-training")
    one = person.runs(run, TZ=zone)
    assert one.exit_code == 0, one.errors
    rows = [line.split("  ") for line in one.output.splitlines()]
    steps = [row[0] for row in rows[rows.index(next(row for row in rows if row[0] == "step")) + 1 :]]
    assert steps == [
        *("claim_run", "prepare_dataset", "render_config", "launch_training"),
        *("export_adapter", "evaluate", "write_report", "end_run"),
    ]
    assert re.search(rf"launch_training +running +{started} +- +- *\n", one.output)
    assert re.search(r"evaluate +waiting +- +- +-", one.output)
    listed = person.runs(TZ=zone)
    assert re.search(rf"tiny +running +launch_training +[-0-9: ]+ +- +s3://hagane/runs/tiny +{run}", listed.output)


def test_a_retried_run_says_that_its_end_page_is_of_the_first_try_and_how_it_went_on(server: KfpServer, person: Person) -> None:
    run = keep_run(server, "run-retried")
    server.runs[run]["runtime_config"]["parameters"]["spec"]["store"] = str(person.folder)
    said = RunEnd(kfp_run=run, state="SUCCEEDED", title="The run was continued and finished", at=datetime(2026, 11, 30, tzinfo=UTC))
    write_end(open_store(f"{person.folder}/tiny"), said)
    shown = " ".join(person.runs(run, TZ="UTC").output.split())
    assert "KFP's Retry continued it at 2026-11-29 22:08. Retry does not run end_run again" in shown
    assert "The run was continued and finished." in shown


def test_the_log_of_a_step_is_printed_and_the_page_is_named(server: KfpServer, person: Person) -> None:
    server.advance(person.run, "RUNNING", steps={"claim_run": "SUCCEEDED", "prepare_dataset": "RUNNING"})
    server.print_log(person.run, "claim_run", "event=claimed\n")
    assert person.runs(person.run, "--log", "claim_run").output == "event=claimed\n"
    missing = person.runs(person.run, "--log", "evaluate")
    assert (missing.exit_code, len(missing.errors)) == (2, 1)
    assert "has no log of evaluate, which is 'waiting': it has no pod" in missing.errors[0]
    assert person.runs(person.run, "--open").output == f"{server.endpoint}/#/runs/details/{person.run}\n"
    unknown = person.runs("00000000-0000-0000-0000-000000000000", "--open")
    assert (unknown.exit_code, len(unknown.errors)) == (2, 1)


def test_a_log_is_followed_until_its_step_has_ended(server: KfpServer, person: Person) -> None:
    server.course = [{"state": "RUNNING", "steps": {"claim_run": "RUNNING"}}] * 2 + [
        {"state": "RUNNING", "steps": {"claim_run": "SUCCEEDED"}}
    ]

    def print_more(run: str) -> None:
        server.print_log(run, "claim_run", "one\n" if server.course else "one\ntwo\n")

    server.on_look = print_more
    assert person.runs(person.run, "--log", "claim-run", "--follow").output == "one\ntwo\n"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--log", "claim_run"), "runs: found --log without a run, allowed with one"),
        (("ID", "--log", "claim_run", "--cancel"), "runs: found --log and --cancel, allowed one of them"),
        (("ID", "--follow"), "runs: found --follow without --log, allowed with it"),
        (("RUN", "--log", "training"), "--log: found 'training', allowed claim_run, prepare_dataset, render_config, launch_training"),
    ],
)
def test_options_that_mean_nothing_are_refused(server: KfpServer, person: Person, words: tuple[str, ...], problem: str) -> None:
    done = person.runs(*(person.run if word == "RUN" else word for word in words))
    assert (done.exit_code, len(done.errors)) == (2, 1)
    assert done.errors[0].startswith(f"error: {problem}")
    assert not server.called(":terminate")
