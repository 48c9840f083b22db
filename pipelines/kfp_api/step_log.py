"""The log of a step in KFP, through the API server, which has it as long as the pod or its archive
is there.

`GET /apis/v1alpha1/runs/RUN/nodes/NODE/log` (kubeflow/pipelines 2.17,
backend/src/apiserver/server/run_log_server.go) is in no published client. It answers a node that it
does not know with status 200 and an error as JSON. It does not pass `follow` on, so a log is
followed by asking again.
"""

import ast
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from components.shared.errors import KfpError, KfpUnreachable
from pipelines.kfp_api.client import KfpClient
from pipelines.kfp_api.run_view import RunView, StepView

POLL_S = 3.0
_FAILED = re.compile(r"(?:^|\s)event=failed\s(.*)$")
_PROBLEMS = re.compile(r'problems=(?:"((?:[^"\\]|\\.)*)"|(\S+))')


def read_step_log(kfp: KfpClient, run_id: str, step: StepView) -> str | None:
    """What the step's pod printed; None where the server has no log of it.

    Raises:
        KfpError: it does not answer, or one may not read logs.
    """
    refused: KfpError | None = None
    for node in step.log_nodes:
        try:
            text = kfp.node_log(run_id, node)
        except KfpUnreachable:
            raise
        except KfpError as error:
            refused = (
                refused if error.may_pass else error
            )  # a later server says 500 of a node that it does not know
            continue
        if not _is_error(text):
            return text
    if refused is not None:
        raise refused
    return None


def follow_step_log(kfp: KfpClient, look: Callable[[], RunView], name: str) -> Iterator[str]:
    """What the step's pod prints, piece by piece, until the step has ended or the run is over."""
    shown = ""
    while True:
        view = look()
        step = view.step(name)
        text = read_step_log(kfp, view.id, step) or ""
        if not text.startswith(shown):
            shown = ""  # another try of the step, whose log is another
        if len(text) > len(shown):
            yield text[len(shown) :]
            shown = text
        if view.is_over or step.state not in ("waiting", "starting", "running"):
            return
        time.sleep(POLL_S)


def problems_in(log: str) -> list[str]:
    """The problems that the step's last `failed` event gives; else its last line, which a crash
    ends with; else none."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    for line in reversed(lines):
        problems = _problems_of(line)
        if problems:
            return problems
    return lines[-1:]


def _problems_of(line: str) -> list[str]:
    """Of one line, written as `key=value` or as JSON (components/shared/log.py)."""
    start = line.find('{"event":"failed"')
    if start >= 0:
        try:
            return [str(each) for each in json.loads(line[start:])["problems"]]
        except (ValueError, KeyError):
            return []
    event = _FAILED.search(line)
    found = event and _PROBLEMS.search(event[1])
    if not found:
        return []
    if found[1] is None:
        text = found[2]
    else:
        text = re.sub(r"\\(.)", r"\1", found[1])
    try:
        return [str(each) for each in ast.literal_eval(text)]
    except (ValueError, SyntaxError):
        return [text]


def _is_error(text: str) -> bool:
    if not text.lstrip().startswith("{"):
        return False
    try:
        answer: Any = json.loads(text)
    except ValueError:
        return False
    return isinstance(answer, dict) and "error_message" in answer


def step_log(kfp: KfpClient, view: RunView, name: str) -> str:
    """The step's log. Raises KfpError where the server has none."""
    text = read_step_log(kfp, view.id, view.step(name))
    if text is None:
        state = view.step(name).state
        why = "its pod is gone and was not archived"
        if state in ("waiting", "not run", "done before"):
            why = "it has no pod"
        elif state == "running":
            why = "its pod has said nothing that KFP can read yet; try again, or see its page"
        raise KfpError(
            f"KFP at {kfp.connection.endpoint}: has no log of {name}, which is {state!r}: {why}"
        )
    return text
