"""Requests of classes that override a verb, a method by which a worker does something with them (API-042).

Of all other requests the worker does these things itself, and nobody comes here. Measured beside Celery 5.7.0.

    | occasion                                 | acks  | what is called, in this order                                 |
    | ---------------------------------------- | ----- | ------------------------------------------------------------- |
    | it is revoked, or has expired, before it |       | `maybe_expire()` where it can expire,                         |
    | begins                                   |       | `send_event("task-revoked", terminated, signum, expired)`,    |
    |                                          |       | `acknowledge()`                                               |
    | it has begun                             | early | `acknowledge()`, `send_event("task-started")`                 |
    |                                          | late  | `send_event("task-started")`                                  |
    | success                                  | late  | `acknowledge()`, then as early                                |
    |                                          | early | `send_event("task-succeeded", result, runtime)`               |
    | failure, also of its process or its time | late  | `acknowledge()`, or `reject()` without `acks_on_failure`      |
    |                                          | early | `send_event("task-failed", exception, traceback)`             |
    | retry                                    | late  | `acknowledge()`, then as early                                |
    |                                          | early | `send_event("task-retried", exception, traceback)`            |
    | Ignore                                   | both  | `acknowledge()`                                               |
    | Reject                                   | both  | `send_event("task-failed", ...)`, `reject(requeue=False)`     |
    | Reject(requeue=True)                     | both  | `reject(requeue=True)`                                        |
    | time or process lost, and to run again   | late  | `reject(requeue=True)`                                        |
    | run by `execute`, without hooks          | both  | early: `acknowledge()`; then `acknowledge()` or `reject()`    |
    |                                          |       | as the end of any attempt (in Celery a failure: `reject()`)   |
    | revoked from afar with `terminate`       |       | `terminate(pool, signal)`; where that ends what runs, at its  |
    |                                          |       | end `send_event("task-revoked", ...)` and `acknowledge()`     |
    | cold shutdown                            | both  | `cancel(pool, emit_retry=` early `)`                          |
    | connection lost, and the setting says so | late  | `cancel(pool)`                                                |

`reject` and `cancel` themselves send "task-rejected" and "task-cancelled", where they have an effect.

Rules
    1. Verbs are called on the side thread. What belongs to a hook (`on_accepted`, `on_success`, `on_failure`,
       `on_retry`, `on_timeout`) is called by the hook of the base class or, if a hook does not call that, when it has
       returned.
    2. The verb decides. A message that nobody has acknowledged or rejected when its attempt is over is *unasked*: what
       follows and the result are applied, and the message stays with this worker. It counts as reserved. A later call
       of the base class's method settles it; a worker that stops gives it back in the end, and so does a lost
       connection.
    3. The first word counts: what is acknowledged cannot be rejected after that, nor the other way round.
    4. What a verb raises is logged, and the rest of that occasion is left out, as in Celery: so a broken `acknowledge`
       leaves its message unasked. What `maybe_expire` raises fails a task that would run; of one that came too late
       it is logged, and changes nothing (in Celery it ends the worker).
    5. `maybe_expire` is asked when the task would be handed to the pool, and when its time is up before it begins there
       (Celery asks when it has come, too). A class that defines it takes the road of `celery.worker.gate`.
    6. A cold stop waits a second for `cancel`, and ends the attempt whatever that does.
"""

from __future__ import annotations

import asyncio
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from celery import states
from celery.app.outcome import Disposition
from celery.brokers.base import Verdict
from celery.concurrency.base import job_of
from celery.utils.log import get_logger
from celery.utils.saferepr import saferepr
from celery.worker.strategy import EXPIRED

if TYPE_CHECKING:
    from celery.app.einfo import ExceptionInfo
    from celery.app.outcome import Outcome
    from celery.brokers.base import Delivery
    from celery.concurrency.base import Lost
    from celery.worker.consumer.consumer import Consumer
    from celery.worker.request import Request
    from celery.worker.strategy import Decision

logger = get_logger(__name__)

#: A class that defines one of these comes here.
VERBS = ("acknowledge", "cancel", "maybe_expire", "reject", "send_event", "terminate")
#: Messages that may be unasked before the worker takes no more.
MOST_UNASKED = 10_000
#: Rule 6.
_LAST_WORD = 1.0

