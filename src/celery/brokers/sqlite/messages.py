"""Messages as rows: writing, reading, and the moves between their places (see schema.sql).

Every function works inside a transaction of its caller.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from celery.brokers.base import DeadLetter
from celery.brokers.sqlite.rows import MESSAGES, WAITING, insert_alike
from celery.brokers.sqlite.rows import insert as insert_rows
from celery.wire.envelope import Envelope
from celery.wire.forms import Filled, cut, plain, shared_properties

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from celery.brokers.base import Publish
    from celery.brokers.sqlite.routes import Routes
    from celery.wire.forms import Message

#: Suffix of the queue where refused messages wait, and how many of them are kept.
DEAD = ".dead"
DEAD_LIMIT = 10_000
#: Bytes of messages that are written together: they are in memory, and SQLite copies them.
_AT_ONCE = 1 << 20
#: How many delayed messages become due in one transaction.
WAKE_LIMIT = 1000
#: The least urgent priority; 0 is the most urgent (as on Redis, wire.md 3.2).
MAX_PRIORITY = 9

_DELAY = "INSERT INTO delayed (due, id) VALUES"
_FIRST = """
    SELECT w.priority, m.id, m.exchange, m.routing_key, m.failures, m.redelivered, m.lost, m.envelope
    FROM (SELECT priority, id FROM waiting WHERE queue = ? ORDER BY priority, id LIMIT ?) AS w
    CROSS JOIN message AS m ON m.id = w.id"""
_HOLD = "INSERT INTO held (id, owner) SELECT id, ? FROM waiting WHERE queue = ? AND (priority, id) <= (?, ?)"
_TAKE = "DELETE FROM waiting WHERE queue = ? AND (priority, id) <= (?, ?)"
_NEXT_DUE = "SELECT min(due) FROM delayed"
_DUE = "SELECT due, id FROM delayed WHERE due <= ? ORDER BY due, id LIMIT ?"
_WOKEN = "DELETE FROM delayed WHERE (due, id) <= (?, ?)"
_ANY_WAITING = "SELECT 1 FROM waiting WHERE queue IN (SELECT value FROM json_each(?)) LIMIT 1"
_LENGTH = "SELECT count(*) FROM waiting WHERE queue = ?"
_DEAD_LETTERS = """
    SELECT m.envelope, m.reason, m.refused_at
    FROM waiting AS w CROSS JOIN message AS m ON m.id = w.id
    WHERE w.queue = ? ORDER BY w.priority, w.id DESC LIMIT ?"""
_FORGET = "DELETE FROM message WHERE id IN (SELECT value FROM json_each(?))"
_WAIT_AGAIN = """
    INSERT INTO waiting (queue, priority, id)
    SELECT queue, priority, id FROM message WHERE id IN (SELECT value FROM json_each(?))"""
_MARK = """
    UPDATE message SET redelivered = 1, failures = failures + ?, lost = max(lost, ?)
    WHERE id IN (SELECT value FROM json_each(?))"""
_COPY_LAST = """
    INSERT INTO message (queue, priority, exchange, routing_key, failures, redelivered, lost, reason, refused_at,
                         envelope)
    SELECT coalesce(?, queue), CASE WHEN ? THEN 0 ELSE priority END, exchange, routing_key, failures, 1, lost, ?, ?,
           envelope
    FROM message WHERE id = ?"""
_REPLAY = """
    INSERT INTO message (queue, priority, exchange, routing_key, envelope)
    SELECT ?, ?, exchange, routing_key, envelope FROM message WHERE id = ?"""
_REFUSED = """
    SELECT m.id, m.envelope FROM waiting AS w CROSS JOIN message AS m ON m.id = w.id
    WHERE w.queue = ? ORDER BY w.priority, w.id"""
_PURGE = (
    "DELETE FROM message WHERE id IN (SELECT id FROM waiting WHERE queue = ?)",
    "DELETE FROM waiting WHERE queue = ?",
)
_DEAD_EXCESS = "SELECT id FROM waiting WHERE queue = ? ORDER BY priority, id DESC LIMIT -1 OFFSET ?"
_DROP_WAITING = "DELETE FROM waiting WHERE queue = ? AND priority = 0 AND id IN (SELECT value FROM json_each(?))"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode
#: Whose cuts of a form are ours.
_SQLITE = "sqlite"
_ids = msgspec.json.Decoder(list[int]).decode


#: A waiting message as it is read: priority, id, exchange, routing key, failures, redelivered, lost, envelope.
Row = tuple[int, int, str, str, int, int, int, bytes]
#: What messages that are written together share: queue, priority, exchange, routing key, whether they are delayed.
_Place = tuple[str, int, str, str, bool]


def insert(db: sqlite3.Connection, routes: Routes, batch: Iterable[Publish]) -> int:
    """Write messages, each once for every queue that it reaches, declaring what is missing; how many were written."""
    first = last = routes.refresh_and_last(db)
    places: dict[_Place, list[bytes]] = {}
    moments: dict[_Place, list[float]] = {}
    size = 0
    for publish in batch:
        if publish.queue is not None:
            routes.declare_missing(db, publish.queue)
        envelope, exchange, key, until = publish.envelope, publish.exchange, publish.routing_key, publish.until
        blob = None
        priority = priority_of(envelope)
        for queue in routes.queues(exchange, key, envelope.headers) if exchange else (key,):
            if blob is None:
                blob = encode(envelope)
                size += len(blob)
            place = queue, priority, exchange, key, until is not None
            there = places.get(place)
            if there is None:
                there = places[place] = []
            there.append(blob)
            if until is not None:
                moments.setdefault(place, []).append(until)
        if size >= _AT_ONCE:
            last = _write(db, places, moments, last)
            size = 0
    return _write(db, places, moments, last) - first


def _write(
    db: sqlite3.Connection, places: dict[_Place, list[bytes]], moments: dict[_Place, list[float]], last: int
) -> int:
    """Write messages by their places, which are emptied; the id of the last one."""
    for place, blobs in places.items():
        insert_alike(db, MESSAGES, place[:4], last + 1, blobs)
        if place in moments:
            delay(db, [*zip(moments[place], range(last + 1, last + 1 + len(blobs)), strict=True)])
        else:
            insert_alike(db, WAITING, place[:2], last + 1, blobs)
        last += len(blobs)
    places.clear()
    moments.clear()
    return last


def encode(envelope: Message) -> bytes:
    """An envelope as bytes."""
    if type(envelope) is Filled:
        shape = envelope.form.cuts.get(_SQLITE) or cut(envelope.form, _SQLITE, _encode, _encode)
        if shape is not None:
            return shape.fill(envelope)
    return _encode(plain(envelope))


def priority_of(envelope: Message) -> int:
    """The priority that a message waits with: 0 to 9, 0 when it has none or not a number."""
    priority = shared_properties(envelope).get("priority")
    return min(max(priority, 0), MAX_PRIORITY) if isinstance(priority, int) else 0


def next_due(db: sqlite3.Connection) -> float | None:
    """When the first delayed message is due (unix seconds)."""
    due: float | None = db.execute(_NEXT_DUE).fetchone()[0]
    return due


def wake(db: sqlite3.Connection, now: float) -> None:
    """Let delayed messages whose time has come wait in their queues, `WAKE_LIMIT` at a time."""
    due = db.execute(_DUE, (now, WAKE_LIMIT)).fetchall()
    if due:
        db.execute(_WAIT_AGAIN, (json_list(id for _, id in due),))
        db.execute(_WOKEN, due[-1])


def hold(db: sqlite3.Connection, queue: str, limit: int, owner: int) -> list[Row]:
    """Move the first messages of a queue from waiting to held."""
    rows: list[Row] = db.execute(_FIRST, (queue, limit)).fetchall()
    if rows:
        upto = (queue, *rows[-1][:2])
        db.execute(_HOLD, (owner, *upto))
        db.execute(_TAKE, upto)
    return rows


def take(db: sqlite3.Connection, queue: str, limit: int) -> list[Row]:
    """Read the first messages of a queue and delete them: what private queues do."""
    rows: list[Row] = db.execute(_FIRST, (queue, limit)).fetchall()
    if rows:
        db.execute(_TAKE, (queue, *rows[-1][:2]))
        forget(db, [row[1] for row in rows])
    return rows


def forget(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Delete messages that are in no place any more."""
    db.execute(_FORGET, (json_list(ids),))


