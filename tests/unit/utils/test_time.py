"""Durations, rates and zones."""

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from celery.utils.iso8601 import parse_iso8601, utc_text
from celery.utils.time import (
    LocalTimezone,
    add_seconds_to_datetime,
    adjust_timestamp,
    delta_resolution,
    ffwd,
    get_exponential_backoff_interval,
    humanize_seconds,
    localize,
    make_aware,
    maybe_iso8601,
    maybe_make_aware,
    maybe_timedelta,
    rate,
    remaining,
    subtract_datetimes,
    timezone,
    to_utc,
    weekday,
)

OSLO = ZoneInfo("Europe/Oslo")


@pytest.mark.parametrize(
    ("given", "per_second"),
    [("1/s", 1), ("10/m", 10 / 60), ("100/h", 100 / 3600), ("3", 3), (5, 5), (1.5, 1.5), (None, 0), ("", 0), ("0", 0)],
)
def test_rates_are_read_as_tasks_per_second(given, per_second):
    assert rate(given) == pytest.approx(per_second)


@pytest.mark.parametrize("given", ["1/d", "fast", "x/s"])
def test_a_rate_that_is_none_names_itself(given):
    with pytest.raises(ValueError, match=given):
        rate(given)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "now"), (0.5, "now"), (1, "1.00 second"), (61, "1.02 minutes"), (300, "5.00 minutes"), (3600, "1.00 hour"),
     (172800, "2.00 days")],
)  # fmt: skip
def test_durations_are_said_in_their_largest_unit(seconds, text):
    assert humanize_seconds(seconds) == text
    assert humanize_seconds(61, prefix="in", sep=" ") == "in 1.02 minutes"
    assert humanize_seconds(0.5, microseconds=True) == "0.50 seconds"


def test_waits_double_up_to_the_maximum():
    assert [get_exponential_backoff_interval(2, n, 100) for n in range(8)] == [2, 4, 8, 16, 32, 64, 100, 100]
    assert get_exponential_backoff_interval(1.5, 5000, 600) == 600
    assert all(0 <= get_exponential_backoff_interval(2, 3, 100, full_jitter=True) <= 16 for _ in range(50))


def test_the_end_is_rounded_to_the_unit_of_the_duration():
    moment = datetime(2020, 1, 2, 3, 4, 5, 6)
    assert delta_resolution(moment, timedelta(days=2)) == datetime(2020, 1, 2)
    assert delta_resolution(moment, timedelta(hours=2)) == datetime(2020, 1, 2, 3)
    assert delta_resolution(moment, timedelta(minutes=2)) == datetime(2020, 1, 2, 3, 4)
    assert delta_resolution(moment, timedelta(seconds=2)) == moment


def test_elapsed_time_ignores_the_change_to_summer_time():
    start = datetime(2020, 3, 28, 12, tzinfo=OSLO)
    assert add_seconds_to_datetime(start, 86400) == datetime(2020, 3, 29, 13, tzinfo=OSLO)
    assert subtract_datetimes(datetime(2020, 3, 29, 12, tzinfo=OSLO), start) == timedelta(hours=23)
    assert remaining(start, timedelta(days=1), now=start) == timedelta(days=1)


def test_remaining_can_be_relative_to_the_full_unit():
    start, now = datetime(2020, 1, 1, 5, 6, 7, tzinfo=UTC), datetime(2020, 1, 1, 0, 30, tzinfo=UTC)
    assert remaining(start, timedelta(hours=1), now=now, relative=True) == timedelta(hours=5, minutes=30)


