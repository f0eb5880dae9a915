"""When periodic tasks run: every so often, by the calendar, or by the sun (API-081..087).

The file is longer than others because its kinds share one vocabulary and one documented module.

Vocabulary
    A *moment* is a point on the time line, an aware datetime. A *reading* is what a clock on the wall of the
    schedule's zone shows then, a naive datetime. A schedule names the moments at which its task runs; asked for the
    time of the last run, it answers how long it is until the next one.

Rules
    1. A run belongs to the first moment after the last run that the schedule names. `is_due` is true from that moment
       on, however late it is asked; runs that were missed in between are one run.
    2. With ``beat_cron_starting_deadline``, a crontab's run that was missed by more than that is left out.
    3. An interval is elapsed time: a day is 24 hours. A *relative* interval ends where its unit begins in the zone:
       days at midnight, hours at minute 0.
    4. A crontab matches readings, to the minute, and all of its five fields must match (unlike cron).
    5. When clocks are put forward, some readings are skipped; when they are put back, some are shown twice:

       ==============  ======================================  ============================================
       crontab runs    a skipped reading                       a reading shown twice
       ==============  ======================================  ============================================
       in every hour   is not shown, so nothing runs           runs both times, as clocks go on
       at some hours   runs late by as much as was skipped     runs the first time only
       ==============  ======================================  ============================================

       So a nightly task runs once every night, and a five-minute one every five minutes. (Celery 5.7 pauses the
       latter for an hour, and then calls every crontab due all the time for another.)
    6. The zone, the time and the deadline are the application's. A schedule that was given none asks the current
       application; without any, it is in UTC.
"""

from __future__ import annotations

import sys
from calendar import monthrange
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from celery.exceptions import ImproperlyConfigured
from celery.utils.time import delta_resolution, ffwd, humanize_seconds, maybe_make_aware, maybe_timedelta, timezone
from celery.utils.time import weekday as weekday_number

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo

    from celery.app.base import Celery

__all__ = ("ParseException", "crontab", "crontab_parser", "maybe_schedule", "schedule", "solar")

#: What a field of a crontab may be given as.
Cronspec = int | str | Iterable[int]

MONTHS = {name: n for n, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), start=1)}
LEAP_YEAR = 2000


class schedstate(NamedTuple):  # noqa: N801 - the documented name
    """The answer of `is_due`."""

    is_due: bool
    #: Seconds until it is worth asking again.
    next: float


class ParseException(Exception):  # noqa: N818 - the documented name
    """A crontab expression has a part that is empty, or a negative number (API-083)."""


class BaseSchedule:  # noqa: PLW1641 - compared by value, which changes
    """What schedules have in common. Subclasses say `remaining_estimate` and `is_due`.

    Args:
        nowfun: Gives the time in place of the application's `now`; a naive answer is in UTC.
        app: The application; the current one if None.
    """

    # A subclass may set its zone before it calls our __init__, as those of django-celery-beat do.
    _tz: tzinfo | None = None

    def __init__(self, nowfun: Callable[[], datetime] | None = None, app: Celery | None = None) -> None:
        self.nowfun = nowfun
        self._app = app

    def now(self) -> datetime:
        """The time."""
        if self.nowfun is not None:
            return self.nowfun()
        return self.app.now() if self.app is not None else datetime.now(UTC)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """How long it is until the first run after ``last_run_at``; negative when it is overdue."""
        raise NotImplementedError(f"{type(self).__name__} must say what is remaining")

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        """Whether to run now, and the seconds until to ask again: until the next run after this one."""
        raise NotImplementedError(f"{type(self).__name__} must say what is due")

    def _due_since(self, start: datetime) -> schedstate:
        """`is_due` for schedules that name moments: due when one has come since ``start``."""
        seconds = self.remaining_estimate(start).total_seconds()
        if seconds > 0:
            return schedstate(False, seconds)
        return schedstate(True, max(self.remaining_estimate(self.now()).total_seconds(), 0))

    def maybe_make_aware(self, dt: datetime, naive_as_utc: bool = True) -> datetime:
        """``dt`` in the schedule's zone; a naive one is in UTC, or with ``naive_as_utc=False`` in the zone."""
        return maybe_make_aware(dt, self.tz, naive_as_utc=naive_as_utc)

    @property
    def app(self) -> Celery | None:
        """The application given, else the current one, else None."""
        if self._app is not None:
            return self._app
        # The application is above this floor. Where its state was never imported, there is none to be found.
        state = sys.modules.get("celery._state")
        return state.peek_current_app() if state is not None else None

    @app.setter
    def app(self, app: Celery | None) -> None:
        self._app = app

    @property
    def tz(self) -> tzinfo:
        """The zone whose clock the schedule goes by: the application's, unless set."""
        if self._tz is not None:
            return self._tz
        return self.app.timezone if self.app is not None else UTC

    @tz.setter
    def tz(self, tz: tzinfo) -> None:
        self._tz = tz

    @property
    def utc_enabled(self) -> bool:
        """The application's ``enable_utc``."""
        return bool(self.app.conf.enable_utc) if self.app is not None else True

    def to_local(self, dt: datetime) -> datetime:
        """``dt`` in the schedule's zone, or without ``enable_utc`` in the machine's."""
        return timezone.to_local(dt, self.tz) if self.utc_enabled else timezone.to_local_fallback(dt)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BaseSchedule):
            return NotImplemented
        return bool(other.nowfun == self.nowfun)


