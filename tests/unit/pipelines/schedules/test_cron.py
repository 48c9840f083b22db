from datetime import UTC, datetime

import pytest

from pipelines.schedules.cron import kfp_cron, last_moment, six_fields

NOW = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "time_zone", "server_zone", "kfp"),
    [
        ("0 3 * * 1", "UTC", "UTC", "0 0 3 * * 1"),
        ("30 0 3 * * mon", "UTC", "UTC", "30 0 3 * * mon"),
        ("15 12 * * *", "Asia/Tokyo", "UTC", "0 15 3 * * *"),
        ("0 3 * * *", "Asia/Tokyo", "UTC", "0 0 18 * * *"),
        ("0 3 * * 1", "Asia/Tokyo", "UTC", "0 0 18 * * 0"),  # Monday three o'clock there is Sunday here
        ("0 3 * * 0,mon-tue", "Asia/Tokyo", "UTC", "0 0 18 * * 0,1,6"),
        ("0 20 1 * *", "Asia/Tokyo", "UTC", "0 0 11 1 * *"),
        ("*/15 * * * *", "Asia/Kolkata", "UTC", "0 0,15,30,45 * * * *"),
        ("10 */6 * * *", "Asia/Kolkata", "UTC", "0 40 0,6,12,18 * * *"),
        ("0 3 * * *", "Europe/Berlin", "Europe/Berlin", "0 0 3 * * *"),
        ("0 3 * * *", "Europe/Berlin", "Europe/Paris", "0 0 3 * * *"),
        ("0 20 * * 6", "UTC", "Asia/Tokyo", "0 0 5 * * 0"),
    ],
)
def test_a_cron_expression_names_the_same_moments_in_the_servers_zone(cron: str, time_zone: str, server_zone: str, kfp: str) -> None:
    assert kfp_cron(cron, time_zone, server_zone=server_zone, now=NOW) == kfp


@pytest.mark.parametrize(
    ("cron", "time_zone", "why"),
    [
        ("0 3 1 * *", "Asia/Tokyo", "no single cron expression"),  # the first of a month there is the last of some month here
        ("0 3,20 * * 1", "Asia/Tokyo", "no single cron expression"),
        ("0,45 3 * * 1", "Asia/Kolkata", "no single cron expression"),
        ("0 3 * * *", "Europe/Berlin", "changes within a year"),
        ("0 3 * * *", "Asia/Tokio", "IANA"),
    ],
)
def test_what_cannot_be_said_in_the_servers_zone_is_refused(cron: str, time_zone: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        kfp_cron(cron, time_zone, server_zone="UTC", now=NOW)


@pytest.mark.parametrize(
    ("cron", "why"),
    [
        ("0 3 * *", "must be 5 fields"),
        ("@daily", "must be 5 fields"),
        ("61 3 * * *", "minute: got '61', must be within 0 to 59"),
        ("0 3 * * 7", "day of week: got '7', must be within 0 to 6"),  # robfig/cron 1.2 knows Sunday as 0 alone
        ("0 3 * foo *", "month: 'foo' is no number and none of jan"),
        ("0 5-3 * * *", "hour: got '5-3'"),
        ("*/0 3 * * *", "minute: got"),
        ("0 3 L * *", "day of month: 'l' is no number"),
    ],
)
def test_what_is_no_cron_expression_is_told_by_field(cron: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        six_fields(cron)


@pytest.mark.parametrize(
    ("cron", "zone", "last"),
    [
        ("0 0 3 * * *", "UTC", datetime(2026, 11, 25, 3, tzinfo=UTC)),
        ("0 0 3 * * *", "Asia/Tokyo", datetime(2026, 11, 24, 18, tzinfo=UTC)),
        ("30 */15 * * * *", "UTC", datetime(2026, 11, 25, 11, 45, 30, tzinfo=UTC)),
        ("0 0 12 25 * *", "UTC", datetime(2026, 11, 25, 12, tzinfo=UTC)),
        ("1 0 12 25 * *", "UTC", datetime(2026, 10, 25, 12, 0, 1, tzinfo=UTC)),
        ("0 0 3 * * mon", "UTC", datetime(2026, 11, 23, 3, tzinfo=UTC)),
        ("0 0 3 20 * mon", "UTC", datetime(2026, 11, 23, 3, tzinfo=UTC)),  # one of the two, as neither is *
        ("0 0 3 29 2 *", "UTC", None),
    ],
)
def test_the_last_moment_is_the_one_that_the_controller_would_start_a_run_for(cron: str, zone: str, last: datetime | None) -> None:
    since, now = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 11, 25, 12, tzinfo=UTC)
    assert last_moment(cron, zone, after=since, until=now) == last


def test_a_moment_that_is_not_after_the_beginning_was_not_missed() -> None:
    now = datetime(2026, 11, 25, 12, tzinfo=UTC)
    begun = datetime(2026, 11, 25, 3, tzinfo=UTC)
    assert last_moment("0 0 3 * * *", "UTC", after=begun, until=now) is None
