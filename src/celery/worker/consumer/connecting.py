"""How a worker comes to its broker, and back to it (SET-013, ROUTE-038).

Rules
    1. *Attempts* are Celery's: one URL after another, and when all were tried a pause, two seconds longer each time,
       half a minute at most. They are logged, and counted for `broker_connection_max_retries`.
    2. Nobody who waits for a server that is there again shall wait for the end of such a pause: in it the worker
       *looks*, which is to try all URLs in full, without a word and without counting. A look that gets through ends
       the pause.
    3. A port that accepts connections says nothing: proxies accept for servers that are away, and Redis does while it
       reads its files. So there is no other sign than a look that gets through, and no other pace than that of looks.
    4. A host that is gone may say nothing at all: `broker_connection_timeout` for each. So of three URLs and more each
       gets its part of the time of two, in the first round and in looks. Later attempts have time for a slow server.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, NamedTuple

from celery import exceptions
from celery.app import brokers
from celery.app.publisher import failover
from celery.brokers.url import mask
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery.app.base import Celery
    from celery.brokers.base import Receiver
    from celery.brokers.topology import Queue

logger = get_logger("celery.worker.consumer.consumer")

#: Seconds between two looks at most; half of a pause that is short.
_LOOK_WITHIN = 3.0
#: The part of that time which workers that lost a server together draw, so that they do not come back together.
_SPREAD = 0.7, 1.0


class Connected(NamedTuple):
    """A way to a broker that consumes, unless the worker is about to stop."""

    receiver: Receiver
    url: str
    #: The receiver stores the results of the application's backend itself.
    shared: bool


class Connector:
    """Opens receivers, one at a time."""

    def __init__(
        self,
        app: Celery,
        node: str,
        entering: Callable[[str], contextlib.AbstractAsyncContextManager[None]],
        queues: Callable[[], Iterable[Queue]],
    ) -> None:
        """Connect to nothing yet.

        Args:
            app: the application; its settings say where to, and how long to try.
            node: name of the worker.
            entering: what to hold while a receiver is opened at a URL.
            queues: what to consume from, once it is open.
        """
        self._app = app
        self._node = node
        self._entering = entering
        self._queues = queues
        urls = brokers.broker_urls(app, read=True)
        self._round = len(urls)
        self._urls = failover(urls, app.conf.broker_failover_strategy)
        #: What is tried next, or was found.
        self.url = next(self._urls)

    async def connect(self, retry: bool) -> Connected:
        """Try until one broker lets us consume.

        Raises:
            OperationalError: it did not at once, and `retry` is false; or not within `broker_connection_max_retries`.
            ImproperlyConfigured: it never will.
        """
        most, attempt = self._app.conf.broker_connection_max_retries, 0
        while True:
            try:
                return await self._open(self.url, hurry=attempt < self._round)
            except (exceptions.OperationalError, TimeoutError) as exc:
                attempt += 1
                if not retry or (most is not None and attempt > most):
                    raise exceptions.OperationalError(
                        f"cannot connect to the broker at {mask(self.url)}: {exc}"
                    ) from exc
                rounds, others = divmod(attempt, self._round)
                pause = 0.0 if others else min(2.0 * rounds, 30.0)
                limit = "" if most is None else f" ({attempt}/{most})"
                step = f"Trying again in {pause:.2f} seconds...{limit}" if pause else "Will retry using next failover."
                logger.error("consumer: Cannot connect to %s: %s.\n%s", mask(self.url), exc, step)  # noqa: TRY400 - the reason is the text
            found = await self._pause(pause)
            if found is not None:
                return found
            self.url = next(self._urls)

    async def _pause(self, seconds: float) -> Connected | None:
        """Wait, and look meanwhile: what a look has found, or None."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            nap = min(seconds / 2, _LOOK_WITHIN) * random.uniform(*_SPREAD)  # noqa: S311 - no secret
            left = end - loop.time()
            await asyncio.sleep(min(nap, left))
            if left <= nap:
                return None
            for _ in range(self._round):
                self.url = next(self._urls)
                # What will not be mended is for the next attempt to tell.
                with contextlib.suppress(exceptions.OperationalError, exceptions.ImproperlyConfigured, TimeoutError):
                    return await self._open(self.url, hurry=True)

    async def _open(self, url: str, *, hurry: bool) -> Connected:
        app = self._app
        timeout = app.conf.broker_connection_timeout or 4
        within = timeout * 2 / self._round if hurry and self._round > 2 else timeout * 3
        receiver = brokers.open_receiver(app, url, self._node)
        try:
            shared = app.backend.async_writer and receiver.share(app.backend)
            # Not wait_for(), which may swallow a cancellation.
            try:
                async with asyncio.timeout(within), self._entering(url):
                    await receiver.open()
            except TimeoutError as exc:
                raise exceptions.OperationalError(f"no answer within {within:.1f} s") from exc
            for queue in self._queues():
                await receiver.consume(queue)
        except BaseException:
            await receiver.close()
            raise
        logger.info("Connected to %s", mask(url))
        return Connected(receiver, url, shared)
