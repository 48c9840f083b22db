"""`hagane publish --push-to-hub`: huggingface_hub's real client against a stand-in for the hub."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.shared.store.manifest import publish_folder, require_manifest
from components.shared.store.storage import LocalStore
from tests.integration.registries.conftest import MakeRun
from tests.support.command_line import Finished, hagane
from tests.support.hub_repository import HubRepository, hub_repository

TOKEN = "hf_notARealTokenOfAnybody"


@pytest.fixture
def hub() -> Iterator[HubRepository]:
    with hub_repository("my-org/support", token=TOKEN) as repository:
        yield repository


def push(run: str, hub: HubRepository, tmp_path: Path, *more: str, **env: str) -> Finished:
    """The home is empty: nobody's own login counts."""
    arguments = ("publish", run, "--name", "support", "--push-to-hub", hub.repo_id, *more)
    reported = {**hub.env, "HF_HOME": str(tmp_path / "home"), **env}
    done = hagane(*arguments, work=tmp_path / "work", env=reported)
    assert TOKEN not in done.output + "".join(done.errors)
    return done


def test_a_published_version_is_pushed_tagged_and_pushed_once(
    make_run: MakeRun, hub: HubRepository, tmp_path: Path
) -> None:
    run = make_run()
    done = push(run, hub, tmp_path)
    assert done.exit_code == 0, done.errors
    store = Path(run).parent
    published = store / "published/support/v0001"
    assert done.output.splitlines() == [
        f"support v1  {published}",
        f"hub       {hub.endpoint}/my-org/support at v1 (made)",
    ]
    assert hub.private is True
    assert hub.messages == ["support v1, by hagane"]
    assert hub.tags == {"v1": 1}
    export = published / "adapter"
    loaded = [path.name for path in export.iterdir() if path.is_file()]
    files = hub.commits[-1]
    assert sorted(files) == sorted([*loaded, "lineage.json"])
    assert all(files[name] == (export / name).read_bytes() for name in loaded)
    assert files["lineage.json"] == (published / "lineage.json").read_bytes()
    assert not list((tmp_path / "work").rglob("*.safetensors"))
    again = push(run, hub, tmp_path)
    assert again.output.splitlines() == [
        "support: this export was published before; nothing is changed",
        f"hub       {hub.endpoint}/my-org/support at v1 (was there)",
    ]
    assert len(hub.commits) == 2


def test_a_push_that_broke_off_is_ended_by_the_same_command(
    make_run: MakeRun, hub: HubRepository, tmp_path: Path
) -> None:
    run = make_run()
    hub.refused["POST .*/tag/"] = 403
    first = push(run, hub, tmp_path)
    assert first.exit_code == 1
    assert first.errors[-1] == (
        f"error: {hub.endpoint}/my-org/support: no entry for support v1, which is published: "
        "HTTPStatusError, HTTP status 403. Fix: run the same command again when that is repaired; "
        "it makes the entry alone"
    )
    hub.refused.clear()
    assert push(run, hub, tmp_path).exit_code == 0
    assert hub.tags == {"v1": 1}
    assert len(hub.commits) == 2


def test_a_version_that_cannot_be_read_after_it_was_published_is_no_bad_input(
    make_run: MakeRun, hub: HubRepository, tmp_path: Path
) -> None:
    run = make_run()
    assert push(run, hub, tmp_path).exit_code == 0
    Path(run).with_name("published").joinpath("support/v0001/manifest.json").unlink()
    done = push(run, hub, tmp_path)
    assert done.exit_code == 1
    assert "published/support/v0001" in done.errors[-1]
    assert "not finished" in done.errors[-1]