class schedule(BaseSchedule):  # noqa: N801, PLW1641 - the documented name; compared by value, which changes
    """Runs every so often (API-081).

    Args:
        run_every: The interval, a timedelta or seconds.
        relative: Let intervals end where their unit begins (rule 3).
        nowfun, app: See `BaseSchedule`.

    Raises:
        TypeError: The interval is neither.
    """

    relative: bool = False

    def __init__(
        self,
        run_every: float | timedelta | None = None,
        relative: bool = False,
        nowfun: Callable[[], datetime] | None = None,
        app: Celery | None = None,
    ) -> None:
        interval = maybe_timedelta(run_every)
        if interval is not None and not isinstance(interval, timedelta):
            raise TypeError(f"run_every must be a timedelta or a number of seconds, not {run_every!r}")
        #: None until a subclass that was created without one has set it.
        self.run_every: Any = interval
        self.relative = relative
        super().__init__(nowfun=nowfun, app=app)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        now = self.maybe_make_aware(self.now()).astimezone(UTC)
        return self._end_after(self.maybe_make_aware(last_run_at)).astimezone(UTC) - now

    def _end_after(self, last: datetime) -> datetime:
        interval = self._interval()
        end = last.astimezone(UTC) + interval
        if not self.relative or interval < timedelta(seconds=1):
            return end
        if interval >= timedelta(days=1):
            # Adding to an aware time goes by the calendar, in which no day is longer than another.
            end = last + interval
        return delta_resolution(end.astimezone(self.tz), interval).replace(microsecond=0)

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        if self.relative:
            return self._due_since(last_run_at)
        seconds = self.remaining_estimate(last_run_at).total_seconds()
        return schedstate(False, seconds) if seconds > 0 else schedstate(True, self.seconds)

    def _interval(self) -> timedelta:
        if self.run_every is None:
            raise TypeError("This schedule has no interval: give it run_every, a timedelta or a number of seconds.")
        interval: timedelta = self.run_every
        return interval

    @property
    def seconds(self) -> float:
        """The interval in seconds, not negative."""
        return max(self._interval().total_seconds(), 0)

    @property
    def human_seconds(self) -> str:
        """The interval in words."""
        return humanize_seconds(self.seconds)

    def __repr__(self) -> str:
        return f"<freq: {self.human_seconds}>"

    def __eq__(self, other: object) -> bool:
        return bool(self.run_every == getattr(other, "run_every", other))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.run_every, self.relative, self.nowfun)


# Crontab


