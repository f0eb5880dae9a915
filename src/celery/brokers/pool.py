"""Senders for many threads and coroutines: lent out, batched, thrown away after a fork.

Vocabulary
    *Loan*: one thread's use of one Sender, from `lend` to the end of the `with` block. The Sender that came back
    last is lent next: it is the one whose connection is most surely alive.
    *Courier*: the daemon thread that publishes for coroutines. It takes whatever they have handed in by now and
    sends that as one batch; it never waits for more. A job is *taken* when the courier has begun with it; up to
    then the caller may cancel it.
    *Shelf*: all that belongs to one life of the pool: idle Senders, the count of those lent, the courier. `close`
    and a fork end a life; the next use begins another, and a loan from an earlier life never comes back.

Rules
    1. An inherited Sender is neither used nor closed nor collected: its socket, file locks and session are the
       parent's. It stays referenced until the process ends.
    2. A loan that ends by an exception closes its Sender, as half a conversation may be on the wire. The next
       call of that Sender opens a new connection.
    3. Jobs of coroutines are published in the order they came, whatever loop they came from.
    4. What the coroutines of a loop hand in during one turn of it goes to the courier in one piece, at its end: a
       thread that wakes for the first of them would only fight them for the interpreter.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from os import getpid
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from celery import exceptions

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from celery.brokers.base import Publish, Sender

T = TypeVar("T")

#: Shelves of processes that we were forked from (rule 1).
_inherited: list[object] = []

#: How long the end of the interpreter waits for a courier to send what was handed in, in seconds.
EXIT_GRACE = 5.0


class SenderPool:
    """Lends the Senders of one broker.

    Args:
        make: Makes a Sender that is not connected yet.
        limit: How many there may be at once (broker_pool_limit); None or 0: each loan makes one and closes it.
        acquire_timeout: Seconds that a loan may wait for one to come back (broker_pool_acquire_timeout); None: no
            bound.
    """

    def __init__(
        self, make: Callable[[], Sender], limit: int | None = None, acquire_timeout: float | None = None
    ) -> None:
        self._make = make
        self._limit = limit or 0
        self._acquire_timeout = acquire_timeout
        self._turns: dict[asyncio.AbstractEventLoop, deque[_Job]] = {}
        self._shelf = _Shelf(self._limit)

    def lend(self) -> Loan:
        """A Sender for this thread, as a context manager.

        Entering it raises OperationalError when all are lent for longer than `acquire_timeout` (API-016).
        """
        return Loan(self)

    async def apublish(self, batch: Sequence[Publish], *, confirm: bool = False) -> None:
        """As `Sender.publish`, for a coroutine of any event loop.

        Cancelling it keeps the batch from being sent when the courier has not begun with it.
        """
        await self._hand_in(_Job(batch, confirm))

    async def run(self, function: Callable[[Sender], T]) -> T:
        """Call a function with a Sender outside of the event loop and return what it returns.

        It takes its turn among what coroutines publish, so it should be short.
        """
        result: T = await self._hand_in(_Job(function, confirm=False))
        return result

    def _hand_in(self, job: _Job) -> Awaitable[Any]:
        """Give the job to the courier when the turn of its loop is over (rule 4); what to await."""
        turn = self._turns.get(job.loop)
        if turn is None:
            turn = self._turns[job.loop] = deque()
            job.loop.call_soon(self._end_turn, job.loop)
        turn.append(job)
        return job.future

    def _end_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._life().hand_in(_drained(self._turns.pop(loop)), self._make)

    def close(self) -> None:
        """Send what coroutines have handed in, close all Senders; those that are lent close when they come back.

        Idempotent; a later use begins anew.
        """
        shelf = self._life()
        for turn in list(self._turns.values()):
            shelf.hand_in(_drained(turn), self._make)
        self._shelf = _Shelf(self._limit)
        shelf.close()

    def _life(self) -> _Shelf:
        shelf = self._shelf
        if shelf.pid != getpid():
            # Two threads of a new process may both come here. The shelf that loses the race is like a closed one.
            _inherited.append(shelf)
            shelf = self._shelf = _Shelf(self._limit)
        return shelf

    def _fetch(self, shelf: _Shelf) -> Sender:
        """A Sender when none is idle: one that comes back in time, or a new one."""
        sender = shelf.take(self._acquire_timeout)
        if sender is None:
            try:
                sender = self._make()
            except BaseException:
                shelf.give_up(None)
                raise
            shelf.senders.add(sender)
        return sender

    def _retire(self, shelf: _Shelf, sender: Sender) -> None:
        """End a loan of another life, or one without pooling."""
        if shelf.pid == getpid():
            try:
                sender.close()
            finally:
                shelf.give_up(sender)


class Loan:
    """The `with` block that holds a Sender. Not to be shared, nor entered twice at once."""

    __slots__ = ("_pool", "_sender", "_shelf")

    def __init__(self, pool: SenderPool) -> None:
        self._pool = pool

    def __enter__(self) -> Sender:
        pool = self._pool
        shelf = self._shelf = pool._life()
        # The usual case in few steps: it is a good part of what sending to a fast broker costs.
        try:
            sender = self._sender = shelf.idle.pop()
        except IndexError:
            sender = self._sender = pool._fetch(shelf)
        return sender

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        shelf = self._shelf
        if shelf is not self._pool._shelf or not shelf.limit or shelf.pid != getpid():
            self._pool._retire(shelf, self._sender)
            return
        try:
            if kind is not None:
                self._sender.close()
        finally:
            shelf.put_back(self._sender)


class _Shelf:
    """One life of a pool."""

    def __init__(self, limit: int) -> None:
        self.pid = getpid()
        self.limit = limit
        #: Every Sender of this life, lent ones too, so that a fork can keep them all referenced.
        self.senders: set[Sender] = set()
        #: Taken from and added to without the lock: a list does each in one step.
        self.idle: list[Sender] = []
        self._count = 0
        self._waiting = 0
        # Re-entrant: a signal handler may publish while its thread is in here.
        self._returned = threading.Condition(threading.RLock())
        self._courier: _Courier | None = None

    def take(self, timeout: float | None) -> Sender | None:
        """A Sender that comes back in time, or None: the caller may make one."""
        with self._returned:
            # Announced before looking, so that `put_back` either is seen here or sees us.
            self._waiting += 1
            try:
                found = self._returned.wait_for(self._find, timeout)
            finally:
                self._waiting -= 1
        if found is False:
            raise exceptions.OperationalError(
                f"all {self.limit} broker connections of the pool were in use for {timeout} seconds: raise "
                "broker_pool_limit or broker_pool_acquire_timeout, or publish from fewer threads at once"
            )
        return None if found is True else found

    def _find(self) -> Sender | bool:
        """An idle Sender; True when one more may be made (it is counted); False when we have to wait."""
        try:
            return self.idle.pop()
        except IndexError:
            if self.limit and self._count >= self.limit:
                return False
            self._count += 1
            return True

    def put_back(self, sender: Sender) -> None:
        self.idle.append(sender)
        if self._waiting:
            with self._returned:
                self._returned.notify()

    def give_up(self, sender: Sender | None) -> None:
        """A Sender that was counted is no more (None: it could not even be made)."""
        with self._returned:
            self._count -= 1
            if sender is not None:
                self.senders.discard(sender)
            self._returned.notify()

    def hand_in(self, jobs: list[_Job], make: Callable[[], Sender]) -> None:
        """Give jobs to the courier. Under the lock, so that no job comes after the courier's end."""
        if not jobs:
            return
        with self._returned:
            if self._courier is None:
                self._courier = _Courier(make)
            self._courier.jobs.put(jobs)

    def close(self) -> None:
        with self._returned:
            idle, self.idle = self.idle, []
            courier, self._courier = self._courier, None
        if courier is not None:
            courier.stop()
        for sender in idle:
            try:
                sender.close()
            finally:
                self.give_up(sender)


