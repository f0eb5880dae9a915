"""Brokers that the worker has left while they keep tasks of it as started (rule 4 of `consumer`; SET-013).

Such a record tells other workers that a task is lost, once ours seems dead there. It does not, for:

Rules
    1. The worker *visits* a broker that it left so: it looks for it once a second, and stays connected, without
       consuming, until all that it started there is over and settled. So its lease there runs while its tasks do.
    2. When it comes to consume there again, before a visit got through, it is as if it had never left: what still runs
       has its receipt again, the rest is acknowledged. A visit that got through goes on beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
from copy import copy
from typing import TYPE_CHECKING

from celery import exceptions
from celery.app import brokers
from celery.brokers.base import Settlement, Verdict
from celery.brokers.url import mask
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery.app.base import Celery
    from celery.brokers.base import Delivery, Receiver
    from celery.worker.request import Request, Settler

logger = get_logger(__name__)

#: Seconds between two looks: for the server, and for what is over.
_PAUSE = 1.0
#: Seconds that a server may take to let us in, and to take our last words.
_PATIENCE = 5.0


class _Visit:
    """To one broker."""

    def __init__(self) -> None:
        #: What it keeps: the delivery with its receipt, and the request while it runs.
        self.kept: list[tuple[Delivery, Request | None]] = []
        #: Held by whoever takes over at the broker what an earlier connection of ours has left.
        self.entering = asyncio.Lock()
        self.receiver: Receiver | None = None
        self.task: asyncio.Task[None] | None = None


class Behind:
    """The brokers that one consumer has left."""

    def __init__(self, app: Celery, node: str, settler: Settler, running: Mapping[int, Request]) -> None:
        """Nothing yet.

        Args:
            app: the application.
            node: name of the worker.
            settler: applies what becomes of attempts.
            running: the requests in the pool, by job number.
        """
        self._app = app
        self._node = node
        self._settler = settler
        self._running = running
        self._visits: dict[str, _Visit] = {}

    def leave(self, url: str) -> None:
        """We consume at another broker than this one from now on."""
        if not brokers.driver(url).Receiver.capabilities.started_records:
            return
        started = [(request.delivery, request) for request in self._running.values() if request.settled_start]
        over = [(delivery, None) for delivery in self._settler.started()]
        visit = self._visits.setdefault(url, _Visit())
        visit.kept += [(copy(delivery), request) for delivery, request in (*started, *over) if delivery.receipt]
        if visit.kept and visit.task is None:
            visit.task = asyncio.create_task(self._visit(url, visit), name=f"visit to {mask(url)}")

    def entering(self, url: str) -> contextlib.AbstractAsyncContextManager[None]:
        """While a consumer connects to this broker: no visit begins."""
        visit = self._visits.get(url)
        return contextlib.nullcontext() if visit is None else visit.entering

    def back(self, url: str) -> list[Settlement]:
        """We consume at this broker again: what to settle there (rule 2)."""
        visit = self._visits.get(url)
        if visit is None or visit.receiver is not None:
            return []
        del self._visits[url]
        if visit.task is not None:
            visit.task.cancel()
        settlements = []
        for delivery, request in visit.kept:
            if request is not None and self._runs(request):
                request.delivery.receipt = delivery.receipt
            else:
                settlements.append(_over(delivery))
        return settlements

    async def close(self) -> None:
        """End the visits; what is over by now is settled where we are connected."""
        tasks = [visit.task for visit in self._visits.values() if visit.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _runs(self, request: Request | None) -> bool:
        return request is not None and self._running.get(request.job.number) is request

    async def _visit(self, url: str, visit: _Visit) -> None:
        try:
            while visit.kept:
                try:
                    await self._stay(url, visit)
                except (exceptions.OperationalError, exceptions.ImproperlyConfigured, OSError, TimeoutError):
                    await self._depart(visit)
                    await asyncio.sleep(_PAUSE)
            visit.task = None
        finally:
            with contextlib.suppress(exceptions.OperationalError, OSError, TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._settle(visit)
            await self._depart(visit)

    async def _stay(self, url: str, visit: _Visit) -> None:
        """Connect, and settle one task after another as they end. Raises what a lost connection does."""
        async with visit.entering, asyncio.timeout(_PATIENCE):
            receiver = brokers.open_receiver(self._app, url, self._node)
            try:
                await receiver.open()
            except BaseException:
                await receiver.close()
                raise
            visit.receiver = receiver
        logger.info("Back at %s, which keeps %d running tasks of this worker as started", mask(url), len(visit.kept))
        while visit.kept:
            with contextlib.suppress(TimeoutError):
                # Nothing is consumed, so nothing comes: but a lost connection is noticed.
                async with asyncio.timeout(_PAUSE):
                    await receiver.receive(1)
            if not all(self._runs(request) for _, request in visit.kept):
                await self._settler.drained()
                await self._settle(visit)

    async def _settle(self, visit: _Visit) -> None:
        """What is over, its effects applied, is acknowledged."""
        over = [delivery for delivery, request in visit.kept if not self._runs(request)]
        if visit.receiver is not None and over:
            await visit.receiver.settle([_over(delivery) for delivery in over])
            visit.kept = [kept for kept in visit.kept if kept[0] not in over]

    async def _depart(self, visit: _Visit) -> None:
        receiver, visit.receiver = visit.receiver, None
        if receiver is not None:
            await receiver.close()


def _over(delivery: Delivery) -> Settlement:
    return Settlement(delivery, Verdict.ACK, after_start=True)