class crontab_parser:  # noqa: N801 - the documented name
    """Parses one field of a crontab into the set of its numbers (API-083).

    ::

        field = part ("," part)*
        part  = ("*" | value | value "-" value) ["/" step]      a step only after "*" or a range
        value = number | name of a weekday or month, of which the first three letters count

    A range that ends before it begins goes on from the smallest value: ``fri-mon``. A step counts from the first
    value of its range.

    Args:
        max_: How many values there are.
        min_: The smallest.
    """

    ParseException = ParseException

    def __init__(self, max_: int = 60, min_: int = 0) -> None:
        self.min_ = min_
        self.max_ = max_ + min_ - 1

    def parse(self, spec: str) -> set[int]:
        """The numbers that ``spec`` stands for.

        Raises:
            ParseException: A part or a step is empty, or a number is negative.
            ValueError: A word is unknown, or a number out of range.
        """
        return {number for part in spec.split(",") for number in self._part(part.strip())}

    def _part(self, part: str) -> list[int]:
        if not part:
            raise ParseException("a part between commas is empty")
        if part.startswith("-"):
            raise ParseException(f"{part!r} is negative")
        span, slash, step = part.partition("/")
        numbers = self._span(span)
        if not slash:
            return numbers
        if span != "*" and "-" not in span:
            raise ValueError(f"{part!r} has a step but no range; write {span}-{self.max_}/{step}")
        if not step or step.startswith("-"):
            raise ParseException("the step after a slash must be a positive number")
        return numbers[:: int(step)]

    def _span(self, span: str) -> list[int]:
        """The values of a range, in the order in which steps count them."""
        if span == "*":
            return [*range(self.min_, self.max_ + 1)]
        first, dash, last = span.partition("-")
        start = self._value(first)
        if not dash:
            return [start]
        end = self._value(last)
        if start <= end:
            return [*range(start, end + 1)]
        return [*range(start, self.max_ + 1), *range(self.min_, end + 1)]

    def _value(self, word: str) -> int:
        try:
            number = int(word)
        except ValueError:
            number = _named(word)
        if not self.min_ <= number <= self.max_:
            raise ValueError(f"{number} is not in the range {self.min_}-{self.max_}")
        return number


def _named(word: str) -> int:
    """The number of a weekday or month."""
    known = MONTHS.get(word[:3].lower())
    if known is not None:
        return known
    try:
        return weekday_number(word)
    except KeyError:
        raise ValueError(f"{word!r} is no number, weekday or month") from None


def cronfield(s: Cronspec | None) -> Cronspec:
    """A field as it is written; ``*`` for None."""
    return "*" if s is None else s


