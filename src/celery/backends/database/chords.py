"""Chords counted in a relational database, in fleets that may have workers of Celery 5.7 (`celery.backends.chords`).

Celery 5.7 does not count here: whoever sends a chord sends a task `celery.chord_unlock` with it, which looks at the
records of the header, and calls the body, which nothing can stop when a worker of 5.7 runs it. So a chord is either
*polled for*, by that task and nobody else, or *counted*, without that task; which of the two is settled once, before
its first member is sent.

Rules
    1. Workers of ours look into the database every few seconds, and say so (`chord_watch`). A chord of a producer of
       ours is counted when one has just been there; else it is polled for. Those of 5.7's producers are polled for.
    2. A counted chord has a row before its first member runs. Parts of a chord without a row are not kept: it is polled
       for, or over.
    3. A member that a worker of 5.7 ran has a record and no part. Workers who look count such records (they *adopt*
       it), soon after the chord has begun and then ever more seldom, as long as they find none. So it does not matter
       who runs the members, as long as workers of ours are there; when the last one goes, chords wait for the next.
       A part of one that was adopted is not counted, wherever it says its place is: 5.7 numbers groups otherwise.
    4. Who looks also takes over: a complete chord whose holder has died is finished, one whose producer has died fails.
    5. All that is done to a chord begins with a change of its row, which locks it. Of two who are last the second one
       sees the part of the first, in every isolation level; none reads before it writes, as SQLite would refuse it.
    6. Only workers of the same *home* look after a chord: same broker, same default queue, same tables. Several
       applications may keep their results in one database; their bodies must not go astray.
    7. All chords are polled for where the tables cannot be made, as the account may not; and those whose body JSON
       cannot hold as it is, as there is no message to take it from where nobody is left who has one.

A member that joined a running chord (`add_to_chord`) is not among those whose records are looked at: it counts when a
worker of ours runs it.
"""

from __future__ import annotations

import functools
import hashlib
import re
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import sqlalchemy as sa

from celery import exceptions, states
from celery.backends.chords import ChordBook, Member, body_as_json, orphan, read_members, terms_of
from celery.backends.database import chord_tables
from celery.backends.database.chord_statements import IDS_AT_ONCE, Statements, as_row
from celery.brokers.base import ChordClaim, ChordPart
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from celery.backends.database import DatabaseBackend
    from celery.brokers.base import ChordStart

T = TypeVar("T")

logger = get_logger(__name__)

#: Seconds that a worker's word is good for that it looks; it comes back every five.
_ATTENDS = 30.0
#: Seconds for which a producer believes it without asking.
_BELIEVED = 5.0
#: Seconds between two looks at the records of a chord: so long after one that found some, at most, and in between a
#: share of the chord's age.
_AGAIN, _SELDOM, _SHARE = 2.0, 60.0, 0.25
#: How often a transaction is tried that another one came in between.
_TRIES = 5
#: Position of a part that has none.
_LAST = 2**31 - 1


