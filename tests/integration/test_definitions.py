"""`hagane compile --manifests`, `apply` and `diff` as a person runs them, against the stand-in for
KFP's server."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import Finished, hagane
from tests.support.kfp import KfpServer, kfp_server

IMAGES = Path(__file__).parents[2] / "images" / "images.yaml"


@pytest.fixture
def server() -> Iterator[KfpServer]:
    with kfp_server() as running:
        yield running


class Folder:
    """A folder of definitions, and the environment that names the server and the images that were
    compiled last."""

    def __init__(self, root: Path, server: KfpServer) -> None:
        self.root = root
        self.path = root / "definitions"
        self.env = {"HAGANE_KFP_ENDPOINT": server.endpoint, "HOME": str(root)}

    def run(self, command: str, *more: str) -> Finished:
        return hagane(command, self.path, *more, work=self.root, env=self.env)

    def compile(self, tag: str, *more: str) -> str:
        """Writes the definitions with images of this tag. Returns the version's name."""
        file = self.root / "images.yaml"
        file.write_text(re.sub(r"(?m)^tag: .*$", f"tag: {tag}", IMAGES.read_text()))
        self.env["HAGANE_IMAGES"] = str(file)
        done = hagane("compile", "--manifests", self.path, *more, work=self.root, env=self.env)
        assert done.exit_code == 0, done.errors
        found = re.search(r"(?:written|unchanged) .*/versions/(.*)\.yaml", done.output)
        assert found is not None
        return found[1]


@pytest.fixture
def folder(server: KfpServer, tmp_path: Path) -> Folder:
    return Folder(tmp_path, server)


def test_applied_once_it_is_the_same_and_applied_again_nothing_is_sent(
    server: KfpServer, folder: Folder
) -> None:
    version = folder.compile("1.0.0")
    before = folder.run("diff")
    assert (before.exit_code, before.output.splitlines()) == (
        1,
        [
            "+ pipeline hagane-finetune: only in Git",
            f"+ version {version}: only in Git",
            f"2 differences; hagane apply {folder.path} fixes them",
        ],
    )
    done = folder.run("apply")
    assert (done.exit_code, done.output) == (
        0,
        f"pipeline hagane-finetune  created\nversion {version}  created\n",
    )
    changes = [each.path for each in server.asked if each.method != "GET"]
    assert changes == ["/pipelines", "/pipelines/upload_version"]
    assert folder.run("diff").exit_code == 0
    again = folder.run("apply")
    assert (again.exit_code, again.output) == (
        0,
        f"pipeline hagane-finetune  unchanged\nversion {version}  unchanged\n",
    )
    assert [each.path for each in server.asked if each.method != "GET"] == changes


def test_new_content_is_a_new_version_and_the_difference_can_be_read(
    server: KfpServer, folder: Folder
) -> None:
    old = folder.compile("1.0.0")
    folder.run("apply")
    new = folder.compile("2.0.0")
    assert old != new
    shown = folder.run("diff")
    assert shown.exit_code == 1
    assert f"+ version {new}: only in Git" in shown.output
    assert re.search(
        (
            r"    - .*image: localhost/hagane/export:1\.0\.0\n    \+ .*image: "
            r"localhost/hagane/export:2\.0\.0\n"
        ),
        shown.output,
    )
    assert set(folder.run("apply").output.splitlines()[1:]) == {
        f"version {old}  unchanged",
        f"version {new}  created",
    }
    assert folder.run("diff").exit_code == 0
    assert {each["name"] for each in server.versions.values()} == {old, new}


def test_the_version_that_this_code_compiles_to_is_uploaded_last_as_the_ui_offers_the_newest(
    server: KfpServer, folder: Folder
) -> None:
    names = sorted(folder.compile(f"{number}.0.0") for number in range(3))
    current = names[0]
    next(number for number in range(3) if folder.compile(f"{number}.0.0") == current)
    done = folder.run("apply")
    assert (done.exit_code, done.errors) == (0, [])
    assert done.output.splitlines()[1:] == [
        f"version {name}  created" for name in (*names[1:], current)
    ]
    created = {each["name"]: each["created_at"] for each in server.versions.values()}
    assert list(created) == [*names[1:], current]
    assert created[current] > max(
        created[name] for name in names[1:]
    )  # the server counts in whole seconds


