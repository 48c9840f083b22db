"""Talking to Kubeflow Pipelines through its published client, each failure reported in one line.

The generated half of it, kfp_server_api, is used throughout. `kfp.Client` on top of it prints
links, reads and writes ~/.config/kfp/context.json, waits for no time limit, asks five times five
seconds long whether a server that refuses is there, does not take a canceled run for one that is
over, and cannot start the latest version or set caching where a version is named.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import kfp_server_api
import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    ResponseError,
    SSLError,
)

from components.shared.errors import KfpError, KfpExists, KfpMissing, KfpUnreachable, RunFailed
from pipelines.kfp_api.connection import Connection
from pipelines.kfp_api.limits import check_sent

CONNECT_S = 10.0
PAGE_SIZE = 200
"""The most that the server gives at once (backend/src/apiserver/list)."""
NO_REASON = "Failed to create a pipeline version"
"""All that the upload of a version says when the pipeline is not there, or one is not allowed
to."""
INTERNAL = "Internal Server Error"
"""All that the details of an answer of status 500 say; the sentence stands in its message."""
FINISHED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
"""States in which a run stays (V2beta1RuntimeState)."""


READ_LOG = "read the log"
"""How a question begins whose answer is text."""
OLDEST = (2, 14)
"""Version of the server that takes the pipeline. 2.14 to 2.17 were read, 2.17.0 was run."""
_OLDEST_TEXT = ".".join(map(str, OLDEST))
CANCEL = "run_service_terminate_run"
"""The one change that an older server is asked for as well: a run that is there may be
cancelled."""


@dataclass(frozen=True)
class Health:
    """What `healthz` says, by the API server or, through the UI's address, by the UI's, which
    spells it otherwise."""

    multi_user: bool
    pipeline_store: str
    """`database` or `kubernetes`; empty where it is not said."""
    tag_name: str
    """The server's version, such as `2.17.0`; `unknown` for one that is no release."""

    @property
    def version(self) -> tuple[int, int] | None:
        """Its first two numbers; None where `tag_name` is none."""
        found = re.match(r"v?(\d+)\.(\d+)", self.tag_name)
        if found is None:
            return None
        return (int(found[1]), int(found[2]))

    @property
    def is_old(self) -> bool:
        """Whether it is known to be older than the oldest server that takes the pipeline."""
        return self.version is not None and self.version < OLDEST


def health_of(answer: dict[str, Any]) -> Health:
    """From the answer's JSON. UI server 2.17: frontend/server/handlers/healthz.ts."""
    return Health(
        multi_user=bool(answer.get("multi_user") or answer.get("apiServerMultiUser")),
        pipeline_store=answer.get("pipeline_store") or answer.get("pipelineStore") or "",
        tag_name=answer.get("tag_name") or answer.get("apiServerTagName") or "",
    )


