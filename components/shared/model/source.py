"""`model.source` -> a local folder in Hugging Face layout, and the exact hub commit when it came
from there."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.shared.documents.plan import Plan
from components.shared.errors import HubUnreachable, ModelError
from components.shared.machine import user_path
from components.shared.model.folder import config_problems, weight_problems
from components.shared.model.hub_id import is_hub_id
from components.shared.printable import cut
from components.shared.spec.run_spec import ModelSpec
from components.shared.store.patience import patiently

CONFIG_AND_TOKENIZER = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
BUSY = (429, 500, 502, 503, 504)
"""HTTP statuses of a hub that may answer the same request later."""
MOST_JSON_BYTES = 32 * 1024 * 1024
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


@dataclass(frozen=True)
class ResolvedModel:
    folder: Path
    revision: str | None
    """The hub commit the files are of; None for a folder that the user named."""


def resolve_model(spec: ModelSpec, *, patterns: tuple[str, ...]) -> ResolvedModel:
    """The model's folder on this machine; of a hub id, the files that match `patterns` are in it.

    An existing folder wins over a hub id of the same spelling.

    Raises:
        ModelError: the source is a file, looks like a path and is not there, or the hub did not
            give it; or a folder was given together with a revision.
    """
    folder = user_path(spec.source)
    if folder.is_dir():
        if spec.revision is not None:
            raise ModelError(
                f"model.revision: got {spec.revision!r}, but {spec.source!r} is a folder; remove "
                "it or name a hub id"
            )
        return ResolvedModel(folder=folder, revision=None)
    if folder.exists():
        raise ModelError(
            f"model.source: {spec.source!r} is a file; name the folder that holds config.json and "
            "the weights"
        )
    if not is_hub_id(spec.source):
        raise ModelError(
            f"model.source: no folder {spec.source!r}{_neighbours(folder)}; make it, or name a hub "
            "id such as org/name"
        )
    snapshot = patiently(lambda: _download(spec, patterns), what="hub", may_pass=may_come_back)
    return ResolvedModel(folder=snapshot, revision=snapshot.name)


def resolve_planned_model(plan: Plan) -> ResolvedModel:
    """The plan's base model with its weights, at the hub commit that the dataset was made for.

    Raises as `resolve_model`, and ModelError for files that cannot be loaded.
    """
    source = ModelSpec(source=plan.model.source, revision=plan.model.revision)
    resolved = resolve_model(source, patterns=(*CONFIG_AND_TOKENIZER, *WEIGHTS))
    _config_with_weights(resolved.folder)
    return resolved


def read_config(folder: Path) -> dict[str, Any]:
    """A model's config.json. Raises ModelError where it is missing or stands for no model."""
    config = read_json_object(folder / "config.json")
    problems = config_problems(config)
    if problems:
        raise ModelError(*_config_lines(folder, problems))
    return config


def planned_config(model: ResolvedModel) -> dict[str, Any]:
    """The model's config.json, before its weights are fetched.

    The weights of a folder that the user named are judged too. Those of a hub model are not: an
    interrupted download leaves an index without its files, and the next one brings them.

    Raises:
        ModelError: as `read_config`, or weights of the user's folder cannot be loaded.
    """
    if model.revision is None:
        return _config_with_weights(model.folder)
    return read_config(model.folder)


def _config_with_weights(folder: Path) -> dict[str, Any]:
    config = read_json_object(folder / "config.json")
    weights = [f"model.source: {folder}: {problem}" for problem in weight_problems(folder)]
    problems = [*_config_lines(folder, config_problems(config)), *weights]
    if problems:
        raise ModelError(*problems)
    return config


