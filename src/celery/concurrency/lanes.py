"""Pools of children with lanes: carries jobs and outcomes, and watches the slots.

Jobs wait in the `Dispatcher`, which says who gets which; `LanePool` carries them there and brings outcomes back, and
looks at the slots on a tick while anything runs. What a child is made of (a process, a thread) is for subclasses to
say. See `celery.concurrency.base` for the rules.
"""

from __future__ import annotations

import abc
import asyncio
import signal
import socket
import time
from typing import TYPE_CHECKING, Any, cast

from celery.concurrency import ipc, slots
from celery.concurrency.base import HANDOUT, TICK, Handling, Job, Lost, Pool, PoolEvents
from celery.concurrency.dispatch import Dispatcher, Held, Lane
from celery.exceptions import WorkerLostError
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = get_logger(__name__)

#: Bytes that a socket between worker and child may buffer.
_BUFFER = 1 << 20
#: Seconds that a dead child's sockets may stay open.
_ECHO = 0.5
#: Children that die before their first sign of life: seconds before the next try, doubling.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0
#: Seconds that a child may take to end when nothing is left to run.
_STOP_SECONDS = 30.0
#: Deaths before a first sign of life, in a row, after which a pool that was never up gives up.
_HOPELESS = 6
#: Seconds for the first child to come up: it may have much to import.
START_TIMEOUT = 30.0


class _Channel(Lane, asyncio.BufferedProtocol):
    """A lane and its socket."""

    transport: asyncio.Transport

    def __init__(self, child: Child, capacity: int) -> None:
        super().__init__(capacity)
        self.child = child
        self.closed = True
        #: There is no connection: not yet, or no more.
        self.lost = True
        self._frames = ipc.Frames()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.lost = False

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - in asyncio's signature
        return self._frames.space()

    def buffer_updated(self, nbytes: int) -> None:
        for kind, payload in self._frames.filled(nbytes):
            self.child.pool._arrived(self, kind, payload)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - in asyncio's signature
        # Everything that the child said has been read now.
        self.lost = self.closed = True
        self.child.pool._bury_when_silent(self.child)

    def hand(self, batch: Sequence[Held]) -> None:
        """Send jobs to the child."""
        self.transport.writelines(ipc.run_frame([held.job for held in batch]))


class Child:
    """A process, as the worker sees it."""

    def __init__(self, pool: LanePool, index: int) -> None:
        self.pool = pool
        self.index = index
        self.row = pool.slots.row(index)
        self.pid = 0
        self.sync = _Channel(self, 1)
        self.tasks = _Channel(self, pool.async_limit)
        #: Set when it has given its first sign of life.
        self.ready = asyncio.get_running_loop().create_future()
        self.retiring = False
        #: How it died; None while it lives.
        self.end: str | None = None
        self.buried = False
        #: The job that is being killed, and why.
        self.sentence: tuple[int, Lost] | None = None
        #: Sequence numbers already told as started.
        self._told = 0
        self._told_async: set[int] = set()
        #: A recall (first, last) waits for the tick after it was written.
        self.recall: tuple[int, int] | None = None
        self._soft_sent = 0
        #: Looking after it failed, which is told once.
        self.failed = False

    @property
    def channels(self) -> tuple[_Channel, _Channel]:
        """Both lanes."""
        return self.sync, self.tasks

    def abort(self) -> None:
        """Close the worker's ends of both lanes."""
        for channel in self.channels:
            channel.closed = True
            if not channel.lost:
                channel.transport.abort()

    def running(self) -> list[tuple[_Channel, Held, int]]:
        """What the slots show: lane, job, start in monotonic nanoseconds."""
        row, found = self.row, []
        begun = row[slots.BEGUN]
        if begun > row[slots.ENDED] and (held := self.sync.held.get(begun)) is not None:
            found.append((self.sync, held, row[slots.SINCE]))
        if self.tasks.held:
            for number in range(self.pool.async_limit):
                place = slots.position(number)
                if row[place] and (held := self.tasks.held.get(row[place])) is not None:
                    found.append((self.tasks, held, row[place + 1]))
        return found


