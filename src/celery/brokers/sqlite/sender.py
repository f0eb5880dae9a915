"""The publishing half of the SQLite driver, and its private queues."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

from celery.brokers import base
from celery.brokers.base import Capabilities
from celery.brokers.sqlite import messages, routes
from celery.brokers.sqlite.bell import MESSAGES, Bell
from celery.brokers.sqlite.store import Store

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from celery.brokers.base import DeadLetter, Publish
    from celery.brokers.topology import Queue
    from celery.wire.envelope import Envelope

#: Priorities are Redis's (0 is the most urgent and the default), all ten levels apart.
CAPABILITIES = Capabilities(
    name="sqlite",
    max_priority=messages.MAX_PRIORITY,
    high_priority_first=False,
    delay=True,
    fanout=True,
    started_records=True,
    transactional=True,
    confirms=False,
)
#: Messages that an inbox reads at once.
INBOX_BATCH = 256


class Sender(base.Sender):
    """Publishes into the file. A batch is one transaction: all of it or nothing.

    Args:
        url: `sqlite:///relative.db` or `sqlite:////absolute.db`.
        options: see `Store`.
    """

    capabilities: ClassVar[Capabilities] = CAPABILITIES

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._url = url
        self._options = options
        self._store = Store(url, options)
        self._routes = routes.Routes()
        self._bell = Bell(self._store.path, MESSAGES)

    def publish(self, batch: Sequence[Publish], *, confirm: bool = False, timeout: float | None = None) -> None:  # noqa: ARG002 - a commit is its own confirmation
        with self._store.writing(timeout) as db:
            self._declare_targets(db, batch)
            written = messages.insert(db, self._routes, batch)
        if written:
            self._bell.ring()

    def _declare_targets(self, db: sqlite3.Connection, batch: Sequence[Publish]) -> None:
        last = None
        for publish in batch:
            queue = publish.queue
            if queue is not None and queue is not last:
                self._routes.refresh(db)
                if not self._routes.declared(queue):
                    self._routes.declare(db, queue)
                last = queue

    def declare(self, queues: Sequence[Queue]) -> None:
        with self._store.writing() as db:
            for queue in queues:
                self._routes.declare(db, queue)

    def purge(self, queue: str) -> int:
        with self._store.writing() as db:
            return messages.purge(db, queue)

    def length(self, queue: str) -> int:
        with self._store.reading() as db:
            return messages.length(db, queue)

    def inbox(self, queue: Queue) -> Inbox:
        return Inbox(Store(self._url, self._options), queue)

    def dead_letters(self, queue: str, limit: int = 100) -> list[DeadLetter]:
        with self._store.reading() as db:
            return messages.dead_letters(db, queue, limit)

    def close(self) -> None:
        self._store.close()
        self._bell.close()


class Inbox(base.Inbox):
    """A private queue, read from a connection of its own."""

    def __init__(self, store: Store, queue: Queue) -> None:
        # Loads ctypes, which processes that only publish do without.
        from celery.brokers.sqlite.hearing import Hearing

        self._store = store
        self._queue = queue
        self._routes = routes.Routes()
        self._read: deque[Envelope] = deque()
        self._hearing = Hearing(store.path + MESSAGES)
        self._renew_at = 0.0
        self._closed = False
        self._declare()

    def get(self, timeout: float | None) -> Envelope | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._read:
            self._hearing.clear()
            self._take()
            if self._read:
                break
            left = self._hearing.interval if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return None
            self._hearing.wait(left)
        return self._read.popleft()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._hearing.close()
        with self._store.writing() as db:
            routes.remove(db, self._queue.name)
        self._store.close()

    def _take(self) -> None:
        if time.monotonic() >= self._renew_at:
            self._declare()
        with self._store.reading() as db:
            if not messages.any_waiting(db, [self._queue.name]):
                return
        with self._store.writing() as db:
            rows = messages.take(db, self._queue.name, INBOX_BATCH)
        self._read.extend(envelope for row in rows if (envelope := messages.read(row[-1])) is not None)

    def _declare(self) -> None:
        """Create the queue, or note that it is being read."""
        with self._store.writing() as db:
            self._routes.declare(db, self._queue, private=True)
        self._renew_at = time.monotonic() + (self._queue.expires or routes.UNREAD_EXPIRY) / 4
