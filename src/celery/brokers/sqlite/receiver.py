"""The consuming half of the SQLite driver.

Every call of SQLite runs on one thread of the receiver's own, so that the loop never waits for a disk or a lock; a
batch crosses to it and back once. `receive` looks, and if there is nothing waits for one of four to wake it: the bell,
the moment when the next delayed message is due, the tick of the house-keeping, or a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from celery import exceptions
from celery.backends.sqlite import SQLiteBackend
from celery.brokers import base
from celery.brokers.sqlite import liveness
from celery.brokers.sqlite.bell import MESSAGES
from celery.brokers.sqlite.hearing import Hearing
from celery.brokers.sqlite.leases import Leases
from celery.brokers.sqlite.sender import CAPABILITIES
from celery.brokers.sqlite.store import Store
from celery.brokers.sqlite.thread import CallThread

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from celery.brokers.base import Capabilities, Delivery, Settlement
    from celery.brokers.topology import Queue
    from celery.wire.envelope import Envelope

_T = TypeVar("_T")
#: Seconds of deafness after a ring: bounds what a flood of messages costs, and delays no first one.
_DEAF = 0.002


class Receiver(base.Receiver):
    """Takes messages from the file.

    Args:
        url: `sqlite:///relative.db` or `sqlite:////absolute.db`.
        options: see `Store`.
        node: name of the worker.
    """

    capabilities: ClassVar[Capabilities] = CAPABILITIES

    def __init__(self, url: str, options: Mapping[str, Any], *, node: str) -> None:
        self._leases = Leases(Store(url, options), node)
        self._path = self._leases.store.path
        #: In the order of the next claim.
        self._queues: deque[str] = deque()
        self._listeners: dict[str, Callable[[Envelope], None]] = {}
        self._taken: deque[Delivery] = deque()
        self._claiming: asyncio.Future[tuple[list[Delivery], float | None]] | None = None
        self._next_due: float | None = None
        self._stirred = asyncio.Event()
        self._mail = asyncio.Event()
        self._failure: BaseException | None = None
        self._due: asyncio.TimerHandle | None = None
        self._undeafen: asyncio.TimerHandle | None = None
        self._duties: list[asyncio.Task[None]] = []
        self._thread: CallThread | None = None
        self._hearing: Hearing | None = None

    def share(self, backend: object) -> bool:
        """Agree to store the results of a SQLite backend on the same file."""
        if not isinstance(backend, SQLiteBackend) or backend.path != self._path:
            return False
        self._leases.backend = backend
        return True

    async def open(self) -> None:
        """Open the file, take over what the dead have left, begin to listen."""
        self._thread = CallThread("celery-sqlite", asyncio.get_running_loop())
        await self._call(self._leases.enter)
        self._hearing = Hearing(self._path + MESSAGES)
        self._listen_to_bell()
        self._duties = [
            asyncio.create_task(self._watch(self._keep_house()), name="celery-sqlite-house"),
            asyncio.create_task(self._watch(self._read_mail()), name="celery-sqlite-mail"),
        ]

    async def consume(self, queue: Queue) -> None:
        """Declare the queue and begin to take messages from it."""
        await self._call(self._leases.declare, queue)
        if queue.name not in self._queues:
            self._queues.append(queue.name)
        self._stirred.set()

    async def cancel(self, queue: str) -> None:
        """Take no more from the queue."""
        if queue in self._queues:
            self._queues.remove(queue)
            await self._call(self._leases.leave_alone, queue)

    async def prefetch(self, count: int) -> None:
        """Nothing is pushed: the limit of `receive` says it all."""

    async def receive(self, limit: int) -> list[Delivery]:
        """Wait for messages; up to `limit` of what there is."""
        while not self._taken:
            self._raise_failure()
            # Not awaited itself: it goes on when this call is cancelled, and the next one finds what it took.
            await asyncio.wait([self._claiming or self._claim(limit)])
            if not self._taken:
                self._wake_when_due()
                await self._stirred.wait()
        return [self._taken.popleft() for _ in range(min(limit, len(self._taken)))]

    def _claim(self, limit: int) -> asyncio.Future[Any]:
        queues = list(self._queues)
        self._queues.rotate(-1)
        self._stirred.clear()  # here, as what stirs after the look of a claim calls for another one
        self._claiming = self._call(self._leases.claim, queues, limit)
        self._claiming.add_done_callback(self._claimed)
        return self._claiming

    def _claimed(self, claiming: asyncio.Future[tuple[list[Delivery], float | None]]) -> None:
        self._claiming = None
        error = claiming.exception()
        if error is not None:
            self._fail(error)
            return
        deliveries, self._next_due = claiming.result()
        self._taken.extend(deliveries)

    async def settle(self, batch: Sequence[Settlement]) -> list[Delivery]:
        """Apply settlements, all in one transaction; the deliveries that were no longer ours."""
        return await self._call(self._leases.settle, batch) if batch else []

    async def listen(self, queue: Queue, callback: Callable[[Envelope], None]) -> None:
        """Declare a private queue and call back for each of its messages."""
        await self._call(self._leases.declare, queue, True)
        self._listeners[queue.name] = callback
        self._mail.set()

    async def close(self) -> None:
        """Give everything back, end duties and thread. Idempotent."""
        thread, self._thread = self._thread, None
        self._fail(exceptions.OperationalError(f"{self._path}: this receiver is closed"))
        for timer in (self._due, self._undeafen):
            if timer is not None:
                timer.cancel()
        for duty in self._duties:
            duty.cancel()
        await asyncio.gather(*self._duties, return_exceptions=True)
        self._duties = []
        if self._hearing is not None:
            if (file := self._hearing.fileno()) is not None:
                asyncio.get_running_loop().remove_reader(file)
            self._hearing.close()
        if thread is not None:
            # A claim still on its way is ahead of this in the thread's queue.
            with contextlib.suppress(exceptions.OperationalError, exceptions.ImproperlyConfigured):
                await thread.call(self._leases.leave)
            thread.end()

    def _call(self, function: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:
        if self._thread is None:
            raise exceptions.OperationalError(f"{self._path}: this receiver is not open")
        return self._thread.call(function, *args)

    # -- waking up

    def _listen_to_bell(self) -> None:
        """Be called when the bell rings, or every so often where it cannot be heard."""
        assert self._hearing is not None
        file = self._hearing.fileno()
        loop = asyncio.get_running_loop()
        if file is not None:
            loop.add_reader(file, self._ring)
        else:
            self._undeafen = loop.call_later(self._hearing.interval, self._ring)

    def _ring(self) -> None:
        assert self._hearing is not None
        self._hearing.clear()
        self._stir()
        file = self._hearing.fileno()
        if file is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(file)
            self._undeafen = loop.call_later(_DEAF, self._listen_to_bell)
        else:
            self._listen_to_bell()

    def _stir(self) -> None:
        self._stirred.set()
        if self._listeners:
            self._mail.set()

    def _wake_when_due(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._next_due is not None:
            wait = max(0.0, self._next_due - time.time())
            self._due = asyncio.get_running_loop().call_later(wait, self._stirred.set)

    # -- duties

    async def _keep_house(self) -> None:
        while True:
            await self._call(self._leases.tick)
            self._stir()
            await asyncio.sleep(liveness.TICK)

    async def _read_mail(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._mail.wait()
            self._mail.clear()
            while mail := await self._call(self._leases.take_private, list(self._listeners)):
                for queue, envelope in mail:
                    # By way of the loop: an error in one callback is reported there and stops nothing here.
                    loop.call_soon(self._listeners[queue], envelope)

    async def _watch(self, duty: Coroutine[Any, Any, None]) -> None:
        """Run a duty; its failure is the receiver's."""
        try:
            await duty
        except Exception as exc:  # noqa: BLE001 - raised again to whoever waits in receive
            self._fail(exc)

    def _fail(self, exc: BaseException) -> None:
        self._failure = self._failure or exc
        self._stirred.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