class DatabaseBook(ChordBook):
    """Counts in the database of the backend, with one transaction for each verb and chord."""

    keeps_members = True

    def __init__(self, backend: DatabaseBackend) -> None:
        conf = backend.app.conf
        self._backend = backend
        self._terms = terms_of(conf, backend.expires)
        self._tables = chord_tables.tables(conf.database_table_names or {}, conf.database_table_schemas or {})
        self._home = _home_of(conf, backend.task_table.fullname, self._tables.chord.fullname)
        self._statements: Statements | None = None
        self._usable: bool | None = None
        self._attended_until = 0.0

    # -- counting

    def begin(self, starts: Sequence[ChordStart]) -> None:
        def work(database: _Database) -> None:
            for start in sorted(starts, key=_group_id):
                row = {
                    "gid": start.group_id,
                    "new_size": start.size,
                    "new_body": start.body,
                    "new_members": msgspec.json.encode(start.members) if start.members else None,
                }
                if not database.change(database.say.begin_again, **row):
                    database.change(database.say.begin, at_home=self._home, **row)

        self._insist(work)

    def add(self, parts: Sequence[ChordPart]) -> list[ChordClaim]:
        by_group: dict[str, list[ChordPart]] = {}
        for part in parts:
            by_group.setdefault(part.group_id, []).append(part)
        if not self._ready():
            return []
        claims = (self._add(group_id, some) for group_id, some in by_group.items())
        return [claim for claim in claims if claim is not None]

    def _add(self, group_id: str, parts: list[ChordPart]) -> ChordClaim | None:
        rows = {_place(part): as_row(group_id, *_place(part), part.payload) for part in parts}

        def count(database: _Database) -> ChordClaim | None:
            if not database.change(database.say.count, gid=group_id, new=len(rows)):
                return None
            known = database.known(group_id, [task_id for _, task_id in rows])
            places = {(row.position, row.task_id) for row in known}
            adopted = {row.task_id for row in known if row.adopted}
            new = [row for place, row in rows.items() if place not in places and place[1] not in adopted]
            if len(new) < len(rows):
                database.change(database.say.count, gid=group_id, new=len(new) - len(rows))
            if new:
                database.connection.execute(database.say.part, new)
            return self._claim(database, parts[-1])

        return self._run(count)

    def _claim(self, database: _Database, part: ChordPart) -> ChordClaim | None:
        """The claim, in a transaction that has locked the chord: None while members are missing."""
        [state] = database.ask(database.say.state, gid=part.group_id)
        if state.size is None or state.missing > 0:
            return None
        if not state.free:
            return ChordClaim(part, "")
        return ChordClaim(part, self._token(database, part.group_id, part.body))

    def _token(self, database: _Database, group_id: str, body: bytes | None = None) -> str:
        token = uuid.uuid4().hex
        database.change(database.say.claim, gid=group_id, new_token=token, new_body=body)
        return token

    def members(self, group_id: str) -> list[Member]:
        rows = self._run(lambda database: database.ask(database.say.parts, gid=group_id))
        mine = [row.task_id for row in rows if row.payload is None]
        records = {record["task_id"]: record for record in self._backend.get_many_meta(mine)}
        return [self._member(row, records) for row in rows]

    def _member(self, row: Any, records: dict[str, Any]) -> Member:
        if row.payload is not None:
            return read_members(self._backend, [bytes(row.payload)])[0]
        record = records[row.task_id]
        if record["status"] not in states.READY_STATES:
            raise exceptions.ChordError(f"The record of {row.task_id} has been deleted")
        return Member(row.task_id, record["status"], record["result"])

    def extend(self, group_id: str) -> None:
        self._run(lambda database: database.change(database.say.extend, gid=group_id))

    # -- claims

    def hold(self, claim: ChordClaim) -> bool:
        return self._run(lambda database: database.change(database.say.hold, **_of(claim))) > 0

    def close(self, claim: ChordClaim) -> None:
        def work(database: _Database) -> None:
            if database.change(database.say.close, **_of(claim)):
                database.change(database.say.forget_parts, gid=claim.part.group_id)

        self._run(work)

    # -- producers

    def counts(self, body: Mapping[str, Any]) -> bool:
        pickled = "pickle" in (self._backend.app.conf.task_serializer, (body.get("options") or {}).get("serializer"))
        return not pickled and body_as_json(body) is not None and self._attended()

    def _attended(self) -> bool:
        """Rule 1."""
        now = time.monotonic()
        if now < self._attended_until:
            return True
        try:
            if not self._ready():
                return False
            left = self._run(lambda database: database.ask(database.say.attended, at_home=self._home))
        except exceptions.OperationalError:  # sending is no matter of the database where it need not count
            return False
        seconds = float(left[0][0]) if left else 0.0
        self._attended_until = now + min(seconds, _BELIEVED)
        return seconds > 0

    def open(self, group_id: str, body: bytes, lease: float) -> bool:
        def work(database: _Database) -> bool:
            if database.change(database.say.open_again, gid=group_id, lease=lease):
                return True
            closed = database.ask(database.say.state, gid=group_id)
            if not closed:
                database.change(database.say.open, gid=group_id, at_home=self._home, new_body=body, lease=lease)
            return not closed

        return self._insist(work)

    def sent(self, group_id: str) -> None:
        self._run(lambda database: database.change(database.say.sent, gid=group_id))

    # -- those who look

    def abandoned(self) -> list[ChordClaim]:
        found: list[ChordClaim] = []
        try:
            if self._ready():
                for group_id in self._insist(self._attend):
                    claim = self._run(functools.partial(self._look, group_id=group_id))
                    found.extend(() if claim is None else [claim])
                self.delete_expired()
        except sa.exc.DBAPIError:  # somebody dropped the tables, say: that ends no worker
            logger.exception("Nobody can look after the chords in the result database")
        return found

    def _attend(self, database: _Database) -> list[str]:
        """Say that we look; the chords that it is time to look at."""
        say, mine = database.say, {"at_home": self._home, "lease": _ATTENDS}
        if not database.change(say.attend_again, **mine):
            database.change(say.attend, **mine)
        return [row.group_id for row in database.ask(say.due, at_home=self._home)]

    def _look(self, database: _Database, group_id: str) -> ChordClaim | None:
        say = database.say
        if not database.change(say.take, gid=group_id):
            return None
        [state] = database.ask(say.state, gid=group_id)
        if not state.free:
            database.change(say.look_at, gid=group_id, moment=state.claim_ends)
            return None
        [chord] = database.ask(say.content, gid=group_id)
        missing = None if state.size is None else state.missing
        if missing is not None and missing > 0 and state.lease_ends is None:
            found = self._adopt(database, group_id, chord.members)
            missing -= found
            if missing > 0:
                pause = _AGAIN if found else min(max(float(chord.age or 0.0) * _SHARE, _AGAIN), _SELDOM)
                database.change(say.look_in, gid=group_id, pause=pause)
                return None
        if missing is not None and missing <= 0:
            return self._take_over(database, group_id, chord.body)
        if not state.silent:
            database.change(say.look_at, gid=group_id, moment=state.lease_ends)
            return None
        return orphan(group_id, bytes(chord.body), self._token(database, group_id))

    def _take_over(self, database: _Database, group_id: str, body: bytes | None) -> ChordClaim | None:
        """The claim of a complete chord whose members have all been acknowledged, or never told us."""
        if body is None:  # it began by a hook that does not say; its members bring it
            database.change(database.say.look_at, gid=group_id, moment=None)
            return None
        last = database.ask(database.say.places, gid=group_id)[-1]
        part = ChordPart(group_id, last.task_id, last.position, states.SUCCESS, b"", bytes(body))
        return ChordClaim(part, self._token(database, group_id))

    def _adopt(self, database: _Database, group_id: str, members: bytes | None) -> int:
        """Count members by their records, first come first; how many there were."""
        if members is None:
            return 0
        say = database.say
        told = Counter(row.task_id for row in database.ask(say.places, gid=group_id))
        waiting = []
        for place in enumerate(msgspec.json.decode(members)):
            told[place[1]] -= 1
            if told[place[1]] < 0:
                waiting.append(place)
        found = 0
        for some in _several(waiting):
            ids = [task_id for _, task_id in some]
            finished = {row.task_id for row in database.ask(say.finished, ids=ids)}
            rows = [as_row(group_id, position, id, None) for position, id in some if id in finished]
            if rows:
                database.connection.execute(say.part, rows)
                database.change(say.count, gid=group_id, new=len(rows))
            found += len(rows)
            if len(rows) < len(some):  # it cannot be complete
                break
        return found

    def delete_expired(self) -> None:
        """Forget chords, and marks of those that are over, whose time is out."""

        def some(database: _Database) -> int:
            expired = database.ask(database.say.expired)
            for row in expired:
                if database.change(database.say.forget, gid=row.group_id):
                    database.change(database.say.forget_parts, gid=row.group_id)
            return len(expired)

        while self._ready() and self._run(some):
            pass

    # -- the database

    def _ready(self) -> bool:
        """Whether there are tables to count in; makes them (rule 7).

        Raises:
            OperationalError: the database is away.
        """
        if self._usable is None:
            try:
                self._run(lambda _: None)
            except (sa.exc.DBAPIError, exceptions.OperationalError) as error:
                self._backend._run(lambda connection: connection.execute(sa.select(1)))  # it is away: as any verb
                logger.warning(
                    "Chords are polled for, as the tables to count them in (%s) cannot be made: %s",
                    ", ".join(table.fullname for table in self._tables),
                    getattr(error, "orig", None) or error,
                )
                self._usable = False
            else:
                self._usable = True
        return self._usable

    def _run(self, work: Callable[[_Database], T]) -> T:
        """Call `work` in a transaction of its own."""
        return self._backend._run(lambda connection: work(_Database(connection, self._say(connection))), *self._tables)

    def _insist(self, work: Callable[[_Database], T]) -> T:
        """The same, again when another made the same row meanwhile: it is there then."""
        for _ in range(_TRIES - 1):
            try:
                return self._run(work)
            except sa.exc.IntegrityError:
                continue
        return self._run(work)

    def _say(self, connection: sa.Connection) -> Statements:
        if self._statements is None:
            dialect = connection.dialect.name
            self._statements = Statements(self._tables, self._backend.task_table, dialect, self._terms)
        return self._statements