class crontab(BaseSchedule):  # noqa: N801, PLW1641 - the documented name; compared by value, which changes
    """Runs whenever the clock shows what the five fields match (API-082..085).

    Args:
        minute: 0-59.
        hour: 0-23.
        day_of_week: 0-6, Sunday is 0; names may be used.
        day_of_month: 1-31.
        month_of_year: 1-12; names may be used.
        **kwargs: ``nowfun`` and ``app``, see `BaseSchedule`.

    Each field is a number, an expression (see `crontab_parser`) or numbers. As attributes, they are sets.

    Raises:
        ParseException: An expression has an empty part or a negative number.
        ValueError: A value is unknown or out of range, or no date matches, such as 30 February.
        TypeError: A field is none of these.
    """

    def __init__(
        self,
        minute: Cronspec = "*",
        hour: Cronspec = "*",
        day_of_week: Cronspec = "*",
        day_of_month: Cronspec = "*",
        month_of_year: Cronspec = "*",
        **kwargs: Any,
    ) -> None:
        # As written: schedulers that keep schedules in a database (django-celery-beat, RedBeat) read these names.
        self._orig_minute = _reusable(minute)
        self._orig_hour = _reusable(hour)
        self._orig_day_of_week = _reusable(day_of_week)
        self._orig_day_of_month = _reusable(day_of_month)
        self._orig_month_of_year = _reusable(month_of_year)
        self.minute = _numbers("minute", self._orig_minute, 60)
        self.hour = _numbers("hour", self._orig_hour, 24)
        self.day_of_week = _numbers("day_of_week", self._orig_day_of_week, 7)
        self.day_of_month = _numbers("day_of_month", self._orig_day_of_month, 31, 1)
        self.month_of_year = _numbers("month_of_year", self._orig_month_of_year, 12, 1)
        if min(self.day_of_month) > max(monthrange(LEAP_YEAR, month)[1] for month in self.month_of_year):
            raise ValueError(
                f"This crontab would never run: no month in month_of_year={month_of_year!r} has a day in "
                f"day_of_month={day_of_month!r}."
            )
        super().__init__(**kwargs)

    @classmethod
    def from_string(cls, crontab: str) -> Self:
        """A schedule from a line of five fields with single spaces between: minute, hour, day, month, weekday.

        Raises:
            ValueError: There are more or fewer fields. And what the class raises.
        """
        fields = crontab.split(" ")
        if len(fields) != 5:
            raise ValueError(
                f"The crontab {crontab!r} has {len(fields)} fields between single spaces, but needs five: "
                "minute hour day_of_month month_of_year day_of_week."
            )
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year)

    # Readings: arithmetic of the calendar, without a zone

    def _matches_day(self, day: date) -> bool:
        return (
            day.month in self.month_of_year
            and day.day in self.day_of_month
            and day.isoweekday() % 7 in self.day_of_week
        )

    def _day_after(self, day: date) -> date:
        """The first day after ``day`` that matches."""
        year, month, first = day.year, day.month, day.day + 1
        while True:
            if month in self.month_of_year:
                before_first, length = monthrange(year, month)
                for number in range(first, length + 1):
                    if number in self.day_of_month and (before_first + number) % 7 in self.day_of_week:
                        return date(year, month, number)
            year, month, first = year + month // 12, month % 12 + 1, 1

    def _reading_after(self, reading: datetime) -> datetime:
        """The first reading after the minute of ``reading`` that matches."""
        if self._matches_day(reading):
            if reading.hour in self.hour:
                minute = min((minute for minute in self.minute if minute > reading.minute), default=None)
                if minute is not None:
                    return reading.replace(minute=minute, second=0, microsecond=0)
            hour = min((hour for hour in self.hour if hour > reading.hour), default=None)
            if hour is not None:
                return reading.replace(hour=hour, minute=min(self.minute), second=0, microsecond=0)
        day = self._day_after(reading)
        return datetime(day.year, day.month, day.day, min(self.hour), min(self.minute))  # noqa: DTZ001 - readings are naive

    # Moments, in UTC: when the clocks show a reading

    def _run_after(self, moment: datetime) -> datetime:
        """The first run after ``moment`` (rule 5)."""
        moment = moment.astimezone(UTC)
        return self._shown_after(moment) if len(self.hour) == 24 else self._once_after(moment)

    def _readings_after(self, reading: datetime) -> Iterator[datetime]:
        while True:
            reading = self._reading_after(reading)
            yield reading

    def _once_after(self, moment: datetime) -> datetime:
        """At some hours: each matching reading once, where fold 0 puts it; that is late if it is skipped."""
        # Before clocks were put forward, if that was today: what was skipped then may still be to run.
        offset = min(_offset((moment - timedelta(days=days)).astimezone(self.tz)) for days in (0, 1))
        soonest = datetime.max.replace(tzinfo=UTC)
        for reading in self._readings_after((moment + offset).replace(tzinfo=None)):
            run = reading.replace(tzinfo=self.tz).astimezone(UTC)
            if moment < run < soonest:
                soonest = run
            # While a skipped one is late, readings that are shown meanwhile come before it.
            if run >= soonest and _reading(run.astimezone(self.tz)) == reading:
                return soonest
        raise AssertionError("readings do not end")

    def _shown_after(self, moment: datetime) -> datetime:
        """In every hour: each moment at which the clock shows a matching reading.

        Where clocks are put back soon, what they show then for the second time comes before larger readings.
        """
        offsets = {_offset((moment + timedelta(days=days)).astimezone(self.tz)) for days in (0, 1)}
        return min(self._first_shown(moment, offset) for offset in offsets)

    def _first_shown(self, moment: datetime, offset: timedelta) -> datetime:
        """The moment after ``moment`` that shows the first match after what a clock with this offset shows."""
        return next(
            run
            for reading in self._readings_after((moment + offset).replace(tzinfo=None))
            for fold in (0, 1)
            if (run := reading.replace(tzinfo=self.tz, fold=fold).astimezone(UTC)) > moment
            and _reading(run.astimezone(self.tz)) == reading
        )

    # The schedule

    def remaining_delta(
        self, last_run_at: datetime, tz: tzinfo | None = None, ffwd: type[ffwd] = ffwd
    ) -> tuple[datetime, Any, datetime]:
        """The last run, a step by the calendar (an ``ffwd``) to the next reading that matches, and the time.

        All in the zone ``tz``, by default the schedule's.
        """
        zone = tz or self.tz
        last = maybe_make_aware(last_run_at, zone)
        run = self._reading_after(_reading(last))
        step = ffwd(
            year=run.year, month=run.month, day=run.day, hour=run.hour, minute=run.minute, second=0, microsecond=0
        )
        return last, step, maybe_make_aware(self.now(), zone)

    def remaining_estimate(self, last_run_at: datetime, ffwd: type[ffwd] = ffwd) -> timedelta:  # noqa: ARG002 - in Celery's signature
        run = self._run_after(self.maybe_make_aware(last_run_at))
        return run - self.maybe_make_aware(self.now()).astimezone(UTC)

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        start = self.maybe_make_aware(last_run_at)
        deadline = self.app.conf.beat_cron_starting_deadline if self.app is not None else None
        if deadline is not None:
            # Just before, for a run that is exactly as late as it may be.
            oldest = self.maybe_make_aware(self.now()).astimezone(UTC) - timedelta(seconds=deadline, microseconds=1)
            start = max(start.astimezone(UTC), oldest)
        return self._due_since(start)

    def __repr__(self) -> str:
        minute, hour, day_of_week, day_of_month, month_of_year = map(cronfield, self._written())
        return f"<crontab: {minute} {hour} {day_of_month} {month_of_year} {day_of_week} (m/h/dM/MY/d)>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, crontab):
            return NotImplemented
        return self._parsed() == other._parsed() and bool(self.nowfun == other.nowfun)

    def _parsed(self) -> tuple[set[int], ...]:
        return self.minute, self.hour, self.day_of_week, self.day_of_month, self.month_of_year

    def _written(self) -> tuple[Cronspec, ...]:
        days = self._orig_day_of_week, self._orig_day_of_month, self._orig_month_of_year
        return self._orig_minute, self._orig_hour, *days

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the application: an unpickled schedule belongs to the one where it arrives.
        return type(self), self._written(), {"nowfun": self.nowfun}


