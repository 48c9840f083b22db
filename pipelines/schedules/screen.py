"""Schedules in KFP as text for a terminal."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from pipelines.kfp_api.client import KfpClient
from pipelines.schedules.changes import Owned

LOOKED_AT = 1000
"""Newest runs among which the newest of each schedule is looked for."""


def schedules_screen(kfp: KfpClient, owned: Iterable[Owned], owner: str) -> RenderableType:
    """One line a schedule."""
    owned = sorted(owned, key=lambda each: each.name)
    if not owned:
        return Text(f"no schedules of owner {owner!r}; hagane schedules apply FILE makes them")
    newest = _newest_runs(kfp)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in (
        "schedule",
        "cron (s m h day month weekday)",
        "on",
        "version",
        "newest run",
        "state",
    ):
        table.add_column(heading, overflow="fold")
    for each in owned:
        run = newest.get(each.id)
        if each.found.trigger and each.found.trigger.cron_schedule:
            cron = each.found.trigger.cron_schedule.cron
        else:
            cron = "-"
        if run is not None and run.created_at:
            begun = f"{run.created_at:%Y-%m-%d %H:%M}"
        else:
            begun = "-"
        table.add_row(
            each.name,
            cron,
            "yes" if each.enabled else "no",
            each.version,
            begun,
            run.state if run is not None else "-",
        )
    return table


def schedules_json(kfp: KfpClient, owned: Iterable[Owned]) -> list[dict[str, Any]]:
    """As `schedules_screen`, for programs."""
    newest = _newest_runs(kfp)
    return [
        {
            "schedule": each.name,
            "cron": each.found.trigger.cron_schedule.cron
            if each.found.trigger and each.found.trigger.cron_schedule
            else None,
            "on": each.enabled,
            "version": each.version,
            "newest_run": newest[each.id].run_id if each.id in newest else None,
            "state": newest[each.id].state if each.id in newest else None,
        }
        for each in sorted(owned, key=lambda each: each.name)
    ]


def _newest_runs(kfp: KfpClient) -> dict[str, Any]:
    listed = kfp.pages(
        "list runs",
        kfp.runs.run_service_list_runs,
        "runs",
        sort_by="created_at desc",
        **kfp.scope(),
    )
    newest: dict[str, Any] = {}
    for run in islice(listed, LOOKED_AT):
        if run.recurring_run_id:
            newest.setdefault(run.recurring_run_id, run)
    return newest
