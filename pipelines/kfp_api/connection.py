"""Flags, environment and ~/.config/hagane/kfp.yaml -> where Kubeflow Pipelines is, and as whom to
talk to it.

    current: lab                       # the context that holds where none is named
    contexts:
      lab:
        endpoint: https://kfp.example.com/pipeline
        namespace: team-a              # only where the server has many users
        token_file: ~/.config/hagane/lab.token      # or token_env: LAB_TOKEN; never the token
        ca_file: ~/lab-ca.pem          # only for a certificate that no public authority signed
        ui: https://kfp.example.com/pipeline        # only where the pages are not at the endpoint

What a flag says wins over a variable, a variable over the file. The context that the flag --context
names is named by a flag: it wins over variables too. Where HAGANE_KFP_ENDPOINT names another server
than the flags do, no variable of that server counts."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from components.shared.documents.fields import FrozenModel
from components.shared.errors import SpecError
from components.shared.machine import user_path
from components.shared.printable import cut, shown
from components.shared.spec.yaml_text import read_text, read_yaml

CONFIG = "~/.config/hagane/kfp.yaml"
POD_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"  # noqa: S105 - a path
"""Where a pod has its token for KFP, as kfp.client.set_volume_credentials looks for it;
KF_PIPELINES_SA_TOKEN_PATH names another."""
MOUNTED = "/var/run/secrets"
"""Where Kubernetes puts a pod's secrets, with a mode that nobody there can change."""
TIMEOUT_S = 60.0
OF_A_SERVER = (
    "HAGANE_KFP_ENDPOINT",
    "HAGANE_KFP_NAMESPACE",
    "HAGANE_KFP_TOKEN",
    "HAGANE_KFP_CA_FILE",
    "HAGANE_KFP_UI",
)
"""Variables about one server: the one that the first of them names, where it is set."""
NO_SERVER = "KFP: no server is named"


class Context(FrozenModel):
    """One server in the file."""

    endpoint: str
    namespace: str | None = None
    token_file: str | None = None
    token_env: str | None = None
    ca_file: str | None = None
    ui: str | None = None


class ContextFile(FrozenModel):
    current: str | None = None
    contexts: dict[str, Context] = Field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What the command line says; None for what it leaves open."""

    endpoint: str | None = None
    namespace: str | None = None
    token_file: Path | None = None
    context: str | None = None


@dataclass(frozen=True)
class Connection:
    """A server, found. Its token is never shown."""

    endpoint: str
    namespace: str | None
    token: str | None = field(repr=False)
    ca_file: Path | None
    ui: str
    token_file: Path | None = None
    """Where the token was read, to be read again: it may be another an hour later."""
    timeout_s: float = TIMEOUT_S
    """Longest wait for an answer."""


def find_connection(asked: Asked, environment: Mapping[str, str] = os.environ) -> Connection:
    """The server to talk to. Nothing is asked of it yet.

    Raises:
        SpecError: no endpoint is named anywhere, or a file or value is not what it must be; one
            line each.
    """
    context = _context(asked, environment)
    is_named = context is not None and asked.context is not None
    reported = asked.endpoint or (context.endpoint if context is not None and is_named else None)
    if reported is not None:
        environment = _without_another_server(environment, reported)
    endpoint = asked.endpoint or _setting("endpoint", context, environment, is_named=is_named)
    if not endpoint:
        raise SpecError(
            f"{NO_SERVER}; set --endpoint or HAGANE_KFP_ENDPOINT to its address, such as "
            f"http://localhost:8080, or write {CONFIG}"
        )
    if context is not None and endpoint != context.endpoint and not is_named:
        context = None  # another server gets neither this one's token nor its namespace
    ca_file = _setting("ca_file", context, environment, is_named=is_named)
    token, token_file = _token(asked, context, environment, is_named=is_named)
    return Connection(
        endpoint=_checked_address("endpoint", endpoint),
        namespace=asked.namespace or _setting("namespace", context, environment, is_named=is_named),
        token=token,
        token_file=token_file,
        ca_file=None if ca_file is None else _existing("ca_file", ca_file),
        ui=_checked_address(
            "ui", _setting("ui", context, environment, is_named=is_named) or endpoint
        ),
        timeout_s=_timeout(environment),
    )


def _setting(
    name: str, context: Context | None, environment: Mapping[str, str], *, is_named: bool
) -> str | None:
    """What the context and a variable say of a field of the context; of both, the one that wins."""
    by_context: str | None = None if context is None else getattr(context, name)
    by_variable = environment.get(f"HAGANE_KFP_{name.upper()}")
    if is_named:
        return by_context or by_variable or None
    return by_variable or by_context or None


def _without_another_server(environment: Mapping[str, str], endpoint: str) -> Mapping[str, str]:
    """The environment, without what it says of a server at another endpoint: that one's token is
    nobody else's business."""
    if (environment.get("HAGANE_KFP_ENDPOINT") or endpoint).rstrip("/") == endpoint.rstrip("/"):
        return environment
    return {name: value for name, value in environment.items() if name not in OF_A_SERVER}


