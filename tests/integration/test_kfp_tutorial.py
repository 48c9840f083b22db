"""docs/kfp.md: every command of the tutorial, against the stand-in for KFP's server; and the files
in k8s/gitops that it names."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from pipelines.definitions.files import FOLDERS
from tests.support.kfp import kfp_server
from tests.support.tutorials import ROOT, Command, commands_of, run_commands

GITOPS = ROOT / "k8s" / "gitops"
COMMANDS = commands_of(ROOT / "docs" / "kfp.md", "From Git, with Argo CD or Flux")


def needs_a_cluster(command: Command) -> bool:
    """Those are run by tests/cluster/test_gitops.py."""
    return command.line.startswith("kubectl ") or "--kubernetes" in command.line


def tutorial_env(folder: Path, endpoint: str) -> dict[str, str]:
    """A person's environment: this repository, a home of their own, the server."""
    person = {
        f"GIT_{who}_{what}": "a@example.com"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    here = {
        "HAGANE": str(ROOT),
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "HAGANE_KFP_ENDPOINT": endpoint,
    }
    return {**os.environ, **person, **here, "COLUMNS": "200"}


def test_every_command_of_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    repository = tmp_path / "training"
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    with kfp_server() as server:
        done = run_commands(
            [each for each in COMMANDS if not needs_a_cluster(each)],
            repository,
            tutorial_env(tmp_path, server.endpoint),
        )
        expected = [(each.line, each.expected) for each in COMMANDS if not needs_a_cluster(each)]
        assert [(line, code) for line, code, _ in done] == expected, done[-1][2]
        assert len(server.called("POST /pipelines/upload_version")) == 2
        (kept,) = server.versions.values()
        assert (repository / "definitions" / "versions" / f"{kept['name']}.yaml").is_file()
    log = subprocess.run(
        ["git", "-C", str(repository), "log", "--format=%s"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert log.splitlines() == [
        "Drop the old version",
        "Use images 0.2.0",
        "Define hagane's pipeline",
    ]


def documents(folder: str) -> list[dict[str, Any]]:
    return [
        each
        for file in sorted((GITOPS / folder).glob("*.yaml"))
        for each in yaml.safe_load_all(file.read_text())
    ]


def test_flux_and_argo_cd_bring_the_folders_that_compile_writes_in_order() -> None:
    flux = {
        each["metadata"]["name"]: each["spec"]
        for each in documents("flux")
        if each["kind"] == "Kustomization"
    }
    paths = {name: spec["path"] for name, spec in flux.items()}
    assert sorted(paths.values()) == sorted(
        f"./definitions/{folder}" for folder in FOLDERS.values()
    )
    (repository,) = (
        each["metadata"]["name"] for each in documents("flux") if each["kind"] == "GitRepository"
    )
    assert {spec["sourceRef"]["name"] for spec in flux.values()} == {repository}
    (versions,) = (spec for spec in flux.values() if spec["path"].endswith("/versions"))
    (pipelines,) = (name for name, path in paths.items() if path.endswith("/pipelines"))
    assert versions["dependsOn"] == [{"name": pipelines}]
    (application,) = documents("argocd")
    assert (
        application["spec"]["source"]["path"],
        application["spec"]["source"]["directory"]["recurse"],
    ) == ("definitions", True)
    assert not application["spec"]["syncPolicy"]["automated"]["prune"]
    assert not any(spec["prune"] for spec in flux.values())


def test_ci_runs_the_tutorials_check() -> None:
    (workflow,) = documents("ci")
    steps = [
        step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step
    ]
    assert steps == [next(each.line for each in COMMANDS if "--check" in each.line)]


def test_every_variable_of_the_document_is_one_that_is_read() -> None:
    text = (ROOT / "docs" / "kfp.md").read_text(encoding="utf-8")
    program = (ROOT / "pipelines" / "kfp_api" / "connection.py").read_text(encoding="utf-8")
    assert set(re.findall(r"HAGANE_KFP_[A-Z_]+", text)) == set(
        re.findall(r"HAGANE_KFP_[A-Z_]+", program)
    )