#: Name, positional and keyword arguments.
Call = tuple[str, tuple[Any, ...], dict[str, Any]]

_ACKNOWLEDGE: Call = "acknowledge", (), {}


def _reject(*, requeue: bool) -> Call:
    return "reject", (), {"requeue": requeue}


def _event(kind: str, **fields: Any) -> Call:
    return "send_event", (kind,), fields


# -- the table


def at_start(*, late: bool) -> list[Call]:
    """What is called when an attempt has begun."""
    started = _event("task-started")
    return [started] if late else [_ACKNOWLEDGE, started]


def when_off(*, expired: bool = False, signum: int | None = None) -> list[Call]:
    """What is called for what is revoked.

    Args:
        expired: it was too late.
        signum: it was ended by this signal.
    """
    return [_event("task-revoked", terminated=signum is not None, signum=signum, expired=expired), _ACKNOWLEDGE]


def at_failure(einfo: ExceptionInfo, *, late: bool, refused: bool = False) -> list[Call]:
    """What is called for a failure.

    Args:
        einfo: what happened.
        late: it is acknowledged when it has ended.
        refused: its failure refuses its message.
    """
    failed = _event("task-failed", exception=saferepr(einfo.exception), traceback=einfo.traceback)
    return [_reject(requeue=False) if refused else _ACKNOWLEDGE, failed] if late else [failed]


def at_end(outcome: Outcome, einfo: ExceptionInfo | None, *, late: bool, refused: bool) -> list[Call]:
    """What is called for an attempt that is over, but was not ended from afar.

    Args:
        outcome: of the attempt.
        einfo: of all but a success.
        late: it is acknowledged when it has ended.
        refused: a failure would refuse its message.
    """
    if outcome.disposition is Disposition.REQUEUE or (late and outcome.disposition is Disposition.LEFT):
        return [_reject(requeue=True)]
    if outcome.state == states.IGNORED:
        return [_ACKNOWLEDGE]
    if einfo is None:
        succeeded = _event("task-succeeded", result=outcome.summary, runtime=outcome.runtime)
        return [_ACKNOWLEDGE, succeeded] if late else [succeeded]
    if outcome.disposition is Disposition.REJECT:
        return [*at_failure(einfo, late=False), _reject(requeue=False)]
    if outcome.state == states.RETRY:
        cause = saferepr(getattr(einfo.exception, "exc", None))
        retried = _event("task-retried", exception=cause, traceback=einfo.traceback)
        return [_ACKNOWLEDGE, retried] if late else [retried]
    return at_failure(einfo, late=late, refused=refused)


def to_run_again() -> list[Call]:
    """What is called for an attempt that was lost, and is repeated."""
    return [_reject(requeue=True)]


def for_verdict(verdict: Verdict) -> Call:
    """What a request is asked for that was executed here, without hooks."""
    return _ACKNOWLEDGE if verdict is Verdict.ACK else _reject(requeue=verdict is Verdict.REQUEUE)


# -- what becomes of messages