def _config_lines(folder: Path, problems: list[str]) -> list[str]:
    return [f"{folder}/config.json: {problem}" for problem in problems]


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file of a model folder. Raises ModelError where it is missing or no JSON object."""
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"{path}: is no file, must be a JSON file")
        with path.open("rb") as stream:
            text = stream.read(MOST_JSON_BYTES + 1)
        if len(text) > MOST_JSON_BYTES:
            raise ModelError(
                f"{path}: has more than {MOST_JSON_BYTES:,} bytes, which no model's settings have"
            )
        content = json.loads(text.decode("utf-8"))
    except FileNotFoundError:
        found = ", ".join(sorted(item.name for item in path.parent.iterdir())[:8]) or "nothing"
        raise ModelError(
            f"{path}: no such file; model.source must hold a Hugging Face model, found there: "
            f"{found}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read as JSON: {_why_no_json(error)}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: found {type(content).__name__}, must be a JSON object")
    return content


def _why_no_json(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if "integer string conversion" in str(error):
        return f"it has a number of more than {sys.get_int_max_str_digits():,} digits"
    return cut(str(error), 200)


def has_weights(folder: Path) -> bool:
    """Whether at least one safetensors file lies in the folder; whether they are whole, only
    loading tells."""
    return any(folder.glob("*.safetensors"))


def refuse_config_alone(folder: Path) -> None:
    """Raises ModelError for a folder that has config.json, but neither a tokenizer nor weights."""
    names = [path.name for path in folder.iterdir()]
    others = [
        name for name in names if "token" in name or name.endswith((".model", ".safetensors"))
    ]
    if "config.json" in names and not others:
        raise ModelError(
            f"model.source: {folder} has config.json, but no tokenizer and no weights: enough for "
            "a plan without data, not for a run. Fix: hagane plan SPEC --rows COUNT, or name a "
            "folder that holds the whole model, or its hub id"
        )


def _neighbours(folder: Path) -> str:
    names = sorted(path.parent.name for path in folder.parent.glob("*/config.json"))
    if names:
        return f" (in {folder.parent} are: {', '.join(names[:8])})"
    return ""


def _download(spec: ModelSpec, patterns: tuple[str, ...]) -> Path:
    import huggingface_hub  # only a hub id needs it, and not every image has it
    from httpx2 import HTTPError
    from huggingface_hub import errors

    at = f"{spec.source!r}" + (f" at revision {spec.revision!r}" if spec.revision else "")
    no_folder = "is no folder here"
    kind = ModelError
    try:
        return Path(
            huggingface_hub.snapshot_download(
                spec.source, revision=spec.revision, allow_patterns=list(patterns)
            )
        )
    except errors.GatedRepoError:
        complaint = (
            f"{at} is gated on the hub; accept its terms there with your account and set HF_TOKEN "
            "to a token of it"
        )
    except errors.RevisionNotFoundError:
        complaint = (
            f"{at}: the hub has the model, not the revision; set model.revision to a commit, tag "
            "or branch of it"
        )
    except errors.RepositoryNotFoundError:
        complaint = (
            f"{at} {no_folder}, and no model of the hub that this HF_TOKEN (or none) may see; "
            "check the spelling"
        )
    except (errors.LocalEntryNotFoundError, errors.IncompleteSnapshotError) as error:
        complaint = (
            f"{at} {no_folder}, and the hub did not give it ({cause_of(error)}); check network, "
            "HF_ENDPOINT and HF_HUB_OFFLINE"
        )
        status = status_of(error.__cause__)
        if not_given_for_now(error.__cause__):
            kind = HubUnreachable
        elif status is not None:
            complaint = (
                f"{at} {no_folder}, and the hub refused it with HTTP status {status}; check "
                "HF_ENDPOINT and HF_TOKEN"
            )
    except errors.HFValidationError:
        complaint = (
            f"{at} {no_folder} and no possible hub id; name a folder or a hub id such as org/name"
        )
    except (errors.HfHubHTTPError, HTTPError, OSError) as error:
        complaint = (
            f"{at}: the download from the hub broke off ({cause_of(error)}); run the same command "
            "again"
        )
        if broke_off_for_now(error):
            kind = HubUnreachable
    raise kind(f"model.source: {complaint}") from None


def not_given_for_now(cause: BaseException | None) -> bool:
    """Why the hub's client has no file: the hub is busy or did not answer, and may be asked
    again."""
    from huggingface_hub import errors

    status = status_of(cause)
    return status in BUSY or (status is None and not isinstance(cause, errors.OfflineModeIsEnabled))


def broke_off_for_now(error: BaseException) -> bool:
    """The hub was busy or the network failed, not this machine's disk, and the download may go on
    later."""
    from httpx2 import HTTPError

    status = status_of(error)
    return status in BUSY or (
        status is None and isinstance(error, (HTTPError, ConnectionError, TimeoutError))
    )


def may_come_back(error: BaseException) -> bool:
    return isinstance(error, HubUnreachable)


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status that the hub answered with; None without an answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def cause_of(error: Exception) -> str:
    """The kind of what first went wrong, without its text: that may hold a signed URL."""
    return type(error.__cause__ or error).__name__
