"""The broker inside one process: for tests, and for programs that are their own worker.

`memory://name` is the store of that name; `memory://` has the empty name. Everyone in the process who gives the
name shares it: producers on any thread, workers on any loop. A forked process begins with none.

Vocabulary
    *Line*: one queue's waiting messages, first to go on the left, one deque for each priority in use.
    *Held*, *started*: what a Receiver was given and has not settled; after Verdict.START it has moved on to the
    second. A Receiver that vanishes without `close` leaves both as an *estate*, which the store takes back when it
    is next used: held messages return and count as failures, started ones come out again marked lost.
    *Tap*: a queue that is read without acknowledgement (Inbox, listen) hands messages on and holds none.

Rules
    1. One lock guards all of a store, re-entrant for the sake of signal handlers. Nothing waits or calls a user
       under it, and a finalizer only appends to a list, as it may run anywhere.
    2. An idle Receiver is woken once, through its loop, by whatever gives it something to look at.
    3. Priorities are 0 to 9, the smaller first; what is out of range is clamped, what is no number is 0.
    4. A message to a queue that nobody declared creates it; one that no binding takes is dropped, as on RabbitMQ.
    5. Queues that are exclusive or delete themselves go with their last consumer. Expiry, message ttl and length
       limits are not kept: the process ends first.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from heapq import heappop, heappush
from itertools import count
from queue import Empty, SimpleQueue
from time import time
from typing import TYPE_CHECKING, Any

from celery import exceptions
from celery.brokers import base
from celery.brokers.base import Capabilities, DeadLetter, Delivery, Publish, Settlement, Verdict
from celery.brokers.topology import Binding, Queue, matches
from celery.brokers.url import parse
from celery.wire.forms import plain

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from celery.wire.envelope import Envelope

CAPABILITIES = Capabilities(name="memory", started_records=True, transactional=True)

#: Dead letters kept for each queue; the oldest go first.
MAX_DEAD = 10_000

#: An idle Receiver looks around at least this often, in seconds: for estates, and because the clock may be set.
LONGEST_NAP = 5.0


class _Message:
    """A message in the store's care. Several queues have one each."""

    __slots__ = ("envelope", "exchange", "failures", "lost", "priority", "queue", "redelivered", "routing_key")

    def __init__(self, envelope: Envelope, exchange: str, routing_key: str, queue: str) -> None:
        self.envelope = envelope
        self.exchange = exchange
        self.routing_key = routing_key
        self.queue = queue
        self.priority = _level(envelope)
        self.redelivered = False
        self.failures = 0
        self.lost = False


def _level(envelope: Envelope) -> int:
    priority = envelope.properties.get("priority", 0)
    if not isinstance(priority, int):
        return 0
    return priority if 0 <= priority <= 9 else 9 * (priority > 9)


class _Line:
    """One queue."""

    __slots__ = ("consumers", "levels", "tap", "temporary")

    def __init__(self) -> None:
        self.levels: dict[int, deque[_Message]] = {}
        self.consumers: list[weakref.ref[Receiver]] = []
        self.tap: Callable[[Envelope], None] | None = None
        self.temporary = False

    def level(self, priority: int) -> deque[_Message]:
        found = self.levels.get(priority)
        if found is None:
            found = self.levels[priority] = deque()
        return found

    def __len__(self) -> int:
        return sum(map(len, self.levels.values()))