def test_a_tag_of_another_model_is_left_alone(
    make_run: MakeRun, hub: HubRepository, tmp_path: Path
) -> None:
    hub.private = True
    hub.commits.append({"lineage.json": b"{}", "mine.txt": b"mine"})
    hub.tags["v1"] = 1
    done = push(make_run(), hub, tmp_path)
    assert done.exit_code == 1
    assert done.errors[-1] == (
        f"error: {hub.endpoint}/my-org/support: no entry for support v1, which is published: "
        "its tag v1 is of another model. Fix: name another repository with --push-to-hub"
    )
    assert len(hub.commits) == 2


def test_a_tag_of_another_tool_is_left_alone(
    make_run: MakeRun, hub: HubRepository, tmp_path: Path
) -> None:
    hub.private = True
    hub.commits.append({"mine.txt": b"mine"})
    hub.tags["v1"] = 1
    done = push(make_run(), hub, tmp_path)
    assert done.exit_code == 1
    assert "its tag v1 is of another model. Fix: name another repository" in done.errors[-1]
    assert len(hub.commits) == 2


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"version": 2}, "its main has v2, which is later"),
        ({"name": "chat"}, "its main has another model, 'chat'"),
        ({"run": "s3://others/run"}, "its main has another v1"),
        (None, "the lineage.json of its main is not of hagane"),
    ],
)
def test_main_keeps_a_later_version_and_another_model(
    changed: dict[str, object] | None,
    problem: str,
    make_run: MakeRun,
    hub: HubRepository,
    tmp_path: Path,
) -> None:
    run = make_run()
    done = hagane("publish", run, "--name", "support", work=tmp_path / "work")
    assert done.exit_code == 0, done.errors
    own = json.loads((Path(run).parent / "published/support/v0001/lineage.json").read_bytes())
    there = ["a list"] if changed is None else {**own, **changed}
    files = {"lineage.json": json.dumps(there).encode(), "adapter_model.safetensors": b"later"}
    hub.private = True
    hub.commits.append(files)
    done = push(run, hub, tmp_path)
    assert done.exit_code == 1
    assert done.errors[-1] == (
        f"error: {hub.endpoint}/my-org/support: no entry for support v1, which is published: "
        f"{problem}. Fix: name another repository with --push-to-hub"
    )
    assert hub.commits[1:] == [files]
    assert hub.tags == {}


def test_an_earlier_version_on_main_is_replaced(
    make_run: MakeRun, hub: HubRepository, tmp_path: Path
) -> None:
    hub.private = True
    hub.commits.append({"lineage.json": b'{"name": "support", "version": 0}'})
    done = push(make_run(), hub, tmp_path)
    assert done.exit_code == 0, done.errors
    assert json.loads(hub.commits[-1]["lineage.json"])["version"] == 1


def test_a_file_that_is_missing_in_the_store_is_no_entry_of_a_published_version(
    make_run: MakeRun, hub: HubRepository, tmp_path: Path
) -> None:
    run = make_run()
    done = hagane("publish", run, "--name", "support", work=tmp_path / "work")
    assert done.exit_code == 0, done.errors
    (Path(run).parent / "published/support/v0001/adapter/adapter_model.safetensors").unlink()
    done = push(run, hub, tmp_path)
    assert done.exit_code == 1
    assert "no entry for support v1, which is published: " in done.errors[-1]
    assert "adapter_model.safetensors" in done.errors[-1]
    assert len(hub.commits) == 1


def test_every_registry_that_will_not_do_is_named_at_once(
    make_run: MakeRun, hub: HubRepository, tmp_path: Path
) -> None:
    more = ("--mlflow", "http://user:s3cret@host:5000")
    done = push(make_run(), hub, tmp_path, *more, HF_TOKEN="hf_wrong")
    assert done.exit_code == 2
    assert [line.partition(":")[2].split(":")[0] for line in done.errors] == [
        " --mlflow",
        " --push-to-hub",
    ]
    assert "s3cret" not in "".join(done.errors)


