"""schedules.yaml -> the schedules that Git wants, each with the spec it starts; or every problem at
once, each with its line.

experiment: hagane                 # where their runs are shown
owner: hagane                      # whose schedules these are: apply changes and prunes no other's
server_time_zone: UTC              # CRON_SCHEDULE_TIMEZONE of KFP's ml-pipeline-scheduledworkflow
schedules:
  - name: weekly
    cron: "0 3 * * 1"              # 5 fields, or 6 with seconds first
    time_zone: Asia/Tokyo
    spec: specs/weekly.yaml        # beside this file
    overrides: {training.epochs: 5}
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from components.shared.documents.fields import FrozenModel
from components.shared.errors import SpecError
from components.shared.printable import shown
from components.shared.spec.file import Location, complaint, load_spec, place_of, read_fields
from components.shared.spec.overrides import RUN_MARK
from components.shared.spec.run_spec import RunSpec
from pipelines.commands.options import EXPERIMENT
from pipelines.kfp_api.limits import account_problems, name_problems
from pipelines.schedules.cron import kfp_cron, six_fields, zone
from pipelines.submit.submitting import cluster_problems, spec_parameter

NAME = r"[a-z]([a-z0-9-]{0,39}[a-z0-9])?"
"""A run is called by its schedule, a hyphen and eight more letters; a run's name may have 50."""
NAME_WANTED = "1 to 41 small letters, digits and hyphens, the first a letter, the last no hyphen"


class Schedule(FrozenModel):
    """One entry of the file. Every field's docstring is the documentation users read."""

    name: str
    """Name of the schedule; each of its runs is called so, with the beginning of KFP's id of the
    run."""
    cron: str
    """When: 5 fields (minute, hour, day of month, month, day of week), or 6 with seconds first."""
    time_zone: str = "UTC"
    """Zone in which `cron` is meant, such as `Asia/Tokyo`."""
    spec: str = Field(min_length=1)
    """The run spec, a path relative to the file of schedules. Its name is not used."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Fields of the spec to set, as `--set` would: `training.epochs: 5`."""
    enabled: bool = True
    """Whether it starts runs. Turning it off and on keeps it, with its history; turned on, it
    starts the last run that it missed."""
    concurrency: int = Field(default=1, ge=1, le=10)
    """How many of its runs may be running at once."""
    catch_up: bool = False
    """After the controller was away: start every run that was missed, not the last one alone."""
    service_account: str = ""
    """Account that the steps run under, such as `hagane-launcher`; KFP's own unless given."""
    notify: Literal["never", "failure", "always"] = "failure"
    """When to tell the address in the secret hagane-notify how a run ended; without that secret
    nobody is notified."""
    skip_if_unchanged: bool = False
    """Do nothing again when data, spec and images are those of its newest finished run."""

    @field_validator("name")
    @classmethod
    def _a_name(cls, name: str) -> str:
        if not re.fullmatch(NAME, name):
            raise ValueError(f"got {shown(name)}, must be {NAME_WANTED}")
        return name

    @field_validator("cron")
    @classmethod
    def _a_cron(cls, cron: str) -> str:
        six_fields(cron)
        return cron

    @field_validator("time_zone")
    @classmethod
    def _a_zone(cls, name: str) -> str:
        zone(name)
        return name


class ScheduleFile(FrozenModel):
    experiment: str = Field(default=EXPERIMENT, min_length=1)
    """Experiment in which the runs are shown; made where it is not there."""
    owner: str = "hagane"
    """Whose schedules these are: what carries another owner's mark, or none, is never touched."""
    server_time_zone: str = "UTC"
    """Zone in which KFP's controller reads cron: CRON_SCHEDULE_TIMEZONE of its deployment."""
    schedules: tuple[Schedule, ...] = ()
    """The schedules that there are to be; one that is gone from here is removed by `apply
    --prune`."""

    @field_validator("owner")
    @classmethod
    def _an_owner(cls, owner: str) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", owner):
            raise ValueError(f"got {shown(owner)}, must be small letters, digits, hyphens and dots")
        return owner

    @field_validator("server_time_zone")
    @classmethod
    def _a_zone(cls, name: str) -> str:
        zone(name)
        return name


