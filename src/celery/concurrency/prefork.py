"""The prefork pool: children are processes, forked by a nursery."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket

from celery.concurrency.child import serve
from celery.concurrency.lanes import Child, LanePool
from celery.concurrency.nursery import Forked, Nursery
from celery.utils.log import get_logger

__all__ = ("TaskPool",)

logger = get_logger(__name__)


class PreforkPool(LanePool):
    """Children that are processes."""

    name = "prefork"
    _nursery: Nursery | None = None

    def prepare(self) -> None:
        self._nursery = Nursery(self._be_child)

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
        assert self._nursery is not None, "prepare() comes first"
        asyncio.get_running_loop().add_reader(self._nursery.connection, self._on_nursery)
        await super().start()

    def _raise(self, child: Child, sync_socket: socket.socket, async_socket: socket.socket) -> None:
        if self._nursery is not None:
            self._nursery.fork(child.index, sync_socket, async_socket)
        sync_socket.close()
        async_socket.close()

    def _on_nursery(self) -> None:
        assert self._nursery is not None
        events = self._nursery.events()
        if events is None:
            asyncio.get_running_loop().remove_reader(self._nursery.connection)
            if not self._stopping:
                logger.critical("The process that forks pool processes is dead; this worker cannot go on.")
                os.kill(os.getpid(), signal.SIGQUIT)
            return
        for event in events:
            child = self.children[event.row]
            if isinstance(event, Forked):
                child.pid = event.pid
            else:
                self._ended(child, event.describe())

    def _signal(self, child: Child, number: int) -> None:
        if child.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)

    async def _all_gone(self, timeout: float | None) -> None:
        await super()._all_gone(timeout)
        if self._nursery is not None:
            asyncio.get_running_loop().remove_reader(self._nursery.connection)
            self._nursery.close()
            self._nursery = None


TaskPool = PreforkPool
