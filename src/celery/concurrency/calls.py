"""Calls of functions in the pool: one more kind of job, for code that third parties bring.

A call travels as a `Job` whose `call` is the pickled function with its arguments; its number is negative, so that it
is never taken for a task's. Its callbacks are code of users: they run where `hook` puts them, in order, the accepting
one always before the one that tells the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import pickle
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from celery import exceptions, states
from celery.app.outcome import Outcome
from celery.concurrency.base import BasePool, Handling, Job
from celery.utils.saferepr import saferepr
from celery.wire.envelope import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.concurrency.base import Lost, Pool, PoolEvents

logger = logging.getLogger(__name__)


class _Call(NamedTuple):
    """A call on its way."""

    name: str
    accepted: Callable[..., Any] | None
    done: Callable[..., Any] | None
    failed: Callable[..., Any] | None


class CallPool(BasePool):
    """Runs functions in the children of a pool. `apply_async` may be called in any thread."""

    def __init__(self, pool: Pool, hook: Callable[..., None]) -> None:
        """Make one, on the worker's loop.

        Args:
            pool: whose children.
            hook: takes a function and its arguments, and calls it later on the thread of users' code.
        """
        self._pool = pool
        self._hook = hook
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(-1, -1)
        self._pending: dict[int, _Call] = {}
        self._accepted: set[int] = set()

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def num_processes(self) -> int:
        return self._pool.concurrency

    @property
    def events(self) -> PoolEvents:
        """Whom the pool tells."""
        return self._pool.events

    def apply_async(
        self,
        target: Callable[..., Any],
        args: Any = None,
        kwargs: Any = None,
        *,
        accept_callback: Callable[..., Any] | None = None,
        callback: Callable[..., Any] | None = None,
        error_callback: Callable[..., Any] | None = None,
        timeout: float | None = None,
        **_options: Any,
    ) -> None:
        number = next(self._numbers)
        name = f"{target.__module__}.{target.__qualname__}"
        packed = pickle.dumps((target, tuple(args or ()), dict(kwargs or {})))
        self._pending[number] = _Call(name, accept_callback, callback, error_callback)
        job = Job(number, Envelope({"task": name, "id": None}, b""), {}, call=packed)
        self.on_loop(self._pool.submit, [(job, Handling(name, hard_limit=timeout))])

    def on_loop(self, function: Callable[..., Any], *args: Any) -> None:
        """Call on the worker's loop, from any thread; nothing happens when the worker has stopped."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    # -- what the pool tells, on the loop

    def started(self, number: int, pid: int, since: float) -> None:
        """A child runs the call."""
        call = self._pending.get(number)
        if call is not None and number not in self._accepted:
            self._accepted.add(number)
            if call.accepted is not None:
                self._hook(call.accepted, pid, since)

    def finished(self, outcome: Outcome) -> None:
        """The function has returned or raised."""
        self.started(outcome.job, 0, outcome.started)
        call = self._pending.get(outcome.job)
        if call is None:
            return
        if outcome.state != states.SUCCESS:
            logger.error("%s, called in the pool, raised %s", call.name, outcome.summary)
        tell = call.done if outcome.state == states.SUCCESS else call.failed
        self._hook(self._end, outcome.job, tell, outcome.value or b"")

    def lost(self, number: int, loss: Lost) -> None:
        """The child died, or was killed for the time limit."""
        self.started(number, loss.pid, time.time())
        call = self._pending.get(number)
        if call is not None:
            logger.error("%s, called in the pool, was lost: %s %s", call.name, loss.reason, loss.detail)
            error = exceptions.WorkerLostError(f"{loss.reason} {loss.detail}")
            self._hook(self._end, number, call.failed, pickle.dumps(error))

    def _end(self, number: int, tell: Callable[..., Any] | None, value: bytes) -> None:
        """Tell, on the thread of users' code. Only then is the call over: a worker that stops waits for that."""
        try:
            if tell is not None:
                tell(pickle.loads(value))  # noqa: S301 - our own child wrote it
        finally:
            self.on_loop(self._forget, number)

    def _forget(self, number: int) -> None:
        self._accepted.discard(number)
        self._pending.pop(number, None)


def make(job: Job) -> Outcome:
    """Make the call of a job, in a child. What it returns or raises travels pickled, or as its repr."""
    started, clock = time.time(), time.perf_counter()
    state, value = states.SUCCESS, None
    try:
        target, args, kwargs = pickle.loads(job.call or b"")  # noqa: S301 - our own worker wrote it
        value = target(*args, **kwargs)
    except Exception as exc:  # noqa: BLE001 - whatever it raises is told to who called
        state, value = states.FAILURE, exc
    return Outcome(
        job.number, state, runtime=time.perf_counter() - clock, started=started, summary=saferepr(value),
        value=_packed(value),
    )  # fmt: skip


def _packed(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception:  # noqa: BLE001 - users' objects refuse in their own ways
        text = saferepr(value)
        return pickle.dumps(RuntimeError(text) if isinstance(value, BaseException) else text)
