"""`hagane schedules` against the stand-in for KFP's server: what Git wants becomes recurring runs, and nothing else is touched."""

import re
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.shared.errors import KfpError, KfpUnreachable, RunFailed
from components.shared.job.images import IN_THE_REPOSITORY, read_images
from images.push import write_digests
from pipelines.finetune.compiling import CompiledPipeline, compiled_pipeline
from pipelines.kfp_api.client import KfpClient
from pipelines.kfp_api.connection import Asked, find_connection
from pipelines.kfp_api.versions import ensure_version
from pipelines.schedules.changes import Change, changes, owned_schedules
from pipelines.schedules.file import load_schedules
from pipelines.schedules.reconciler import Reconciler
from tests.support.command_line import Finished, hagane
from tests.support.kfp import KfpServer, kfp_server

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
UI_SPEC = Path(__file__).parents[2] / "specs" / "from-the-ui.yaml"
WEEKLY = {"name": "weekly", "cron": "0 3 * * 1", "spec": "spec.yaml"}
NIGHTLY = {
    **{"name": "nightly", "cron": "0 30 1 * * *", "time_zone": "Asia/Tokyo", "spec": "spec.yaml", "concurrency": 2, "catch_up": True},
    **{"overrides": {"training.epochs": 5}, "skip_if_unchanged": True, "notify": "always", "service_account": "hagane-launcher"},
}


@pytest.fixture
def server() -> Iterator[KfpServer]:
    with kfp_server() as running:
        yield running


@pytest.fixture(scope="module")
def pipeline() -> CompiledPipeline:
    return compiled_pipeline()


class Git:
    """A folder with schedules.yaml, applied in this process."""

    def __init__(self, folder: Path, server: KfpServer, pipeline: CompiledPipeline, *, namespace: str | None = None) -> None:
        self.namespace = namespace
        shutil.copy(UI_SPEC, folder / "spec.yaml")
        self.file, self.server, self.pipeline = folder / "schedules.yaml", server, pipeline
        self.told: list[str] = []

    def write(self, *schedules: dict[str, Any], **settings: Any) -> None:
        self.file.write_text(yaml.safe_dump({**settings, "schedules": list(schedules)}, sort_keys=False))

    def _client(self) -> KfpClient:
        return KfpClient(find_connection(Asked(endpoint=self.server.endpoint, namespace=self.namespace), {}))

    def plan(self, *, prune: bool = False, version: str | None = None) -> list[Change]:
        wanted = load_schedules(self.file)
        return changes(wanted, owned_schedules(self._client(), wanted.owner), version=version or self.pipeline.version_name, prune=prune)

    def apply(self, *, prune: bool = False, wait_s: float = 0.0, no_catch_up: bool = False, now: datetime | None = None) -> list[str]:
        """What was told."""
        wanted, kfp = load_schedules(self.file), self._client()
        version = self.pipeline.version_name
        owned = owned_schedules(kfp, wanted.owner)
        needed = changes(wanted, owned, version=version, prune=prune, no_catch_up=no_catch_up, now=now)
        self.told = []
        Reconciler(kfp, wanted, ensure=lambda: ensure_version(kfp, self.pipeline), version=version, tell=self.told.append).apply(
            needed, wait_s=wait_s
        )
        return self.told


@pytest.fixture
def git(tmp_path: Path, server: KfpServer, pipeline: CompiledPipeline) -> Git:
    git = Git(tmp_path, server, pipeline)
    git.write(WEEKLY, NIGHTLY)
    return git


def writes(server: KfpServer) -> list[str]:
    return [str(each) for each in server.asked if each.method != "GET"]


def by_name(server: KfpServer) -> dict[str, dict[str, Any]]:
    found = {each["display_name"]: each for each in server.recurring_runs.values()}
    assert len(found) == len(server.recurring_runs)
    return found


