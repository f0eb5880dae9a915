"""Write tests/data/schedules.json: what Celery 5.7 answers about schedules, which ours are held against.

    PYTHON_WITH_CELERY_5_7 scripts/schedule_corpus.py > tests/data/schedules.json

The zones change their clocks by an hour or by half of one, in both hemispheres, or never. Solar schedules are asked
only where ephem is installed too.
"""

from __future__ import annotations

import base64
import json
import pickle
import random
import sys
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any

from celery import Celery
from celery.schedules import crontab, crontab_parser, schedule, solar

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Santiago")
CRONTABS = (
    "* * * * *", "*/5 * * * *", "0 * * * *", "7,37 * * * *", "0 */3 * * *", "30 2 * * *", "0 0 * * *", "15 1-3 * * *",
    "59 23 * * *", "0 8 * * mon-fri", "0 8 * * sat,sun", "0 12 * * fri-mon", "0 0 1 * *", "30 6 31 * *", "0 4 29 2 *",
    "0 0 13 * fri", "*/20 22-2 * * *", "10-50/15 9-17/2 1-7 * mon", "45 2 8-14 3,11 sun", "0 0 1 jan *", "* 2 * * *",
    "0 12 15 */2 *", "5 4 * 6-8 *", "50-10/15 * * * *",
)  # fmt: skip
INTERVALS = (20, 30, 90, 3600, 5400, 86400, 100000, 604800)
EVENTS = (
    "dawn_astronomical", "dawn_nautical", "dawn_civil", "sunrise", "solar_noon", "sunset", "dusk_civil",
    "dusk_nautical", "dusk_astronomical",
)  # fmt: skip
PLACES = ((52.5, 13.4), (0, 180), (-33.9, 18.4), (78.2, 15.6))
FIELDS = (
    "*", "*/3", "*/70", "5", "1-3", "3-1", "1,2", "*/2,1", "10-12/2", "11-2/3", "mon", "SUNDAY", "fri-mon",
    "sat-tue/2", "jan", "nov-feb", "1, 2", " 5", "", ",", "1,,2", "*/", "*/0", "-1", "-", "/3", "foo", "su", "0", "60",
    "1-99", "99-1", "5/3", "5-", "1-*", "**", "1.5", "*/x",
)  # fmt: skip
RANGES = ((60, 0), (24, 0), (7, 0), (31, 1), (12, 1))
#: Within days of these, some of the zones change their clocks.
CHANGES = (
    datetime(2026, 3, 8, 7, tzinfo=UTC), datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 4, 4, 15, tzinfo=UTC),
    datetime(2026, 9, 6, 4, tzinfo=UTC), datetime(2026, 10, 3, 16, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC), datetime(2027, 4, 4, 3, tzinfo=UTC),
)  # fmt: skip


def ask(entry: Any, tz: str, last: datetime, now: datetime, deadline: int | None = None) -> list[Any]:
    """Whether it is due, the seconds until the next question, and the seconds that remain."""
    app = Celery(set_as_current=False)
    app.conf.update(timezone=tz, beat_cron_starting_deadline=deadline)
    entry.app, entry.nowfun = app, lambda: now.astimezone(app.timezone)
    local = last.astimezone(app.timezone)
    due, seconds = entry.is_due(local)
    return [due, round(seconds, 3), round(entry.remaining_estimate(local).total_seconds(), 3)]


def times(chance: random.Random) -> tuple[datetime, datetime]:
    """A last run and a time: mostly near a change of clocks, and mostly near each other."""
    if chance.random() < 0.6:
        last = chance.choice(CHANGES) + timedelta(minutes=chance.randint(-600, 600))
    else:
        last = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=chance.randint(0, 60_000_000))
    waited = chance.choice((0, 30, 45, 600, 3700, 30_000, 90_000, 700_000))
    return last + timedelta(seconds=0.75), last + timedelta(seconds=0.75 + chance.randint(0, 4 * waited) / 4)


def corpus() -> dict[str, list[Any]]:
    """All cases, by kind."""
    chance = random.Random("schedules")
    found: dict[str, list[Any]] = {"crontab": [], "interval": [], "solar": [], "field": [], "pickle": []}
    for line in CRONTABS:
        for tz in ZONES:
            for deadline in (None, None, None, 0, 600):
                last, now = times(chance)
                answer = ask(crontab.from_string(line), tz, last, now, deadline)
                found["crontab"].append([line, tz, deadline, last.isoformat(), now.isoformat(), *answer])
    for seconds in INTERVALS:
        for relative in (False, True):
            for tz in ZONES:
                last, now = times(chance)
                answer = ask(schedule(seconds, relative=relative), tz, last, now)
                found["interval"].append([seconds, relative, tz, last.isoformat(), now.isoformat(), *answer])
    if find_spec("ephem"):
        for event in EVENTS:
            for lat, lon in PLACES:
                last, now = times(chance)
                answer = ask(solar(event, lat, lon), "UTC", last, now)
                found["solar"].append([event, lat, lon, last.isoformat(), now.isoformat(), *answer])
    for entry in (schedule(90, relative=True), crontab(0, "*/2", [1, 3], {1}, "jan"), crontab(5, nowfun=datetime.now)):
        found["pickle"].append([base64.b64encode(pickle.dumps(entry)).decode(), repr(entry)])
    for count, smallest in RANGES:
        for spec in FIELDS:
            try:
                numbers: Any = sorted(crontab_parser(count, smallest).parse(spec))
            except Exception as exc:  # noqa: BLE001 - what is raised is the answer
                numbers = type(exc).__name__
            found["field"].append([count, smallest, spec, numbers])
    return found


if __name__ == "__main__":
    kinds = corpus()
    lines = [f'"{kind}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]" for kind, rows in kinds.items()]
    sys.stdout.write("{\n" + ",\n".join(lines) + "\n}\n")
