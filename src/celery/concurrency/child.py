"""A child: takes jobs from its socket, makes attempts, sends outcomes back. Runs no I/O of the worker's.

The sync lane is the main thread. It reads a batch, makes its attempts one after the other, and sends the outcomes when
the batch is through, or before the next job once the oldest has waited `FLUSH` seconds. A job that takes longer than
its kind used to would hold back the outcomes before it; a second thread (`_Flusher`) sends those.

A soft time limit is a signal: the worker writes the job into the slot and sends SIGUSR1, and the handler raises
SoftTimeLimitExceeded if that job still runs.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from celery import _state, signals
from celery.app import settling
from celery.app.brokers import load_formats
from celery.app.log import set_process_name
from celery.app.outcome import Disposition
from celery.app.trace import Tracer
from celery.concurrency import calls, ipc, slots
from celery.concurrency.asynclane import AsyncLane
from celery.concurrency.base import exception_of
from celery.exceptions import SoftTimeLimitExceeded
from celery.platforms import set_process_title
from celery.utils.log import get_logger

if TYPE_CHECKING:
    import socket

    from celery.app.base import Celery
    from celery.app.outcome import Outcome
    from celery.concurrency.base import Job

logger = get_logger(__name__)

#: Seconds that a finished outcome may wait for others, and between two looks for those that did so for longer.
FLUSH, _LOOK = 0.002, 0.005
#: Exit status of a child whose worker has vanished.
WORKER_GONE = 75


class SyncLane:
    """Runs sync jobs on the thread that calls `serve`."""

    def __init__(
        self,
        connection: socket.socket,
        row: memoryview,
        tracer: Tracer,
        *,
        max_tasks: int | None = None,
        max_memory: int | None = None,
    ) -> None:
        """Take a lane.

        Args:
            connection: to the worker.
            row: of this child in the slots.
            tracer: makes the attempts.
            max_tasks: retire after so many.
            max_memory: retire when the resident set has grown to so many KiB.
        """
        self._connection = connection
        self._row = row
        self._tracer = tracer
        tracer.before_update = self._wait_until_told
        tracer.patience = self._patience
        self._max_tasks = max_tasks
        self._max_memory = max_memory
        self._may_retire = bool(max_tasks or max_memory)
        self._frames = ipc.Frames()
        self._pending: deque[Job] = deque()
        self._received = 0
        self._stopping = False
        self._flusher = _Flusher(connection)
        self._thread = threading.get_ident()
        self.tasks_done = 0

    def serve(self, beside: AsyncLane | None = None) -> None:
        """Until the worker says stop, is gone, or a limit of this child is reached.

        Args:
            beside: started with the first job, of either lane: the thread of a child that has had none is this one.
        """
        self._connection.sendall(ipc.frame(ipc.Kind.READY))
        if beside is not None:
            first = select.poll()
            for each in (self._connection, beside.connection):
                first.register(each, select.POLLIN)
            first.poll()
            beside.start()
        pending, row, flusher = self._pending, self._row, self._flusher
        sequence = 0
        while True:
            if not pending:
                flusher.flush()
                if self._stopping or not self._read():
                    return
                continue
            job = pending.popleft()
            sequence += 1
            if job.expires is not None and job.expires <= time.time():
                flusher.send(ipc.frame(ipc.Kind.EXPIRED, [sequence]))
                continue
            row[slots.SINCE] = time.monotonic_ns()
            row[slots.BEGUN] = sequence
            if row[slots.FIRST] <= sequence <= row[slots.LAST]:
                row[slots.ENDED] = sequence
                flusher.send(ipc.frame(ipc.Kind.RETURNED, [sequence]))
                continue
            outcome = self._attempt(job)
            row[slots.ENDED] = sequence
            flusher.add(sequence, outcome, last=not pending)
            self.tasks_done += 1
            if self._may_retire and (reason := self._reason_to_retire()):
                self._retire(sequence, reason)
                return

    def _read(self) -> bool:
        """Wait for a frame. False: the worker is gone."""
        count = self._connection.recv_into(self._frames.space())
        if not count:
            return False
        for kind, payload in self._frames.filled(count):
            if kind is ipc.Kind.RUN:
                self._pending.extend(payload)
                self._received += len(payload)
            elif kind is ipc.Kind.STOP:
                self._stopping = True
        return True

    def _attempt(self, job: Job) -> Outcome:
        if job.call is not None:
            return calls.make(job)
        tracer = self._tracer
        try:
            if job.aftermath is not None:
                return tracer.aftermath(job.number, job.message, job.delivery_info, exception_of(job.aftermath))
            return tracer.run(job.number, job.message, job.delivery_info)
        except SoftTimeLimitExceeded as exc:
            # It came between two steps of the attempt, after the body.
            outcome = tracer.unreadable(job.number, job.message, exc)
            outcome.disposition = Disposition.ACK
            return outcome

    def _wait_until_told(self) -> None:
        """A custom state must not be overtaken by the STARTED that the worker writes for a job that lasts: until that
        is out of the way the task waits, at most two seconds.
        """
        row = self._row
        frame = _state.current_frame()
        if frame is None or not frame.task.track_started or not frame.task.backend.async_writer:
            return
        deadline = time.monotonic() + 2.0
        while row[slots.TOLD] < row[slots.BEGUN] and time.monotonic() < deadline:
            time.sleep(0.001)

    def _patience(self) -> float:
        return settling.PATIENCES[self._row[slots.LEAVE]]

    def _reason_to_retire(self) -> str:
        if self._max_tasks and self.tasks_done >= self._max_tasks:
            return f"made {self.tasks_done} attempts (worker_max_tasks_per_child)"
        if self._max_memory:
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            if used >= self._max_memory:
                return f"uses {used} KiB (worker_max_memory_per_child is {self._max_memory})"
        return ""

    def _retire(self, sequence: int, reason: str) -> None:
        rest = list(range(sequence + 1, sequence + 1 + len(self._pending)))
        self._flusher.flush()
        if rest:
            self._flusher.send(ipc.frame(ipc.Kind.RETURNED, rest))
        self._flusher.send(ipc.frame(ipc.Kind.RETIRED, reason))

    def flush(self) -> None:
        """Send what was finished before a task ended the process."""
        self._flusher.flush()

    def close(self) -> None:
        """End the thread of the lane, once `serve` has returned."""
        self._flusher.close()

    def asked_to_end(self, *_: Any) -> None:
        """Handler of SIGTERM: only the worker's word counts."""
        if self._row[slots.TERM]:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    def soft_limit(self, *_: Any) -> None:
        """Handler of SIGUSR1."""
        row = self._row
        if row[slots.SOFT] == row[slots.BEGUN] > row[slots.ENDED] and self._tracer.in_body:
            raise SoftTimeLimitExceeded


