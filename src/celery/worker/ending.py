"""Attempts that end before their time, on somebody's word (API-042, CTL-029, ROUTE-053).

Rules
    1. What no process has begun is taken out of the pool, and no process dies for it. In between, on its way into a
       process, it can be neither taken back nor killed: it is tried again until one of both works.
    2. What is *revoked* ends as REVOKED. What is *cancelled* is to run again: once its process is dead, its message
       goes back to its queue, and its state is RETRY until then. Has the broker let go of the message before, nothing
       follows: it stays at RETRY, as after a cold shutdown.
    3. Where `worker_cancel_long_running_tasks_on_connection_loss` is on, what runs and is acknowledged late is
       cancelled when the connection goes: the broker delivers it again, to whoever is there. By default it goes on,
       and its message finds it again (`celery.worker.consumer.orphans`). A class with a `cancel` of its own is asked.
    4. In the solo pool only the worker itself could be killed: there nothing is cancelled.
    5. What expires while it waits here is not begun (`celery.concurrency.base`), and ends as if it had come too late. A
       request of a class that the task brings is asked first: what it does not call revoked runs after all.
    6. Whose process dies again, in the hooks of its failure, fails all the same, and is settled as any failure: what it
       failed of is stored, its error callbacks are sent, and its request is told. The task's own hooks are left out,
       and so are error callbacks that are called in place: one of them may be what kills.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from celery import exceptions, states
from celery.app.following import send_after_failure
from celery.app.outcome import Outbox, Outcome
from celery.brokers.base import Settlement, Verdict
from celery.platforms import signals
from celery.utils.log import get_logger
from celery.utils.saferepr import saferepr
from celery.worker.request import record_of
from celery.worker.strategy import EXPIRED, Action, Decision, revocation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.app.base import Celery
    from celery.worker.consumer.consumer import Consumer
    from celery.worker.request import Request

logger = get_logger(__name__)

#: Seconds between two tries (rule 1).
_RETRY_PAUSE = 0.02
#: Celery's words.
_CANCELLED = "cancelled by Celery"


class Ending:
    """Ends attempts of one consumer."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        #: Cancelled: their processes have a signal, and are not dead yet. Whether RETRY is stored.
        self._dying: dict[int, bool] = {}

    def end(self, request: Request, signum: int | None, *, again: bool = False, record: bool = True) -> None:
        """End an attempt. Any thread.

        Args:
            request: in the pool; nothing happens to one that is over.
            signum: for the process that runs it; None: what runs goes on.
            again: it is cancelled, else revoked.
            record: of what is cancelled, RETRY is stored.
        """
        self._consumer.handover.pool.on_loop(self._consumer.worker.spawn, self._end(request, signum, again, record))

    async def _end(self, request: Request, signum: int | None, again: bool, record: bool) -> None:
        pool, number = self._consumer.pool, request.job.number
        try:
            while self._consumer.requests.get(number) is request and request.job.aftermath is None:
                if number in self._dying:
                    pass
                elif self._consumer.gate.withdraw(number):
                    if again:
                        self._give_back(request, record=record)
                    else:
                        self._drop(request, revocation(request.headers, request.task, "revoked"))
                elif signum is None and request.started_at is not None:
                    return
                elif signum is not None and pool.kill(number, signum) and again:
                    self._dying[number] = record
                await asyncio.sleep(_RETRY_PAUSE)
        finally:
            self._dying.pop(number, None)

    def expired(self, jobs: Sequence[int]) -> None:
        """The pool has given these back: it is too late for them (rule 5)."""
        for number in jobs:
            request = self._consumer.requests.get(number)
            if request is None:
                continue
            decision = revocation(request.headers, request.task, EXPIRED)
            if request.keeper is None:
                self._drop(request, decision)
            else:
                self._consumer.verbs.expired(request, decision)

    def lost(self, request: Request) -> bool:
        """Its process is dead of a signal: True if the attempt was cancelled, and is given back."""
        record = self._dying.get(request.job.number)
        if record is None:
            return False
        self._give_back(request, record=record)
        return True

    def died_again(self, request: Request, error: Exception) -> None:
        """The process of an attempt's aftermath is dead, too (rule 6).

        Args:
            request: whose attempt it was.
            error: what the attempt ended with.
        """
        self._consumer.worker.spawn(self._died_again(request, error))

    async def _died_again(self, request: Request, error: Exception) -> None:
        consumer, outbox = self._consumer, Outbox()
        state = states.REVOKED if isinstance(error, exceptions.TaskRevokedError) else states.FAILURE
        if state == states.FAILURE:
            try:  # on the side thread, as receivers of `before_task_publish` are users' code
                await consumer.worker.run_hook(_send_errbacks, consumer.app, request, error, outbox)
            except Exception:
                logger.exception("The error callbacks of task %s[%s] cannot be sent", request.name, request.id)
                outbox.clear()
        if consumer.requests.get(request.job.number) is not request:
            return
        decision = Decision(Action.FAIL, request.headers, request.task, error=error)
        results = consumer._records(decision, request.context(), state)
        writes, parts = consumer._with_losses(request.delivery, decision, state, results)
        outcome = Outcome(request.job.number, state, writes=writes, parts=parts, summary=saferepr(error))
        outcome.begins, outcome.follow = tuple(outbox.begins), tuple(outbox.messages)
        consumer.finished([outcome])

    def disconnected(self, request: Request) -> bool:
        """The connection is gone while an attempt runs whose message comes again: True if the attempt is not to go on
        (rule 3).
        """
        consumer = self._consumer
        wanted = consumer.app.conf.worker_cancel_long_running_tasks_on_connection_loss and request.acks_late
        if wanted and request.keeper is not None and "cancel" in request.keeper.verbs:
            consumer.worker.hook_soon(request.cancel, consumer.pool)
            return False
        if not wanted or consumer.pool.runs_here or not consumer.pool.kill(request.job.number, signals.signum("TERM")):
            return False
        logger.warning("Task %s[%s] is %s: the connection is lost", request.name, request.id, _CANCELLED)
        del consumer.requests[request.job.number]
        if results := self._retry_record(request):
            request.delivery.receipt = None  # it is the old connection's: only the record is left to store
            consumer.settler.settlement(request.delivery, Verdict.ACK, results=results, after_start=True)
        return True

    def _drop(self, request: Request, decision: Decision) -> None:
        """Settle what the pool has not begun as if that had been decided when it came."""
        consumer = self._consumer
        if request.keeper is not None and request.keeper.verbs:
            consumer.verbs.off(request, decision)
            return
        del consumer.requests[request.job.number]
        if not consumer._orphans.forget(request):  # of an orphan the message comes again, and is decided on anew
            consumer._drop(request.delivery, decision)
        consumer._take_more()
        consumer.worker.on_progress()

    def _give_back(self, request: Request, *, record: bool) -> None:
        consumer = self._consumer
        del consumer.requests[request.job.number]
        results = self._retry_record(request) if record else ()
        over = request.settled_start
        if consumer._orphans.forget(request):
            request.delivery.receipt, over = None, True  # it is an old connection's: its message comes again by itself
        verdict = Verdict.ACK if over else Verdict.RETURN
        settlement = Settlement(request.delivery, verdict, results=results, after_start=over)
        consumer.settler.add([settlement])
        consumer._take_more()
        consumer.worker.on_progress()

    def _retry_record(self, request: Request) -> Any:
        app = self._consumer.app
        if request.ignores_result or not app.backend.async_writer:
            return ()
        return record_of(app, request.context(), states.RETRY, exceptions.Retry(_CANCELLED))


def _send_errbacks(app: Celery, request: Request, error: Exception, outbox: Outbox) -> None:
    """Those that are messages (rule 6)."""
    errbacks = request.errbacks or ()
    send_after_failure(app, errbacks, request.context(), error, None, outbox, call=lambda *_: None)