class Verbs:
    """The messages of such requests, in one worker. On the loop."""

    def __init__(self, consumer: Consumer) -> None:
        """Nothing yet.

        Args:
            consumer: whose requests they are.
        """
        self._consumer = consumer
        self._unasked: dict[int, Delivery] = {}

    def __len__(self) -> int:
        """Messages that are unasked (rule 2)."""
        return len(self._unasked)

    @property
    def full(self) -> bool:
        """Whether there are as many as may be."""
        return len(self._unasked) >= MOST_UNASKED

    def over(self, request: Request) -> None:
        """An attempt is over, and its verbs have had their turn: if nothing was asked, keep the message."""
        turn = request.keeper
        if turn is None or not turn.verbs or turn.settled or request.settled_start or request.asked is not None:
            return
        turn.unasked = True  # first: from another thread it may be settled at any moment
        logger.info("%s is over, and its request did not have its message acknowledged", request.humaninfo())
        # Of an orphan the message comes again, and is a new one.
        if not self._consumer._orphans.forget(request) and request.delivery.receipt is not None:
            self._unasked[request.job.number] = request.delivery
        request.delivery = copy(request.delivery)
        request.delivery.receipt = None
        request.settled_start, request.acks_late = True, False

    def settle(self, request: Request) -> None:
        """A request has had its word: it counts now, if its attempt is over."""
        delivery = self._unasked.pop(request.job.number, None)
        if delivery is not None and request.asked is not None:
            reason = f"rejected by {type(request).__qualname__}"
            self._consumer.settler.settlement(delivery, request.asked, reason=reason)
            self._consumer._take_more()

    def give_back(self) -> None:
        """The worker stops."""
        for delivery in self._unasked.values():
            self._consumer.settler.settlement(delivery, Verdict.RETURN)
        self._unasked.clear()

    def abandon(self) -> None:
        """The connection is gone: the broker delivers them again."""
        self._unasked.clear()

    # -- what is not to run

    def asks(self, delivery: Delivery, decision: Decision) -> bool:
        """Whether a request is made of a delivery that was revoked or has expired, and asked what becomes of it."""
        consumer, task = self._consumer, decision.task
        if task is None or task.name not in consumer.watching.acting:
            return False
        consumer._last_job += 1
        job, handling = job_of(consumer._last_job, delivery), consumer.strategy.handling(task, None, None)
        make = consumer.watching.maker(task.name)
        request = make(consumer.app, consumer.hostname, delivery, decision.source, task, handling, job)
        consumer.requests[job.number] = request
        consumer.worker.spawn(self._ask(request, decision))
        return True

    def expired(self, request: Request, decision: Decision) -> None:
        """It has expired in the pool, and has not begun: it is asked whether it is revoked, and runs if it is not."""
        request.job = msgspec.structs.replace(request.job, expires=None)
        self._consumer.worker.spawn(self._ask(request, decision))

    async def _ask(self, request: Request, decision: Decision) -> None:
        off = True
        try:
            off = await self._consumer.worker.run_hook(request.revoked)
        except Exception:
            logger.exception("%s: its request class raised when asked whether it is revoked", request.humaninfo())
        if not self._here(request):
            return
        if off:
            await self._off(request, decision)
        elif self._consumer._orphans.forget(request):
            del self._consumer.requests[request.job.number]
        else:
            self._consumer.gate.submit([(request.job, request.handling)])

    def off(self, request: Request, decision: Decision) -> None:
        """It is not going to run: have its request say so, then settle it."""
        self._consumer.worker.spawn(self._off(request, decision))

    async def _off(self, request: Request, decision: Decision) -> None:
        consumer, turn = self._consumer, request.keeper
        assert turn is not None
        await consumer.worker.run_hook(turn.tell_off, request, expired=decision.reason == EXPIRED)
        if not self._here(request):
            return
        del consumer.requests[request.job.number]
        if not consumer._orphans.forget(request):
            self.over(request)
            consumer._drop(request.delivery, decision, request.asked or Verdict.ACK)
        consumer._take_more()
        consumer.worker.on_progress()

    # -- what was lost, or is to be

    async def run_again(self, request: Request, loss: Lost, told: Any) -> None:
        """A lost attempt is to be repeated, if its request says so.

        Args:
            request: whose attempt has no outcome.
            loss: why.
            told: awaited before.
        """
        await told
        consumer = self._consumer
        if not self._here(request):
            return
        if request.asked is Verdict.REQUEUE:
            consumer._give_back(request, loss)
            return
        del consumer.requests[request.job.number]
        self.over(request)
        if request.asked is not None:
            consumer.settler.settlement(request.delivery, request.asked, reason="rejected by its request")
        consumer._take_more()
        consumer.worker.on_progress()

    async def cancel_running(self) -> None:
        """The worker stops at once: rule 6. Returns when those that have begun had their word on that, too."""
        consumer, hooks = self._consumer, []
        for request in consumer.requests.values():
            turn = request.keeper
            if turn is None or not turn.verbs or request.started_at is None:
                continue
            cancels = "cancel" in turn.verbs
            call = partial(request.cancel, consumer.pool, emit_retry=not request.task.acks_late) if cancels else int
            hooks.append(asyncio.ensure_future(consumer.worker.run_hook(call)))
        if not hooks:
            return
        done, _ = await asyncio.wait(hooks, timeout=_LAST_WORD)
        for hook in done:
            if (error := hook.exception()) is not None:
                logger.error("cancel of a request raised", exc_info=error)

    def _here(self, request: Request) -> bool:
        return self._consumer.requests.get(request.job.number) is request
