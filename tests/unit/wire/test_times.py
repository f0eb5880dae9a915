"""wire.md 1.2 and 1.3: eta, expires and expiration."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.wire.times import eta_text, expiry, parse_time

NOW = datetime(2026, 11, 22, 10, 54, 37, tzinfo=UTC)
INDIA = timezone(timedelta(hours=5, minutes=30))


def test_the_offset_is_kept_and_no_zone_stays_no_zone():
    assert eta_text(datetime(2030, 1, 2, 3, 4, 5, tzinfo=INDIA), None, None) == "2030-01-02T03:04:05+05:30"
    assert eta_text(datetime(2030, 1, 2, 3, 4, 5), None, None) == "2030-01-02T03:04:05"
    assert eta_text("2030-01-02T03:04:05Z", None, None) == "2030-01-02T03:04:05Z"


def test_a_countdown_wins_over_eta_and_zero_means_none():
    assert eta_text("2030-01-02T03:04:05Z", 10, NOW) == "2026-11-22T10:54:47+00:00"
    assert eta_text(None, 0, NOW) is None


def test_no_zone_is_read_as_utc_or_as_the_given_zone():
    assert parse_time("2030-01-02T03:04:05") == datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert parse_time("2030-01-02T03:04:05", INDIA) == datetime(2030, 1, 2, 3, 4, 5, tzinfo=INDIA)
    assert parse_time("2030-01-02T03:04:05Z", INDIA) == datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert parse_time(datetime(2030, 1, 2)) == datetime(2030, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize("value", ["soon", "", 5, None, "2030-13-01"])
def test_what_is_no_time_is_an_error(value):
    with pytest.raises(ValueError):
        parse_time(value)


def test_expires_gives_the_moment_and_the_milliseconds_left():
    assert expiry(60, NOW) == ("2026-11-22T10:55:37+00:00", "60000")
    assert expiry(0.0005, NOW)[1] == "0"
    assert expiry(NOW + timedelta(seconds=1.5), NOW) == ("2026-11-22T10:54:38.500000+00:00", "1500")
    assert expiry("2026-11-22T10:54:38Z", NOW) == ("2026-11-22T10:54:38Z", "1000")


def test_what_is_past_expires_at_once():
    assert expiry(-5, NOW)[1] == "0"
    assert expiry(datetime(2020, 1, 1), NOW) == ("2020-01-01T00:00:00", "0")


@pytest.mark.parametrize(
    ("call", "option"),
    [
        (lambda: eta_text("soon", None, NOW), "eta"),
        (lambda: eta_text(None, 1e300, NOW), "countdown"),
        (lambda: eta_text(None, 5, None), "countdown"),
        (lambda: eta_text(None, timedelta(1), NOW), "countdown"),
        (lambda: expiry("soon", NOW), "expires"),
        (lambda: expiry(float("nan"), NOW), "expires"),
        (lambda: expiry(5, None), "expires"),
    ],
)
def test_an_error_names_the_option(call, option):
    with pytest.raises(ValueError, match=option):
        call()


@given(st.datetimes(timezones=st.none() | st.just(UTC) | st.just(INDIA)))
def test_a_sent_eta_is_read_back(moment):
    text = eta_text(moment, None, None)
    assert parse_time(text) == (moment if moment.tzinfo else moment.replace(tzinfo=UTC))
