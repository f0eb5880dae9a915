"""A receiver's side of the file: taking messages, settling them, and keeping house.

Everything here blocks and runs on the receiver's one database thread. `Leases` decides inside a transaction what is
still ours, and applies a batch of settlements in the order that the contract asks for: what follows, results, verdicts.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from celery.brokers.base import Delivery, Verdict
from celery.brokers.sqlite import chords, liveness, messages, results, routes
from celery.brokers.sqlite.bell import MESSAGES, RESULTS, Bell

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from celery.backends.sqlite import SQLiteBackend
    from celery.brokers.base import Settlement
    from celery.brokers.sqlite.store import Store
    from celery.brokers.topology import Queue
    from celery.wire.envelope import Envelope

#: How many expired results are deleted in one tick, and how many messages of a private queue are read at once.
EXPIRE_LIMIT = 1000
PRIVATE_BATCH = 256
UNREADABLE = "cannot be read as an envelope"

_HELD = "SELECT json_group_array(id) FROM held WHERE owner = ? AND id IN (SELECT value FROM json_each(?))"
_START = "UPDATE held SET started = 1 WHERE id IN (SELECT value FROM json_each(?))"
_RELEASE = "DELETE FROM held WHERE id IN (SELECT value FROM json_each(?))"


class Receipt(NamedTuple):
    """Which message, and as whom we hold it."""

    owner: int
    id: int


class Claim(NamedTuple):
    """What one look at the file has found."""

    #: Named by the queue of the store.
    deliveries: Sequence[Delivery]
    #: Private queue and message; deleted from the file.
    mail: Sequence[tuple[str, Envelope]]
    #: When the next delayed message is due (unix seconds).
    next_due: float | None


class Leases:
    """What one receiver holds.

    Args:
        store: a connection of its own.
        node: name of the worker, for people.
    """

    def __init__(self, store: Store, node: str) -> None:
        self.store = store
        self.node = node
        self.owner = liveness.new_owner()
        #: The backend whose results are stored while settling.
        self.backend: SQLiteBackend | None = None
        self._routes = routes.Routes()
        self._messages = Bell(store.path, MESSAGES)
        self._results = Bell(store.path, RESULTS)
        #: Queues to renew, because they expire when nobody reads them, and those among them that are ours alone.
        self._expiring: dict[str, Queue] = {}
        self._private: set[str] = set()
        self._next_beat = 0.0

    def enter(self) -> None:
        """Begin to live: open the file, take over what the dead have left."""
        with self.store.writing() as db:
            liveness.enter(db, self.owner, self.node)
        self.tick()

    def declare(self, queue: Queue, private: bool = False) -> None:
        """Create the queue; a private one lives as long as this receiver."""
        with self.store.writing() as db:
            self._routes.declare(db, queue, private=private)
        if routes.lifetime(queue, private=private):
            self._expiring[queue.name] = queue
        if private:
            self._private.add(queue.name)

    def leave_alone(self, queue: str) -> None:
        """Renew the queue no more."""
        self._expiring.pop(queue, None)

    def claim(self, queues: Sequence[str], limit: int, private: Sequence[str] = ()) -> Claim:
        """Take up to `limit` of what waits in the queues, the first queue first, and what has come to private ones."""
        with self.store.reading() as db:
            due = messages.next_due(db)
            ripe = due is not None and due <= time.time()
            if not ripe and not messages.any_waiting(db, [*queues, *private]):
                return Claim((), (), due)
        taken: list[Delivery] = []
        with self.store.writing() as db:
            if ripe:
                messages.wake(db, time.time())
                due = messages.next_due(db)
            for queue in queues:
                if len(taken) < limit:
                    taken += self._hold(db, queue, limit - len(taken))
            mail = [(queue, row[-1]) for queue in private for row in messages.take(db, queue, PRIVATE_BATCH)]
        envelopes = [(queue, messages.read(blob)) for queue, blob in mail]
        return Claim(taken, [(queue, envelope) for queue, envelope in envelopes if envelope is not None], due)

    def _hold(self, db: sqlite3.Connection, queue: str, limit: int) -> list[Delivery]:
        held, unreadable = [], []
        for _, id, exchange, routing_key, failures, redelivered, lost, blob in messages.hold(
            db, queue, limit, self.owner
        ):
            envelope = messages.read(blob)
            if envelope is None:
                unreadable.append((id, queue, UNREADABLE))
                continue
            receipt = Receipt(self.owner, id)
            held.append(
                Delivery(envelope, receipt, queue, exchange, routing_key, bool(redelivered), failures, bool(lost))
            )
        if unreadable:
            self._release(db, [id for id, _, _ in unreadable])
            messages.refuse(db, unreadable)
        return held

    def settle(self, batch: Sequence[Settlement]) -> list[Delivery]:
        """Apply settlements in one transaction; the deliveries that were no longer ours."""
        sent = waits = stored = 0
        with self.store.writing() as db:
            ours, refused = self._sort(db, batch)
            counted = None if self.backend is None else chords.Settling(db, ours, self.backend.chords.terms)
            applied = ours if counted is None else counted.begin()
            follow = [publish for item in applied for publish in item.follow]
            if follow:
                sent = messages.insert(db, self._routes, follow)
            stored = self._store_results(db, applied)
            waits = self._apply(db, ours if counted is None else counted.count())
        if sent or waits:
            self._messages.ring()
        if stored:
            self._results.ring()
        if counted is not None:
            counted.tell()
        return refused

    def _sort(self, db: sqlite3.Connection, batch: Sequence[Settlement]) -> tuple[list[Settlement], list[Delivery]]:
        """What of the batch is still ours, and the deliveries that are not."""
        owner = self.owner
        asked = messages.json_list(item.delivery.receipt.id for item in batch if item.delivery.receipt is not None)
        held = set(messages.ids_of(db.execute(_HELD, (owner, asked)).fetchone()[0]))
        ours: list[Settlement] = []
        refused: list[Delivery] = []
        for item in batch:
            if item.delivery.receipt is None:
                ours.append(item)
                continue
            holder, id = item.delivery.receipt
            if holder == owner and id in held:
                ours.append(item)
            else:
                refused.append(item.delivery)
        return ours, refused

    def _store_results(self, db: sqlite3.Connection, ours: Iterable[Settlement]) -> int:
        writes = [write for item in ours for write in item.results]
        if writes and self.backend is not None:
            self.backend.write_in(db, writes)
        return len(writes)

    def _apply(self, db: sqlite3.Connection, ours: Iterable[Settlement]) -> int:
        """Move the messages to where their verdicts say; how many of them others may take now or later."""
        moved: dict[Verdict, list[Settlement]] = {}
        for item in ours:
            if item.delivery.receipt is not None:
                moved.setdefault(item.verdict, []).append(item)
        started = moved.pop(Verdict.START, ())
        if started:
            db.execute(_START, (messages.json_list(item.delivery.receipt.id for item in started),))
        waiting = 0
        for verdict, items in moved.items():
            ids = [item.delivery.receipt.id for item in items]
            self._release(db, ids)
            if verdict is Verdict.ACK:
                messages.forget(db, ids)
                continue
            waiting += len(ids)
            if verdict is Verdict.RETURN or verdict is Verdict.LOST:
                messages.give_back(db, ids, failed=verdict is Verdict.LOST)
            elif verdict is Verdict.REQUEUE:
                messages.put_last(db, ids)
            elif verdict is Verdict.DELAY:
                messages.delay(db, [(item.until or 0.0, item.delivery.receipt.id) for item in items])
            else:
                messages.refuse(db, [(item.delivery.receipt.id, item.delivery.queue, item.reason) for item in items])
        return waiting

    def _release(self, db: sqlite3.Connection, ids: Iterable[int]) -> None:
        db.execute(_RELEASE, (messages.json_list(ids),))

    def tick(self) -> None:
        """Give signs of life, bury the dead, delete what has expired. To be called every `liveness.TICK` seconds."""
        now = time.monotonic()
        if now >= self._next_beat:
            self._beat()
            self._next_beat = now + liveness.BEAT
        with self.store.reading() as db:
            bodies = bool(liveness.dead(db, self.owner)) or liveness.orphaned(db)
            unread = routes.unread(db)
            expired = results.any_expired(db, time.time()) or chords.any_expired(db, time.time())
        if bodies or unread or expired:
            self._bury(expired)

    def _beat(self) -> None:
        with self.store.writing() as db:
            alive = liveness.beat(db, self.owner)
            if not alive:  # we were stopped for longer than a lease, and others have what we held
                self.owner = liveness.new_owner()
                liveness.enter(db, self.owner, self.node)
                for queue in self._expiring.values():
                    self._routes.declare(db, queue, private=queue.name in self._private)
            routes.renew(db, self._expiring)

    def _bury(self, expired: bool) -> None:
        with self.store.writing() as db:
            back = liveness.bury(db, liveness.dead(db, self.owner))
            for queue in routes.unread(db):
                routes.remove(db, queue)
            if expired:
                results.delete_expired(db, time.time(), EXPIRE_LIMIT)
                chords.delete_expired(db, time.time())
        if back:
            self._messages.ring()

    def leave(self) -> None:
        """Give everything back and close the file."""
        try:
            with self.store.writing() as db:
                liveness.leave(db, self.owner)
                for queue in self._private:
                    routes.remove(db, queue)
            self._messages.ring()
        finally:
            self._messages.close()
            self._results.close()
            self.store.close()
