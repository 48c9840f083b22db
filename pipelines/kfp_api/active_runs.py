"""Runs in KFP that are not over, and the folder that each one writes to."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from components.shared.errors import SpecError
from components.shared.spec.overrides import OVERRIDES, asked_spec
from pipelines.kfp_api.client import KfpClient
from pipelines.kfp_api.run_view import moment_of

ACTIVE = ("PENDING", "RUNNING", "PAUSED", "CANCELING")
NO_STATE = (None, "RUNTIME_STATE_UNSPECIFIED")
STATELESS = timedelta(hours=1)
"""How old a run without a state may be and count as active. The server writes the state that its
persistence agent reports: seconds after Argo's controller saw the workflow, minutes while either is
started anew. One that has none after an hour lost its workflow before anybody saw it, and gets none."""
NEWEST = 50
"""How many of the newest runs are looked at for one that has no state yet: it gets one within seconds."""
NO_FOLDER = "-"


def active_runs(kfp: KfpClient) -> Iterator[Any]:
    """Every run that is not over, of any pipeline, in the namespace that is talked to.

    A run that was just created has no state, so that no filter finds it; it counts for STATELESS. A failed run that KFP's Retry
    continues is RUNNING.
    """
    within = kfp.scope()
    newest = kfp.ask("list active runs", kfp.runs.run_service_list_runs, page_size=NEWEST, sort_by="created_at desc", **within)
    unborn = {run.run_id: run for run in newest.runs or () if _is_just_created(run)}
    yield from unborn.values()
    is_active = {"predicates": [{"operation": "IN", "key": "state", "string_values": {"values": list(ACTIVE)}}]}
    listed = kfp.pages("list active runs", kfp.runs.run_service_list_runs, "runs", filter=json.dumps(is_active), **within)
    yield from (run for run in listed if run.run_id not in unborn)


def _is_just_created(run: Any) -> bool:
    """Whether the run has no state yet. One whose age is not known counts: it is better to wait than to begin it twice."""
    created = moment_of(run.created_at)
    is_young = created is None or datetime.now(UTC) - created < STATELESS
    return run.state in NO_STATE and is_young


def folder_of(run: Any) -> str:
    """Where the run's results go: `<store>/<name>` of what it was asked, by its spec and what was set beside it."""
    parameters = (run.runtime_config.parameters if run.runtime_config else None) or {}
    try:
        set_beside = {name: parameters.get(name, "") for name in OVERRIDES}
        return asked_spec(parameters["spec"], set_beside, kfp_run=run.run_id).run_uri
    except (SpecError, KeyError):
        return NO_FOLDER
