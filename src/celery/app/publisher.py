"""Sending with retries and failover: the one way from an application to its broker.

Rules
    1. After a failed attempt the next URL is in use, in the order of `broker_failover_strategy`, for this call and all
       others; the URL that worked last is tried first next time. Each URL is tried before a call fails, whatever the
       retry policy says.
    2. Pauses and the number of attempts follow the retry policy (`task_publish_retry_policy`): `max_retries` retries
       after the first attempt, `interval_start` seconds before the first of them, `interval_step` more each time, at
       most `interval_max`. max_retries None is for ever.
    3. When the policy is used up, OperationalError names the broker (password masked) and the last reason; the
       thousandth call fails like the first.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

from celery import _state, exceptions
from celery.app import brokers
from celery.brokers.pool import SenderPool
from celery.brokers.url import mask
from celery.exceptions import CeleryWarning
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from celery.app.base import Celery
    from celery.brokers.base import Publish, Sender

logger = get_logger("celery.app")

T = TypeVar("T")

#: One attempt, no retries.
NO_RETRY: dict[str, Any] = {"max_retries": 0}


class Publisher:
    """The senders of an application, for one or several broker URLs."""

    def __init__(
        self,
        urls: Sequence[str],
        make_sender: Callable[[str], Sender],
        *,
        limit: int | None,
        acquire_timeout: float | None = None,
        strategy: str | Callable[[Sequence[str]], Iterator[str]] | None = None,
    ) -> None:
        """Connect nothing yet.

        Args:
            urls: brokers, in order of preference.
            make_sender: opens a driver's Sender for a URL.
            limit: senders per process (`broker_pool_limit`); None or 0: a new one each time.
            acquire_timeout: seconds to wait for a free sender (`broker_pool_acquire_timeout`).
            strategy: `broker_failover_strategy`.
        """
        self._pools = {
            url: SenderPool(lambda url=url: make_sender(url), limit, acquire_timeout)  # type: ignore[misc]  # mypy cannot type a default that binds the loop variable
            for url in urls
        }
        self._order = failover(list(self._pools), strategy)
        self._url = next(self._order)
        self._pool = self._pools[self._url]
        self._turning = threading.Lock()

    @property
    def url(self) -> str:
        """The broker in use."""
        return self._url

    @property
    def urls(self) -> list[str]:
        """All that may be used."""
        return list(self._pools)

    def publish(
        self,
        batch: Sequence[Publish],
        *,
        confirm: bool = False,
        timeout: float | None = None,
        policy: dict[str, Any] | None = None,
    ) -> None:
        """Send all, in order, retrying by `policy`.

        Raises:
            OperationalError: the broker stayed away; perhaps some of the batch was sent.
        """
        self.run(lambda sender: sender.publish(batch, confirm=confirm, timeout=timeout), policy)

    def run(self, operation: Callable[[Sender], T], policy: dict[str, Any] | None = None) -> T:
        """Do something with a sender, retrying by `policy` (None: no retries)."""
        pool = self._pool
        try:
            with pool.lend() as sender:
                return operation(sender)
        except exceptions.OperationalError as exc:
            error = exc
        return self._again(operation, policy, pool, error)

    def _again(
        self, operation: Callable[[Sender], T], policy: dict[str, Any] | None, pool: SenderPool, error: Exception
    ) -> T:
        """What `run` does after its first attempt failed with this pool."""
        self._fail_over(pool)
        for pause in itertools.islice(pauses(policy, len(self._pools)), 1, None):
            if pause:
                time.sleep(pause)
            pool = self._pool
            try:
                with pool.lend() as sender:
                    return operation(sender)
            except exceptions.OperationalError as exc:
                error = exc
                self._fail_over(pool)
        raise self._report(error)

    async def apublish(
        self,
        batch: Sequence[Publish],
        *,
        confirm: bool = False,
        timeout: float | None = None,
        policy: dict[str, Any] | None = None,
    ) -> None:
        """`publish` for coroutines: what many of them send at the same time leaves in one batch."""
        await self._atry(lambda pool: pool.apublish(batch, confirm=confirm), timeout, policy)

    async def arun(self, operation: Callable[[Sender], T], policy: dict[str, Any] | None = None) -> T:
        """`run` for coroutines. It takes its turn among what they publish, so it should be short."""
        return await self._atry(lambda pool: pool.run(operation), None, policy)

    async def _atry(
        self, attempt: Callable[[SenderPool], Awaitable[T]], timeout: float | None, policy: dict[str, Any] | None
    ) -> T:
        import asyncio

        error: Exception | None = None
        for pause in pauses(policy, len(self._pools)):
            if pause:
                await asyncio.sleep(pause)
            pool = self._pool
            try:
                async with asyncio.timeout(timeout):
                    return await attempt(pool)
            except TimeoutError:
                error = exceptions.OperationalError(f"no answer within {timeout} seconds")
            except exceptions.OperationalError as exc:
                error = exc
            self._fail_over(pool)
        raise self._report(error)

    def close(self) -> None:
        """Close all connections. The publisher stays usable."""
        for pool in self._pools.values():
            pool.close()

    def _fail_over(self, failed: SenderPool) -> None:
        """Make the next URL the one in use, unless another thread has done so, or is doing it."""
        if not self._turning.acquire(blocking=False):
            return
        try:
            if self._pool is failed:
                self._url = next(self._order)
                self._pool = self._pools[self._url]
        finally:
            self._turning.release()

    def _report(self, error: Exception | None) -> Exception:
        place = " or ".join(mask(url) for url in self._pools)
        reason = str(error)
        if error is not None and all(mask(url) in reason for url in self._pools):
            return error
        return exceptions.OperationalError(f"cannot reach the broker at {place}: {reason}")


def pauses(policy: dict[str, Any] | None, urls: int = 1) -> Iterator[float]:
    """Seconds to wait before each attempt, the first included (rules 1 and 2).

    Args:
        policy: the retry policy; None: no retries.
        urls: how many brokers there are to try.
    """
    yield 0.0
    policy = NO_RETRY if policy is None else policy
    most = policy.get("max_retries", 3)
    pause = policy.get("interval_start", 0) or 0.0
    step = policy.get("interval_step", 0.2) or 0.0
    ceiling = policy.get("interval_max", 1)
    for attempt in itertools.count():
        if most is None or attempt < most:
            yield min(pause, ceiling) if ceiling is not None else pause
            pause += step
        elif attempt < urls - 1:
            yield 0.0
        else:
            return


def failover(urls: Sequence[str], strategy: str | Callable[[Sequence[str]], Iterator[str]] | None) -> Iterator[str]:
    """An endless order of URLs (`broker_failover_strategy`): round-robin, shuffle, or a generator function's own."""
    if callable(strategy):
        return _chosen(urls, strategy)
    if strategy in (None, "round-robin"):
        return itertools.cycle(urls)
    if strategy == "shuffle":
        return _shuffled(urls)
    raise exceptions.ImproperlyConfigured(
        f"broker_failover_strategy is {strategy!r}; it can be 'round-robin', 'shuffle' or a function."
    )


