"""The async lane of a child: many async tasks at once, on an event loop in a thread of its own.

Rules
    1. At most `limit` attempts run; each has a position in the slots for as long as it lasts.
    2. A soft time limit raises SoftTimeLimitExceeded where the task awaits; it may catch it and go on. A hard one
       cancels the task and gives it `GRACE` seconds to end; the attempt fails with TimeLimitExceeded. A task that
       does not let itself be cancelled is seen by the worker in its slot, which then kills the child.
    3. A task that calls exit() ends the child, at once, so that the slots still tell who was running.
    4. A position is free when its outcome was sent: a job that no slot shows and that has no outcome never began.
    5. Outcomes that are ready in the same turn of the loop leave in one frame.
    6. The loop begins with the first job. Until then a thread waits for it in a plain read, which takes a MiB less:
       not the main thread, as an async job does not wait for the sync one that runs there.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from celery import _state
from celery.concurrency import ipc, slots
from celery.concurrency.base import exception_of
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Generator

    from celery.app.outcome import Outcome
    from celery.app.trace import Tracer
    from celery.concurrency.base import Job

#: Seconds between the cancelling of a task and the killing of its child.
GRACE = 1.0


class AsyncLane:
    """Runs async jobs on a loop of its own."""

    def __init__(self, connection: socket.socket, row: memoryview, tracer: Tracer, limit: int) -> None:
        #: To the worker. Becomes readable with the first job.
        self.connection = connection
        self._row = row
        self._tracer = tracer
        self._free = list(range(limit - 1, -1, -1))
        self._frames = ipc.Frames()
        self._sequence = 0
        self._ready: list[tuple[int, Outcome]] = []
        #: Words of the slots that show what is in `_ready`.
        self._places: list[int] = []
        self._running: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._main, name="celery-async", daemon=True)
        self._transport: asyncio.Transport | None = None
        self._stopped: asyncio.Event

    def start(self) -> None:
        """Begin to take jobs."""
        self._thread.start()

    def join(self) -> None:
        """Wait until the worker has said stop and what ran has ended."""
        self._thread.join()

    def _main(self) -> None:
        if not self._wanted():
            self.connection.close()
            return
        _state.set_join_denied(True)
        self._tracer.app.set_current()
        asyncio.run(self._serve())

    def _wanted(self) -> bool:
        """Wait for the first job. False: there will be none."""
        stop = ipc.frame(ipc.Kind.STOP)
        try:
            return self.connection.recv(len(stop), socket.MSG_PEEK) not in (b"", stop)
        except OSError:  # the worker is gone
            return False

    async def _serve(self) -> None:
        self._stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.connection.setblocking(False)
        lane = self

        class Reader(asyncio.BufferedProtocol):
            def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - in asyncio's signature
                return lane._frames.space()

            def buffer_updated(self, nbytes: int) -> None:
                for kind, payload in lane._frames.filled(nbytes):
                    if kind is ipc.Kind.RUN:
                        lane._begin(payload)
                    elif kind is ipc.Kind.STOP:
                        lane._stopped.set()

            def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - in asyncio's signature
                lane._stopped.set()

        transport, _ = await loop.create_connection(Reader, sock=self.connection)
        self._transport = transport
        await self._stopped.wait()
        while self._running:
            await asyncio.wait(self._running)
        self._flush()
        transport.close()

    def _begin(self, jobs: list[Job]) -> None:
        loop, running = asyncio.get_running_loop(), self._running
        expired = []
        for sequence, job in enumerate(jobs, self._sequence + 1):
            if job.expires is not None and job.expires <= time.time():
                expired.append(sequence)
                continue
            task = loop.create_task(self._attempt(sequence, job))
            running.add(task)
            task.add_done_callback(running.discard)
        self._sequence += len(jobs)
        if expired and self._transport is not None:
            self._transport.write(ipc.frame(ipc.Kind.EXPIRED, expired))

    async def _attempt(self, sequence: int, job: Job) -> None:
        place = slots.position(self._free.pop())
        self._row[place + 1] = time.monotonic_ns()
        self._row[place] = sequence
        try:
            outcome = await self._outcome(job)
        except BaseException as exc:  # noqa: BLE001 - it called exit(), which is for this process
            # At once: while the slots show what runs here.
            self._flush()
            os._exit(exc.code if isinstance(exc, SystemExit) and isinstance(exc.code, int) else 1)
        if not self._ready:
            asyncio.get_running_loop().call_soon(self._flush)
        self._ready.append((sequence, outcome))
        self._places.append(place)

    async def _outcome(self, job: Job) -> Outcome:
        tracer, message, info = self._tracer, job.message, job.delivery_info
        if job.aftermath is not None:
            return tracer.aftermath(job.number, message, info, exception_of(job.aftermath))
        soft, hard = job.limits or (None, None)
        coroutine = tracer.arun(job.number, message, info)
        limited = soft is not None or hard is not None
        attempt: Awaitable[Outcome] = _Limited(coroutine, soft, hard) if limited else coroutine
        try:
            return await attempt
        except _HardLimit:
            return tracer.aftermath(job.number, message, info, TimeLimitExceeded(hard))
        except asyncio.CancelledError as exc:
            # Nobody here cancels an attempt for good: the task did so itself, and fails with it.
            return tracer.aftermath(job.number, message, info, exc)

    def _flush(self) -> None:
        if self._ready and self._transport is not None:
            batch, self._ready = self._ready, []
            self._transport.write(ipc.outcomes_frame(batch))
            # Not before: rule 4.
            for place in self._places:
                self._row[place] = 0
                self._free.append((place - slots.position(0)) // 2)
            self._places.clear()


class _HardLimit(Exception):  # noqa: N818 - never leaves this module
    pass


class _Limited:
    """Drives a coroutine, and turns its timers into exceptions at the place where it awaits."""

    def __init__(self, coroutine: Coroutine[Any, Any, Outcome], soft: float | None, hard: float | None) -> None:
        self._coroutine = coroutine
        self._soft = soft
        self._hard = hard
        self._raise: BaseException | None = None

    def __await__(self) -> Generator[Any, Any, Outcome]:
        loop = asyncio.get_running_loop()
        current = asyncio.current_task()
        assert current is not None
        timers = []
        if self._soft is not None:
            timers.append(loop.call_later(self._soft, self._interrupt, current, SoftTimeLimitExceeded()))
        if self._hard is not None:
            timers.append(loop.call_later(self._hard, self._interrupt, current, _HardLimit()))
        try:
            return (yield from self._drive(current))
        finally:
            for timer in timers:
                timer.cancel()

    def _interrupt(self, current: asyncio.Task[Any], exc: BaseException) -> None:
        self._raise = exc
        current.cancel()

    def _drive(self, current: asyncio.Task[Any]) -> Generator[Any, Any, Outcome]:
        step: Any = self._coroutine.send
        value: Any = None
        while True:
            try:
                awaited = step(value)
            except StopIteration as done:
                outcome: Outcome = done.value
                return outcome
            except asyncio.CancelledError:
                if isinstance(self._raise, _HardLimit):
                    raise self._raise from None
                raise
            try:
                value = yield awaited
                step = self._coroutine.send
            except asyncio.CancelledError as cancelled:
                reason, hard = self._raise, isinstance(self._raise, _HardLimit)
                if reason is not None:
                    current.uncancel()
                    self._raise = reason if hard else None
                step = self._coroutine.throw
                value = cancelled if reason is None or hard else reason
