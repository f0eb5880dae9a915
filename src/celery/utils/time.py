"""Dates, durations and rates.

Two kinds of addition: a timedelta is elapsed time (24 hours over a change to summer time end an hour later by the
clock), a `ffwd` is wall-clock time (next Monday at 8 is at 8). Differences are elapsed time.
"""
from __future__ import annotations

import calendar
import random
import time as _time
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, TypeVar
from zoneinfo import ZoneInfo

from .iso8601 import parse_iso8601
from .text import pluralize, rate

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = (
    "LocalTimezone",
    "add_seconds_to_datetime",
    "adjust_timestamp",
    "delta_resolution",
    "ffwd",
    "get_exponential_backoff_interval",
    "humanize_seconds",
    "is_naive",
    "localize",
    "make_aware",
    "maybe_iso8601",
    "maybe_make_aware",
    "maybe_timedelta",
    "rate",
    "remaining",
    "subtract_datetimes",
    "timezone",
    "to_utc",
    "utcoffset",
    "weekday",
)

D = TypeVar("D", datetime, None)

#: Index as `calendar` counts schedules: Sunday is 0.
WEEKDAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
TIME_UNITS = (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0))


class LocalTimezone(tzinfo):
    """The zone of this machine, as the C library knows it."""

    def _offset(self, dt: datetime | None) -> _time.struct_time:
        if dt is None:
            return _time.localtime()
        # Without its zone, or timetuple() would ask for the offset in turn. -1: the C library decides about summer
        # time; in the hour that happens twice, fold does.
        fields = dt.replace(tzinfo=None).timetuple()
        stamp = _time.mktime((*fields[:8], -1))
        found = _time.localtime(stamp)
        if dt.fold:
            later = _time.localtime(stamp + 3600)
            if later.tm_isdst != found.tm_isdst and later[:5] == fields[:5]:
                return later
        return found

    def utcoffset(self, dt: datetime | None) -> timedelta:
        """Return the distance from UTC, positive to the east."""
        return timedelta(seconds=self._offset(dt).tm_gmtoff)

    def dst(self, dt: datetime | None) -> timedelta:
        """Return how far summer time moves the clock at ``dt``."""
        return timedelta(seconds=_time.timezone - _time.altzone if self._offset(dt).tm_isdst else 0)

    def tzname(self, dt: datetime | None) -> str:
        """Return the abbreviation in use at ``dt``."""
        return self._offset(dt).tm_zone

    def fromutc(self, dt: datetime) -> datetime:
        """Return the local time of a time in UTC that carries this zone."""
        stamp = calendar.timegm(dt.replace(tzinfo=None).timetuple())
        local = _time.localtime(stamp)
        before = _time.localtime(stamp - 3600)
        repeated = before[:5] == local[:5] and before.tm_isdst != local.tm_isdst
        return datetime(*local[:6], dt.microsecond, tzinfo=self, fold=int(repeated))

    def __repr__(self) -> str:
        return f"<LocalTimezone: UTC{self.utcoffset(None).total_seconds() / 3600:+03.0f}>"


class _Zones:
    """Zones by name, and conversion to and from the local one."""

    utc: tzinfo = UTC

    def __init__(self) -> None:
        self.local: tzinfo = LocalTimezone()

    def get_timezone(self, zone: str | tzinfo) -> tzinfo:
        """Return a zone from its IANA name, or the zone given."""
        if not isinstance(zone, str):
            return zone
        return self.utc if zone.upper() == "UTC" else ZoneInfo(zone)

    def tz_or_local(self, tzinfo: tzinfo | None = None) -> tzinfo:
        """Return the zone given, or the local one for None."""
        return self.local if tzinfo is None else self.get_timezone(tzinfo)

    def to_local(self, dt: datetime, local: tzinfo | None = None, orig: tzinfo | None = None) -> datetime:
        """Convert to the zone ``local``; a naive time is in ``orig`` (UTC)."""
        if is_naive(dt):
            dt = make_aware(dt, orig or self.utc)
        return localize(dt, self.tz_or_local(local))

    def to_system(self, dt: datetime) -> datetime:
        """Convert to the machine's zone."""
        return localize(dt, self.local)

    def to_local_fallback(self, dt: datetime) -> datetime:
        """Convert to the machine's zone; a naive time is in it already."""
        return make_aware(dt, self.local) if is_naive(dt) else localize(dt, self.local)


