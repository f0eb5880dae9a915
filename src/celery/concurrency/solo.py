"""The solo pool: one child, which is the thread that started the worker; the brain runs on another one.

The task owns the thread: nothing else runs there, and a task that blocks holds up no lease and no heartbeat. A hard
time limit ends the process (there is nothing smaller to end); a soft one is raised in the task's thread. A worker that
is a guest in another program (it was started in a thread, as in tests) does not kill its host: the task goes on.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading

from celery import _state, signals
from celery.app.trace import Tracer
from celery.concurrency import slots
from celery.concurrency.asynclane import AsyncLane
from celery.concurrency.child import SyncLane
from celery.concurrency.lanes import Child, LanePool
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_logger

__all__ = ("TaskPool",)

logger = get_logger(__name__)


class SoloPool(LanePool):
    """One child: the thread that calls `serve_here`."""

    name = "solo"
    #: The worker runs its event loop on another thread, and this pool on its own.
    runs_here = True

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs["concurrency"] = 1
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # handed on as they are
        self._ends: tuple[socket.socket, socket.socket] | None = None
        self._up = threading.Event()
        self._thread = 0
        self._lane: SyncLane | None = None

    def serve_here(self) -> None:
        """Run jobs on this thread until the pool stops."""
        self._thread = threading.get_ident()
        self._up.wait()
        if self._ends is None:
            return
        sync_socket, async_socket = self._ends
        child = self.children[0]
        token = _state.set_join_denied(True)
        previous = _state.peek_current_app()
        self.app.set_current()
        if signals.worker_process_init.receivers:
            signals.worker_process_init.send(sender=self.hostname)
        tracer = Tracer(self.app, self.hostname)
        self._lane = SyncLane(sync_socket, self.slots.row(0), tracer)
        tasks = AsyncLane(async_socket, self.slots.row(0), tracer, self.async_limit) if self._has_async else None
        try:
            self._lane.serve(tasks)
            if tasks is not None:
                tasks.join()
        finally:
            if tasks is None:
                async_socket.close()
            self._lane.close()
            _state.reset_join_denied(token)
            _state.set_current_app(previous)
            sync_socket.close()
            loop = child.ready.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._ended, child, "the end of the worker")

    def release(self) -> None:
        """Let `serve_here` return although the pool never started."""
        self._up.set()

    def _raise(self, child: Child, sync_socket: socket.socket, async_socket: socket.socket) -> None:
        child.pid = os.getpid()
        self._ends = (sync_socket, async_socket)
        self._up.set()

    def _signal(self, child: Child, number: int) -> None:
        if number == signal.SIGUSR1:
            self._raise_soft_limit(child)
        elif child.running() and self._thread != threading.main_thread().ident:
            logger.error("A task of %s cannot be killed: it runs in a thread of another program.", self.hostname)
        elif child.running():
            # There is nothing smaller to end, and no way to wait.
            os._exit(1)
        elif self._ends is not None:
            # Nothing runs: ending the lane is enough.
            self._ends[0].shutdown(socket.SHUT_RDWR)

    def _raise_soft_limit(self, child: Child) -> None:
        """An exception raised in another thread: the interpreter's own way, for threads that take no signals."""
        row = child.row
        if row[slots.SOFT] == row[slots.BEGUN] > row[slots.ENDED]:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._thread), ctypes.py_object(SoftTimeLimitExceeded)
            )


TaskPool = SoloPool