class _Store:
    """One named broker. Its methods take the lock; those with a leading underscore expect it held."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.estates: deque[_Estate] = deque()
        self._lines: dict[str, _Line] = {}
        self._exchanges: dict[str, str] = {}
        self._bindings: dict[str, list[tuple[Binding, str]]] = {}
        self._due: list[tuple[float, int, _Message]] = []
        #: Never used twice, so that the receipt of one Receiver means nothing to another.
        self.tags = count()
        self._sequence = count()
        self._dead: dict[str, deque[DeadLetter]] = {}

    def declare(self, queue: Queue) -> None:
        with self.lock:
            self._declare(queue)

    def _declare(self, queue: Queue) -> None:
        for binding in queue.all_bindings():
            exchange = binding.exchange
            kind = self._exchanges.setdefault(exchange.name, exchange.type)
            if kind != exchange.type:
                raise exceptions.ImproperlyConfigured(
                    f"queue {queue.name!r}: its exchange {exchange.name!r} is declared with type {exchange.type!r}, "
                    f"but exists with type {kind!r}: use the same type everywhere or another name"
                )
            bound = self._bindings.setdefault(exchange.name, [])
            if queue.name and (binding, queue.name) not in bound:
                bound.append((binding, queue.name))
        if not queue.name:
            return
        self._line(queue.name).temporary = queue.auto_delete or queue.exclusive

    def _line(self, name: str) -> _Line:
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line()
        return line

    def publish(self, batch: Iterable[Publish]) -> None:
        with self.lock:
            self._publish(batch)

    def _publish(self, batch: Iterable[Publish]) -> None:
        for publish in batch:
            envelope = plain(publish.envelope)
            for queue in self._targets(publish) if publish.exchange else (publish.routing_key,):
                message = _Message(envelope, publish.exchange, publish.routing_key, queue)
                if publish.until is not None:
                    self._postpone(message, publish.until)
                else:
                    self._append(message)

    def _targets(self, publish: Publish) -> Sequence[str]:
        kind = self._exchanges.get(publish.exchange, "direct")
        hits = (
            queue
            for binding, queue in self._bindings.get(publish.exchange, ())
            if matches(kind, binding.routing_key, publish.routing_key, binding.arguments, publish.envelope.headers)
        )
        return tuple(dict.fromkeys(hits))

    def _append(self, message: _Message) -> None:
        line = self._line(message.queue)
        if line.tap is not None:
            line.tap(message.envelope)
            return
        line.level(message.priority).append(message)
        if line.consumers:
            self._wake(line)

    def _prepend(self, message: _Message) -> None:
        line = self._line(message.queue)
        line.level(message.priority).appendleft(message)
        self._wake(line)

    def _postpone(self, message: _Message, until: float) -> None:
        heappush(self._due, (until, next(self._sequence), message))
        self._wake(self._line(message.queue))

    def _wake(self, line: _Line) -> None:
        for ref in line.consumers:
            receiver = ref()
            if receiver is not None:
                receiver._nudge()

    def _refresh(self) -> float | None:
        """Take estates back and let go what is due; the time of what is due next."""
        while self.estates:
            held, started = self.estates.popleft()
            for message in reversed(held.values()):
                message.redelivered = True
                message.failures += 1
                self._prepend(message)
            self._report_lost(started.values())
        now = time()
        while self._due and self._due[0][0] <= now:
            self._append(heappop(self._due)[2])
        return self._due[0][0] if self._due else None

    def _report_lost(self, started: Iterable[_Message]) -> None:
        for message in started:
            message.redelivered = message.lost = True
            self._prepend(message)

    def bury(self, message: _Message, reason: str) -> None:
        dead = self._dead.setdefault(message.queue, deque(maxlen=MAX_DEAD))
        dead.appendleft(DeadLetter(message.envelope, message.queue, reason, time()))

    def purge(self, queue: str) -> int:
        with self.lock:
            self._refresh()
            dead = self._dead.pop(queue.removesuffix(".dead"), ()) if queue.endswith(".dead") else ()
            line = self._lines.get(queue)
            deleted = len(dead) + (len(line) if line else 0)
            if line:
                line.levels.clear()
            return deleted

    def length(self, queue: str) -> int:
        with self.lock:
            self._refresh()
            dead = self._dead.get(queue.removesuffix(".dead"), ()) if queue.endswith(".dead") else ()
            return len(dead) + len(self._lines.get(queue, ()))

    def dead_letters(self, queue: str, limit: int) -> list[DeadLetter]:
        with self.lock:
            return list(self._dead.get(queue, ()))[:limit]

    def bindings(self, exchange: str) -> list[tuple[str, str]]:
        with self.lock:
            return sorted((queue, binding.routing_key) for binding, queue in self._bindings.get(exchange, ()))

    def replay(self, queue: str, limit: int) -> int:
        with self.lock:
            dead = self._dead.get(queue, deque())
            count = min(limit, len(dead))
            for _ in range(count):
                message = dead.pop().message
                assert not isinstance(message, bytes)  # this store holds no bytes
                self._append(_Message(message, "", queue, queue))
            return count

    def tap(self, queue: Queue, hand_on: Callable[[Envelope], None]) -> None:
        """Declare the queue and give every message in it, and to come, to `hand_on`, which must not block."""
        with self.lock:
            self._declare(queue)
            line = self._line(queue.name)
            line.tap = hand_on
            for level in sorted(line.levels):
                for message in line.levels[level]:
                    hand_on(message.envelope)
            line.levels.clear()

    def attach(self, receiver: Receiver, queue: Queue) -> None:
        with self.lock:
            self._declare(queue)
            line = self._line(queue.name)
            line.consumers = [*(ref for ref in line.consumers if ref() not in {None, receiver}), weakref.ref(receiver)]
            receiver._nudge()

    def detach(self, receiver: Receiver, name: str) -> None:
        with self.lock:
            line = self._line(name)
            line.consumers = [ref for ref in line.consumers if ref() not in {None, receiver}]
            if line.temporary and not line.consumers:
                self._delete(name)

    def delete(self, name: str) -> None:
        with self.lock:
            self._delete(name)

    def _delete(self, name: str) -> None:
        self._lines.pop(name, None)
        for exchange, bound in self._bindings.items():
            self._bindings[exchange] = [(binding, queue) for binding, queue in bound if queue != name]


#: What a Receiver leaves: held and started messages by tag.
_Estate = tuple[dict[int, _Message], dict[int, _Message]]

_stores: dict[str, _Store] = {}
_stores_lock = threading.Lock()


def _store(url: str) -> _Store:
    """The store that a URL names, made on first use."""
    place = parse(url)
    name = (place.host or "") + place.path.rstrip("/")
    with _stores_lock:
        return _stores.setdefault(name, _Store())


def _begin_anew() -> None:
    """A fork copies the stores, and perhaps a lock that nobody will ever release."""
    global _stores_lock  # noqa: PLW0603 - the inherited one may be held by a thread that is not here
    _stores_lock = threading.Lock()
    _stores.clear()


os.register_at_fork(after_in_child=_begin_anew)


class Sender(base.Sender):
    """Publishes to the store that the URL names. No option applies."""

    capabilities = CAPABILITIES

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:  # noqa: ARG002 - every driver's signature
        self._store = _store(url)
        self._declared: set[tuple[str, str]] = set()

    def publish(
        self,
        batch: Sequence[Publish],
        *,
        confirm: bool = False,  # noqa: ARG002 - it has arrived when this returns
        timeout: float | None = None,  # noqa: ARG002 - nothing here waits
    ) -> None:
        for publish in batch:
            queue = publish.queue
            if queue is not None and (queue.name, queue.exchange.name) not in self._declared:
                self.declare((queue,))
        self._store.publish(batch)

    def declare(self, queues: Sequence[Queue]) -> None:
        for queue in queues:
            self._store.declare(queue)
            self._declared.add((queue.name, queue.exchange.name))

    def purge(self, queue: str) -> int:
        return self._store.purge(queue)

    def length(self, queue: str) -> int:
        return self._store.length(queue)

    def inbox(self, queue: Queue) -> Inbox:
        return Inbox(self._store, queue)

    def dead_letters(self, queue: str, limit: int = 100) -> list[DeadLetter]:
        return self._store.dead_letters(queue, limit)

    def replay(self, queue: str, limit: int) -> int:
        return self._store.replay(queue, limit)

    def bindings(self, exchange: str) -> list[tuple[str, str]]:
        return self._store.bindings(exchange)

    def close(self) -> None:
        self._declared.clear()


class Inbox(base.Inbox):
    """A private queue of the store."""

    def __init__(self, store: _Store, queue: Queue) -> None:
        self._store = store
        self._name = queue.name
        self._arrived: SimpleQueue[Envelope] = SimpleQueue()
        store.tap(queue, self._arrived.put)

    def get(self, timeout: float | None) -> Envelope | None:
        try:
            return self._arrived.get(timeout=timeout)
        except Empty:
            return None

    def close(self) -> None:
        self._store.delete(self._name)


class Receiver(base.Receiver):
    """Consumes from the store that the URL names. No option applies."""

    capabilities = CAPABILITIES

    def __init__(self, url: str, options: Mapping[str, Any], *, node: str) -> None:  # noqa: ARG002 - every driver's signature
        self._store = _store(url)
        self._queues: list[str] = []
        self._taps: list[str] = []
        self._held: dict[int, _Message] = {}
        self._started: dict[int, _Message] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Done when there may be something to look at; None: we are not waiting.
        self._awaited: asyncio.Future[None] | None = None

    async def open(self) -> None:
        from asyncio import get_running_loop  # a coroutine is running: it is loaded already

        self._loop = get_running_loop()
        self._estate = weakref.finalize(self, _bequeath, self._store.estates, (self._held, self._started))
        self._estate.atexit = False

    async def consume(self, queue: Queue) -> None:
        if queue.name not in self._queues:
            self._queues.append(queue.name)
        self._store.attach(self, queue)

    async def cancel(self, queue: str) -> None:
        if queue in self._queues:
            self._queues.remove(queue)
            self._store.detach(self, queue)

    async def prefetch(self, count: int) -> None:
        """Nothing is pushed here."""

    async def receive(self, limit: int) -> list[Delivery]:
        while True:
            if self._loop is None:
                raise exceptions.OperationalError("the receiver of the memory broker is closed")
            with self._store.lock:
                due = self._store._refresh()
                batch = self._claim(limit)
                if batch:
                    return batch
                awaited = self._awaited = self._loop.create_future()
            nap = LONGEST_NAP if due is None else min(max(due - time(), 0.0), LONGEST_NAP)
            timer = self._loop.call_later(nap, _finish, awaited)
            try:
                await awaited
            finally:
                timer.cancel()
                self._awaited = None

    def _claim(self, limit: int) -> list[Delivery]:
        """What is there, by priority, and among queues in turn."""
        batch: list[Delivery] = []
        lines = [self._store._line(name) for name in self._queues]
        for priority in sorted({level for line in lines for level in line.levels}):
            for line in lines:
                waiting = line.levels.get(priority)
                while waiting and len(batch) < limit:
                    batch.append(self._deliver(waiting.popleft()))
        if batch:
            self._queues.append(self._queues.pop(0))
        return batch

    def _deliver(self, message: _Message) -> Delivery:
        tag = next(self._store.tags)
        (self._started if message.lost else self._held)[tag] = message
        return Delivery(
            message.envelope,
            tag,
            message.queue,
            message.exchange,
            message.routing_key,
            message.redelivered,
            message.failures,
            message.lost,
        )

    async def settle(self, batch: Sequence[Settlement]) -> list[Delivery]:
        refused: list[Delivery] = []
        returned: list[_Message] = []
        with self._store.lock:
            for settlement in batch:
                tag = settlement.delivery.receipt
                message = None if tag is None else self._held.pop(tag, None) or self._started.pop(tag, None)
                if message is None and tag is not None:
                    refused.append(settlement.delivery)
                    continue
                if settlement.follow:
                    self._publish(settlement.follow)
                if message is not None and settlement.verdict is not Verdict.ACK:
                    self._apply(settlement, message, tag, returned)
            # The first of the batch shall be delivered first again.
            for message in reversed(returned):
                self._store._prepend(message)
        return refused

    def _publish(self, follow: Sequence[Publish]) -> None:
        for publish in follow:
            if publish.queue is not None:
                self._store._declare(publish.queue)
        self._store._publish(follow)

    def _apply(self, settlement: Settlement, message: _Message, tag: int, returned: list[_Message]) -> None:
        """Any verdict but ACK, which leaves nothing to do."""
        verdict = settlement.verdict
        if verdict is Verdict.START:
            self._started[tag] = message
        elif verdict is Verdict.DELAY:
            self._store._postpone(message, settlement.until or 0.0)
        elif verdict is Verdict.DEAD:
            self._store.bury(message, settlement.reason)
        elif verdict is Verdict.REQUEUE:
            message.redelivered = True
            self._store._append(message)
        else:
            message.redelivered = True
            message.failures += verdict is Verdict.LOST
            returned.append(message)

    async def listen(self, queue: Queue, callback: Callable[[Envelope], None]) -> None:
        loop = self._loop
        if loop is None:
            raise exceptions.OperationalError("the receiver of the memory broker is closed")

        def hand_on(envelope: Envelope) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(callback, envelope)

        self._store.tap(queue, hand_on)
        self._taps.append(queue.name)

    async def close(self) -> None:
        if self._loop is None:
            return
        self._estate.detach()
        with self._store.lock:
            for message in reversed(self._held.values()):
                message.redelivered = True
                self._store._prepend(message)
            self._store._report_lost(self._started.values())
            self._held.clear()
            self._started.clear()
        for name in self._queues:
            self._store.detach(self, name)
        for name in self._taps:
            self._store.delete(name)
        self._nudge()
        self._queues.clear()
        self._taps.clear()
        self._loop = None

    def _nudge(self) -> None:
        """Wake `receive`, from any thread, the store's lock held or the receiver closing."""
        awaited, self._awaited = self._awaited, None
        if awaited is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_finish, awaited)


def _finish(awaited: asyncio.Future[None]) -> None:
    if not awaited.done():
        awaited.set_result(None)


def _bequeath(estates: deque[_Estate], estate: _Estate) -> None:
    estates.append(estate)
