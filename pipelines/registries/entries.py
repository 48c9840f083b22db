"""Which registries the command line names, and the entries of a version in all of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from components.shared.errors import HaganeError, RunFailed, SpecError
from components.shared.store.storage import Store
from pipelines.registries.base import PublishedVersion, Registry, incomplete
from pipelines.registries.hub import Hub
from pipelines.registries.kubeflow_registry import KubeflowRegistry
from pipelines.registries.mlflow_server import MlflowServer


def named_registries(
    *, mlflow: str | None, model_registry: str | None, hub: str | None
) -> list[Registry]:
    chosen: list[Registry] = []
    if mlflow is not None:
        chosen.append(MlflowServer(mlflow))
    if model_registry is not None:
        chosen.append(KubeflowRegistry(model_registry))
    if hub is not None:
        chosen.append(Hub(hub))
    return chosen


def check_all(registries: Sequence[Registry], store: Store) -> None:
    """Raises SpecError with a line for each registry in which no entry can be made."""
    problems: list[str] = []
    for registry in registries:
        try:
            registry.check(store)
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(*problems)


def entries_of(
    version: PublishedVersion, registries: Sequence[Registry], work: Path
) -> Iterator[str]:
    """A line for each entry. One that fails does not stop the others.

    Raises RunFailed at the end, with a line for each that failed.
    """
    problems: list[str] = []
    for registry in registries:
        try:
            yield registry.enter(version, work)
        except RunFailed as error:
            problems += error.problems
        except HaganeError as error:  # such as the store's, of the export's files
            problems += incomplete(version, registry.place, error).problems
    if problems:
        raise RunFailed(*problems)