def _context(asked: Asked, environment: Mapping[str, str]) -> Context | None:
    path = user_path(environment.get("HAGANE_KFP_CONFIG") or CONFIG)
    name = asked.context or environment.get("HAGANE_KFP_CONTEXT")
    if not path.exists():
        if name is not None:
            raise SpecError(f"KFP: context {shown(name)} is asked for, but there is no {path}")
        return None
    found = _read_contexts(path)
    name = name or found.current
    if name is None:
        return None
    if name not in found.contexts:
        raise SpecError(
            f"{path}: no context {shown(name)}; there are: "
            f"{', '.join(map(cut, found.contexts)) or 'none'}"
        )
    return found.contexts[name]


def _read_contexts(path: Path) -> ContextFile:
    if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SpecError(
            f"{path}: others may write to it, and so send your token anywhere; run chmod 600 {path}"
        )
    try:
        return ContextFile.model_validate(read_yaml(path).tree)
    except ValidationError as error:  # without the value: someone may have written a token there
        raise SpecError(
            *(f"{path}: {_place(each)}: {each['msg']}" for each in error.errors())
        ) from None


def _place(detail: ErrorDetails) -> str:
    return ".".join(cut(str(part)) for part in detail["loc"]) or "the file"


def _token(
    asked: Asked, context: Context | None, environment: Mapping[str, str], *, is_named: bool
) -> tuple[str | None, Path | None]:
    """The token, and the file that it is in, where it is in one."""
    if asked.token_file is not None:
        return _read_token(asked.token_file)
    is_reported_by_name = (
        is_named and context is not None and (context.token_file or context.token_env)
    )
    if environment.get("HAGANE_KFP_TOKEN") and not is_reported_by_name:
        return environment["HAGANE_KFP_TOKEN"].strip(), None
    if context is not None and context.token_file is not None:
        return _read_token(Path(context.token_file))
    if context is not None and context.token_env is not None:
        if not environment.get(context.token_env):
            raise SpecError(f"KFP: token_env: variable {context.token_env} is not set")
        return environment[context.token_env].strip(), None
    in_pod = Path(environment.get("KF_PIPELINES_SA_TOKEN_PATH") or POD_TOKEN)
    if in_pod.is_file():
        return (in_pod.read_text(encoding="utf-8").strip(), in_pod)
    return (None, None)


def _read_token(path: Path) -> tuple[str, Path]:
    path = _existing("token file", path)
    readable = path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
    if readable and path.stat().st_uid == os.getuid() and not path.is_relative_to(MOUNTED):
        raise SpecError(f"{path}: others may read this token; run chmod 600 {path}")
    token = read_text(path).strip()
    if not token:
        raise SpecError(f"{path}: is empty, must hold a token")
    return token, path


def _existing(what: str, path: str | Path) -> Path:
    found = user_path(path)
    if not found.is_file():
        raise SpecError(f"KFP: {what}: no file {shown(str(found))}")
    return found


def _checked_address(what: str, address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:  # half of an IPv6 address
        parts = urlsplit("")
    if parts.username or parts.password:  # not shown
        raise SpecError(
            f"KFP: {what}: holds a user name or password; take them out, and give a token by "
            "HAGANE_KFP_TOKEN or --token-file"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SpecError(
            f"KFP: {what}: got {shown(address)}, must be an address such as "
            "https://kfp.example.com/pipeline"
        )
    return address.rstrip("/")


def _timeout(environment: Mapping[str, str]) -> float:
    text = environment.get("HAGANE_KFP_TIMEOUT_S") or str(TIMEOUT_S)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 3600:
        raise SpecError(
            f"HAGANE_KFP_TIMEOUT_S: got {shown(text)}, must be seconds above 0 and below 3600"
        )
    return seconds
