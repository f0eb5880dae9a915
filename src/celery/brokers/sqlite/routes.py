"""Exchanges and bindings in the file, and which queues a message reaches.

Every connection keeps a copy of them, which is valid for one value of `topology.generation`. Whoever changes
a binding draws a new number in the same transaction, so `refresh` inside a transaction is exact; and as no number
comes twice, what was read in a transaction that was undone is never taken for valid.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from celery.brokers.topology import matches
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    from celery.brokers.topology import Binding, Exchange, Queue

#: Seconds that a queue which is to vanish with its readers outlives them.
UNREAD_EXPIRY = 60.0

_GENERATION = "SELECT generation FROM topology"
_GENERATION_AND_LAST = "SELECT generation, (SELECT coalesce(max(id), 0) FROM message) FROM topology"
_CHANGED = "UPDATE topology SET generation = random()"
_EXCHANGES = "SELECT name, type FROM exchange"
_BINDINGS = "SELECT exchange, routing_key, arguments, queue FROM binding"
_ADD_EXCHANGE = "INSERT INTO exchange (name, type) VALUES (?, ?)"
_OF_EXCHANGE = "SELECT queue, routing_key FROM binding WHERE exchange = ? ORDER BY queue, routing_key"
_ADD_BINDING = "INSERT OR IGNORE INTO binding (exchange, routing_key, arguments, queue) VALUES (?, ?, ?, ?)"
_ADD_EXPIRING = """
    INSERT INTO expiring (queue, expires, read_at) VALUES (?, ?, ?)
    ON CONFLICT (queue) DO UPDATE SET expires = excluded.expires, read_at = excluded.read_at"""
_RENEW = "UPDATE expiring SET read_at = ? WHERE queue = ?"
_EXPIRING = "SELECT queue, expires, read_at FROM expiring"
_REMOVE = (
    "DELETE FROM message WHERE id IN (SELECT id FROM waiting WHERE queue = ?)",
    "DELETE FROM waiting WHERE queue = ?",
    "DELETE FROM binding WHERE queue = ?",
    "DELETE FROM expiring WHERE queue = ?",
)

#: Exchange, routing key, arguments as JSON text, queue.
_Row = tuple[str, str, str, str]
_encode = msgspec.json.Encoder(order="deterministic").encode


class Routes:
    """The topology as one connection knows it."""

    def __init__(self) -> None:
        self.generation = -1
        #: Queues that expire and were declared by this connection in this generation.
        self._lasting: set[str] = set()
        #: The queue that was found declared last: most often the next one too.
        self._latest: Queue | None = None
        self._types: dict[str, str] = {}
        self._rows: set[_Row] = set()
        self._bindings: dict[str, list[tuple[str, Mapping[str, Any], str]]] = {}

    def refresh(self, db: sqlite3.Connection) -> None:
        """Read the topology again if it has changed."""
        (generation,) = db.execute(_GENERATION).fetchone()
        if generation != self.generation:
            self._read(db, generation)

    def refresh_and_last(self, db: sqlite3.Connection) -> int:
        """The same, and the greatest id of a message: one statement for who is about to write some."""
        generation, last = db.execute(_GENERATION_AND_LAST).fetchone()
        if generation != self.generation:
            self._read(db, generation)
        return int(last)

    def _read(self, db: sqlite3.Connection, generation: int) -> None:
        self._lasting = set()
        self._latest = None
        self._types = dict(db.execute(_EXCHANGES))
        self._rows = set(db.execute(_BINDINGS))
        self._bindings = {}
        for exchange, routing_key, arguments, queue in sorted(self._rows):
            bound = (routing_key, msgspec.json.decode(arguments), queue)
            self._bindings.setdefault(exchange, []).append(bound)
        self.generation = generation

    def queues(self, exchange: str, routing_key: str, headers: Mapping[str, Any]) -> Iterable[str]:
        """The queues that a message to a named exchange goes to, each once; none when nothing is bound for it."""
        kind = self._types.get(exchange, "direct")
        return dict.fromkeys(
            queue
            for pattern, arguments, queue in self._bindings.get(exchange, ())
            if matches(kind, pattern, routing_key, arguments, headers)
        )

    def declare(self, db: sqlite3.Connection, queue: Queue, *, private: bool = False) -> None:
        """Create what is missing of the queue, its exchanges and bindings, inside a transaction.

        Args:
            db: the connection, in a transaction.
            queue: what to declare.
            private: the queue is its reader's own and vanishes with it.

        Raises:
            ImproperlyConfigured: an exchange exists with another type.
        """
        self.refresh(db)
        changed = False
        for bound in queue.all_bindings():
            changed |= self._declare_exchange(db, bound.exchange, queue.name)
            row = _row(bound, queue)
            if queue.name and row not in self._rows:
                db.execute(_ADD_BINDING, row)
                changed = True
        if changed:
            db.execute(_CHANGED)
            self.refresh(db)
        expires = lifetime(queue, private=private)
        if expires:
            db.execute(_ADD_EXPIRING, (queue.name, expires, time.monotonic()))
            self._lasting.add(queue.name)

    def declare_missing(self, db: sqlite3.Connection, queue: Queue) -> None:
        """Declare the queue of a message unless that would change nothing. After `refresh`, in the same transaction."""
        if queue is not self._latest:
            if not self._declared(queue):
                self.declare(db, queue)
            self._latest = queue

    def _declared(self, queue: Queue) -> bool:
        if not queue.name:
            return all(bound.exchange.name in self._types for bound in queue.all_bindings())
        if lifetime(queue) and queue.name not in self._lasting:
            return False
        return all(_row(bound, queue) in self._rows for bound in queue.all_bindings())

    def _declare_exchange(self, db: sqlite3.Connection, exchange: Exchange, queue: str) -> bool:
        known = self._types.get(exchange.name)
        if known is None:
            db.execute(_ADD_EXCHANGE, (exchange.name, exchange.type))
            self._types[exchange.name] = exchange.type
            return True
        if known != exchange.type:
            raise ImproperlyConfigured(
                f"queue {queue!r}: exchange {exchange.name!r} is declared as type {exchange.type!r} but exists in the "
                f"store as {known!r}; use one type everywhere, or another name"
            )
        return False


def lifetime(queue: Queue, *, private: bool = False) -> float | None:
    """Seconds that a queue outlives its last reader; None: for ever.

    One that RabbitMQ would delete with its last consumer has a time to be found again by a restarted one.
    """
    if private or queue.auto_delete or queue.exclusive:
        return queue.expires or UNREAD_EXPIRY
    return queue.expires


def _row(bound: Binding, queue: Queue) -> _Row:
    return (bound.exchange.name, bound.routing_key, _encode(bound.arguments or {}).decode(), queue.name)


def bindings(db: sqlite3.Connection, exchange: str) -> list[tuple[str, str]]:
    """Queue and routing key of each binding of an exchange, sorted."""
    return db.execute(_OF_EXCHANGE, (exchange,)).fetchall()


def renew(db: sqlite3.Connection, queues: Iterable[str]) -> None:
    """Note that the queues are being read, so that those that expire do not."""
    now = time.monotonic()
    db.executemany(_RENEW, [(now, queue) for queue in queues])


def remove(db: sqlite3.Connection, queue: str) -> None:
    """Delete a queue, its bindings and what waits in it."""
    for statement in _REMOVE:
        db.execute(statement, (queue,))
    db.execute(_CHANGED)


def unread(db: sqlite3.Connection) -> list[str]:
    """Queues that have expired. A moment in the future is from before a restart of the machine."""
    rows = db.execute(_EXPIRING).fetchall()
    now = time.monotonic()
    return [queue for queue, expires, read_at in rows if not now - expires <= read_at <= now]