class _Job:
    """What one coroutine wants done, and where it waits for the outcome."""

    __slots__ = ("confirm", "future", "loop", "work")

    def __init__(self, work: Sequence[Publish] | Callable[[Sender], Any], confirm: bool) -> None:
        from asyncio import get_running_loop  # a coroutine makes us, so it is loaded already

        self.work = work
        self.confirm = confirm
        self.loop = get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()


#: A job's outcome: its value, or the error.
_Done = tuple[_Job, Any, BaseException | None]


class _Courier:
    """The thread that publishes for coroutines, with a Sender of its own."""

    def __init__(self, make: Callable[[], Sender]) -> None:
        self._make = make
        self._sender: Sender | None = None
        self.jobs: SimpleQueue[list[_Job] | None] = SimpleQueue()
        self._pid = getpid()
        self._thread = threading.Thread(target=self._serve, name="celery-courier", daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Finish what was handed in and end. Bounded by EXIT_GRACE; harmless in a forked process."""
        atexit.unregister(self.stop)
        if self._pid == getpid() and self._thread.is_alive():
            self.jobs.put(None)
            if threading.current_thread() is not self._thread:
                self._thread.join(EXIT_GRACE)

    def _serve(self) -> None:
        stopping = False
        while not stopping:
            turns = self._turns_at_hand()
            stopping = None in turns
            taken = [job for turn in turns if turn is not None for job in turn if not job.future.cancelled()]
            for group in _groups(taken):
                _tell(self._perform(group))
        if self._sender is not None:
            self._sender.close()

    def _turns_at_hand(self) -> list[list[_Job] | None]:
        """Wait for jobs; them and all that came meanwhile."""
        turns = [self.jobs.get()]
        try:
            while True:
                turns.append(self.jobs.get_nowait())
        except Empty:
            return turns

    def _perform(self, group: list[_Job]) -> list[_Done]:
        """Do jobs that can be done in one call.

        An error that is not the connection's concerns a single message and means that nothing was sent
        (`Sender.publish`): its neighbours are then sent without it.
        """
        try:
            if self._sender is None:
                self._sender = self._make()
            work = group[0].work
            if callable(work):
                return [(group[0], work(self._sender), None)]
            if len(group) > 1:
                work = [publish for job in group if not callable(job.work) for publish in job.work]
            self._sender.publish(work, confirm=group[0].confirm)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits, and the thread serves others
            if len(group) > 1 and not isinstance(error, exceptions.OperationalError):
                return [done for job in group for done in self._perform([job])]
            return [(job, None, error) for job in group]
        return [(job, None, None) for job in group]


def _drained(turn: deque[_Job]) -> list[_Job]:
    """All that is in it, each job for one caller only: a pool may be closed by one thread while another hands in."""
    jobs: list[_Job] = []
    while True:
        try:
            jobs.append(turn.popleft())
        except IndexError:
            return jobs


def _groups(jobs: list[_Job]) -> list[list[_Job]]:
    """Neighbours that may share a call of `Sender.publish`, in order."""
    groups: list[list[_Job]] = []
    for job in jobs:
        before = groups[-1][-1] if groups else None
        if before is None or callable(job.work) or callable(before.work) or job.confirm != before.confirm:
            groups.append([job])
        else:
            groups[-1].append(job)
    return groups


def _tell(outcomes: list[_Done]) -> None:
    """Wake the callers, each on its own loop, one call per loop."""
    loops: dict[asyncio.AbstractEventLoop, list[_Done]] = {}
    for done in outcomes:
        loops.setdefault(done[0].loop, []).append(done)
    for loop, group in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, group)
        except RuntimeError:  # the loop is closed, and nobody waits any more
            continue


def _resolve(outcomes: list[_Done]) -> None:
    for job, value, error in outcomes:
        if job.future.done():
            continue
        if error is None:
            job.future.set_result(value)
        else:
            job.future.set_exception(error)