class LanePool(Pool):
    """What pools of children share."""

    def __init__(
        self, app: Any, *, concurrency: int, hostname: str, events: PoolEvents, options: dict[str, Any]
    ) -> None:
        super().__init__(app, concurrency=concurrency, hostname=hostname, events=events, options=options)
        self.async_limit: int = options.get("async_concurrency") or 100
        self._has_async = any(task.is_async for task in app.tasks.values())
        self.slots = slots.Slots.make(concurrency, self.async_limit)
        self.dispatcher = Dispatcher()
        self.children: list[Child] = []
        self._ticking: asyncio.TimerHandle | None = None
        self._stopping = False
        self._leave = 0
        self._pause = _FIRST_PAUSE
        #: A child has come up, or it is plain that none will.
        self._first_child: asyncio.Future[None]
        self._stillborn = 0
        self._gone: asyncio.Future[None] | None = None

    # -- children

    @abc.abstractmethod
    def _raise(self, child: Child, sync_socket: socket.socket, async_socket: socket.socket) -> None:
        """Bring a child up; these are its ends of the lanes, closed here afterwards."""

    @abc.abstractmethod
    def _signal(self, child: Child, number: int) -> None:
        """Send a signal to the child, or what stands for it."""

    async def start(self) -> None:
        self._gone = asyncio.get_running_loop().create_future()
        self.children = [Child(self, index) for index in range(self.concurrency)]
        self._first_child = asyncio.get_running_loop().create_future()
        for child in self.children:
            await self._hatch(child)
        wait = max(START_TIMEOUT, self.options.get("proc_alive_timeout") or 0.0)
        await asyncio.wait([self._first_child], timeout=wait)
        if not self._first_child.done():
            raise WorkerLostError("Could not start worker processes")
        self._first_child.result()

    async def _hatch(self, child: Child) -> None:
        if self._stopping:
            return
        self.slots.clear(child.index)
        child.row[slots.LEAVE] = self._leave
        loop = asyncio.get_running_loop()
        ends = []
        for channel in child.channels:
            ours, theirs = socket.socketpair()
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            ours.setblocking(False)
            await loop.create_connection(lambda channel=channel: channel, sock=ours)  # type: ignore[misc]  # mypy cannot type a default that binds the loop variable
            ends.append(theirs)
        self._raise(child, *ends)

    def _ended(self, child: Child, detail: str) -> None:
        """The child is dead; `detail` says how. What it said before is still in the sockets, and is read first."""
        child.end = detail
        # Someone whom the child has started may hold its ends open.
        asyncio.get_running_loop().call_later(_ECHO, self._bury, child)
        self._bury_when_silent(child)

    def _bury_when_silent(self, child: Child) -> None:
        if child.end is not None and all(channel.lost for channel in child.channels):
            self._bury(child)

    def _bury(self, child: Child) -> None:
        """Judge the jobs of a dead child (rule 4), and replace it."""
        if child.buried:
            return
        child.buried = True
        detail = child.end or ""
        child.abort()
        begun = child.row[slots.BEGUN]
        places = {child.row[slots.position(number)] for number in range(self.async_limit)}
        again: list[Held] = []
        for channel in child.channels:
            for held in channel.release_all():
                started = held.sequence <= begun if channel is child.sync else held.sequence in places
                if not started:
                    again.append(held)
                    continue
                self.dispatcher.forget(held.handling)
                if child.sentence is not None and child.sentence[0] == held.job.number:
                    self.events.lost(held.job.number, child.sentence[1])
                else:
                    self.events.lost(held.job.number, Lost("worker-lost", detail, pid=child.pid))
        self.dispatcher.put_back(again)
        child.pid = 0
        if not self._stopping:
            self._replace(child, detail)
        elif not any(each.pid for each in self.children) and self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def _replace(self, child: Child, detail: str) -> None:
        fresh = Child(self, child.index)
        self.children[child.index] = fresh
        lived = child.ready.done()
        if not child.retiring:
            logger.error("A pool process of %s ended with %s", self.hostname, detail)
        self._stillborn += not lived
        if self._stillborn >= _HOPELESS and not self._first_child.done():
            self._first_child.set_exception(WorkerLostError("Could not start worker processes"))
        self._pause = _FIRST_PAUSE if lived else min(2 * self._pause, _LONGEST_PAUSE)
        loop = asyncio.get_running_loop()
        loop.call_later(0 if lived else self._pause, lambda: loop.create_task(self._hatch(fresh)))

    # -- jobs

    def submit(self, jobs: Sequence[tuple[Job, Handling]]) -> None:
        self.dispatcher.add(jobs)
        self._assign()

    def _assign(self) -> None:
        if not self.dispatcher.waits:
            return
        handed = self.dispatcher.assign([child.sync for child in self.children])
        if self.dispatcher.waiting_async:
            handed += self.dispatcher.assign_async([child.tasks for child in self.children])
        for lane, batch in handed:
            assert isinstance(lane, _Channel)
            lane.hand(batch)
        if handed and self._ticking is None:
            self._ticking = asyncio.get_running_loop().call_later(TICK, self._tick)

    def _arrived(self, channel: _Channel, kind: ipc.Kind, payload: Any) -> None:
        child = channel.child
        if kind is ipc.Kind.OUTCOMES:
            channel.stuck = False
            outcomes = self.dispatcher.over(channel, payload)
            self._assign()
            self.events.finished(outcomes)
        elif kind is ipc.Kind.READY:
            child.sync.closed = False
            child.tasks.closed = not self._has_async
            if not child.ready.done():
                child.ready.set_result(None)
            self._stillborn = 0
            if not self._first_child.done():
                self._first_child.set_result(None)
            self._assign()
            self.events.grown()
        elif kind is ipc.Kind.RETURNED:
            self.dispatcher.put_back([held for number in payload if (held := channel.release(number)) is not None])
            self._assign()
        elif kind is ipc.Kind.EXPIRED:
            expired = [held.job.number for number in payload if (held := channel.release(number)) is not None]
            self._assign()
            self.events.expired(expired)
        elif kind is ipc.Kind.RETIRED:
            child.retiring = True
            channel.closed = child.tasks.closed = True
            child.tasks.transport.write(ipc.frame(ipc.Kind.STOP))
            logger.info("Pool process %s retires: it %s", child.pid, payload)

    def withdraw(self, job: int) -> bool:
        return self.dispatcher.remove(job)

    def kill(self, job: int, signal: int) -> bool:
        for child in self.children:
            for _, held, _ in child.running():
                if held.job.number == job:
                    child.sentence = (job, Lost("terminated", str(int(signal)), pid=child.pid))
                    child.row[slots.TERM] = 1
                    self._signal(child, signal)
                    return True
        return False

    def room(self) -> int:
        return self.dispatcher.room([child.sync for child in self.children], [child.tasks for child in self.children])

    def idle(self) -> int:
        return self.dispatcher.idle([child.sync for child in self.children])

    # -- the tick

    def look(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        self._tick()

    def _tick(self) -> None:
        self._ticking = None
        now = time.monotonic_ns()
        offset = time.time() - now / 1e9
        started: list[tuple[int, int, float]] = []
        busy = False
        for child in self.children:
            if not child.sync.held and not child.tasks.held:
                continue
            busy = True
            try:
                for channel, held, since in child.running():
                    if self._first_seen(child, channel, held):
                        started.append((held.job.number, child.pid, since / 1e9 + offset))
                    self._mind_limits(child, channel, held, (now - since) / 1e9)
                self._mind_recall(child, now)
            except Exception:
                # The limits of all others depend on the ticks to come.
                if not child.failed:
                    logger.exception("What pool process %s runs cannot be looked after", child.pid)
                child.failed = True
        if started:
            self.events.started(started)
        if busy:
            self._assign()
            self._ticking = asyncio.get_running_loop().call_later(TICK, self._tick)

    def _first_seen(self, child: Child, channel: _Channel, held: Held) -> bool:
        if channel is child.sync:
            first, child._told = held.sequence > child._told, held.sequence
            return first
        first = held.sequence not in child._told_async
        child._told_async.add(held.sequence)
        if len(child._told_async) > 10 * self.async_limit:
            child._told_async &= child.tasks.held.keys()
        return first

    def _mind_limits(self, child: Child, channel: _Channel, held: Held, seconds: float) -> None:
        soft, hard = held.handling.soft_limit, held.handling.hard_limit
        if channel is child.tasks:
            # The lane keeps the limits itself; this is for a task that does not let itself be cancelled.
            hard = None if hard is None else hard + 1.0
            soft = None
        if hard is not None and seconds >= hard and child.sentence is None:
            child.sentence = (held.job.number, Lost("time-limit", "", _plain(held.handling.hard_limit), child.pid))
            self._signal(child, signal.SIGKILL)
        elif soft is not None and seconds >= soft and child._soft_sent != held.sequence:
            child._soft_sent = held.sequence
            child.row[slots.SOFT] = held.sequence
            logger.warning(
                "Soft time limit (%ss) exceeded for %s[%s]",
                _plain(soft),
                held.handling.task,
                held.job.open()[0].headers.get("id"),
            )
            self._signal(child, signal.SIGUSR1)

    def _mind_recall(self, child: Child, now: int) -> None:
        """Rule 4 of the contract: what a long job holds up goes elsewhere. Two ticks: write, then look."""
        lane, row = child.sync, child.row
        if child.recall is not None:
            first, last = child.recall
            child.recall = None
            begun = row[slots.BEGUN]
            back = [
                held for number in range(max(first, begun + 1), last + 1) if (held := lane.release(number)) is not None
            ]
            self.dispatcher.put_back(back)
            return
        begun = row[slots.BEGUN]
        running = begun > row[slots.ENDED]
        stuck = running and now - row[slots.SINCE] > HANDOUT * 1e9
        lane.stuck = stuck
        if stuck and len(lane.held) > 1:
            child.recall = (begun + 1, lane.sequence)
            row[slots.FIRST], row[slots.LAST] = child.recall

    def told(self, job: int) -> None:
        for child in self.children:
            for channel, held, _ in child.running():
                if held.job.number == job and channel is child.sync:
                    child.row[slots.TOLD] = held.sequence

    # -- the end

    def leave(self, *, hurried: bool) -> None:
        self._leave = 2 if hurried else 1
        for child in self.children:
            child.row[slots.LEAVE] = self._leave

    def info(self) -> dict[str, Any]:
        return {
            "implementation": f"{type(self).__module__}:{type(self).__name__}",
            "max-concurrency": self.concurrency,
            "processes": [child.pid for child in self.children if child.pid],
            "max-tasks-per-child": self.options.get("max_tasks_per_child") or "N/A",
            "put-guarded-by-semaphore": False,
            "timeouts": [self.options.get("soft_time_limit") or 0, self.options.get("time_limit") or 0],
        }

    async def stop(self) -> None:
        self._stopping = True
        for child in self.children:
            for channel in child.channels:
                if child.pid and not channel.lost:
                    channel.transport.write(ipc.frame(ipc.Kind.STOP))
        if self._gone is not None and any(child.pid for child in self.children):
            await asyncio.wait([self._gone], timeout=_STOP_SECONDS)
        for child in self.children:
            if child.pid:
                logger.warning("Pool process %s did not end within %s seconds, and is killed", child.pid, _STOP_SECONDS)
                self._signal(child, signal.SIGKILL)
        await self._all_gone(5.0)

    async def terminate(self) -> None:
        self._stopping = True
        for child in self.children:
            self._signal(child, signal.SIGKILL)
        await self._all_gone(5.0)

    async def _all_gone(self, timeout: float) -> None:
        if self._gone is not None and any(child.pid for child in self.children):
            await asyncio.wait([self._gone], timeout=timeout)
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        for child in self.children:
            child.abort()
        await asyncio.sleep(0)  # in which the transports close


def _plain(seconds: float | None) -> float | None:
    """Whole seconds without a fraction, as people write them: messages hold them as floats."""
    return int(seconds) if seconds is not None and seconds == seconds // 1 else seconds