class KfpClient:
    """A server of KFP. `ask` calls any function of its generated API; what goes wrong is a
    KfpError."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        settings: Any = kfp_server_api.Configuration(host=connection.endpoint)
        if connection.token is not None:
            settings.api_key["authorization"] = connection.token
            settings.api_key_prefix["authorization"] = "Bearer"
            settings.refresh_api_key_hook = self._refresh_token
        if connection.ca_file is not None:
            settings.ssl_ca_cert = str(connection.ca_file)
        # Only what never reached the server is sent again; a page to log in, to which proxies lead,
        # is no answer.
        settings.retries = urllib3.Retry(
            connect=2, read=0, redirect=0, status=0, other=0, backoff_factor=0.3
        )
        logging.getLogger("urllib3").setLevel(
            logging.ERROR
        )  # after Configuration, which sets it: each retry would be a line on the screen
        self._api = kfp_server_api.ApiClient(settings)
        self._has_changed = False
        self.experiments = kfp_server_api.ExperimentServiceApi(self._api)
        self.pipelines = kfp_server_api.PipelineServiceApi(self._api)
        self.uploads = kfp_server_api.PipelineUploadServiceApi(self._api)
        self.runs = kfp_server_api.RunServiceApi(self._api)
        self.recurring_runs = kfp_server_api.RecurringRunServiceApi(self._api)

    def ask(self, doing: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What the server answers to one of the generated functions. `doing` says to the user what
        was asked: `list runs`.

        Raises:
            KfpError: no answer, none of KFP's, or one that is no; one line. Its exit code is 1 once
                this client changed something. Or the server is older than OLDEST, and the question
                would change it; it was not sent.
            SpecError: an object among the arguments breaks the server's rules (limits.py); it
                was not sent.
        """
        for sent in arguments:
            check_sent(sent)
        changes = not re.search(r"_(get|list)_", f"_{call.__name__}")
        if changes and call.__name__ != CANCEL:
            self.check_version()
        try:
            answer = self._answer(doing, call, *arguments, **options)
        except KfpError as error:
            if changes and isinstance(error, KfpUnreachable) and error.may_be_obeyed:
                self._has_changed = True
                error = KfpUnreachable(
                    f"{error.problems[0]}; it may have been obeyed all the same: look with `hagane "
                    "runs` first"
                )
            if self._has_changed:
                error.exit_code = RunFailed.exit_code
            raise error from None
        self._has_changed = self._has_changed or changes
        return answer

    def _answer(self, doing: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        timeout = (min(CONNECT_S, self.connection.timeout_s), self.connection.timeout_s)
        try:
            answer = call(*arguments, _request_timeout=timeout, **options)
        except kfp_server_api.ApiException as error:
            raise self._refusal(doing, error) from None
        except HTTPError as error:
            while isinstance(error, MaxRetryError) and isinstance(error.reason, HTTPError):
                error = error.reason
            refusal = KfpUnreachable(f"{self._where(doing)}: {self._cause(error)}")
            refusal.may_be_obeyed = isinstance(error, ReadTimeoutError | ProtocolError)
            raise refusal from None
        self._refuse_a_page(doing)
        return answer

    def _refuse_a_page(self, doing: str) -> None:
        """The last answer is KFP's, and no page that a proxy gave in its place."""
        kind = (self._api.last_response.getheader("content-type") or "").partition(";")[0]
        if "json" not in kind and not (kind == "text/plain" and doing.startswith(READ_LOG)):
            raise KfpUnreachable(
                f"{self._where(doing)}: the answer is {kind or 'of no type'}, not KFP's; a proxy's "
                "page to log in has this form: set HAGANE_KFP_TOKEN or --token-file, and check "
                "the address"
            )

    def pages(
        self, doing: str, call: Callable[..., Any], items: str, *arguments: Any, **options: Any
    ) -> Iterator[Any]:
        """Everything that one of the generated list functions gives, page by page. `items` is the
        answer's field, such as `runs`.

        A token keeps the filter. Sent again beside it, a filter of several values is refused, as
        the server compares them wrongly (backend/src/apiserver/list/list.go, Matches).
        """
        page = self.ask(doing, call, *arguments, page_size=PAGE_SIZE, **options)
        yield from getattr(page, items) or ()
        rest = {name: value for name, value in options.items() if name != "filter"}
        while page.next_page_token:
            page = self.ask(
                doing,
                call,
                *arguments,
                page_token=page.next_page_token,
                page_size=PAGE_SIZE,
                **rest,
            )
            yield from getattr(page, items) or ()

    def node_log(self, run_id: str, node: str) -> str:
        """What the pod of a node of a run printed, or the server's error as JSON where it has no
        log of such a node."""

        def read_node_get_log(_request_timeout: tuple[float, float]) -> None:
            path = "/apis/v1alpha1/runs/{run}/nodes/{node}/log"  # in no published client
            with suppress(UnicodeDecodeError):  # a pod may print any bytes
                self._api.call_api(
                    path,
                    "GET",
                    {"run": run_id, "node": node},
                    auth_settings=["Bearer"],
                    _request_timeout=_request_timeout,
                )

        self.ask(f"{READ_LOG} of {node}", read_node_get_log)
        content: str | bytes = self._api.last_response.data
        if isinstance(content, bytes):
            return content.decode(errors="replace")
        return content

    @cached_property
    def health(self) -> Health:
        """What the server says of itself."""
        self.ask(
            "look whether it is there",
            kfp_server_api.HealthzServiceApi(self._api).healthz_service_get_healthz,
        )
        return health_of(json.loads(self._api.last_response.data))

    @property
    def warning_of_age(self) -> str | None:
        """What will not work as the server is older than OLDEST; None where all does."""
        if not self.health.is_old:
            return None
        return (
            f"KFP at {self.connection.endpoint}: found version {self.health.tag_name}, older than "
            f"{_OLDEST_TEXT}: runs and schedules can be shown and runs be cancelled; submit, apply "
            "and whatever else changes the server is refused"
        )

    def check_version(self) -> None:
        """Raises KfpError where the server is older than the oldest that takes this pipeline."""
        if self.health.is_old:
            raise KfpError(
                f"KFP at {self.connection.endpoint}: found version {self.health.tag_name}, allowed "
                f"{_OLDEST_TEXT} or newer: the drivers of older ones refuse the pipeline's "
                "optional secrets, so its first step fails (kubeflow/pipelines#12495). Fix: "
                "upgrade the server"
            )

    @property
    def multi_user(self) -> bool:
        """Whether the server keeps users' runs apart by namespace."""
        return self.health.multi_user

    @cached_property
    def namespace(self) -> str | None:
        """The namespace to send along: None where the server has one user, as it then refuses a
        namespace.

        Raises:
            KfpError: the server has many users, and no namespace is named.
        """
        if not self.multi_user:
            return None
        if self.connection.namespace is None:
            raise KfpError(
                f"KFP at {self.connection.endpoint}: keeps users apart by namespace; set "
                "--namespace or HAGANE_KFP_NAMESPACE to yours"
            )
        return self.connection.namespace

    def experiment_id(self, name: str, *, make: bool = True) -> str | None:
        """The experiment of this name, made where there is none and `make` says so."""
        listed = self.pages(
            "list experiments",
            self.experiments.experiment_service_list_experiments,
            "experiments",
            filter=equals("display_name", name),
            **self.scope(),
        )
        found = next(iter(listed), None)
        if found is None and make:
            asked = kfp_server_api.V2beta1Experiment(display_name=name, namespace=self.namespace)
            found = self.ask(
                f"make experiment {name!r}",
                self.experiments.experiment_service_create_experiment,
                asked,
            )
        if found is None:
            return None
        return found.experiment_id

    def scope(self) -> dict[str, str]:
        """The argument `namespace` for list functions, where the server wants one."""
        if self.namespace is None:
            return {}
        return {"namespace": self.namespace}

    def run_link(self, run_id: str) -> str:
        """The run's page in the UI."""
        return f"{self.connection.ui}/#/runs/details/{run_id}"

    def _refresh_token(self, settings: Any) -> None:
        """Called before each request: a pod's token is another every hour, and a run may be
        followed for days."""
        file = self.connection.token_file
        if file is not None and file.is_file():
            settings.api_key["authorization"] = file.read_text(encoding="utf-8").strip()

    def _where(self, doing: str) -> str:
        return f"KFP at {self.connection.endpoint}: cannot {doing}"

    def _refusal(self, doing: str, error: kfp_server_api.ApiException) -> KfpError:
        said = _said(error)
        if said:
            where = f"{self._where(doing)}: {said} ({error.status})"
        else:
            where = f"{self._where(doing)}: {error.status} {error.reason}"
        if error.status == 401:
            if self.connection.token:
                whose = "the token is not known there or has run out"
            else:
                whose = "it wants a token"
            return KfpError(f"{where}; {whose}: set HAGANE_KFP_TOKEN or --token-file")
        if error.status == 403:
            if self.connection.namespace:
                within = f" in namespace {self.connection.namespace!r}"
            else:
                within = ""
            return KfpError(
                f"{where}; you may not{within}: set --namespace to one of yours, or ask its admin "
                "for the role kubeflow-edit"
            )
        if error.status == 404 and said:
            return KfpMissing(where)
        if error.status == 404:
            return KfpError(
                f"{where}; check that the address is KFP's API: behind Kubeflow's gateway it ends "
                "in /pipeline"
            )
        if error.status == 409:
            return KfpExists(
                f"{where}; something of this name is there: choose another, or run the same "
                "command again"
            )
        if error.status and error.status >= 500:
            failed = KfpError(
                f"{where}; the server failed: see the log of its deployment ml-pipeline, then run "
                "the same command again"
            )
            failed.may_pass = True
            return failed
        if error.status == 400 and said == NO_REASON:
            return KfpError(
                f"{where}; KFP gives no reason: you may not upload here, or the pipeline is gone; "
                "look at its log, ml-pipeline"
            )
        return KfpError(where)

    def _cause(self, error: HTTPError) -> str:
        again = "run the same command again"
        if isinstance(error, ReadTimeoutError):
            return (
                f"no answer within {self.connection.timeout_s:g} s; {again}, or set "
                "HAGANE_KFP_TIMEOUT_S higher"
            )
        if isinstance(error, NameResolutionError):
            return "no host of this name; check the address"
        if isinstance(error, NewConnectionError):
            return "nothing listens there; check the address, or start `kubectl port-forward` anew"
        if isinstance(error, ConnectTimeoutError):
            return "nothing answers there; check address and network"
        if isinstance(error, SSLError):
            why = " ".join(str(error).split())
            if "WRONG_VERSION_NUMBER" in why:
                return "it speaks http there, not https; begin the address with http://"
            return (
                f"TLS: {why}; set HAGANE_KFP_CA_FILE to the authority's certificate, or check that "
                "the address begins with https"
            )
        if isinstance(error, ResponseError):
            return (
                "it leads elsewhere, to a page to log in or from http to https; give a token, or "
                "the address itself"
            )
        if isinstance(error, ProtocolError):
            return f"the connection was broken off; {again}"
        return f"{type(error).__name__}; {again}"


def equals(key: str, value: str) -> str:
    """A filter for list functions (backend/api/v2beta1/filter.proto)."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "string_value": value}]})


def _said(error: kfp_server_api.ApiException) -> str:
    """The server's own words: the gateway's status, or what the upload paths say; empty where a
    proxy answered."""
    try:
        body = json.loads(error.body or "")
    except ValueError:
        return ""
    if not isinstance(body, dict):
        return ""
    details = [each.get("message") for each in body.get("details") or () if isinstance(each, dict)]
    details = [each for each in details if each != INTERNAL]
    said = next(filter(None, (*details, body.get("error_message"), body.get("message"))), "")
    return " ".join(str(said).split()).rstrip(".;")