def give_back(db: sqlite3.Connection, ids: Sequence[int], *, failed: bool = False, lost: bool = False) -> None:
    """Let messages wait where they were in their queues, so that they are delivered next."""
    chosen = json_list(ids)
    db.execute(_MARK, (int(failed), int(lost), chosen))
    db.execute(_WAIT_AGAIN, (chosen,))


def delay(db: sqlite3.Connection, until: Sequence[tuple[float, int]]) -> None:
    """Let messages wait for a moment (unix seconds, id)."""
    insert_rows(db, _DELAY, until)


def put_last(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Let messages wait at the end of their queues."""
    for id in ids:
        _write_again(db, id, (None, False, None, None))
    forget(db, ids)


def refuse(db: sqlite3.Connection, refused: Sequence[tuple[int, str, str]]) -> None:
    """Move messages (id, queue, reason) to the dead queues, each of which keeps its latest `DEAD_LIMIT`."""
    now = time.time()
    for id, queue, reason in refused:
        _write_again(db, id, (queue + DEAD, True, reason, now))
    forget(db, [id for id, _, _ in refused])
    for dead in {queue + DEAD for _, queue, _ in refused}:
        excess = [old for (old,) in db.execute(_DEAD_EXCESS, (dead, DEAD_LIMIT))]
        if excess:
            db.execute(_DROP_WAITING, (dead, json_list(excess)))
            forget(db, excess)


def _write_again(db: sqlite3.Connection, id: int, changes: tuple[str | None, bool, str | None, float | None]) -> None:
    written = db.execute(_COPY_LAST, (*changes, id)).lastrowid
    db.execute(_WAIT_AGAIN, (json_list([written or 0]),))


def any_waiting(db: sqlite3.Connection, queues: Iterable[str]) -> bool:
    """Whether one of the queues has a message to take."""
    return db.execute(_ANY_WAITING, (msgspec.json.encode(list(queues)).decode(),)).fetchone() is not None


def length(db: sqlite3.Connection, queue: str) -> int:
    """How many messages wait in a queue."""
    count: int = db.execute(_LENGTH, (queue,)).fetchone()[0]
    return count


def dead_letters(db: sqlite3.Connection, queue: str, limit: int) -> list[DeadLetter]:
    """What was refused in a queue, the latest first."""
    return [
        DeadLetter(read(blob) or blob, queue, reason or "", refused_at or 0.0)
        for blob, reason, refused_at in db.execute(_DEAD_LETTERS, (queue + DEAD, limit))
    ]


def replay(db: sqlite3.Connection, queue: str, limit: int) -> int:
    """Let what was refused in a queue wait in it again, the earliest first; how many messages."""
    refused = ((id, read(blob)) for id, blob in db.execute(_REFUSED, (queue + DEAD,)))
    readable = ((id, priority_of(envelope)) for id, envelope in refused if envelope is not None)
    chosen = list(islice(readable, max(limit, 0)))
    written = [db.execute(_REPLAY, (queue, priority, id)).lastrowid or 0 for id, priority in chosen]
    db.execute(_WAIT_AGAIN, (json_list(written),))
    ids = [id for id, _ in chosen]
    db.execute(_DROP_WAITING, (queue + DEAD, json_list(ids)))
    forget(db, ids)
    return len(ids)


def read(blob: bytes) -> Envelope | None:
    """The envelope, None when the bytes are none."""
    try:
        return _decode(blob)
    except (msgspec.DecodeError, TypeError):
        return None


def purge(db: sqlite3.Connection, queue: str) -> int:
    """Delete what waits in a queue; how many."""
    deleted = 0
    for statement in _PURGE:
        deleted = db.execute(statement, (queue,)).rowcount
    return deleted


def json_list(ids: Iterable[int]) -> str:
    """Ids as the one parameter of a statement over many rows."""
    return f"[{','.join(map(str, ids))}]"


def ids_of(text: str) -> list[int]:
    """The other way."""
    return _ids(text)
