"""What has come back to this process: reply queues, their readers, the records, and who waits for them.

Rules
    1. A reply queue is read by one thread from the first time that anybody asks until the application is gone or
       its backend closed. A closed one that is used again before the thread has noticed keeps it: two would take
       messages from each other, and the queue goes with the first to leave.
    2. Every record read is kept (the newest state of each task, the last `KEPT` tasks), because nobody can read it
       again, and is then told to the watchers of its task.
    3. A watcher is told of what is kept when it adds an id, under the lock under which records arrive: none falls
       between.
    4. A queue that cannot be read is tried again each second; after `PATIENCE` seconds those who wait get the error.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING

from celery import exceptions, states
from celery.backends.asynchronous import Meta, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery.brokers.base import Inbox
    from celery.wire.envelope import Envelope

logger = logging.getLogger(__name__)

#: Records that a process keeps; the oldest go first.
KEPT = 100_000
PATIENCE = 30.0
#: Seconds of one wait of a reader, and of one without a queue.
_WAIT = 5.0
_PAUSE = 1.0
#: A queue that gives nothing for so long, in seconds, has given all that was in it.
_QUIET = 0.05
#: The longest that a question for a state waits for a reader to catch up, in seconds.
_CATCH_UP = 10.0


class Replies:
    """Records for this process.

    Args:
        open_inbox: declares a reply queue and reads it.
        read: from a message to its record.
    """

    def __init__(self, open_inbox: Callable[[str], Inbox], read: Callable[[Envelope], Meta]) -> None:
        self._open_inbox = open_inbox
        self._read = read
        self._lock = threading.Lock()
        self._records: dict[str, Meta] = {}
        # Weak, as nobody closes the watcher of a thread that ends.
        self._watchers: weakref.WeakSet[ReplyWatcher] = weakref.WeakSet()
        #: Queues where results may come -> until when they are taken to exist, on the monotonic clock.
        self._expected: dict[str, float] = {}
        #: Those that are read -> set when what was in them is here.
        self._caught_up: dict[str, threading.Event] = {}
        self._closed = False

    def expect(self, queue: str, declare: Callable[[str], None], lasts: float) -> None:
        """Results may come to this queue, which exists for `lasts` seconds once it is declared."""
        now = time.monotonic()
        with self._lock:
            self._closed = False
            if self._expected.get(queue, 0.0) > now:
                return
        declare(queue)
        with self._lock:
            self._expected[queue] = now + lasts
        # Somebody who waits already waits for tasks of all threads.
        if self._caught_up:
            self.read()

    def read(self) -> None:
        """Have every expected queue read."""
        with self._lock:
            self._closed = False
            fresh = {queue: threading.Event() for queue in self._expected if queue not in self._caught_up}
            self._caught_up |= fresh
        for queue, event in fresh.items():
            name = f"celery-replies-{queue[:8]}"
            threading.Thread(target=_follow, args=(weakref.ref(self), queue, event), name=name, daemon=True).start()

    def catch_up(self) -> None:
        """Have every expected queue read, and wait until what was in them is here."""
        self.read()
        deadline = time.monotonic() + _CATCH_UP
        with self._lock:
            events = list(self._caught_up.values())
        for event in events:
            event.wait(max(deadline - time.monotonic(), 0.0))

    def get(self, task_id: str) -> Meta | None:
        """The newest record of a task."""
        return self._records.get(task_id)

    def drop(self, task_id: str) -> None:
        """Keep the record no longer."""
        with self._lock:
            self._records.pop(task_id, None)

    def enlist(self, watcher: ReplyWatcher, task_ids: set[str]) -> list[Meta]:
        """Tell a watcher from now on; what is kept of these tasks already."""
        with self._lock:
            self._watchers.add(watcher)
            return [record for task_id in task_ids if (record := self._records.get(task_id)) is not None]

    def delist(self, watcher: ReplyWatcher) -> None:
        """Tell a watcher no more."""
        with self._lock:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """Forget the records, and have the readers end unless the queues are used again. Idempotent."""
        with self._lock:
            self._closed = True
            self._records.clear()

    # -- for the readers

    def open_inbox(self, queue: str) -> Inbox:
        """Declare a reply queue and read it."""
        return self._open_inbox(queue)

    def leave(self, queue: str, inbox: Inbox | None) -> bool:
        """Give a queue up, if it is time to."""
        # Under the lock, so that nobody counts on a queue that is about to go.
        with self._lock:
            if not self._closed:
                return False
            self._expected.pop(queue, None)
            self._caught_up.pop(queue).set()
            if inbox is not None:
                inbox.close()
        return True

    def take(self, queue: str, envelope: Envelope) -> None:
        """A message has come."""
        try:
            record = self._read(envelope)
            task_id, state = str(record["task_id"]), str(record["status"])
        except Exception as error:  # noqa: BLE001 - a message may hold anything, and the reader has to live
            logger.warning("A message in the reply queue %r is no result and is dropped: %s", queue, error)
            return
        with self._lock:
            known = self._records.pop(task_id, None)
            if known is not None and not states.may_follow(known["status"], state):
                record = known
            self._records[task_id] = record
            if len(self._records) > KEPT:
                del self._records[next(iter(self._records))]
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher.tell(task_id, record)

    def fail(self, error: Exception) -> None:
        """The broker stays away."""
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher.fail(error)


def _follow(known: weakref.ref[Replies], queue: str, caught_up: threading.Event) -> None:
    """Read one queue, as long as somebody holds the replies (not this thread: hence the reference)."""
    inbox: Inbox | None = None
    failing_since: float | None = None
    envelope: Envelope | None = None
    while (replies := known()) is not None:
        if replies.leave(queue, inbox):
            return
        try:
            inbox = inbox or replies.open_inbox(queue)
            del replies
            envelope = inbox.get(_WAIT if caught_up.is_set() else _QUIET)
            failing_since = None
        except (exceptions.OperationalError, exceptions.ImproperlyConfigured) as error:
            failing_since = failing_since or time.monotonic()
            if time.monotonic() - failing_since >= PATIENCE and (replies := known()) is not None:
                replies.fail(error)
            time.sleep(_PAUSE)
            continue
        if envelope is None:
            caught_up.set()
        elif (replies := known()) is not None:
            replies.take(queue, envelope)
    if inbox is not None:
        inbox.close()


class ReplyWatcher(Watcher):
    """Reports records as they come back."""

    def __init__(self, replies: Replies) -> None:
        self._replies = replies
        self._changed = threading.Condition()
        self._watched: set[str] = set()
        self._arrived: deque[Meta] = deque()
        self._failure: Exception | None = None
        self._woken = False

    def add(self, task_ids: Iterable[str]) -> None:
        """Watch these too."""
        fresh = set(task_ids)
        with self._changed:
            self._watched |= fresh
        self._replies.read()
        for record in self._replies.enlist(self, fresh):
            self.tell(record["task_id"], record)

    def discard(self, task_ids: Iterable[str]) -> None:
        """Stop watching these."""
        with self._changed:
            self._watched.difference_update(task_ids)

    def drain(self, timeout: float) -> list[Meta]:
        """Wait for records of watched tasks.

        Raises:
            OperationalError: the broker has stayed away for PATIENCE seconds.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._arrived or self._failure or self._woken, timeout)
            self._woken = False
            found = list(self._arrived)
            self._arrived.clear()
            failure, self._failure = self._failure, None
        if failure is not None and not found:
            raise type(failure)(*failure.args)
        return found

    def wake(self) -> None:
        """Make a running or the next `drain` return."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """Watch nothing more."""
        self._replies.delist(self)
        self.wake()

    def tell(self, task_id: str, record: Meta) -> None:
        """A record has come back. Any thread."""
        with self._changed:
            if task_id in self._watched:
                self._arrived.append(record)
                self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """The broker stays away. Any thread."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()
