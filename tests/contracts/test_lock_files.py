"""Every lock file pins what pyproject.toml asks for: a dependency that was edited without `make lock` fails here."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.example_plans import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK_SCRIPT = (ROOT / "requirements" / "lock.sh").read_text()
# `lock dev.txt prepare_dataset …` and `image prepare prepare_dataset …` of the script.
CALLS = re.findall(r"^(?:lock|image) (\S+) (.+)$", LOCK_SCRIPT, re.MULTILINE)
COMPONENTS = re.findall(r"^components=\((.+)\)$", LOCK_SCRIPT, re.MULTILINE)[0]


def locked_versions(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name.removesuffix('.txt')}.txt").read_text()
    return {canonicalize_name(package): version for package, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


def asked_of(extras: str) -> list[Requirement]:
    names = extras.replace('"${components[@]}"', COMPONENTS).split()
    lines = [line for extra in names for line in PROJECT["optional-dependencies"][extra]]
    return [Requirement(line) for line in [*PROJECT["dependencies"], *lines]]


@pytest.mark.parametrize(("lock", "extras"), CALLS)
def test_a_lock_file_pins_what_its_extras_ask_for(lock: str, extras: str) -> None:
    pinned = locked_versions(lock)
    for requirement in asked_of(extras):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"requirements/{lock}: {requirement} is not locked; run make lock"
        assert version in requirement.specifier, f"requirements/{lock}: {requirement}, locked {version}; run make lock"


def test_every_extra_is_locked_somewhere() -> None:
    locked = {extra for _, extras in CALLS for extra in extras.replace('"${components[@]}"', COMPONENTS).split()}
    assert locked == set(PROJECT["optional-dependencies"])


WITHOUT_HASHES = {"not-locked.txt"}
"""Names of packages that are left out."""


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "requirements").glob("*.txt") if path.name not in WITHOUT_HASHES))
def test_every_pin_of_a_lock_file_has_hashes(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    pins = re.findall(r"^[\w.\[\]-]+==.*$", text, re.MULTILINE)
    hashed = re.findall(r"^[\w.\[\]-]+==[^\n]*\\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
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