def test_files_of_an_earlier_model_go_and_a_persons_own_stay(
    make_run: MakeRun, hub: HubRepository, tmp_path: Path
) -> None:
    hub.private = False
    hub.commits.append({"model-00002.safetensors": b"old", "picture.png": b"mine"})
    assert push(make_run(), hub, tmp_path).exit_code == 0
    assert "model-00002.safetensors" not in hub.commits[-1]
    assert hub.commits[-1]["picture.png"] == b"mine"
    assert hub.private is False


@pytest.mark.parametrize(
    ("repository", "env", "problem"),
    [
        ("support", {}, "got 'support', must be OWNER/NAME"),
        ("../a/b", {}, "got '../a/b', must be OWNER/NAME"),
        ("my-org/support", {"HF_TOKEN": "hf_wrong"}, "HTTP status 401). Fix: set HF_TOKEN"),
        ("my-org/support", {"HF_TOKEN": ""}, "does not know this account"),
        ("my-org/support", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ("my-org/support", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "and check HF_ENDPOINT"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_anything_is_published(
    repository: str,
    env: dict[str, str],
    problem: str,
    make_run: MakeRun,
    hub: HubRepository,
    tmp_path: Path,
) -> None:
    run = make_run()
    done = push(run, hub, tmp_path, "--push-to-hub", repository, **env)
    assert done.exit_code == 2
    (line,) = done.errors
    assert line.startswith("error: --push-to-hub: ")
    assert problem in line
    assert not (Path(run).parent / "published").exists()
    assert hub.private is None


def test_a_run_that_misses_its_gate_is_published_and_pushed_nowhere(
    make_run: MakeRun, hub: HubRepository, tmp_path: Path
) -> None:
    run = make_run()
    store, evaluation = LocalStore(Path(run)), Path(run, "evaluation")
    manifest = require_manifest(store, "evaluation")
    shutil.move(evaluation, tmp_path / "evaluation")
    found = json.loads((tmp_path / "evaluation/evaluation.json").read_bytes())
    found["gate"]["rules"][0] |= {"met": False, "found": "5.9 -> 6.1"}
    (tmp_path / "evaluation/evaluation.json").write_text(json.dumps(found))
    (tmp_path / "evaluation/manifest.json").unlink()
    again = {"made_by": "evaluate", "inputs": manifest.inputs, "facts": manifest.facts}
    publish_folder(store, "evaluation", tmp_path / "evaluation", **again)
    done = push(run, hub, tmp_path)
    assert done.exit_code == 1
    assert "not published: gate: held-out loss must fall" in done.errors[-1]
    assert not (Path(run).parent / "published").exists()
    assert hub.private is None


@pytest.mark.parametrize(
    ("option", "value", "module", "package"),
    [
        ("--mlflow", "http://127.0.0.1:9", "mlflow", "mlflow-skinny"),
        ("--model-registry", "http://127.0.0.1:9", "model_registry", "model-registry"),
        ("--push-to-hub", "my-org/support", "huggingface_hub", "huggingface_hub"),
    ],
)
def test_a_library_that_is_not_installed_is_named_with_the_command_to_get_it(
    option: str, value: str, module: str, package: str, make_run: MakeRun, tmp_path: Path
) -> None:
    """A module that says what Python says of one that is absent stands before an installed one."""
    (tmp_path / "absent").mkdir()
    absent = "raise ModuleNotFoundError(f'No module named {__name__!r}', name=__name__)\n"
    (tmp_path / "absent" / f"{module}.py").write_text(absent)
    run = make_run()
    env = {"PYTHONPATH": str(tmp_path / "absent")}
    arguments = ("publish", run, "--name", "support", option, value)
    done = hagane(*arguments, work=tmp_path / "work", env=env)
    assert (done.exit_code, done.output) == (2, "")
    assert done.errors == [
        (
            f"error: {option}: needs the Python package {package}, and module {module} is not "
            f"installed. Fix: pip install {package}"
        )
    ]
    assert not (Path(run).parent / "published").exists()
