"""A private queue of the file, read blockingly: control replies, events."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from celery.brokers import base
from celery.brokers.sqlite import messages, routes
from celery.brokers.sqlite.bell import MESSAGES
from celery.brokers.sqlite.hearing import Hearing

if TYPE_CHECKING:
    from celery.brokers.sqlite.store import Store
    from celery.brokers.topology import Queue
    from celery.wire.envelope import Envelope

#: Messages that are read at once.
BATCH = 256


class Inbox(base.Inbox):
    """A queue that lasts while it is read, from a connection of its own.

    Args:
        store: the connection; closed with the inbox.
        queue: declared at once, renewed by `get`, deleted by `close`.
    """

    def __init__(self, store: Store, queue: Queue) -> None:
        self._store = store
        self._queue = queue
        self._routes = routes.Routes()
        self._read: deque[Envelope] = deque()
        self._hearing = Hearing(store.path + MESSAGES)
        self._renew_at = 0.0
        self._closed = False
        self._declare()

    def get(self, timeout: float | None) -> Envelope | None:
        """The next message, or None after `timeout` seconds (None: no bound)."""
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
        """Delete the queue. Idempotent."""
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
            rows = messages.take(db, self._queue.name, BATCH)
        self._read.extend(envelope for row in rows if (envelope := messages.read(row[-1])) is not None)

    def _declare(self) -> None:
        """Create the queue, or note that it is being read."""
        with self._store.writing() as db:
            self._routes.declare(db, self._queue, private=True)
        self._renew_at = time.monotonic() + (self._queue.expires or routes.UNREAD_EXPIRY) / 4