def _chosen(urls: Sequence[str], strategy: Callable[[Sequence[str]], Iterator[str]]) -> Iterator[str]:
    """What a function chooses; one that comes to its end is asked again."""
    while True:
        url = None
        for url in strategy(urls):
            if url not in urls:
                raise exceptions.ImproperlyConfigured(
                    f"broker_failover_strategy chose {mask(url)}, which is none of the configured brokers."
                )
            yield url
        if url is None:
            raise exceptions.ImproperlyConfigured("broker_failover_strategy is a function that chooses no broker.")


def _shuffled(urls: Sequence[str]) -> Iterator[str]:
    while True:
        yield from random.sample(list(urls), len(urls))


def open_publisher(app: Celery) -> Publisher:
    """The way to the broker of an application, as its settings say."""
    conf = app.conf
    if brokers.is_embedded(app):
        _tell_of_embedded(app)
    return Publisher(
        brokers.broker_urls(app),
        lambda url: brokers.open_sender(app, url),
        limit=conf.broker_pool_limit,
        acquire_timeout=conf.broker_pool_acquire_timeout,
        strategy=conf.broker_failover_strategy,
    )


def _tell_of_embedded(app: Celery) -> None:
    """Where messages go that no setting says; a warning where they are not meant to, as threads have an app of none."""
    others = [other for other in _state.living_apps() if other is not app and other.main]
    if app is _state.implicit_app and others:
        # No line of the log: a script that has configured none would not see it.
        warnings.warn(
            f"A task was called in a thread that has set no application, so it goes to the application {app.main!r} "
            f"and its embedded store {brokers.embedded_file(app)}. Call set_default() on the application that is meant "
            f"({', '.join(sorted({repr(other.main) for other in others}))}).",
            CeleryWarning,
            stacklevel=2,
        )
        return
    logger.info("No broker is configured: using the embedded store %s", brokers.embedded_file(app))