class _Database:
    """A connection inside a transaction, and what to say."""

    def __init__(self, connection: sa.Connection, say: Statements) -> None:
        self.connection = connection
        self.say = say

    def change(self, statement: Any, **parameters: Any) -> int:
        """How many rows it found."""
        return int(self.connection.execute(statement, parameters).rowcount)

    def known(self, group_id: str, ids: list[str]) -> Sequence[sa.Row[Any]]:
        """Parts of these tasks. PostgreSQL plans anew: a plan kept since the table was small reads all of it."""
        if self.connection.dialect.name != "postgresql":
            return self.ask(self.say.known, gid=group_id, ids=ids)
        self.connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_custom_plan")
        return self.ask(self.say.known_one_by_one, gid=group_id, ids=ids)

    def ask(self, statement: sa.Select[Any], **parameters: Any) -> Sequence[sa.Row[Any]]:
        """All rows."""
        return self.connection.execute(statement, parameters).all()


def _place(part: ChordPart) -> tuple[int, str]:
    return _LAST if part.index is None else part.index, part.task_id


def _group_id(start: ChordStart) -> str:
    return start.group_id


def _of(claim: ChordClaim) -> dict[str, str]:
    return {"gid": claim.part.group_id, "held": claim.token}


def _several(places: list[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    for start in range(0, len(places), IDS_AT_ONCE):
        yield places[start : start + IDS_AT_ONCE]


def _home_of(conf: Any, *tables: str) -> str:
    """Of an application: who has the same may finish its chords (rule 6)."""
    broker = conf.broker_write_url or conf.broker_url
    urls = broker if isinstance(broker, (list, tuple)) else [broker]
    where = [re.sub(r"//[^/@]*@", "//", str(url)) for url in urls]
    queue = (conf.task_default_queue, conf.task_default_exchange, conf.task_default_routing_key)
    return hashlib.sha256(repr((where, queue, tables)).encode()).hexdigest()[:40]