class _Flusher:
    """Outcomes on their way to the worker: sent in batches, late ones by a thread of its own."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._batch: list[tuple[int, Outcome]] = []
        self._oldest = 0.0
        self._waiting = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, sequence: int, outcome: Outcome, *, last: bool) -> None:
        """An attempt is over; with `last`, no other is at hand."""
        now = time.monotonic()
        with self._lock:
            if not self._batch:
                self._oldest = now
            self._batch.append((sequence, outcome))
            # After a task that took longer there is nothing to gain from waiting for others.
            late = last or max(now - self._oldest, outcome.runtime) > FLUSH
        if late:
            self.flush()
        elif self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="celery-outcomes", daemon=True)
            self._thread.start()
            self._waiting.set()
        elif not self._waiting.is_set():
            self._waiting.set()

    def flush(self) -> None:
        """Send what there is."""
        with self._lock:
            if self._batch:
                batch, self._batch = self._batch, []
                self._send(ipc.outcomes_frame(batch))

    def send(self, frame: bytes) -> None:
        """Send a frame, after the outcomes before it."""
        self.flush()
        with self._lock:
            self._send(frame)

    def _send(self, frame: bytes) -> None:
        try:
            self._connection.sendall(frame)
        except OSError:
            # The worker is gone: nobody wants this child's work any more, and its messages are delivered again.
            os._exit(WORKER_GONE)

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._waiting.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._closed:
            self._waiting.wait()
            time.sleep(_LOOK)
            self._waiting.clear()
            with self._lock:
                late = bool(self._batch) and time.monotonic() - self._oldest > FLUSH
            if late:
                self.flush()


def serve(
    app: Celery,
    *,
    hostname: str,
    index: int,
    memory: slots.Slots,
    sync_socket: socket.socket,
    async_socket: socket.socket,
    options: dict[str, Any],
) -> None:
    """Be a child, in a process of its own, until told to stop.

    Args:
        app: the application, finalized.
        hostname: node name of the worker.
        index: this child's row, from 0.
        memory: the slots.
        sync_socket: to the worker, for the sync lane.
        async_socket: for the async lane.
        options: of `celery.concurrency.base.Pool`.
    """
    _reset_signals()
    app.set_current()
    app.set_default()
    _become_worker_process(app, hostname, index)
    load_formats(app)
    tracer = Tracer(app, hostname)
    lane = SyncLane(
        sync_socket,
        memory.row(index),
        tracer,
        max_tasks=options.get("max_tasks_per_child"),
        max_memory=options.get("max_memory_per_child"),
    )
    signal.signal(signal.SIGUSR1, lane.soft_limit)
    signal.signal(signal.SIGTERM, lane.asked_to_end)
    if any(task.is_async for task in app.tasks.values()):
        async_lane = AsyncLane(async_socket, memory.row(index), tracer, options.get("async_concurrency") or 100)
    else:
        async_lane = None
    gc.enable()
    exitcode = 0
    try:
        lane.serve(async_lane)
        if async_lane is not None:
            async_lane.join()
    except SystemExit as exc:
        lane.flush()
        exitcode = exc.code if isinstance(exc.code, int) else 1
        raise
    finally:
        if signals.worker_process_shutdown.receivers:
            signals.worker_process_shutdown.send(sender=hostname, pid=os.getpid(), exitcode=exitcode)


def _reset_signals() -> None:
    """CLI-058, save that SIGTERM stays ignored until its handler is there: who signals the whole group asks the worker
    to end, which lets children finish what they run.
    """
    for name in ("SIGHUP", "SIGTTIN", "SIGTTOU"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _become_worker_process(app: Celery, hostname: str, index: int) -> None:
    name = f"ForkPoolWorker-{index + 1}"
    set_process_name(name)
    if not os.environ.get("NOSETPS"):
        set_process_title(f"celeryd: {hostname}:{name}")
    _state.set_join_denied(True)
    app.on_after_fork.send(sender=app)
    app.loader.init_worker_process()
    if signals.worker_process_init.receivers:
        signals.worker_process_init.send(sender=hostname)
