"""A cron expression in someone's time zone -> the one that KFP's controller reads in its own.

The controller (kubeflow/pipelines 2.17,
backend/src/crd/controller/scheduledworkflow/util/cron_schedule.go) reads with robfig/cron 1.2: six
fields, seconds first; of five it would take the first for seconds. It knows one time zone for all
schedules, CRON_SCHEDULE_TIMEZONE of its deployment, UTC unless an admin sets another; a zone inside
an expression came with later versions of that library.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from components.shared.printable import shown

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MINUTES_A_DAY = 24 * 60


@dataclass(frozen=True)
class Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def values(self, text: str) -> frozenset[int]:
        """Every value that the field's text stands for. Raises ValueError, which says what is
        wrong."""
        found: set[int] = set()
        for part in text.lower().split(","):
            match = re.fullmatch(r"(\*|\?|\w+)(?:-(\w+))?(?:/(\d+))?", part)
            if not match or (match[1] in "*?" and match[2]):
                raise ValueError(
                    f"{self.name}: got {shown(text)}, must be such as *, 5, 1-5, */15 or 1,3"
                )
            if match[1] in "*?":
                start, end = (self.low, self.high)
            else:
                start, end = (self._number(match[1]), self._number(match[2] or match[1]))
            if match[3] and not match[2]:
                end = self.high
            step = int(match[3] or 1)
            if not (self.low <= start <= end <= self.high) or step < 1:
                raise ValueError(
                    f"{self.name}: got {shown(text)}, must be within {self.low} to {self.high}"
                )
            found |= set(range(start, end + 1, step))
        return frozenset(found)

    def _number(self, word: str) -> int:
        if word in self.names:
            return self.names.index(word) + self.low
        if not word.isdigit():
            raise ValueError(
                f"{self.name}: {shown(word)} is no number"
                + (f" and none of {', '.join(self.names)}" if self.names else "")
            )
        return int(word)


FIELDS = (
    Field("second", 0, 59),
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of month", 1, 31),
    Field("month", 1, 12, _MONTHS),
    Field("day of week", 0, 6, _DAYS),
)
EVERY = ("*", "?")


def zone(name: str) -> ZoneInfo:
    """Raises ValueError where no zone has this name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"got {shown(name)}, must be a name of the IANA data base, such as Asia/Tokyo or UTC"
        ) from None


def six_fields(cron: str) -> list[str]:
    """The fields, seconds first. Raises ValueError with the first that is wrong."""
    fields = cron.split()
    if len(fields) not in (5, 6):
        raise ValueError(
            f"got {shown(cron)}, must be 5 fields (minute hour day month weekday) or 6 (seconds "
            "first)"
        )
    if len(fields) == 5:
        fields = ["0", *fields]
    for field, text in zip(FIELDS, fields, strict=True):
        field.values(text)
    return fields


def last_moment(cron: str, zone_name: str, *, after: datetime, until: datetime) -> datetime | None:
    """The last moment after `after`, and not after `until`, that six fields name in a zone; None
    where they name none.

    Of day of month and day of week both must hold, or one where neither is `*`, as robfig/cron has
    it (spec.go, dayMatches).
    """
    named = zone(zone_name)
    begin, end = after.astimezone(named), until.astimezone(named)
    fields = six_fields(cron)
    seconds, minutes, hours, days, months, weekdays = (
        field.values(text) for field, text in zip(FIELDS, fields, strict=True)
    )
    is_any = fields[3] in EVERY or fields[5] in EVERY
    day = end.date()
    while day >= begin.date():
        by_day, by_weekday = day.day in days, day.isoweekday() % 7 in weekdays
        if is_any:
            is_named = by_day and by_weekday
        else:
            is_named = by_day or by_weekday
        if is_named and day.month in months:
            clock = sorted(product(hours, minutes, seconds), reverse=True)
            moments = (
                datetime(day.year, day.month, day.day, *each, tzinfo=named) for each in clock
            )
            found = next((moment for moment in moments if begin < moment <= end), None)
            if found is not None:
                return found
        day -= timedelta(days=1)
    return None


def kfp_cron(cron: str, time_zone: str, *, server_zone: str, now: datetime) -> str:
    """Six fields by which a controller in `server_zone` starts runs at the moments that `cron`
    names in `time_zone`.

    Raises:
        ValueError: it is no cron expression, or no expression in the server's zone names the same
            moments.
    """
    fields = six_fields(cron)
    shifts = {_apart(time_zone, server_zone, now + timedelta(days=day)) for day in range(366)}
    if shifts == {0}:
        return " ".join(fields)
    if len(shifts) > 1:
        raise ValueError(
            f"got {time_zone!r}, whose distance to the server's {server_zone!r} changes within a "
            f"year, and KFP knows one zone for all schedules; write cron in {server_zone}, or have "
            f"CRON_SCHEDULE_TIMEZONE set to {time_zone} and say so in server_time_zone"
        )
    return " ".join(_shifted(fields, shifts.pop(), server_zone))


def _apart(time_zone: str, server_zone: str, moment: datetime) -> int:
    """Minutes to add to a clock of one zone for that of the other."""
    mine, theirs = (
        moment.astimezone(zone(time_zone)).utcoffset(),
        moment.astimezone(zone(server_zone)).utcoffset(),
    )
    assert mine is not None
    assert theirs is not None
    return round((theirs - mine).total_seconds() / 60)


def _shifted(fields: list[str], minutes: int, server_zone: str) -> list[str]:
    second, minute, hour, day, month, weekday = fields
    times = [clock_hour * 60 + clock_minute + minutes for clock_hour, clock_minute in
             product(FIELDS[2].values(hour), FIELDS[1].values(minute))]  # fmt: skip
    days = {time // MINUTES_A_DAY for time in times}
    clock = {divmod(time % MINUTES_A_DAY, 60) for time in times}
    hours, clock_minutes = {each[0] for each in clock}, {each[1] for each in clock}
    any_day = day in EVERY and month in EVERY and weekday in EVERY
    if clock != set(product(hours, clock_minutes)) or not (
        any_day or days == {0} or (len(days) == 1 and day in EVERY and month in EVERY)
    ):
        raise ValueError(
            f"got {' '.join(fields)!r}, which no single cron expression says in the server's zone "
            f"{server_zone!r}; write it in that zone"
        )
    if not any_day and days != {0}:
        (moved,) = days
        weekday = _said({(each + moved) % 7 for each in FIELDS[5].values(weekday)}, FIELDS[5])
    return [second, _said(clock_minutes, FIELDS[1]), _said(hours, FIELDS[2]), day, month, weekday]


def _said(values: set[int], field: Field) -> str:
    if values == set(range(field.low, field.high + 1)):
        return "*"
    return ",".join(map(str, sorted(values)))