def _reusable(field: Cronspec) -> Cronspec:
    """A field that can be read again: an iterator is read into a list."""
    return list(field) if isinstance(field, Iterable) and not isinstance(field, Collection) else field


def _numbers(name: str, field: Cronspec, count: int, smallest: int = 0) -> set[int]:
    """The set of the numbers of a field; its name goes into what is raised."""
    largest = smallest + count - 1
    if isinstance(field, str):
        try:
            return crontab_parser(count, smallest).parse(field)
        except (ParseException, ValueError) as exc:
            raise type(exc)(f"Invalid {name}={field!r} in a crontab: {exc}.") from None
    numbers = {field} if isinstance(field, int) else field
    iterable = isinstance(numbers, Iterable) and not isinstance(numbers, bytes)
    if not iterable or not all(isinstance(number, int) for number in numbers):
        raise TypeError(f"{name}={field!r} in a crontab must be a number, an expression in a string, or numbers.")
    found = set(numbers)
    if not found or min(found) < smallest or max(found) > largest:
        raise ValueError(
            f"Invalid {name}={field!r} in a crontab: its numbers must be in the range {smallest}-{largest}."
        )
    return found


def _reading(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None, fold=0)


def _offset(moment: datetime) -> timedelta:
    offset = moment.utcoffset()
    assert offset is not None
    return offset


# Solar


