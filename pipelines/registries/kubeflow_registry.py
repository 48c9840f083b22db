"""Kubeflow's Model Registry: a registered model, its version, and an artifact with the export's
URI.

The client reads its token from the file in KF_PIPELINES_SA_TOKEN_PATH, or of the pod's account.
"""

import getpass
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.shared.errors import HaganeError, SpecError
from components.shared.store.storage import Store
from pipelines.registries.base import (
    PublishedVersion,
    check_address,
    incomplete,
    library,
    said_by,
)

PACKAGE = "model-registry"


@dataclass(frozen=True)
class KubeflowRegistry:
    address: str
    option: str = "--model-registry"

    def check(self, store: Store) -> None:
        library("model_registry", package=PACKAGE, option=self.option)
        check_address(self.address, option=self.option)
        if "://" not in store.uri:
            raise SpecError(
                f"{self.option}: the store is the folder {store.uri}, which no cluster finds. "
                "Fix: publish a run whose store is s3://bucket/prefix"
            )
        self._client()

    def enter(self, version: PublishedVersion, work: Path) -> str:
        client = self._client()
        try:
            return self._enter(client, version)
        except HaganeError:
            raise
        except Exception as error:
            raise incomplete(version, self.address, error) from None

    def _enter(self, client: Any, version: PublishedVersion) -> str:
        name, label = version.name, version.label
        known = client.get_registered_model(name)
        if known is not None and client.get_model_version(name, label) is not None:
            artifact = client.get_model_artifact(name, label)
            if artifact is not None and artifact.uri == version.uri:
                return self._line(version, "was there")
            there = "nothing" if artifact is None else artifact.uri
            raise incomplete(
                version,
                self.address,
                f"it has a {label} of {name} with the artifact {there}; archive or rename that one",
            )
        client.register_model(
            name,
            version.uri,
            version=label,
            model_format_name="peft" if version.export == "adapter" else "transformers",
            model_format_version="1",
            author=author(),
            version_description=version.description,
            metadata={**version.facts, **version.metrics},
        )
        return self._line(version, "made")

    def _line(self, version: PublishedVersion, how: str) -> str:
        return f"registry  {version.name} {version.label} ({how}) at {self.address}"

    def _client(self) -> Any:
        """Its constructor asks the server for one model."""
        module = library("model_registry", package=PACKAGE, option=self.option)
        try:
            with warnings.catch_warnings(action="ignore"):  # it warns where there is no token
                return module.ModelRegistry(self.address, author=author())
        except Exception as error:
            raise SpecError(
                f"{self.option}: {self.address} does not answer as a Model Registry "
                f"({said_by(error)}). Fix: check the address; the token is read from the file "
                "that KF_PIPELINES_SA_TOKEN_PATH names, and https needs one"
            ) from None


def author() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "hagane"
