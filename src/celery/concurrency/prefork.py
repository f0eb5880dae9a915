"""The prefork pool: children are processes, forked by a nursery, or executed anew (`spawn`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading

from celery.concurrency import spawn
from celery.concurrency.child import serve
from celery.concurrency.lanes import Child, LanePool
from celery.concurrency.nursery import Exited, Forked, Nursery
from celery.utils.log import get_logger

__all__ = ("TaskPool",)

logger = get_logger(__name__)


class PreforkPool(LanePool):
    """Children that are processes."""

    name = "prefork"
    _nursery: Nursery | None = None

    @property
    def spawns(self) -> bool:
        """Whether children are executed anew."""
        return self.options.get("start_method") == "spawn"

    def prepare(self) -> None:
        if self.spawns:
            spawn.find(self.app)  # an application that cannot be found is told now
        else:
            self._nursery = Nursery.split_off(self._be_child)

    def _be_child(self, index: int, sync_socket: socket.socket, async_socket: socket.socket) -> None:
        serve(
            self.app,
            hostname=self.hostname,
            index=index,
            memory=self.slots,
            sync_socket=sync_socket,
            async_socket=async_socket,
            options=self.options,
        )

    async def start(self) -> None:
        if self._nursery is not None:
            asyncio.get_running_loop().add_reader(self._nursery.connection, self._on_nursery)
        await super().start()

    def _raise(self, child: Child, sync_socket: socket.socket, async_socket: socket.socket) -> None:
        if self.spawns and not self._stopping:
            self._spawn(child, sync_socket, async_socket)
        elif self._nursery is not None:
            self._nursery.fork(child.index, sync_socket, async_socket)
        sync_socket.close()
        async_socket.close()

    # -- fork

    def _on_nursery(self) -> None:
        assert self._nursery is not None
        events = self._nursery.events()
        if events is None:
            self._nursery_died(self._nursery)
            return
        for event in events:
            child = self.children[event.row]
            if isinstance(event, Forked):
                child.pid = event.pid
            else:
                self._ended(child, event.describe())

    def _nursery_died(self, dead: Nursery) -> None:
        """Its children died with it; a new one is executed, as this process has threads and may not fork any more."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(dead.connection)
        dead.close()
        if self._stopping:
            self._nursery = None
        else:
            logger.error("The process that forks pool processes died; another one takes its place.")
            ours, theirs = socket.socketpair()
            self._nursery = Nursery(self._start(None, theirs), ours)
            theirs.close()
            loop.add_reader(ours, self._on_nursery)
        for child in list(self.children):
            self._signal(child, signal.SIGKILL)
            self._ended(child, "the death of the process that had forked it")

    # -- spawn

    def _start(self, row: int | None, *sockets: socket.socket) -> int:
        """Execute a process anew: a child, or a nursery. Its pid."""
        birth = spawn.Birth(
            spawn.find(self.app),
            self.app.conf.changes,
            self.hostname,
            self.options,
            (self.slots.fd, self.slots.rows, self.slots.positions),
            tuple(each.fileno() for each in sockets),
            row,
        )
        return spawn.start(birth)

    def _spawn(self, child: Child, sync_socket: socket.socket, async_socket: socket.socket) -> None:
        child.pid = pid = self._start(child.index, sync_socket, async_socket)
        loop = asyncio.get_running_loop()

        def wait() -> None:
            _, status = os.waitpid(pid, 0)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._ended, child, Exited(child.index, pid, status).describe())

        threading.Thread(target=wait, name=f"celery-child-{pid}", daemon=True).start()

    def _signal(self, child: Child, number: int) -> None:
        if child.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)

    async def _all_gone(self, timeout: float) -> None:
        await super()._all_gone(timeout)
        if self._nursery is not None:
            asyncio.get_running_loop().remove_reader(self._nursery.connection)
            self._nursery.close()
            self._nursery = None


TaskPool = PreforkPool
