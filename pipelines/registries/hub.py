"""The Hugging Face hub: the export's files in a repository, and a tag of the version's name.

The token is HF_TOKEN, or what `hf auth login` kept. A repository that is made is private.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.shared.documents.lineage import Lineage
from components.shared.errors import HaganeError, SpecError
from components.shared.model.source import status_of
from components.shared.printable import shown, without_secrets
from components.shared.store.storage import Store
from pipelines.registries.base import PublishedVersion, incomplete, library

PACKAGE = "huggingface_hub"
LEFT_OUT = ["serve/**", "manifest.json"]
"""serve/ names the store, which nobody on the hub reaches."""
REPLACED = ["*.safetensors", "*.safetensors.index.json", "lineage.json"]
"""Files of an earlier version that go when this one has none of their name."""
ELSEWHERE = "name another repository with --push-to-hub"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Hub:
    repository: str
    option: str = "--push-to-hub"

    @property
    def place(self) -> str:
        return without_secrets(f"{self._api().endpoint}/{self.repository}")

    def check(self, store: Store) -> None:
        if _REPOSITORY.fullmatch(self.repository) is None:
            got = f"got {self.repository!r}"
            raise SpecError(f"{self.option}: {got}, must be OWNER/NAME, such as my-org/support")
        errors = library("huggingface_hub.errors", package=PACKAGE, option=self.option)
        try:
            self._api().whoami()
        except errors.OfflineModeIsEnabled:
            fix = "unset HF_HUB_OFFLINE"
            raise SpecError(f"{self.option}: HF_HUB_OFFLINE is set. Fix: {fix}") from None
        except Exception as error:
            raise SpecError(
                f"{self.option}: the hub at {self._api().endpoint} does not know this account "
                f"({kind_of(error)}). Fix: set HF_TOKEN to a token that may write, and check "
                "HF_ENDPOINT"
            ) from None

    def enter(self, version: PublishedVersion, work: Path) -> str:
        try:
            return self._enter(self._api(), version, work)
        except HaganeError:
            raise
        except Exception as error:
            raise incomplete(version, self.place, kind_of(error)) from None

    def _enter(self, api: Any, version: PublishedVersion, work: Path) -> str:
        api.create_repo(self.repository, private=True, exist_ok=True)
        tags = api.list_repo_refs(self.repository).tags
        if any(tag.name == version.label for tag in tags):
            self._refuse_other(api, version, work)
            return self._line(version, "was there")
        self._refuse_older(api, version, work)
        folder = version.fetch(work / "hub")
        (folder / "lineage.json").write_text(text_of(version.lineage), encoding="utf-8")
        commit = api.upload_folder(
            repo_id=self.repository,
            folder_path=folder,
            ignore_patterns=LEFT_OUT,
            delete_patterns=REPLACED,
            commit_message=f"{version.name} {version.label}, by hagane",
        )
        api.create_tag(self.repository, tag=version.label, revision=commit.oid)
        return self._line(version, "made")

    def _refuse_other(self, api: Any, version: PublishedVersion, work: Path) -> None:
        """Raises RunFailed where the tag is of another model, or not of hagane."""
        if self._lineage_at(api, version.label, work) != text_of(version.lineage):
            problem = f"its tag {version.label} is of another model"
            raise incomplete(version, self.place, problem, fix=ELSEWHERE)

    def _refuse_older(self, api: Any, version: PublishedVersion, work: Path) -> None:
        """Raises RunFailed where main has a later version, or a model of another name: its weights
        would be replaced."""
        there = self._lineage_at(api, "main", work)
        if there is None or there == text_of(version.lineage):
            return
        name, number = named_in(there)
        if name is None:
            problem = "the lineage.json of its main is not of hagane"
        elif name != version.name:
            problem = f"its main has another model, {shown(name)}"
        elif number == version.number:
            problem = f"its main has another {version.label}"
        elif number > version.number:
            problem = f"its main has v{number}, which is later"
        else:
            return
        raise incomplete(version, self.place, problem, fix=ELSEWHERE)

    def _lineage_at(self, api: Any, revision: str, work: Path) -> str | None:
        """lineage.json at a branch or tag; None where it has none."""
        folder = work / "lineage" / revision
        try:
            path = api.hf_hub_download(
                self.repository, "lineage.json", revision=revision, local_dir=folder
            )
        except Exception as error:
            if status_of(error) != 404:
                raise
            return None
        return Path(path).read_text(encoding="utf-8", errors="replace")

    def _line(self, version: PublishedVersion, how: str) -> str:
        return f"hub       {self.place} at {version.label} ({how})"

    def _api(self) -> Any:
        return library("huggingface_hub", package=PACKAGE, option=self.option).HfApi()


def text_of(lineage: Lineage) -> str:
    return lineage.model_dump_json(indent=1) + "\n"


def named_in(lineage: str) -> tuple[str | None, int]:
    """Name and number of the version in a lineage.json; None and 0 where it is not of hagane."""
    try:
        tree = json.loads(lineage)
        return str(tree["name"]), int(tree["version"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, 0


def kind_of(error: Exception) -> str:
    """Without its text, which may hold a signed address."""
    status = status_of(error)
    kind = type(error.__cause__ or error).__name__
    if status is None:
        return kind
    return f"{kind}, HTTP status {status}"
