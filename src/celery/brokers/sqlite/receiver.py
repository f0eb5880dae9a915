"""The consuming half of the SQLite driver.

Every call of SQLite runs on one thread of the receiver's own, so that the loop never waits for a disk or a lock; a
batch crosses to it and back once. `receive` looks, and if there is nothing waits for one of four to wake it: the bell,
the moment when the next delayed message is due, the tick of the house-keeping, or a failure. Each look brings the mail
of private queues too; only while `receive` is not waiting is that looked for by itself, and not after every ring.
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
from celery.utils.callthread import CallThread

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from celery.brokers.base import Capabilities, Delivery, Settlement
    from celery.brokers.sqlite.leases import Claim
    from celery.brokers.topology import Queue
    from celery.wire.envelope import Envelope

_T = TypeVar("_T")
#: Seconds of deafness after a ring that `receive` was not waiting for: bounds what a flood costs a busy worker.
_DEAF = 0.01


class Receiver(base.Receiver):
    """Takes messages from the file.

    Args:
        url: `sqlite:///relative.db` or `sqlite:////absolute.db`.
        options: see `Store`.
        node: name of the worker.
    """

    capabilities: ClassVar[Capabilities] = CAPABILITIES
    counts_chords = True

    def __init__(self, url: str, options: Mapping[str, Any], *, node: str) -> None:
        self._leases = Leases(Store(url, options), node)
        self._path = self._leases.store.path
        #: In the order of the next claim.
        self._queues: deque[str] = deque()
        self._listeners: dict[str, Callable[[Envelope], None]] = {}
        self._taken: deque[Delivery] = deque()
        self._claiming: asyncio.Future[Claim] | None = None
        #: There may be something that the last look has not seen.
        self._unseen = True
        #: Wakes `receive`: to look, for what was taken, for a failure.
        self._news = asyncio.Event()
        self._waiting = False
        self._mail = asyncio.Event()
        self._failure: BaseException | None = None
        self._due: asyncio.TimerHandle | None = None
        self._listening = False
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
        self._listen()
        self._duties = [
            asyncio.create_task(self._watch(self._keep_house()), name="celery-sqlite-house"),
            asyncio.create_task(self._watch(self._read_mail()), name="celery-sqlite-mail"),
        ]

    async def consume(self, queue: Queue) -> None:
        """Declare the queue and begin to take messages from it."""
        await self._call(self._leases.declare, queue)
        if queue.name not in self._queues:
            self._queues.append(queue.name)
        self._stir()

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
            # The claim goes on when this call is cancelled, and the next call finds what it took.
            if self._unseen and self._claiming is None:
                self._claim(limit)
            self._news.clear()
            self._waiting = True
            self._listen()
            try:
                await self._news.wait()
            finally:
                self._waiting = False
        return [self._taken.popleft() for _ in range(min(limit, len(self._taken)))]

    def _claim(self, limit: int) -> None:
        queues = list(self._queues)
        self._queues.rotate(-1)
        self._unseen = False
        self._claiming = self._call(self._leases.claim, queues, limit, list(self._listeners))
        self._claiming.add_done_callback(self._claimed)

    def _claimed(self, claiming: asyncio.Future[Claim]) -> None:
        self._claiming = None
        error = claiming.exception()
        if error is not None:
            self._fail(error)
            return
        claim = claiming.result()
        if claim.deliveries:
            self._unseen = True
        self._taken.extend(claim.deliveries)
        if claim.mail:  # there may be more than one look takes
            self._hand_out(claim.mail)
            self._mail.set()
        self._wake_when_due(claim.next_due)
        self._news.set()

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
        hearing, self._hearing = self._hearing, None
        if hearing is not None:
            if (file := hearing.fileno()) is not None:
                asyncio.get_running_loop().remove_reader(file)
            hearing.close()
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

    def _listen(self) -> None:
        """Be called when the bell rings, or every so often where it cannot be heard."""
        if self._listening or self._hearing is None:
            return
        self._listening = True
        if self._undeafen is not None:
            self._undeafen.cancel()
            self._undeafen = None
        file = self._hearing.fileno()
        loop = asyncio.get_running_loop()
        if file is not None:
            loop.add_reader(file, self._ring)
        else:
            loop.call_later(self._hearing.interval, self._ring)

    def _ring(self) -> None:
        if self._hearing is None:
            return
        self._hearing.clear()
        self._stir()
        file = self._hearing.fileno()
        if file is None:
            self._listening = False
            self._listen()
        elif not self._waiting:
            self._listening = False
            loop = asyncio.get_running_loop()
            loop.remove_reader(file)
            self._undeafen = loop.call_later(_DEAF, self._listen)

    def _stir(self) -> None:
        self._unseen = True
        self._news.set()
        if self._listeners and (self._claiming is not None or not self._waiting):
            self._mail.set()

    def _wake_when_due(self, due: float | None) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if due is not None:
            self._due = asyncio.get_running_loop().call_later(max(0.0, due - time.time()), self._stir)

    # -- duties

    async def _keep_house(self) -> None:
        while True:
            await self._call(self._leases.tick)
            self._stir()
            await asyncio.sleep(liveness.TICK)

    async def _read_mail(self) -> None:
        while True:
            await self._mail.wait()
            self._mail.clear()
            while mail := (await self._call(self._leases.claim, (), 0, list(self._listeners))).mail:
                self._hand_out(mail)

    def _hand_out(self, mail: Sequence[tuple[str, Envelope]]) -> None:
        loop = asyncio.get_running_loop()
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
        self._news.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