timezone = _Zones()


def maybe_timedelta(delta: float | timedelta | None) -> timedelta | None:
    """Turn a number of seconds into a timedelta; leave anything else alone."""
    return timedelta(seconds=delta) if isinstance(delta, int | float) else delta


def delta_resolution(dt: datetime, delta: timedelta) -> datetime:
    """Round ``dt`` down to the coarsest unit of ``delta``: a full day for days, a full hour for hours..."""
    seconds = max(delta.total_seconds(), 0)
    if seconds >= 86400:
        return dt.replace(hour=0, minute=0, second=0, microsecond=0)
    if seconds >= 3600:
        return dt.replace(minute=0, second=0, microsecond=0)
    return dt.replace(second=0, microsecond=0) if seconds >= 60 else dt


def remaining(
    start: datetime, ends_in: timedelta | ffwd, now: datetime | None = None, relative: bool = False
) -> timedelta:
    """Return how long it is from ``now`` to the end of what began at ``start`` and takes ``ends_in``.

    Args:
        start: The beginning.
        ends_in: The duration; elapsed time or wall-clock time.
        now: The current time in UTC if None.
        relative: Round the end down to the unit of ``ends_in``.
    """
    now = now or datetime.now(timezone.utc)
    if isinstance(ends_in, ffwd):
        end = start + ends_in
    else:
        end = add_seconds_to_datetime(start, ends_in.total_seconds())
        if relative:
            end = delta_resolution(end, ends_in)
    return subtract_datetimes(end, now)


def add_seconds_to_datetime(dt: datetime, seconds: float) -> datetime:
    """Return the time ``seconds`` of elapsed time after ``dt``, in its zone."""
    delta = timedelta(seconds=seconds)
    return dt + delta if dt.tzinfo is None else (dt.astimezone(timezone.utc) + delta).astimezone(dt.tzinfo)


def subtract_datetimes(end: datetime, start: datetime) -> timedelta:
    """Return the elapsed time between two times, both aware or both naive."""
    if end.tzinfo is not None and start.tzinfo is not None:
        return end.astimezone(timezone.utc) - start.astimezone(timezone.utc)
    return end - start


def weekday(name: str) -> int:
    """Return the index of a weekday (``sun`` 0 to ``sat`` 6) from its name or the first letters of it.

    Raises:
        KeyError: No such day.
    """
    return WEEKDAYS[name[:3].lower()]


def humanize_seconds(
    secs: float, prefix: str = "", sep: str = "", now: str = "now", microseconds: bool = False
) -> str:
    """Say a duration in its largest unit: ``5.00 minutes``.

    Args:
        secs: Seconds.
        prefix: Put in front, unless the answer is ``now``.
        sep: Between prefix and number.
        now: What to say for less than a second.
        microseconds: Say fractions of a second instead of ``now``.
    """
    for unit, size in TIME_UNITS:
        if secs >= size:
            amount = secs / size
            return f"{prefix}{sep}{amount:.2f} {pluralize(amount, unit)}"
    if microseconds and secs > 0:
        return f"{prefix}{sep}{secs:.2f} seconds"
    return now


def maybe_iso8601(dt: datetime | str | None) -> datetime | None:
    """Parse a date given as text; leave datetimes and None alone."""
    return parse_iso8601(dt) if isinstance(dt, str) else dt


def is_naive(dt: datetime) -> bool:
    """Tell whether ``dt`` lacks a zone."""
    return dt.tzinfo is None or dt.utcoffset() is None


def make_aware(dt: datetime, tz: tzinfo) -> datetime:
    """Return a naive time as one of the zone ``tz``, by the clock."""
    return dt.replace(tzinfo=tz)