def test_a_step_by_the_calendar_sets_fields_then_finds_the_weekday():
    step = ffwd(year=2021, weeks=1, weekday=0, day=31, hour=5)
    assert datetime(2020, 1, 2, 3, 4, 5) + step == datetime(2021, 2, 8, 5, 4, 5)
    assert datetime(2020, 1, 15) + ffwd(month=2, day=31) == datetime(2020, 2, 29)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2020-01-01T00:00:00Z", datetime(2020, 1, 1, tzinfo=UTC)),
        ("2020-01-01T00:00:00.123456+02:00", datetime(2019, 12, 31, 22, 0, 0, 123456, tzinfo=UTC)),
        ("2020-01-01 00:00:00-0500", datetime(2020, 1, 1, 5, tzinfo=UTC)),
        ("2020-01-01", datetime(2020, 1, 1)),
    ],
)
def test_dates_of_the_protocol_are_read(text, moment):
    assert maybe_iso8601(text) == moment


def test_what_is_no_date_names_itself():
    with pytest.raises(ValueError, match="tomorrow"):
        parse_iso8601("tomorrow")


def test_naive_times_are_utc_unless_said_otherwise():
    naive = datetime(2020, 1, 1, 12)
    assert to_utc(naive) == datetime(2020, 1, 1, 12, tzinfo=UTC)
    assert maybe_make_aware(naive, OSLO) == datetime(2020, 1, 1, 13, tzinfo=OSLO)
    assert maybe_make_aware(naive, OSLO, naive_as_utc=False) == datetime(2020, 1, 1, 12, tzinfo=OSLO)
    assert maybe_make_aware(None) is None
    assert localize(make_aware(naive, UTC), OSLO).hour == 13


def test_zones_are_found_by_name():
    assert timezone.get_timezone("Europe/Oslo") is OSLO
    assert timezone.get_timezone("UTC") is UTC
    assert timezone.tz_or_local(None) is timezone.local


@pytest.mark.parametrize("name", ["Europe/Oslo", "America/New_York", "UTC"])
def test_the_local_zone_agrees_with_the_machine(name, monkeypatch):
    monkeypatch.setenv("TZ", name)
    time.tzset()
    try:
        check_zone(LocalTimezone(), ZoneInfo(name))
    finally:
        monkeypatch.undo()
        time.tzset()


def check_zone(zone, known):
    first = datetime(2020, 10, 24, tzinfo=UTC)
    for moment in [*(first + timedelta(minutes=30 * n) for n in range(24 * 20)), datetime(2020, 7, 1, 12, tzinfo=UTC)]:
        local, expected = moment.astimezone(zone), moment.astimezone(known)
        assert local.replace(tzinfo=None) == expected.replace(tzinfo=None)
        assert local.fold == expected.fold
        assert local.utcoffset() == expected.utcoffset()
        assert local.tzname() == expected.tzname()


def test_the_local_zone_is_the_default_one():
    zone = LocalTimezone()
    for moment in (datetime(2020, 1, 1, 12, tzinfo=UTC), datetime(2020, 7, 1, 12, tzinfo=UTC)):
        assert moment.astimezone(zone).utcoffset() == moment.astimezone().utcoffset()
        assert moment.astimezone(zone) == moment


def test_timestamps_of_other_machines_are_adjusted():
    assert adjust_timestamp(100.0, 2, here=lambda: 0) == -7100.0


def test_numbers_are_seconds_and_days_have_names():
    assert maybe_timedelta(3) == timedelta(seconds=3)
    assert maybe_timedelta(None) is None
    assert [weekday(name) for name in ("sun", "Sunday", "monday")] == [0, 0, 1]


@pytest.mark.parametrize("moment", [
    datetime(2026, 11, 22, 10, 56, 3, 626726, tzinfo=UTC),
    datetime(2026, 11, 22, 10, 56, 3, 7, tzinfo=UTC),
    datetime(2026, 11, 22, 10, 56, 3, tzinfo=UTC),
    datetime(2026, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2027, 1, 1, tzinfo=UTC),
])  # fmt: skip
def test_a_moment_is_written_as_datetime_writes_it(moment):
    assert utc_text((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)) == moment.isoformat()


def test_the_present_is_written_when_no_moment_is_given():
    before = datetime.now(UTC)
    assert before <= parse_iso8601(utc_text()) <= datetime.now(UTC)