class solar(BaseSchedule):  # noqa: N801, PLW1641 - the documented name; compared by value, which changes
    """Runs when the sun rises, sets, or is at another height over a place (API-086).

    Args:
        event: One of `EVENTS`.
        lat: Latitude of the place, -90 (south) to 90.
        lon: Longitude, -180 (west) to 180.
        **kwargs: ``nowfun`` and ``app``, see `BaseSchedule`.

    Where the event does not occur for a time, as near the poles, the next occurrence within `max_search_days` counts.

    Raises:
        ImproperlyConfigured: The library ephem is not installed.
        ValueError: No such event, or no such place.
    """

    #: The observer's method; the height in degrees and minutes, where 34 minutes is how much air bends the light that
    #: grazes the horizon; whether the sun's centre counts, or its edge.
    EVENTS = {
        "dawn_astronomical": ("next_rising", "-18", True),
        "dawn_nautical": ("next_rising", "-12", True),
        "dawn_civil": ("next_rising", "-6", True),
        "sunrise": ("next_rising", "-0:34", False),
        "solar_noon": ("next_transit", "0", False),
        "sunset": ("next_setting", "-0:34", False),
        "dusk_civil": ("next_setting", "-6", True),
        "dusk_nautical": ("next_setting", "-12", True),
        "dusk_astronomical": ("next_setting", "-18", True),
    }
    max_search_days = 366

    def __init__(self, event: str, lat: float, lon: float, **kwargs: Any) -> None:
        try:
            self._ephem: Any = import_module("ephem")
        except ImportError:
            raise ImproperlyConfigured(
                "A solar schedule needs the library ephem, which is not installed: pip install ephem"
            ) from None
        if event not in self.EVENTS:
            raise ValueError(f"{event!r} is no event of the sun. Use one of: {', '.join(sorted(self.EVENTS))}.")
        if not -90 <= lat <= 90:
            raise ValueError(f"The latitude {lat!r} of a solar schedule must be between -90 and 90.")
        if not -180 <= lon <= 180:
            raise ValueError(f"The longitude {lon!r} of a solar schedule must be between -180 and 180.")
        self.event = event
        self.lat = lat
        self.lon = lon
        super().__init__(**kwargs)

    def _event_after(self, moment: datetime) -> datetime:
        ephem = self._ephem
        method, horizon, use_center = self.EVENTS[self.event]
        place = ephem.Observer()
        place.lat, place.lon, place.elevation = str(self.lat), str(self.lon), 0
        # Without pressure, ephem leaves refraction to the horizon given.
        place.pressure, place.horizon = 0, horizon
        sun = ephem.Sun()
        options = {} if method == "next_transit" else {"use_center": use_center}
        start = ephem.Date(moment.astimezone(UTC).replace(tzinfo=None))
        for _ in range(self.max_search_days):
            try:
                start = getattr(place, method)(sun, start=start, **options)
                break
            except ephem.CircumpolarError:
                # Nothing before the sun is lowest; go on just after.
                start = ephem.Date(place.next_antitransit(sun, start=start) + ephem.minute)
        found: datetime = start.datetime()
        return found.replace(tzinfo=UTC)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        now = self.maybe_make_aware(self.now()).astimezone(UTC)
        return self._event_after(self.maybe_make_aware(last_run_at)) - now

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        return self._due_since(last_run_at)

    def __repr__(self) -> str:
        return f"<solar: {self.event} at latitude {self.lat}, longitude: {self.lon}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, solar):
            return NotImplemented
        return (self.event, self.lat, self.lon) == (other.event, other.lat, other.lon)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.event, self.lat, self.lon), {"nowfun": self.nowfun}


def maybe_schedule(s: Any, relative: bool = False, app: Celery | None = None) -> Any:
    """A `schedule` from a number of seconds or a timedelta; a schedule is taken as it is, and given the application.

    Args:
        s: What is to become a schedule; None stays None.
        relative: For a new one, see `schedule`.
        app: The application it goes by.

    Raises:
        TypeError: It is nothing of these.
    """
    if s is None:
        return None
    if isinstance(s, int | float | timedelta):
        return schedule(s, relative, app=app)
    if not hasattr(s, "is_due"):
        raise TypeError(f"A schedule must be a number of seconds, a timedelta or a schedule object, not {s!r}.")
    s.app = app
    return s