def localize(dt: datetime, tz: tzinfo) -> datetime:
    """Return the same moment in the zone ``tz``; a naive time is in it already."""
    return make_aware(dt, tz) if is_naive(dt) else dt.astimezone(tz)


def to_utc(dt: datetime) -> datetime:
    """Return the moment in UTC; a naive time is in UTC already."""
    return localize(dt, timezone.utc)


def maybe_make_aware(dt: D, tz: tzinfo | None = None, naive_as_utc: bool = True) -> D:
    """Return ``dt`` in the zone ``tz`` (UTC); leave None alone.

    A naive time is in UTC, or with ``naive_as_utc=False`` in ``tz``; an aware one is left as it is without ``tz``.
    """
    if dt is None:
        return dt
    if is_naive(dt):
        dt = make_aware(dt, timezone.utc if naive_as_utc or tz is None else tz)
    return dt if tz is None else dt.astimezone(tz)


class ffwd:  # noqa: N801 - the documented name
    """A step by the calendar: ``datetime + ffwd(...)`` sets the fields given, adds weeks, then goes to the weekday.

    ``day`` is cut to the length of the month; ``weekday`` counts from Monday 0 and is the next such day, or today.
    """

    def __init__(
        self, year: int | None = None, month: int | None = None, weeks: int = 0, weekday: int | None = None,
        day: int | None = None, hour: int | None = None, minute: int | None = None, second: int | None = None,
        microsecond: int | None = None, **kwargs: Any,  # noqa: ARG002 - callers may pass more
    ) -> None:  # fmt: skip
        self.year = year
        self.month = month
        self.weeks = weeks
        self.weekday = weekday
        self.day = day
        self.hour = hour
        self.minute = minute
        self.second = second
        self.microsecond = microsecond
        self.days = weeks * 7

    def _fields(self) -> dict[str, Any]:
        names = ("year", "month", "day", "hour", "minute", "second", "microsecond")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def __repr__(self) -> str:
        fields = {**self._fields(), "weeks": self.weeks, "weekday": self.weekday}
        return f"ffwd({', '.join(f'{name}={value}' for name, value in fields.items())})"

    def __radd__(self, other: Any) -> datetime:
        if not isinstance(other, datetime):
            return NotImplemented
        fields = self._fields()
        year, month = fields.get("year", other.year), fields.get("month", other.month)
        fields["day"] = min(calendar.monthrange(year, month)[1], fields.get("day", other.day))
        moved = other.replace(**fields) + timedelta(days=self.days)
        if self.weekday is not None:
            moved += timedelta(days=(self.weekday - moved.weekday()) % 7)
        return moved


def utcoffset(time: Any = _time, localtime: Callable[[], _time.struct_time] = _time.localtime) -> float:
    """Return the hours by which local time is behind UTC now (negative to the east), as events carry it."""
    return float((time.altzone if localtime().tm_isdst else time.timezone) / 3600)


def adjust_timestamp(ts: float, offset: float, here: Callable[[], float] = utcoffset) -> float:
    """Return a local timestamp of a machine whose `utcoffset` is ``offset`` as one of this machine."""
    return ts - (offset - here()) * 3600


def get_exponential_backoff_interval(
    factor: float, retries: int, maximum: float, full_jitter: bool = False
) -> float:
    """Return the seconds to wait before the next attempt: ``factor`` doubled per retry, at most ``maximum``.

    Args:
        factor: Seconds of the first wait.
        retries: How many attempts have been retries so far.
        maximum: The longest wait.
        full_jitter: Choose at random between 0 and that, so that many clients do not come back at once.
    """
    # Beyond 512 doublings only the maximum matters, and a float factor would overflow.
    countdown: float = min(maximum, factor * 2 ** min(retries, 512))
    if full_jitter:
        countdown = random.randrange(int(max(countdown, 0)) + 1)  # noqa: S311 - no secret depends on it
    return max(0, countdown)
