"""What has come back to this process: reply queues, who reads them, the records, and who waits for them.

Vocabulary
    *Seat*: the right to read one reply queue; a queue has one. Its *keeper* is the thread that sits there while nobody
    who waits for a result does.

Rules
    1. A reply queue is read from the first time that anybody asks until the application is gone or its backend closed.
       A closed one that is used again before its keeper has noticed keeps it: two would take messages from each other,
       and the queue goes with the first to leave.
    2. Every record read is kept (the newest state of each task, the last `KEPT` tasks), because nobody can read it
       again, and is then told to the watchers of its task.
    3. A watcher is told of what is kept when it adds an id, under the lock under which records arrive: none falls
       between.
    4. A queue that cannot be read is tried again each second; after `PATIENCE` seconds those who wait get the error.
    5. Who waits sits down at the queue of its own thread, as that is where most results come; to hand each one over
       costs a tenth of a round trip. It is woken when another reader has its record. Where it cannot (the keeper is
       still connecting, the broker's inbox cannot be woken, somebody sits there) it waits to be told.
    6. The keeper stays away from a seat for `_REST` after somebody has left it, unless it is *needed*: an error is to
       be dealt with, or somebody waits for what may come there and sits elsewhere, or nowhere (a *stranger*).
"""

from __future__ import annotations

import logging
import math
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from celery import exceptions, states
from celery.backends.asynchronous import Meta, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from celery.brokers.base import Inbox
    from celery.wire.envelope import Envelope

logger = logging.getLogger(__name__)

#: Records that a process keeps; the oldest go first.
KEPT = 100_000
PATIENCE = 30.0
#: Seconds of one wait of a keeper, and of one without a queue.
_WAIT = 5.0
_PAUSE = 1.0
#: A queue that gives nothing for so long, in seconds, has given all that was in it.
_QUIET = 0.05
#: The longest that a question for a state waits for a keeper to catch up, in seconds.
_CATCH_UP = 10.0
#: Seconds that a keeper leaves a seat free for who sat there last.
_REST = 5.0
#: Seconds that a keeper has to get up, when it is asked to; it may be connecting.
_GET_UP = 0.05