@dataclass(frozen=True)
class Wanted:
    """A schedule as KFP is to have it."""

    name: str
    cron: str
    """Six fields, in the server's zone."""
    enabled: bool
    concurrency: int
    catch_up: bool
    service_account: str
    parameters: dict[str, Any]
    """Of the pipeline."""


@dataclass(frozen=True)
class WantedSchedules:
    experiment: str
    owner: str
    schedules: tuple[Wanted, ...]
    server_time_zone: str = "UTC"
    """Zone in which KFP's controller reads each schedule's cron."""


def load_schedules(path: Path) -> WantedSchedules:
    """What the file wants, with each spec read and checked as `hagane submit` does before it plans.

    Raises:
        SpecError: the file is missing or no YAML mapping, a field is wrong, a spec is, or no
            cluster could run it; one line each.
    """
    tree, lines, problems = read_fields(path, example="docs/from-the-ui.md")
    try:
        file = ScheduleFile.model_validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise SpecError(
            *problems, *(_sentence(detail, lines, str(path)) for detail in error.errors())
        ) from None
    problems += _doubles(file, lines, str(path))
    problems += name_problems(
        "experiment",
        file.experiment,
        where=f"{place_of(('experiment',), lines, str(path))}experiment",
    )
    wanted: list[Wanted] = []
    now = datetime.now(UTC)
    for index, schedule in enumerate(file.schedules):
        where: Location = ("schedules", index)
        try:
            cron = kfp_cron(
                schedule.cron, schedule.time_zone, server_zone=file.server_time_zone, now=now
            )
        except ValueError as error:
            problems.append(
                f"{place_of((*where, 'time_zone'), lines, str(path))}{schedule.name}: time_zone: "
                f"{error}"
            )
            continue
        account = (
            f"{place_of((*where, 'service_account'), lines, str(path))}{schedule.name}: "
            "service_account"
        )
        problems += account_problems(schedule.service_account, where=account)
        place = f"{place_of((*where, 'spec'), lines, str(path))}{schedule.name}"
        try:
            spec = load_spec(path.parent / schedule.spec, _overrides(schedule))
        except SpecError as error:
            problems += [f"{place}: {problem}" for problem in error.problems]
            continue
        problems += [f"{place}: {problem}" for problem in cluster_problems(spec)]
        wanted.append(_wanted(schedule, cron, spec))
    if problems:
        raise SpecError(*problems)
    return WantedSchedules(file.experiment, file.owner, tuple(wanted), file.server_time_zone)


def _wanted(schedule: Schedule, cron: str, spec: RunSpec) -> Wanted:
    parameters = {
        "spec": spec_parameter(spec),
        "override_run_name": f"{schedule.name}-{RUN_MARK}",
        "skip_if_unchanged": schedule.skip_if_unchanged,
        "notify_when": schedule.notify,
    }
    return Wanted(
        schedule.name,
        cron,
        schedule.enabled,
        schedule.concurrency,
        schedule.catch_up,
        schedule.service_account,
        parameters,
    )


def _overrides(schedule: Schedule) -> list[str]:
    return [
        f"{field}={json.dumps(value, ensure_ascii=False)}"
        for field, value in schedule.overrides.items()
    ]


def _doubles(file: ScheduleFile, lines: dict[Location, str], source: str) -> Iterator[str]:
    times = Counter(schedule.name for schedule in file.schedules)
    for index, schedule in enumerate(file.schedules):
        if times[schedule.name] > 1:
            yield (
                f"{place_of(('schedules', index, 'name'), lines, source)}schedules.{index}.name: "
                f"{shown(schedule.name)} is given twice"
            )


def _sentence(detail: Any, lines: dict[Location, str], source: str) -> str:
    where = detail["loc"]
    named = ".".join(map(str, where)) or "the file"
    return f"{place_of(where, lines, source)}{named}: {complaint(detail, where, _known_keys)}"


def _known_keys(where: Location) -> list[str]:
    return list((Schedule if where else ScheduleFile).model_fields)