def test_it_is_reported_when_the_ui_offers_another_version_than_this_code_compiles_to(
    server: KfpServer, folder: Folder
) -> None:
    old = folder.compile("1.0.0")
    current = folder.compile("2.0.0", "--prune")
    images = shutil.copy(folder.root / "images.yaml", folder.root / "of-this-code.yaml")
    assert "note" not in folder.run("apply").output
    folder.compile("1.0.0")  # in Git again, by whom it may be
    folder.env["HAGANE_IMAGES"] = str(images)
    offered = f"note: KFP's UI offers {old}, the newest uploaded; this code compiles to {current}"
    assert folder.run("apply").output.splitlines()[-1] == offered
    assert folder.run("apply").output.splitlines()[-1] == offered


def test_nothing_is_pruned_unless_asked_and_nothing_that_is_used_even_then(
    server: KfpServer, folder: Folder
) -> None:
    names = [folder.compile(f"{number}.0.0") for number in range(3)]
    folder.run("apply")
    (pipeline,) = server.pipelines
    ids = {each["name"]: key for key, each in server.versions.items()}
    server.versions["foreign"] = {
        **server.versions[ids[names[0]]],
        "pipeline_version_id": "foreign",
        "name": "made-by-hand",
    }
    server.recurring_runs["job"] = {
        "recurring_run_id": "job",
        "display_name": "nightly",
        "experiment_id": next(iter(server.experiments)),
        "pipeline_version_reference": {
            "pipeline_id": pipeline,
            "pipeline_version_id": ids[names[0]],
        },
    }
    folder.compile("2.0.0", "--prune")
    assert folder.run("diff").exit_code == 0
    assert folder.run("diff", "--prune").output.count("only in the cluster") == 2
    assert folder.run("apply").exit_code == 0
    assert len(server.versions) == 4
    done = folder.run("apply", "--prune")
    assert f"version {names[0]}  kept: recurring run 'nightly' uses it" in done.output
    assert f"version {names[1]}  removed" in done.output
    assert {each["name"] for each in server.versions.values()} == {
        names[0],
        names[2],
        "made-by-hand",
    }


def test_a_version_of_the_name_with_other_content_is_reported(
    server: KfpServer, folder: Folder
) -> None:
    version = folder.compile("1.0.0")
    folder.run("apply")
    (kept,) = server.versions.values()
    spec = kept["pipeline_spec"]
    spec.get("pipeline_spec", spec)["pipelineInfo"]["name"] = "something-else"
    shown = folder.run("diff")
    assert shown.exit_code == 1
    assert f"~ version {version}: differs" in shown.output
    assert "    -  name: something-else" in shown.output


def test_a_server_that_fails_halfway_is_exit_code_1_and_the_next_apply_goes_on(
    server: KfpServer, folder: Folder
) -> None:
    version = folder.compile("1.0.0")
    server.fail("POST /pipelines/upload_version", 500, times=1)
    done = folder.run("apply")
    assert (done.exit_code, done.output) == (1, "pipeline hagane-finetune  created\n")
    (line,) = done.errors
    assert line.startswith(
        f"error: KFP at {server.endpoint}: cannot upload version {version}: set to answer 500 (500)"
    )
    server.drop("POST /pipelines/upload_version", after=True)
    assert folder.run("apply").exit_code == 1
    assert folder.run("apply").output.splitlines()[-1] == f"version {version}  unchanged"


def test_what_cannot_be_compared_is_exit_code_2(server: KfpServer, folder: Folder) -> None:
    assert folder.run("diff").exit_code == 2
    folder.compile("1.0.0")
    server.no_such_page("GET /pipelines")
    done = folder.run("diff")
    assert (done.exit_code, len(done.errors)) == (2, 1)
    done = hagane("compile", "--check", work=folder.root)
    assert (done.exit_code, done.errors[0].count("name their folder by --manifests DIR")) == (2, 1)
    folder.env["KUBECONFIG"] = str(folder.root / "no-kubeconfig")
    done = folder.run("diff", "--kubernetes")
    assert (done.exit_code, len(done.errors)) == (2, 1)
    assert done.errors[0].startswith("error: kubectl: ")
    folder.env["PATH"] = str(folder.root)
    assert "kubectl: is not on PATH" in folder.run("diff", "--kubernetes").errors[0]


def test_files_for_another_namespace_are_not_applied(folder: Folder) -> None:
    with kfp_server(multi_user=True) as server:
        folder.env |= {"HAGANE_KFP_ENDPOINT": server.endpoint, "HAGANE_KFP_NAMESPACE": "team-b"}
        folder.compile("1.0.0", "--namespace", "team-a")
        done = folder.run("apply")
        assert (done.exit_code, done.errors) == (
            2,
            [
                (
                    "error: the files are for namespace team-a, but KFP is talked to in team-b; "
                    "set --namespace"
                )
            ],
        )
        assert folder.run("apply", "--namespace", "team-a").exit_code == 0
        assert folder.run("diff", "--namespace", "team-a").exit_code == 0
