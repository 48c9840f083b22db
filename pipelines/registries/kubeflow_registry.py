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
DIGEST = "hagane.manifest_sha256"
"""Property by which a version is known as this one."""


@dataclass(frozen=True)
class KubeflowRegistry:
    address: str
    option: str = "--model-registry"

    @property
    def place(self) -> str:
        return self.address

    def check(self, store: Store) -> None:
        library("model_registry", package=PACKAGE, option=self.option)
        check_address(self.address, option=self.option)
        if "://" not in store.uri:
            raise SpecError(
                f"{self.option}: the store is the folder {store.uri}, which no cluster finds. "
                "Fix: publish a run whose store is s3://bucket/prefix"
            )
        try:
            self._client()
        except Exception as error:
            raise SpecError(
                f"{self.option}: {self.address} does not answer as a Model Registry "
                f"({said_by(error)}). Fix: check the address; the token is read from the file "
                "that KF_PIPELINES_SA_TOKEN_PATH names, and https needs one"
            ) from None

    def enter(self, version: PublishedVersion, work: Path) -> str:
        try:
            return self._enter(self._client(), version)
        except HaganeError:
            raise
        except Exception as error:
            raise incomplete(version, self.address, error) from None

    def _enter(self, client: Any, version: PublishedVersion) -> str:
        name, label = version.name, version.label
        known = client.get_registered_model(name)
        if known is None:
            there = None
        else:
            there = client.get_model_version(name, label)
        if there is None:
            client.register_model(
                name,
                version.uri,
                version=label,
                author=author(),
                version_description=version.description,
                metadata={**version.facts, **version.metrics},
                **model_format(version),
            )
            return self._line(version, "made")
        artifact = client.get_model_artifact(name, label)
        if artifact is not None and artifact.uri == version.uri:
            return self._line(version, "was there")
        self._refuse_other(version, there, artifact)
        self._add_artifact(client, version, there.id)
        return self._line(version, "made")

    def _refuse_other(self, version: PublishedVersion, there: Any, artifact: Any) -> None:
        """Raises RunFailed unless the registry's version is this one, without its artifact."""
        digest = (there.custom_properties or {}).get(DIGEST)
        if artifact is None and digest == version.manifest.digest:
            return
        if artifact is None:
            uri = "nothing"
        else:
            uri = artifact.uri
        raise incomplete(
            version,
            self.address,
            f"it has another {version.label} of {version.name}, with the artifact {uri}",
            # The client looks a version up by its name, whatever its state, and renames none.
            fix="publish under another --name; to archive that one does not free its name",
        )

    def _add_artifact(self, client: Any, version: PublishedVersion, version_id: str) -> None:
        """What was left to do when an earlier try broke off after it had made the version:
        `register_model` refuses a version that is there."""
        types = library("model_registry.types", package=PACKAGE, option=self.option)
        artifact = types.ModelArtifact(name=version.name, uri=version.uri, **model_format(version))
        api = client._api
        client.async_runner(api.upsert_model_version_artifact(artifact, version_id))

    def _line(self, version: PublishedVersion, how: str) -> str:
        return f"registry  {version.name} {version.label} ({how}) at {self.address}"

    def _client(self) -> Any:
        """Its constructor asks the server for one model. Raises what the library raises."""
        module = library("model_registry", package=PACKAGE, option=self.option)
        with warnings.catch_warnings(action="ignore"):  # it warns where there is no token
            return module.ModelRegistry(self.address, author=author())


def model_format(version: PublishedVersion) -> dict[str, str]:
    if version.export == "adapter":
        name = "peft"
    else:
        name = "transformers"
    return {"model_format_name": name, "model_format_version": "1"}


def author() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "hagane"
