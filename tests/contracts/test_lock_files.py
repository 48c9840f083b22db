"""Every lock file pins what pyproject.toml asks for: a dependency that was edited without `make
lock` fails here."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.example_plans import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, GROUPS = PYPROJECT["project"], PYPROJECT["dependency-groups"]
LOCK_SCRIPT = (ROOT / "requirements" / "lock.sh").read_text()
# `lock dev.txt prepare_dataset …` and `image prepare prepare_dataset …` of the script.
CALLS = re.findall(r"^(?:lock|image) (\S+) (.+)$", LOCK_SCRIPT, re.MULTILINE)
COMPONENTS = re.findall(r"^components=\((.+)\)$", LOCK_SCRIPT, re.MULTILINE)[0]


def locked_versions(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name.removesuffix('.txt')}.txt").read_text()
    return {
        canonicalize_name(package): version
        for package, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)
    }


def asked_of(groups: str) -> list[Requirement]:
    names = groups.replace('"${components[@]}"', COMPONENTS).split()
    return [Requirement(line) for group in ["base", *names] for line in GROUPS[group]]


@pytest.mark.parametrize(("lock", "groups"), CALLS)
def test_a_lock_file_pins_what_its_groups_ask_for(lock: str, groups: str) -> None:
    pinned = locked_versions(lock)
    for requirement in asked_of(groups):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, (
            f"requirements/{lock}: {requirement} is not locked; run make lock"
        )
        assert version in requirement.specifier, (
            f"requirements/{lock}: {requirement}, locked {version}; run make lock"
        )


def test_every_group_is_locked_somewhere() -> None:
    locked = {
        group
        for _, groups in CALLS
        for group in groups.replace('"${components[@]}"', COMPONENTS).split()
    }
    assert locked == set(GROUPS) - {"base"}


WITHOUT_TORCH = ("prepare_dataset", "render_config", "launch_training", "write_report", "cli")
WITH_TORCH = ("train", "export_adapter", "evaluate")
FOR_TORCH = {"networkx", "sympy"}
"""In the locks, as those leave torch out; pip installs them with torch."""


def test_the_package_installs_what_its_commands_need_without_torch() -> None:
    wanted = {line for group in ("base", *WITHOUT_TORCH) for line in GROUPS[group]}
    assert set(PROJECT["dependencies"]) == wanted


def test_the_extra_for_training_adds_what_training_needs() -> None:
    wanted = {line for group in WITH_TORCH for line in GROUPS[group]} - set(PROJECT["dependencies"])
    names = {Requirement(line).name for line in wanted} - FOR_TORCH
    extra = [Requirement(line) for line in PROJECT["optional-dependencies"]["train"]]
    torch = re.search(r"^torch==[^ +]*", (ROOT / "requirements" / "torch.txt").read_text(), re.M)
    assert torch is not None
    assert {each.name for each in extra} == {*names, "torch"}
    assert torch[0] in map(str, extra)


WITHOUT_HASHES = {"not-locked.txt"}
"""Names of packages that are left out."""


@pytest.mark.parametrize(
    "name",
    sorted(
        path.name
        for path in (ROOT / "requirements").glob("*.txt")
        if path.name not in WITHOUT_HASHES
    ),
)
def test_every_pin_of_a_lock_file_has_hashes(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    pins = re.findall(r"^[\w.\[\]-]+==.*$", text, re.MULTILINE)
    hashed = re.findall(
        r"^[\w.\[\]-]+==[^\n]*\\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE
    )
    assert pins
    assert len(hashed) == len(pins)


def test_hashes_of_torch_are_those_of_its_wheels_with_and_without_cuda() -> None:
    assert _torch_hashes("torch") == _torch_hashes("torch-cuda") | _torch_hashes("torch-cpu")
    assert not _torch_hashes("torch-cuda") & _torch_hashes("torch-cpu")


def _torch_hashes(name: str) -> set[str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    block = re.search(r"^torch==[^\n]*\\\n((?:    --hash=\S+(?: \\)?\n)+)", text, re.MULTILINE)
    assert block is not None
    return set(re.findall(r"sha256:[0-9a-f]{64}", block[1]))