def test_what_the_file_says_is_what_kfp_has(git: Git, server: KfpServer) -> None:
    assert git.apply() == ["created   weekly", "created   nightly"]
    weekly, nightly = by_name(server)["weekly"], by_name(server)["nightly"]
    assert weekly["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 1"
    assert nightly["trigger"]["cron_schedule"]["cron"] == "0 30 16 * * *"
    assert (weekly["max_concurrency"], weekly["no_catchup"], weekly["service_account"]) == ("1", True, "pipeline-runner")
    assert (nightly["max_concurrency"], nightly.get("no_catchup", False), nightly["service_account"]) == ("2", False, "hagane-launcher")
    parameters = nightly["runtime_config"]["parameters"]
    assert parameters["spec"]["training"]["epochs"] == 5
    assert {name: value for name, value in parameters.items() if name != "spec"} == {
        "override_run_name": "nightly-{run}",
        "skip_if_unchanged": True,
        "notify_when": "always",
    }
    run = server.runs[server.trigger(nightly["recurring_run_id"])]  # the server holds it against the pipeline's own parameters
    assert run["runtime_config"]["parameters"] == parameters


def test_applied_twice_the_second_changes_nothing(git: Git, server: KfpServer) -> None:
    git.apply()
    before = writes(server)
    assert git.plan() == []
    assert git.apply() == []
    assert writes(server) == before


def test_an_edited_cron_replaces_that_schedule_alone_and_the_plan_says_exactly_how(git: Git, server: KfpServer) -> None:
    git.apply()
    before = {name: each["recurring_run_id"] for name, each in by_name(server).items()}
    git.write({**WEEKLY, "cron": "0 4 * * 1"}, NIGHTLY)
    (change,) = git.plan()
    assert (change.kind, change.name, change.lines) == ("replace", "weekly", ("cron: '0 0 3 * * 1' -> '0 0 4 * * 1'",))
    assert git.apply() == ["replaced  weekly"]
    after = {name: each["recurring_run_id"] for name, each in by_name(server).items()}
    assert after["nightly"] == before["nightly"]
    assert after["weekly"] != before["weekly"]
    assert by_name(server)["weekly"]["status"] == "ENABLED"


@pytest.mark.parametrize(("tag", "warned"), [("2.15.2", True), ("2.16.0", False), ("unknown", False)])
def test_a_server_that_deletes_workflows_with_their_schedule_is_warned_of(tag: str, warned: bool, git: Git, server: KfpServer) -> None:
    git.apply()
    server.tag_name = tag
    git.write({**WEEKLY, "cron": "0 4 * * 1"}, NIGHTLY)
    told = git.apply()
    assert told[-1] == "replaced  weekly"
    warning = "warning   weekly: KFP 2.15.2 deletes its finished workflows and their logs with it; 2.16 and newer keep them"
    assert told[:-1] == ([warning] if warned else [])


def test_a_changed_spec_and_a_new_version_of_the_pipeline_are_told(git: Git, tmp_path: Path) -> None:
    git.apply()
    spec = tmp_path / "spec.yaml"
    spec.write_text(spec.read_text().replace("epochs: 3", "epochs: 4"))
    assert [(change.name, change.lines) for change in git.plan()] == [("weekly", ("spec.training.epochs: 3 -> 4",))]
    spec.write_text(spec.read_text().replace("epochs: 4", "epochs: 3"))
    lines = [change.lines for change in git.plan(version="hagane-finetune-000000000000")]
    assert lines == [(f"version: '{git.pipeline.version_name}' -> 'hagane-finetune-000000000000'",)] * 2


def test_turning_off_and_on_keeps_the_recurring_run(git: Git, server: KfpServer) -> None:
    git.apply()
    before = by_name(server)["weekly"]["recurring_run_id"]
    git.write({**WEEKLY, "enabled": False}, NIGHTLY)
    assert git.apply() == ["disabled  weekly"]
    assert by_name(server)["weekly"]["status"] == "DISABLED"
    git.write(WEEKLY, NIGHTLY)
    assert git.apply() == ["enabled   weekly"]
    assert by_name(server)["weekly"]["recurring_run_id"] == before


@pytest.mark.parametrize("catch_up", [False, True])
def test_a_schedule_that_is_turned_on_says_which_missed_run_starts_at_once(catch_up: bool, git: Git, server: KfpServer) -> None:
    schedule = {**WEEKLY, "cron": "0 3 * * *", "catch_up": catch_up}
    git.write({**schedule, "enabled": False})
    git.apply()
    server.tick(by_name(server)["weekly"]["recurring_run_id"])
    git.write(schedule)
    missed = (datetime.now(UTC) + timedelta(days=3)).replace(hour=3, minute=0)
    which = "every run that it missed, the last of" if catch_up else "the run of"
    (kept, line) = git.apply(now=missed + timedelta(minutes=5))
    assert kept == "enabled   weekly"
    assert line.strip().startswith(f"KFP starts at once {which} {missed:%Y-%m-%d} 03:00 UTC")
    assert line.endswith("leaves them out" if catch_up else "leaves it out")
    assert len(server.runs) == 1


def test_with_no_catch_up_a_schedule_is_turned_on_without_the_run_that_it_missed(git: Git, server: KfpServer) -> None:
    git.write({**WEEKLY, "enabled": False})
    git.apply()
    before = by_name(server)["weekly"]["recurring_run_id"]
    server.tick(before)
    git.write(WEEKLY)
    assert git.apply(no_catch_up=True, now=datetime.now(UTC) + timedelta(days=8)) == ["replaced  weekly"]
    assert by_name(server)["weekly"]["recurring_run_id"] != before
    assert (by_name(server)["weekly"]["status"], server.runs) == ("ENABLED", {})
    git.write({**WEEKLY, "enabled": False})
    git.apply()
    git.write(WEEKLY)
    assert git.apply(no_catch_up=True) == ["enabled   weekly"]  # nothing was missed


def test_what_is_gone_from_the_file_goes_only_with_prune(git: Git, server: KfpServer) -> None:
    git.apply()
    git.write(WEEKLY)
    assert git.apply() == ["kept      nightly: gone from the file; --prune removes it"]
    assert by_name(server).keys() == {"weekly", "nightly"}
    assert git.apply(prune=True) == ["removed   nightly"]
    assert by_name(server).keys() == {"weekly"}


def test_recurring_runs_of_others_are_never_touched(git: Git, server: KfpServer, tmp_path: Path) -> None:
    git.write({**WEEKLY, "name": "theirs"}, owner="team-b")
    git.apply()
    git.write(WEEKLY)
    git.apply()
    made = server.recurring_runs[next(iter(server.recurring_runs))]
    by_hand = {**made, "recurring_run_id": "by-hand", "display_name": "weekly", "description": "mine; see hagane-schedule"}
    server.recurring_runs["by-hand"] = dict(by_hand)
    before = {key: dict(each) for key, each in server.recurring_runs.items() if "owner=hagane " not in each["description"]}
    git.write()
    assert git.apply(prune=True) == ["removed   weekly"]
    assert server.recurring_runs == before
    assert {each["display_name"] for each in before.values()} == {"theirs", "weekly"}


@pytest.mark.parametrize("change", ["replace", "remove"])
def test_nothing_goes_while_a_run_of_it_is_active(change: str, git: Git, server: KfpServer) -> None:
    git.apply()
    run = server.trigger(by_name(server)["weekly"]["recurring_run_id"])
    server.advance(run, "RUNNING")
    before, writes_before = dict(by_name(server)["weekly"]), writes(server)
    git.write(*([{**WEEKLY, "cron": "0 4 * * 1"}] if change == "replace" else []), NIGHTLY)
    with pytest.raises(RunFailed) as told:
        git.apply(prune=True)
    assert told.value.problems == (
        f"weekly: left as it is, since its run {run} is active; apply again when it is over, or set --wait-minutes",
    )
    assert (by_name(server)["weekly"], writes(server)) == (before, writes_before)
    server.advance(run, "SUCCEEDED")
    assert git.apply(prune=True) == [f"{change}d  weekly" if change == "replace" else "removed   weekly"]
    assert server.runs[run]["state"] == "SUCCEEDED"


def test_an_active_run_is_waited_for(git: Git, server: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    git.apply()
    run = server.trigger(by_name(server)["weekly"]["recurring_run_id"])
    monkeypatch.setattr("pipelines.schedules.reconciler.POLL_S", 0.05)
    looked = iter(["RUNNING", "RUNNING", "SUCCEEDED"])
    monkeypatch.setattr("pipelines.schedules.reconciler.time.sleep", lambda _: server.advance(run, next(looked)))
    git.write({**WEEKLY, "cron": "0 4 * * 1"}, NIGHTLY)
    assert git.apply(wait_s=600) == [f"waits     weekly: run {run} is active", "replaced  weekly"]


def test_a_run_that_starts_while_its_schedule_is_being_replaced_keeps_it(
    git: Git, server: KfpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    git.apply()
    old = by_name(server)["weekly"]["recurring_run_id"]
    turn = Reconciler._turn

    def turned(self: Reconciler, recurring_run_id: str, name: str, *, on: bool) -> None:
        if not on:
            server.trigger(recurring_run_id)  # at the last moment
        turn(self, recurring_run_id, name, on=on)

    monkeypatch.setattr(Reconciler, "_turn", turned)
    git.write({**WEEKLY, "cron": "0 4 * * 1"}, NIGHTLY)
    with pytest.raises(RunFailed, match="is active"):
        git.apply()
    assert by_name(server)["weekly"]["recurring_run_id"] == old
    assert by_name(server)["weekly"]["status"] == "ENABLED"


STEPS_OF_A_REPLACEMENT = [
    "POST /recurringruns/.*:disable",
    "POST /recurringruns$",
    "DELETE /recurringruns/",
    "POST /recurringruns/.*:enable",
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", STEPS_OF_A_REPLACEMENT)
def test_broken_off_at_any_moment_it_is_healed_by_the_next_apply(at: str, after: bool, git: Git, server: KfpServer) -> None:
    git.apply()
    git.write({**WEEKLY, "cron": "0 4 * * 1"}, NIGHTLY)
    server.drop(at, after=after, times=1)
    with pytest.raises(KfpUnreachable):
        git.apply()
    weekly = [each for each in server.recurring_runs.values() if each["display_name"] == "weekly"]
    assert weekly, "the schedule is nowhere"
    assert sum(each["status"] == "ENABLED" for each in weekly) <= 1, "two would start runs"
    git.apply()
    assert by_name(server)["weekly"]["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * 1"
    assert by_name(server)["weekly"]["status"] == "ENABLED"
    assert git.plan() == []


@pytest.mark.parametrize("at", ["POST /pipelines/upload_version", "POST /experiments", "POST /recurringruns$", "DELETE /recurringruns/"])
def test_what_the_server_refuses_leaves_the_old_schedule_at_work(at: str, git: Git, server: KfpServer) -> None:
    git.apply()
    old = by_name(server)["weekly"]["recurring_run_id"]
    server.versions.clear()
    git.write({**WEEKLY, "cron": "0 4 * * 1"}, NIGHTLY, experiment="another")
    server.fail(at, 403)
    for _ in range(2):
        with pytest.raises(KfpError) as told:
            git.apply()
        assert len(told.value.problems) == 1
        assert server.recurring_runs[old]["status"] == "ENABLED"
    weekly = [each for each in server.recurring_runs.values() if each["display_name"] == "weekly"]
    assert sum(each["status"] == "ENABLED" for each in weekly) == 1, "two would start runs"
    server.faults.clear()
    git.apply()
    assert (by_name(server)["weekly"]["status"], git.plan()) == ("ENABLED", [])


def test_active_runs_that_cannot_be_looked_at_leave_the_old_schedule_at_work(
    git: Git, server: KfpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    git.apply()
    turn = Reconciler._turn

    def turned(self: Reconciler, recurring_run_id: str, name: str, *, on: bool) -> None:
        turn(self, recurring_run_id, name, on=on)
        server.fail("GET /runs", 500)  # after the first look

    monkeypatch.setattr(Reconciler, "_turn", turned)
    git.write({**WEEKLY, "cron": "0 4 * * 1"}, NIGHTLY)
    with pytest.raises(KfpError, match="cannot list active runs"):
        git.apply()
    assert by_name(server)["weekly"]["status"] == "ENABLED"


def test_a_schedule_that_is_left_turned_off_is_told_each_time(git: Git, server: KfpServer) -> None:
    git.apply()
    git.write({**WEEKLY, "cron": "0 4 * * 1"}, NIGHTLY)
    server.fail("POST /recurringruns$", 403)
    server.fail(":enable", 403, times=1)
    for _ in range(2):  # the second finds it off
        with pytest.raises(KfpError) as told:
            git.apply()
        refused, left = told.value.problems
        assert "cannot make recurring run 'weekly'" in refused
        assert left == "weekly: is turned off now and starts no runs until `hagane schedules apply` succeeds"
    assert by_name(server)["weekly"]["status"] == "DISABLED"
    server.versions.clear()
    server.fail("POST /pipelines/upload_version", 500)
    with pytest.raises(KfpError, match="weekly: is turned off now"):
        git.apply()
    server.faults.clear()
    assert git.apply() == ["replaced  weekly"]
    assert by_name(server)["weekly"]["status"] == "ENABLED"


def test_a_recurring_run_that_is_there_twice_is_one_again(git: Git, server: KfpServer) -> None:
    git.apply()
    first = by_name(server)["weekly"]
    server.recurring_runs["twin"] = {**first, "recurring_run_id": "twin"}
    assert git.apply() == ["extra     weekly"]
    assert by_name(server)["weekly"]["recurring_run_id"] == first["recurring_run_id"]


def test_a_server_with_many_users_gets_them_in_ones_own_namespace_alone(tmp_path: Path, pipeline: CompiledPipeline) -> None:
    with kfp_server(multi_user=True) as server:
        for namespace in ("team-a", "team-b"):
            git = Git(tmp_path, server, pipeline, namespace=namespace)
            git.write(WEEKLY)
            assert git.apply() == ["created   weekly"]
            assert git.apply() == []
        assert sorted(each["namespace"] for each in server.recurring_runs.values()) == ["team-a", "team-b"]


def test_200_schedules_are_reconciled_in_seconds(git: Git, server: KfpServer) -> None:
    schedules = [{**WEEKLY, "name": f"s{number}", "cron": f"{number % 60} 3 * * *", "time_zone": "Asia/Tokyo"} for number in range(200)]
    seconds: list[float] = []
    for edited in (schedules, schedules, [{**each, "concurrency": 2} for each in schedules]):
        git.write(*edited)
        begun = time.monotonic()
        git.apply()
        seconds.append(time.monotonic() - begun)
    assert len(by_name(server)) == 200
    print(f"200 schedules: made in {seconds[0]:.1f} s, found unchanged in {seconds[1]:.1f} s, all replaced in {seconds[2]:.1f} s")
    assert max(seconds) < 60  # seconds on an idle machine; the bound is for one that is not
    assert all(each["max_concurrency"] == "2" for each in server.recurring_runs.values())


# The command line


@pytest.fixture
def cli(tmp_path: Path, server: KfpServer) -> Any:
    """`hagane schedules …` in a folder with schedules.yaml, the images pinned."""
    images = tmp_path / "images.yaml"
    shutil.copy(IN_THE_REPOSITORY, images)
    components = read_images(IN_THE_REPOSITORY).components.values()
    write_digests(images, "registry.example.com/hagane", dict.fromkeys(components, "sha256:" + "1" * 64))

    def run(*words: str, **more: str) -> Finished:
        environment = {"HAGANE_KFP_ENDPOINT": server.endpoint, "HAGANE_IMAGES": str(images), "HOME": str(tmp_path), **more}
        return hagane("schedules", *words, work=tmp_path / "work", env=environment)

    return run


def test_plan_apply_and_list_from_the_command_line(cli: Any, git: Git, server: KfpServer) -> None:
    file = str(git.file)
    planned = cli("plan", file)
    assert planned.exit_code == 0, planned.errors
    assert planned.output.splitlines()[0] == "create        weekly"
    assert planned.output.splitlines()[-1] == f"2 schedules in {file}; apply would make 2 changes"
    assert writes(server) == []
    applied = cli("apply", file)
    assert applied.output.splitlines() == ["created   weekly", "created   nightly", "2 schedules; 2 changes made"]
    assert cli("apply", file).output == "2 schedules; nothing to change\n"
    listed = cli("list").output
    assert re.search(r"weekly +0 0 3 \* \* 1 +yes +hagane-finetune-[0-9a-f]{12} +- +-", listed)


def test_images_that_may_move_are_refused_for_schedules(cli: Any, git: Git, server: KfpServer) -> None:
    refused = cli("apply", str(git.file), HAGANE_IMAGES=str(IN_THE_REPOSITORY))
    assert refused.exit_code == 2
    assert len(refused.errors) == len(read_images(IN_THE_REPOSITORY).all())
    assert all("is a tag, which can be moved" in line for line in refused.errors)
    assert server.asked == []


@pytest.mark.parametrize(("status", "words"), [(401, "HAGANE_KFP_TOKEN"), (403, "namespace"), (500, "server failed")])
def test_a_server_that_refuses_is_one_line(status: int, words: str, cli: Any, git: Git, server: KfpServer) -> None:
    server.fail("/recurringruns", status)
    refused = cli("plan", str(git.file))
    assert (refused.exit_code, len(refused.errors)) == (2, 1)
    assert "cannot list recurring runs: " in refused.errors[0]
    assert words in refused.errors[0]
