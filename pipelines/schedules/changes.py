"""The schedules that Git wants, the recurring runs that KFP has -> what has to change;
pipelines/schedules/reconciler.py does it.

What belongs to whom stands in the recurring run's description, together with a digest of all that
it was made from.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from components.shared.tree import leaves, whole_numbers
from pipelines.kfp_api.client import KfpClient
from pipelines.schedules.cron import last_moment
from pipelines.schedules.file import Wanted, WantedSchedules

MARK = re.compile(r"\[hagane-schedule owner=(\S+) name=(\S+) version=(\S+) digest=([0-9a-f]{64})]")

Kind = Literal["create", "replace", "enable", "disable", "remove", "extra", "gone from Git"]


@dataclass(frozen=True)
class Owned:
    """A recurring run in KFP that carries this owner's mark."""

    id: str
    name: str
    version: str
    digest: str
    enabled: bool
    found: Any
    """As KFP's client gives it."""


@dataclass(frozen=True)
class Change:
    """One thing that is to be done."""

    kind: Kind
    name: str
    lines: tuple[str, ...] = ()
    """What differs, one line each."""
    wanted: Wanted | None = None
    old: tuple[Owned, ...] = ()
    """Recurring runs that go, or that are turned on or off."""
    kept: Owned | None = None
    """The one that stays, where there is one of this content already."""


def digest_of(wanted: Wanted, *, experiment: str, version: str) -> str:
    """sha256 of all that a recurring run is made from; whether it is turned on is no part of it."""
    parts = {**vars(wanted), "experiment": experiment, "version": version}
    del parts["enabled"]
    return hashlib.sha256(
        json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()
    ).hexdigest()


def owned_schedules(kfp: KfpClient, owner: str) -> list[Owned]:
    """Every recurring run of this owner, oldest first."""
    listed = kfp.pages(
        "list recurring runs",
        kfp.recurring_runs.recurring_run_service_list_recurring_runs,
        "recurring_runs",
        sort_by="created_at asc",
        **kfp.scope(),
    )
    found: list[Owned] = []
    for each in listed:
        mark = MARK.search(each.description or "")
        if mark is not None and mark[1] == owner:
            if each.mode in ("ENABLE", "DISABLE"):
                enabled = each.mode == "ENABLE"
            else:
                enabled = each.status == "ENABLED"
            found.append(Owned(each.recurring_run_id, mark[2], mark[3], mark[4], enabled, each))
    return found


def changes(
    wanted: WantedSchedules,
    owned: Iterable[Owned],
    *,
    version: str,
    prune: bool,
    no_catch_up: bool = False,
    now: datetime | None = None,
) -> list[Change]:
    """What has to be done, in the file's order; what is gone from the file comes last, and is done
    only with `prune`.

    A schedule that is turned on starts the run of the last moment that it missed. With
    `no_catch_up` it is replaced instead: a new recurring run has missed none.
    """
    now = now or datetime.now(UTC)
    by_name: dict[str, list[Owned]] = defaultdict(list)
    for each in owned:
        by_name[each.name].append(each)
    needed: list[Change] = []
    for schedule in wanted.schedules:
        digest = digest_of(schedule, experiment=wanted.experiment, version=version)
        found = _changes_of(schedule, by_name.pop(schedule.name, []), digest, version)
        needed += [
            _of_missed(change, wanted.server_time_zone, now, no_catch_up=no_catch_up)
            for change in found
        ]
    gone: Kind = "remove" if prune else "gone from Git"
    return needed + [Change(gone, name, old=tuple(old)) for name, old in sorted(by_name.items())]


def to_do(needed: Iterable[Change]) -> list[Change]:
    """Those that apply does; what is gone from the file is only reported."""
    return [change for change in needed if change.kind != "gone from Git"]


def _changes_of(wanted: Wanted, owned: list[Owned], digest: str, version: str) -> list[Change]:
    kept = next((each for each in owned if each.digest == digest), None)
    old = tuple(each for each in owned if each is not kept)
    if kept is None:
        if not old:
            return [Change("create", wanted.name, (f"cron {wanted.cron}",), wanted)]
        return [
            Change(
                "replace", wanted.name, tuple(_differences(old[-1], wanted, version)), wanted, old
            )
        ]
    needed: list[Change] = []
    if old:
        needed.append(
            Change(
                "extra",
                wanted.name,
                tuple(f"{each.id} of version {each.version}" for each in old),
                wanted,
                old,
                kept,
            )
        )
    if kept.enabled != wanted.enabled:
        needed.append(
            Change(
                "enable" if wanted.enabled else "disable", wanted.name, (), wanted, (kept,), kept
            )
        )
    return needed


def _of_missed(change: Change, zone: str, now: datetime, *, no_catch_up: bool) -> Change:
    """The change, which says what KFP starts at once where it turns a schedule on that missed a
    moment.

    The controller remembers when it last started a run, and starts the last one missed since
    (kubeflow/pipelines 2.17, backend/src/crd/controller/scheduledworkflow/util/cron_schedule.go;
    #8344). A schedule was last turned off at `updated_at`.
    """
    if change.kind != "enable" or change.wanted is None or change.kept is None:
        return change
    found = change.kept.found
    since = found.updated_at or found.created_at
    if since is not None:
        missed = last_moment(change.wanted.cron, zone, after=since, until=now)
    else:
        missed = None
    if missed is None:
        return change
    when = missed.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    if no_catch_up:
        return replace(
            change, kind="replace", lines=(f"turned on without the run of {when}, which it missed",)
        )
    if change.wanted.catch_up:
        line = (
            f"KFP starts at once every run that it missed, the last of {when}; --no-catch-up "
            "leaves them out"
        )
    else:
        line = f"KFP starts at once the run of {when}, which it missed; --no-catch-up leaves it out"
    return replace(change, lines=(line,))


def _differences(old: Owned, wanted: Wanted, version: str) -> Iterable[str]:
    """A line for each field that differs from what KFP has."""
    found = old.found
    if found.runtime_config is None:
        given = {}
    else:
        given = found.runtime_config.parameters or {}
    before = {
        "cron": found.trigger.cron_schedule.cron
        if found.trigger and found.trigger.cron_schedule
        else None,
        "concurrency": int(found.max_concurrency or 0),
        "catch_up": not found.no_catchup,
        "service_account": (found.service_account or "")
        if wanted.service_account
        else "",  # the server may have filled in its own
        "version": old.version,
        **dict(leaves(whole_numbers(given))),
    }
    after = {
        "cron": wanted.cron,
        "concurrency": wanted.concurrency,
        "catch_up": wanted.catch_up,
        "service_account": wanted.service_account,
        "version": version,
        **dict(leaves(whole_numbers(wanted.parameters))),
    }
    lines = [
        f"{key}: {before.get(key)!r} -> {after.get(key)!r}"
        for key in before | after
        if before.get(key) != after.get(key)
    ]
    return lines or ["experiment, or what an older hagane wrote down differently"]
