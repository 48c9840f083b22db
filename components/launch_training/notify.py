"""How a run ended -> one POST to the address in $HAGANE_NOTIFY_URL, which is a secret: whoever knows it may write there."""

import json
import os
import urllib.request
from http.client import HTTPException
from typing import get_args
from urllib.error import HTTPError, URLError

from components.shared.button import NotifyWhen
from components.shared.step import Log

NOTIFY_VARIABLE = "HAGANE_NOTIFY_URL"
TIMEOUT_S = 10.0


def notify(title: str, text: str, *, state: str, failed: bool, when: str, log: Log) -> None:
    """The address got `{"text": …, "title": …, "state": …}`, of which Slack and Mattermost show `text`, if it is set and `when` says so.

    An address that is none, or does not answer, is told in the log and fails nothing: the run is what counts.
    """
    url = os.environ.get(NOTIFY_VARIABLE, "").strip()
    if when not in get_args(NotifyWhen):  # claim_run has refused it
        log.warning("not_notified", why=f"notify_when: got {when!r}")
        return
    if not url or when == "never" or (when == "failure" and not failed):
        return
    if not url.startswith(("https://", "http://")):
        log.warning("not_notified", why=f"{NOTIFY_VARIABLE} is no http address")
        return
    body = json.dumps({"text": f"{title}\n{text}", "title": title, "state": state}).encode()
    try:
        request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"}, method="POST")  # noqa: S310 - see above
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            log.info("notified", status=answer.status)
    except (OSError, HTTPException, ValueError) as error:  # its text may hold the address
        log.warning("not_notified", why=_kind_of(error))


def _kind_of(error: Exception) -> int | str:
    if isinstance(error, HTTPError):
        return error.code
    cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
    return type(cause).__name__
