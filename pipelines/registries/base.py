"""What every registry has, and what a published version is for it."""

import importlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Protocol
from urllib.parse import urlsplit

from components.shared.documents.lineage import Lineage
from components.shared.documents.plan import Plan
from components.shared.documents.results import Evaluation, History
from components.shared.errors import HaganeError, ObjectMissing, RunFailed, SpecError
from components.shared.printable import cut, printable, shown
from components.shared.spec.run_spec import RunSpec
from components.shared.store.layout import CHECKPOINTS, PLAN, version_folder
from components.shared.store.manifest import (
    Manifest,
    fetch_folder,
    read_manifest,
    require_manifest,
)
from components.shared.store.storage import Store


class Registry(Protocol):
    """One registry that the command line named."""

    @property
    def place(self) -> str:
        """Its address, as messages name it."""
        ...

    def check(self, store: Store) -> None:
        """Whether an entry can be made, before anything is published.

        Raises SpecError: library, address, credentials or store will not do.
        """
        ...

    def enter(self, version: "PublishedVersion", work: Path) -> str:
        """The version has its entry, once. Returns one line that says where.

        `work`: a folder of this machine, for files. Raises RunFailed, or what the store raises.
        """
        ...


@dataclass(frozen=True)
class PublishedVersion:
    """A finished version of the store, with what registries are to say of it."""

    store: Store
    run: Store
    spec: RunSpec
    name: str
    number: int
    manifest: Manifest

    @property
    def label(self) -> str:
        return f"v{self.number}"

    @property
    def folder(self) -> str:
        return version_folder(self.name, self.number)

    @property
    def export(self) -> str:
        """Name of the export's folder in the version: `adapter` or `model`."""
        return str(self.manifest.facts["export"])

    @property
    def uri(self) -> str:
        """Of the export."""
        return f"{self.store.uri.rstrip('/')}/{self.folder}/{self.export}"

    @cached_property
    def lineage(self) -> Lineage:
        return Lineage.model_validate_json(self.store.read_bytes(f"{self.folder}/lineage.json"))

    @cached_property
    def evaluation(self) -> Evaluation:
        content = self.store.read_bytes(f"{self.folder}/evaluation.json")
        return Evaluation.model_validate_json(content)

    @cached_property
    def history(self) -> History | None:
        """None where the run's training is no longer in the store."""
        try:
            content = self.run.read_bytes(f"{CHECKPOINTS}/history.json")
        except ObjectMissing:
            return None
        return History.model_validate_json(content)

    @cached_property
    def plan(self) -> Plan | None:
        """By which it was trained; None where the run's plan is gone, or is another one now."""
        manifest = read_manifest(self.run, PLAN)
        if manifest is None or manifest.digest != self.lineage.plan.manifest_sha256:
            return None
        return Plan.model_validate_json(self.run.read_bytes(f"{PLAN}/plan.json"))

    @property
    def description(self) -> str:
        if self.export == "adapter":
            kind = "LoRA adapter"
        else:
            kind = "model"
        return (
            f"{kind} on {self.lineage.base.label}, published by hagane as {self.name} {self.label}"
        )

    @property
    def facts(self) -> dict[str, str]:
        """Where it comes from, for tags and properties."""
        lineage = self.lineage
        facts = {
            "hagane.version": self.label,
            "hagane.manifest_sha256": self.manifest.digest,
            "hagane.run": lineage.run,
            "hagane.base": lineage.base.label,
            "hagane.spec_sha256": lineage.spec_sha256,
            "hagane.dataset_sha256": lineage.dataset.manifest_sha256,
            "hagane.checkpoint": (
                f"{lineage.checkpoint.folder} {lineage.checkpoint.manifest_sha256}"
            ),
            "hagane.code_commit": lineage.code.commit or "",
            "hagane.kfp_run": lineage.kfp_run or "",
        }
        return {key: value for key, value in facts.items() if value}

    @property
    def metrics(self) -> dict[str, float]:
        """`base.loss`, `tuned.loss`, `tuned.token_accuracy` …; empty where nothing is held out."""
        if self.evaluation.both is None:
            return {}
        found: dict[str, float] = {}
        for model, measure in zip(("base", "tuned"), self.evaluation.both, strict=True):
            found |= {f"{model}.loss": measure.loss, f"{model}.perplexity": measure.perplexity}
            found |= {f"{model}.{name}": score.value for name, score in measure.scores.items()}
        return found

    def fetch(self, work: Path) -> Path:
        """The export's folder, on this machine."""
        fetch_folder(self.store, self.folder, work)
        return work / self.export


def published_version(
    store: Store, run: Store, spec: RunSpec, *, name: str, number: int
) -> PublishedVersion:
    """Raises StoreError where the version is not finished."""
    manifest = require_manifest(store, version_folder(name, number))
    return PublishedVersion(store, run, spec, name, number, manifest)


def library(module: str, *, package: str, option: str) -> ModuleType:
    """The client library. Raises SpecError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise SpecError(
            f"{option}: needs the Python package {package}, and module {error.name} is not "
            f"installed. Fix: pip install {package}"
        ) from None


def check_address(address: str, *, option: str) -> None:
    """Raises SpecError where it is no http address, or holds a password, which logs would keep."""
    # First of all, so that no message below shows a password.
    if any(sign in address for sign in "@?#"):
        raise SpecError(
            f"{option}: the address holds credentials: a user before @, or a text after ? or #. "
            "Fix: give it without them, and set the variables of the client library"
        )
    if not _is_http(address):
        raise SpecError(
            f"{option}: got {shown(address)}, must be an address such as https://host:port"
        )


def _is_http(address: str) -> bool:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:  # brackets without an IPv6 address in them, a port that is no number
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


AGAIN = "run the same command again when that is repaired; it makes the entry alone"


def incomplete(
    version: PublishedVersion, where: str, error: Exception | str, *, fix: str = AGAIN
) -> RunFailed:
    """The version is in the store, its entry is not complete."""
    if isinstance(error, str):
        said = error
    else:
        said = said_by(error)
    return RunFailed(
        f"{where}: no entry for {version.name} {version.label}, which is published: {said}. "
        f"Fix: {fix}"
    )


def said_by(error: Exception) -> str:
    """Kind and first line of a library's error; no line of its response's headers. The text of
    hagane's own errors is for people as it is."""
    if isinstance(error, HaganeError):
        return "; ".join(error.problems)
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {cut(printable(first), 300)}"
