"""MLflow: a run with the training's curves and settings, and a version of a registered model.

Credentials are MLflow's own: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.shared.documents.results import History
from components.shared.errors import HaganeError, SpecError
from components.shared.printable import cut
from components.shared.store.storage import Store
from pipelines.registries.base import (
    PublishedVersion,
    check_address,
    incomplete,
    library,
    said_by,
)
from pipelines.registries.settings import settings

PACKAGE = "mlflow-skinny"
DIGEST = "hagane.manifest_sha256"
"""Tag by which a version's entry is found again."""
MOST_POINTS = 1000
"""Of a curve; a longer one is thinned out evenly."""
MOST_METRICS, MOST_PARAMS, MOST_LETTERS = 1000, 100, 6000
"""Of one request, and of a parameter's value: limits of MLflow's API."""
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Variables that are set where they are not: by itself the client waits minutes for no server."""


@dataclass(frozen=True)
class MlflowServer:
    uri: str
    option: str = "--mlflow"

    @property
    def place(self) -> str:
        return self.uri

    def check(self, store: Store) -> None:
        library("mlflow", package=PACKAGE, option=self.option)
        check_address(self.uri, option=self.option)
        if "://" not in store.uri:
            raise SpecError(
                f"{self.option}: the store is the folder {store.uri}, and MLflow takes no folder "
                "as the source of a model. Fix: publish a run whose store is s3://bucket/prefix"
            )
        client = self._client()
        try:
            client.search_registered_models(max_results=1)
        except Exception as error:
            raise SpecError(
                f"{self.option}: {self.uri} does not answer as MLflow ({said_by(error)}). "
                "Fix: check the address, and MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME "
                "and MLFLOW_TRACKING_PASSWORD"
            ) from None

    def enter(self, version: PublishedVersion, work: Path) -> str:
        try:
            return self._enter(version)
        except HaganeError:
            raise
        except Exception as error:
            raise incomplete(version, self.uri, error) from None

    def _enter(self, version: PublishedVersion) -> str:
        client = self._client()
        mine = f"tags.`{DIGEST}` = '{version.manifest.digest}'"
        named = f"name = '{version.name}'"
        there = client.search_model_versions(f"{named} and {mine}")
        if there:
            return self._line(there[0].version, "was there")
        if not client.search_registered_models(named):
            client.create_registered_model(version.name)
        entry = client.create_model_version(
            version.name,
            version.uri,
            run_id=self._run(client, version, mine),
            tags=version.facts,
            description=version.description,
        )
        return self._line(entry.version, "made")

    def _line(self, number: int | str, how: str) -> str:
        return f"MLflow    version {number} ({how}) at {self.uri}"

    def _run(self, client: Any, version: PublishedVersion, mine: str) -> str:
        """Id of the MLflow run that has the training's numbers. One that broke off is made anew."""
        there = client.get_experiment_by_name(version.name)
        new = there is None
        if new:
            experiment_id = client.create_experiment(version.name)
        else:
            experiment_id = there.experiment_id
        for run in client.search_runs([experiment_id], mine):
            if run.info.status == "FINISHED":
                return run.info.run_id
            client.delete_run(run.info.run_id)
        name = f"{version.spec.name} {version.label}"
        made = client.create_run(experiment_id, tags=version.facts, run_name=name)
        self._log(client, made.info.run_id, version)
        client.set_terminated(made.info.run_id)
        return made.info.run_id

    def _log(self, client: Any, run_id: str, version: PublishedVersion) -> None:
        entities = library("mlflow.entities", package=PACKAGE, option=self.option)
        now = int(time.time() * 1000)
        params = [
            entities.Param(key, cut(value, MOST_LETTERS))
            for key, value in settings(version.spec, version.plan).items()
        ]
        last = version.lineage.checkpoint.step
        points = [(name, value, last) for name, value in version.metrics.items()]
        if version.history is not None:
            points += curves(version.history)
        metrics = [entities.Metric(name, value, now, step) for name, value, step in points]
        for start in range(0, len(params), MOST_PARAMS):
            client.log_batch(run_id, params=params[start : start + MOST_PARAMS])
        for start in range(0, len(metrics), MOST_METRICS):
            client.log_batch(run_id, metrics=metrics[start : start + MOST_METRICS])

    def _client(self) -> Any:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        module = library("mlflow", package=PACKAGE, option=self.option)
        return module.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)


def curves(history: History) -> Iterator[tuple[str, float, int]]:
    """Metric, value, optimizer step."""
    every = -(-len(history.steps) // MOST_POINTS) or 1
    for step in history.steps[::every]:
        yield "loss", step.loss, step.step
        yield "lr", step.lr, step.step
        if step.grad_norm is not None:
            yield "grad_norm", step.grad_norm, step.step
    if history.start_held_out_loss is not None:
        yield "held_out_loss", history.start_held_out_loss, 0
    for epoch in history.epochs:
        if epoch.held_out_loss is not None:
            yield "held_out_loss", epoch.held_out_loss, epoch.step
