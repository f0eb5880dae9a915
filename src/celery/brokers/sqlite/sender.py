"""The publishing half of the SQLite driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from celery.brokers import base
from celery.brokers.base import Capabilities
from celery.brokers.sqlite import messages, routes
from celery.brokers.sqlite.bell import MESSAGES, Bell
from celery.brokers.sqlite.inbox import Inbox
from celery.brokers.sqlite.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery.brokers.base import DeadLetter, Publish
    from celery.brokers.topology import Queue

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
        """Write all in one transaction, which is its own confirmation; `timeout` bounds the wait for other writers."""
        if not batch:
            return
        with self._store.writing(timeout) as db:
            written = messages.insert(db, self._routes, batch)
        if written:
            self._bell.ring()

    def declare(self, queues: Sequence[Queue]) -> None:
        """Create exchanges and bindings that do not exist."""
        with self._store.writing() as db:
            for queue in queues:
                self._routes.declare(db, queue)

    def purge(self, queue: str) -> int:
        """Delete what waits in the queue; how many messages."""
        with self._store.writing() as db:
            return messages.purge(db, queue)

    def length(self, queue: str) -> int:
        """How many messages wait in the queue; those delayed do not."""
        with self._store.reading() as db:
            return messages.length(db, queue)

    def inbox(self, queue: Queue) -> Inbox:
        """Declare a private queue and read it, on a connection of its own."""
        return Inbox(Store(self._url, self._options), queue)

    def dead_letters(self, queue: str, limit: int = 100) -> list[DeadLetter]:
        """What waits in `<queue>.dead`, the latest first."""
        with self._store.reading() as db:
            return messages.dead_letters(db, queue, limit)

    def replay(self, queue: str, limit: int) -> int:
        """Let them wait in their queue again, in one transaction."""
        with self._store.writing() as db:
            sent = messages.replay(db, queue, limit)
        if sent:
            self._bell.ring()
        return sent

    def bindings(self, exchange: str) -> list[tuple[str, str]]:
        """Those in the file."""
        with self._store.reading() as db:
            return routes.bindings(db, exchange)

    def close(self) -> None:
        """Close file and bell. Idempotent; a later call opens them again."""
        self._store.close()
        self._bell.close()
