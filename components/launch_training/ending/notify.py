"""How a run ended -> one POST to the address in $HAGANE_NOTIFY_URL, which is a secret: whoever
knows it may write there."""

import json
import os
import urllib.request
from http.client import HTTPException
from typing import get_args
from urllib.error import HTTPError, URLError

from components.shared.spec.overrides import NotifyWhen
from components.shared.step import Log

NOTIFY_VARIABLE = "HAGANE_NOTIFY_URL"
TIMEOUT_S = 10.0


def address_to_notify(*, failed: bool, when: str, log: Log) -> str:
    """The address, if it is set and `when` says so; empty where nobody is to be notified."""
    url = os.environ.get(NOTIFY_VARIABLE, "").strip()
    if when not in get_args(NotifyWhen):  # claim_run has refused it
        log.warning("not_notified", why=f"notify_when: got {when!r}")
        return ""
    if when == "never" or (when == "failure" and not failed):
        return ""
    if url and not url.startswith(("https://", "http://")):
        log.warning("not_notified", why=f"{NOTIFY_VARIABLE} is no http address")
        return ""
    return url


def notify(url: str, title: str, text: str, *, state: str, log: Log) -> bool:
    """Whether the address took `{"text": …, "title": …, "state": …}`, of which Slack and Mattermost
    show `text`.

    One that does not answer is said in the log and fails nothing: the run is what counts.
    """
    body = json.dumps({"text": f"{title}\n{text}", "title": title, "state": state}).encode()
    try:
        request = urllib.request.Request(  # noqa: S310 - see above
            url, data=body, headers={"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - see above
            log.info("notified", status=answer.status)
        return True
    except (OSError, HTTPException, ValueError) as error:  # its text may hold the address
        log.warning("not_notified", why=_kind_of(error))
        return False


def _kind_of(error: Exception) -> int | str:
    if isinstance(error, HTTPError):
        return error.code
    if isinstance(error, URLError) and isinstance(error.reason, Exception):
        cause = error.reason
    else:
        cause = error
    return type(cause).__name__