class ReplyQueue:
    """A queue where results may come, and its seat."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.inbox: Inbox | None = None
        #: Held by who sits.
        self.seat = threading.Lock()
        #: Set when what was in the queue is here: it gave nothing for a while, or what came after all that.
        self.caught_up = threading.Event()
        #: The task that was sent last, since the queue is read, of those whose results come here.
        self.latest = ""
        #: Until when the keeper stays away, on the monotonic clock; infinity while somebody else sits.
        self._reserved = 0.0
        self._needed = threading.Event()
        #: It cannot be read, which is for the keeper to mend.
        self.troubled = False

    def sit(self) -> Inbox | None:
        """Take the seat, to be left by `leave`; None: it is not to be had."""
        inbox = self.inbox
        if inbox is None or not inbox.wakes or self.troubled or not self.caught_up.is_set():
            return None
        if not self.seat.acquire(blocking=False):
            if self._reserved == math.inf:
                return None
            self._reserved = time.monotonic() + _REST
            inbox.wake()
            if not self.seat.acquire(timeout=_GET_UP):
                self.need()
                return None
        self._reserved = math.inf
        return inbox

    def leave(self) -> None:
        """Give the seat up."""
        self._reserved = time.monotonic() + _REST
        self.seat.release()

    def need(self) -> None:
        """Somebody has to read this queue now: the keeper, unless somebody sits there."""
        if self._reserved != math.inf:
            self._reserved = 0.0
            self._needed.set()

    def keep(self) -> bool:
        """For the keeper: take the seat; False: it was not to be had for a while."""
        if time.monotonic() >= self._reserved and self.seat.acquire(blocking=False):
            return True
        self._needed.wait(_REST)
        self._needed.clear()
        return False

    def read(self, inbox: Inbox) -> Envelope | None:
        """For the keeper, in the seat: the next message, or None if there is none for a while."""
        envelope = inbox.get(_WAIT if self.caught_up.is_set() else _QUIET)
        self.troubled = False
        if envelope is None:
            self.caught_up.set()
        return envelope

    def look(self) -> Iterator[Envelope]:
        """What has come by now, unless somebody is reading anyway."""
        inbox = self.inbox
        if inbox is None or not self.seat.acquire(blocking=False):
            return
        try:
            while (envelope := inbox.get(0)) is not None:
                yield envelope
        except (exceptions.OperationalError, exceptions.ImproperlyConfigured):
            self.troubled = True
            self.need()
        finally:
            self.seat.release()


class Place(NamedTuple):
    """Where somebody waits."""

    queue: ReplyQueue | None
    #: To read; None: the seat was not to be had.
    inbox: Inbox | None
    #: Whether what is waited for may come elsewhere.
    stranger: bool


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
        # Weak, as nobody closes the watcher of a thread that ends. No WeakSet: to go through one costs more than all
        # else that is done with a record.
        self._watchers: set[weakref.ref[ReplyWatcher]] = set()
        #: Queues where results may come -> until when they are taken to exist, on the monotonic clock.
        self._expected: dict[str, float] = {}
        #: Those that are read.
        self._queues: dict[str, ReplyQueue] = {}
        #: Drains that wait for what may come where they do not sit.
        self._strangers = 0
        self._closed = False

    def expect(self, queue: str, declare: Callable[[str], None], lasts: float, task_id: str) -> None:
        """The result of this task may come to this queue, which exists for `lasts` seconds once it is declared."""
        now = time.monotonic()
        with self._lock:
            self._closed = False
            if (read := self._queues.get(queue)) is not None:
                read.latest = task_id
            if self._expected.get(queue, 0.0) > now:
                return
        declare(queue)
        with self._lock:
            self._expected[queue] = now + lasts
        # Somebody who waits already waits for tasks of all threads.
        if self._queues:
            self.read()

    def read(self) -> None:
        """Have every expected queue read."""
        if not self._closed and len(self._queues) == len(self._expected):
            return
        with self._lock:
            self._closed = False
            fresh = [ReplyQueue(name) for name in self._expected if name not in self._queues]
            self._queues |= {queue.name: queue for queue in fresh}
        for queue in fresh:
            name = f"celery-replies-{queue.name[:8]}"
            threading.Thread(target=_keep, args=(weakref.ref(self), queue), name=name, daemon=True).start()

    def catch_up(self) -> None:
        """Have every expected queue read, and wait until what was in them is here."""
        self.read()
        deadline = time.monotonic() + _CATCH_UP
        for queue in self._read_now():
            queue.caught_up.wait(max(deadline - time.monotonic(), 0.0))
            for envelope in queue.look():
                self.take(queue, envelope)

    def sit(self, name: str, watched: set[str]) -> Place:
        """Sit down at a queue to wait for these tasks, until `rise`."""
        queue = self._queues.get(name)
        inbox = None if queue is None else queue.sit()
        stranger = inbox is None or (len(self._queues) > 1 and watched != {queue.latest if queue else None})
        if stranger:
            with self._lock:
                self._strangers += 1
            for each in self._read_now():
                each.need()
        return Place(queue, inbox, stranger)

    def rise(self, place: Place) -> None:
        """End what `sit` began."""
        if place.stranger:
            with self._lock:
                self._strangers -= 1
        if place.queue is not None and place.inbox is not None:
            place.queue.leave()
            # Only now: a stranger that came before saw that somebody sits.
            if self._strangers or place.queue.troubled:
                place.queue.need()

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
            self._watchers.add(weakref.ref(watcher, self._watchers.discard))
            return [record for task_id in task_ids if (record := self._records.get(task_id)) is not None]

    def delist(self, watcher: ReplyWatcher) -> None:
        """Tell a watcher no more."""
        with self._lock:
            self._watchers.discard(weakref.ref(watcher))

    def close(self) -> None:
        """Forget the records, and have the readers end unless the queues are used again. Idempotent."""
        with self._lock:
            self._closed = True
            self._records.clear()
        for queue in self._read_now():
            queue.need()
            if queue.inbox is not None:
                queue.inbox.wake()

    def _read_now(self) -> list[ReplyQueue]:
        with self._lock:
            return list(self._queues.values())

    # -- for the readers

    def open_inbox(self, queue: str) -> Inbox:
        """Declare a reply queue and read it."""
        return self._open_inbox(queue)

    def give_up(self, queue: ReplyQueue) -> bool:
        """Read a queue no more, if that is wanted."""
        # Under the lock, so that nobody counts on a queue that is about to go.
        with self._lock:
            if not self._closed:
                return False
            self._expected.pop(queue.name, None)
            del self._queues[queue.name]
            queue.caught_up.set()
            if queue.inbox is not None:
                queue.inbox.close()
        return True

    def take(self, queue: ReplyQueue, envelope: Envelope) -> None:
        """A message has come."""
        try:
            record = self._read(envelope)
            task_id, state = str(record["task_id"]), str(record["status"])
        except Exception as error:  # noqa: BLE001 - a message may hold anything, and the reader has to live
            logger.warning("A message in the reply queue %r is no result and is dropped: %s", queue.name, error)
            return
        with self._lock:
            known = self._records.pop(task_id, None)
            if known is not None and not states.may_follow(known["status"], state):
                record = known
            self._records[task_id] = record
            if len(self._records) > KEPT:
                del self._records[next(iter(self._records))]
            watching = list(self._watchers)
        if task_id == queue.latest and not queue.caught_up.is_set():
            queue.caught_up.set()
        for known_watcher in watching:
            if (watcher := known_watcher()) is not None:
                watcher.tell(task_id, record)

    def fail(self, error: Exception) -> None:
        """The broker stays away."""
        with self._lock:
            watching = list(self._watchers)
        for known_watcher in watching:
            if (watcher := known_watcher()) is not None:
                watcher.fail(error)


def _keep(known: weakref.ref[Replies], queue: ReplyQueue) -> None:
    """Keep a queue as long as somebody holds the replies (not this thread: hence the reference)."""
    failing_since: float | None = None
    while known() is not None:
        if not queue.keep():
            continue
        envelope, failed = None, False
        try:
            replies = known()
            if replies is None or replies.give_up(queue):
                break
            inbox = queue.inbox = queue.inbox or replies.open_inbox(queue.name)
            del replies
            envelope = queue.read(inbox)
            failing_since = None
        except (exceptions.OperationalError, exceptions.ImproperlyConfigured) as error:
            failed = queue.troubled = True
            failing_since = failing_since or time.monotonic()
            if time.monotonic() - failing_since >= PATIENCE and (replies := known()) is not None:
                replies.fail(error)
        finally:
            queue.seat.release()
        if failed:
            time.sleep(_PAUSE)
        elif envelope is not None and (replies := known()) is not None:
            replies.take(queue, envelope)
        replies = None
    if queue.inbox is not None:
        queue.inbox.close()


class ReplyWatcher(Watcher):
    """Reports records as they come back."""

    def __init__(self, replies: Replies, queue: str) -> None:
        """Watch nothing yet.

        Args:
            replies: where records arrive.
            queue: the reply queue of the thread that waits, or for which it does.
        """
        self._replies = replies
        self._queue = queue
        #: Where we sit, if we do, and the thread that does.
        self._inbox: Inbox | None = None
        self._sitter = 0
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._watched: set[str] = set()
        self._arrived: deque[Meta] = deque()
        self._failure: Exception | None = None
        self._woken = False

    def add(self, task_ids: Iterable[str]) -> None:
        """Watch these too."""
        fresh = set(task_ids)
        with self._lock:
            self._watched |= fresh
        self._replies.read()
        for record in self._replies.enlist(self, fresh):
            self.tell(record["task_id"], record)

    def discard(self, task_ids: Iterable[str]) -> None:
        """Stop watching these."""
        with self._lock:
            self._watched.difference_update(task_ids)

    def drain(self, timeout: float) -> list[Meta]:
        """Wait for records of watched tasks.

        Raises:
            OperationalError: the broker has stayed away for PATIENCE seconds.
        """
        if not self._news():
            deadline = time.monotonic() + timeout
            place = self._replies.sit(self._queue, self._watched)
            try:
                if place.queue is not None and place.inbox is not None:
                    self._read(place.queue, place.inbox, deadline)
                else:
                    with self._changed:
                        self._changed.wait_for(self._news, timeout)
            finally:
                self._replies.rise(place)
        with self._lock:
            self._woken = False
            found = list(self._arrived)
            self._arrived.clear()
            failure, self._failure = self._failure, None
        if failure is not None and not found:
            raise type(failure)(*failure.args)
        return found

    def _news(self) -> bool:
        return bool(self._arrived or self._failure or self._woken)

    def _read(self, queue: ReplyQueue, inbox: Inbox, deadline: float) -> None:
        """Read the queue until there is news, and what came with it."""
        self._sitter, self._inbox = threading.get_ident(), inbox
        try:
            while (at_hand := inbox.at_hand) or not self._news():
                left = deadline - time.monotonic()
                if left <= 0 and not at_hand:
                    break
                envelope = inbox.get(max(left, 0.0))
                if envelope is not None:
                    self._replies.take(queue, envelope)
        except (exceptions.OperationalError, exceptions.ImproperlyConfigured):
            queue.troubled = True
        finally:
            self._inbox = None

    def _tell_of_news(self) -> None:
        """To whoever drains, one thread at most. Under the lock."""
        inbox = self._inbox
        if inbox is None:
            self._changed.notify_all()
        elif threading.get_ident() != self._sitter:
            inbox.wake()

    def wake(self) -> None:
        """Make a running or the next `drain` return."""
        with self._lock:
            self._woken = True
            self._tell_of_news()

    def close(self) -> None:
        """Watch nothing more."""
        self._replies.delist(self)
        self.wake()

    def tell(self, task_id: str, record: Meta) -> None:
        """A record has come back. Any thread."""
        with self._lock:
            if task_id in self._watched:
                self._arrived.append(record)
                self._tell_of_news()

    def fail(self, error: Exception) -> None:
        """The broker stays away. Any thread."""
        with self._lock:
            self._failure = error
            self._tell_of_news()
