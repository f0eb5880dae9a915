"""Chords under fire: members fail, children and whole workers are killed every second, and all is counted outside.

A body and an error callback put on record whether their message had been with a worker before, so that one that was
sent twice is told from one that ran twice because its worker was killed while it ran.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import sqlite3
import time
from typing import NamedTuple

from celery import chord, signature

#: Members of a header, and seconds that each takes.
MEMBERS, NAP = 10, 0.004
#: Seconds between two kills.
EVERY = 1.0
#: Chords that wait at once, at most: more is sent when some have ended, so that a slow machine is no flood.
OPEN = 100
#: What has not ended is stuck when nothing has ended for so many seconds.
STUCK = float(os.environ.get("STUCK", "45"))


class Count(NamedTuple):
    """What came of the chords."""

    sent: int
    #: Ended neither by a body nor by an error callback.
    stuck: list[str]
    #: Ended by both.
    both: list[str]
    #: More than one message of the one or the other.
    twice: list[str]
    failed: int
    kills: int

    def __str__(self) -> str:
        """In a line, however many."""
        return ", ".join(
            f"{name} {len(value)} {value[:3]}" if isinstance(value, list) else f"{name} {value}"
            for name, value in self._asdict().items()
        )


def burn(stage, seconds, seed=0):
    """Send chords for so long while killing; what came of them all."""
    chance, kills, sent = random.Random(seed), 0, []
    workers = [stage.worker("-c", "2") for _ in range(2)]
    ends, next_kill, room = time.monotonic() + seconds, time.monotonic() + EVERY, OPEN

    def unfinished():
        ended = {key for event in _EVENTS for key in _keys(stage, event)}
        return [key for key in sent if key not in ended]

    while time.monotonic() < ends:
        if room > 0:
            room -= 1
            sent.append(_send(stage, len(sent) * MEMBERS))
        if time.monotonic() >= next_kill:
            next_kill += EVERY
            kills += 1
            place = chance.randrange(len(workers))
            if kills % 3:
                _kill_child(workers[place], chance)
            else:
                workers[place].kill()
                workers[place] = stage.start("-c", "2")
            room = OPEN - len(unfinished())
        time.sleep(0.02)
    stuck, since = unfinished(), time.monotonic()
    while stuck and time.monotonic() < since + STUCK:
        time.sleep(0.2)
        before, stuck = stuck, unfinished()
        if len(stuck) < len(before):
            since = time.monotonic()
    bodies, errbacks = (_keys(stage, first) + _keys(stage, again) for first, again in (_EVENTS[:2], _EVENTS[2:]))
    twice = [key for event in _EVENTS[::2] for key, times in _keys(stage, event).items() if times > 1]
    both = [key for key in sent if bodies[key] and errbacks[key]]
    return Count(len(sent), stuck, both, twice, len(errbacks), kills)


def _send(stage, number):
    key = stage.key()
    members = [_sign(stage, "risky", f"{key}-{number + n}", NAP) for n in range(MEMBERS)]
    body = _sign(stage, "body_sent", key).on_error(_sign(stage, "errback_sent", key))
    chord(members, body).apply_async()
    return key


#: Of the ledger; every second one is of messages that had been with another worker.
_EVENTS = ("body", "again", "errback", "errback-again")


def _sign(stage, name, *args):
    return signature(f"project.{name}", args, app=stage.app)


def _keys(stage, event):
    return collections.Counter(entry.key.partition(":")[0] for entry in stage.ledger.entries(event))


def _kill_child(worker, chance):
    children = worker.children()
    if children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(children), signal.SIGKILL)


def bookkeeping(stage):
    """What is left of chords in the store, but for the marks of those that are over; empty when there is nothing."""
    if stage.backend.startswith("redis"):
        import redis

        with redis.Redis.from_url(stage.backend) as store:
            endings = (".s", ".t", ".j", ".d")
            names = [key.decode() for key in store.scan_iter("celery-taskset-meta-*")]
            opened = store.keys("*celeriac.chords*")
            return [name for name in names if name.endswith(endings)] + [name.decode() for name in opened]
    if stage.backend.startswith("db+"):
        import sqlalchemy as sa

        names = stage.settings["database_table_names"]
        queries = (
            f"SELECT group_id FROM {names['chord']} WHERE closed = 0",
            f"SELECT task_id FROM {names['chord_part']}",
        )

        def left(connection):
            return [row for query in queries for row in connection.execute(sa.text(query))]

        return stage.app.backend._run(left)
    with contextlib.closing(sqlite3.connect(stage.backend.removeprefix("sqlite:///"))) as db:
        return [row for query in _LEFT for row in db.execute(query)]


_LEFT = (
    "SELECT group_id FROM chord WHERE NOT closed",
    "SELECT task_id FROM chord_part",
    "SELECT group_id FROM chord_sender",
)
