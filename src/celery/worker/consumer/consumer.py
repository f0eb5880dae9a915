"""Takes deliveries, decides, hands them to the pool, and settles what comes back.

Rules
    1. Reservations are bounded: by the prefetch count where one is configured, else by what keeps the pool busy for
       some tens of milliseconds (`Pool.room`); and nothing is taken while outcomes pile up unsettled.
    2. A delivery that is not to run now leaves memory: it goes back to the broker with its time (WAIT), or is settled.
       Only the last seconds of a wait are spent here.
    3. The broker may go away for any time. What runs goes on. What had not begun is forgotten, the broker delivers it
       again. What had, and was not acknowledged, is an *orphan*: when its message comes again, to us, it is not run
       again but takes over the attempt that runs, or its outcome (`Orphans`).
    4. Where several brokers are configured, the next connection may be to another one. It has no message of what had
       begun, so nothing is waited for: what follows and the results are applied there. That an attempt is over is
       remembered, should its message come again; a broker that keeps it as started is told (`Behind`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import exceptions, signals, states
from celery.app.context import Context
from celery.app.outcome import Disposition
from celery.brokers.base import Delivery, Receiver, Settlement, Verdict
from celery.concurrency.base import Job, Lost, exception_of, job_of
from celery.utils.log import get_logger
from celery.worker import request as requests
from celery.worker.consumer.behind import Behind
from celery.worker.consumer.connecting import Connector
from celery.worker.consumer.orphans import Orphans
from celery.worker.consumer.suspects import Suspects
from celery.worker.ending import Ending
from celery.worker.handover import Handover
from celery.worker.request import Request, Settler, record_of
from celery.worker.strategy import Action, Decision, Strategy
from celery.worker.verbs import Verbs
from celery.worker.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.app.outcome import Outcome
    from celery.brokers.topology import Queue
    from celery.worker.worker import WorkController

logger = get_logger(__name__)
task_logger = get_logger("celery.worker.strategy")

#: Waits shorter than this are spent here, not in the broker. Seconds.
SHORT_WAIT = 2.0
#: Deliveries that may wait here at once.
_HELD_WAITS = 1000
#: What came back is counted at some moment within this time, which grows with its failures to the second one. So what
#: was fetched beside a task that kills its worker runs before it, or is not counted yet when that kills. Seconds.
_COUNTED_WITHIN = 0.1, 10.0
#: Nothing is counted for so long after we are connected again: what comes back then was mostly ours, and each copy that
#: is under way when the connection goes once more is one too many. Seconds.
_RECOVERY = 10.0
#: Deliveries taken in one go at most.
_INTAKE = 512
#: Of nearly every message: Python 3.11 takes 0.1 us to find a member of an enumeration.
_RUN, _COUNT = Action.RUN, Action.COUNT


class Consumer:
    """The road between one broker and one pool. Tells the pool's events (`celery.concurrency.base.PoolEvents`)."""

    def __init__(self, worker: WorkController) -> None:
        self.worker = worker
        self.app = worker.app
        self.hostname = worker.hostname
        self.pool = worker.pool
        self.settler = Settler(self.app, self._take_more)
        self.strategy = Strategy(
            self.app.tasks,
            worker.accept,
            revoked=worker.state.revoked,
            delivery_limit=self.app.conf.task_delivery_limit or 0,
            hard_limit=worker.time_limit,
            soft_limit=worker.soft_time_limit,
        )
        #: Requests in the pool, by job number.
        self.requests: dict[int, Request] = {}
        self.receiver: Receiver | None = None
        self.connected = asyncio.Event()
        self.handover = Handover(self)
        self.settler.chords.call = self.handover.pool.apply_async
        self.verbs: Verbs = Verbs(self)
        self.watching = Watching(self)
        self.gate = self.watching.gate
        self.ending = Ending(self)
        self._orphans = Orphans()
        self._suspects = Suspects(self)
        #: Until when nothing is counted, in unix seconds; 0: no connection was lost yet.
        self._recovered = 0.0
        self._last_job = 0
        self._more = asyncio.Event()
        #: Deliveries whose time is near, and what will wake them.
        self._waits: dict[int, tuple[Delivery, asyncio.TimerHandle]] = {}
        self._paused = False
        #: From which nothing is consumed any more.
        self._cancelled: Receiver | None = None
        #: As the receiver was told last; -1: not yet.
        self._prefetch = -1
        self._behind = Behind(self.app, self.hostname, self.settler, self.requests)
        self._connector = Connector(self.app, self.hostname, self._behind.entering, self._queues)
        #: The broker whose messages are in our hands.
        self._served = self._connector.url

    # -- connection

    async def run(self) -> None:
        """Consume until cancelled. Raises OperationalError when the broker stays away for as long as configured."""
        try:
            await self._run()
        finally:
            await self._behind.close()

    async def _run(self) -> None:
        conf = self.app.conf
        on_startup = conf.broker_connection_retry_on_startup
        retry = conf.broker_connection_retry if on_startup is None else on_startup
        while True:
            receiver = await self._connect(retry)
            retry = conf.broker_connection_retry
            try:
                await self._consume(receiver)
            except exceptions.OperationalError as exc:
                logger.warning(
                    "consumer: Connection to broker lost. Trying to re-establish the connection... (%s)", exc
                )
                if not retry:
                    raise
            finally:
                self.connected.clear()
                self.settler.receiver = self.receiver = None
                await receiver.close()
                self._orphans.add_over(receiver.unsure())
                self._recovered = time.time() + _RECOVERY
                self._abandon()

    async def _connect(self, retry: bool) -> Receiver:
        receiver, url, self.settler.shared = await self._connector.connect(retry)
        if url != self._served:
            self._leave_behind()
            self._served = url
        self.settler.add(self._behind.back(url))
        return receiver

    def _queues(self) -> list[Queue]:
        """What to consume from: nothing any more when the worker is about to stop."""
        return [] if self._paused else list(self.app.amqp.queues.consume_from.values())

    async def _consume(self, receiver: Receiver) -> None:
        self.receiver = self.settler.receiver = receiver
        receiver.keep_for(lambda: min(self.budget(), self.pool.idle()))
        self._prefetch = -1
        if self._recovered:
            self._recovered = time.time() + _RECOVERY
        await self.worker.mailbox.start(receiver)
        self.connected.set()
        if self._paused:  # since it began to connect, perhaps
            await self.pause()
        self.worker.on_ready()
        async with _both(self._intake(receiver), self.settler.run(), self.settler.chords.watch()) as failed:
            await failed

    def _abandon(self) -> None:
        """The connection is gone: rule 3."""
        self.handover.abandon()
        self.verbs.abandon()
        for _, handle in self._waits.values():
            handle.cancel()
        self._waits.clear()
        for number, request in list(self.requests.items()):
            if self.gate.withdraw(number):
                del self.requests[number]
            elif not request.settled_start and not self.ending.disconnected(request):
                self._orphans.add_running(request)
        running = {id(request.delivery): request for request in self.requests.values()}
        for settlement in self.settler.take_unsettled():
            request_started = running.get(id(settlement.delivery))
            if request_started is None:
                self._orphans.add_finished(settlement)
            else:
                # Its early acknowledgement did not get through: the message will come again.
                request_started.settled_start = False
                self._orphans.add_running(request_started)

    def _leave_behind(self) -> None:
        """This is another broker: rule 4."""
        self._behind.leave(self._served)
        for request in self.requests.values():
            request.delivery.receipt = None
        self.settler.forget_receipts()
        self.settler.add(self._orphans.release())

    # -- intake

    def _take_more(self) -> None:
        self._more.set()

    async def pause(self) -> None:
        """Take no more messages (the worker is about to stop); what is on its way here goes back at once."""
        self._paused = True
        receiver = self.receiver
        if receiver is not None:
            with contextlib.suppress(exceptions.OperationalError):
                for queue in list(self.app.amqp.queues.consume_from):
                    await receiver.cancel(queue)
                self._cancelled = receiver
                self._take_more()

    def budget(self) -> int:
        """How many more deliveries to take now."""
        if self._paused or self.settler.full or self.handover.full or self.verbs.full:
            return 0
        multiplier = self.worker.prefetch_multiplier
        if multiplier is None:
            return min(self.gate.room(), _INTAKE)
        if multiplier == 0:
            return _INTAKE
        reserved = sum(1 for request in self.requests.values() if not request.settled_start)
        reserved += len(self.handover) + len(self.verbs)
        return min(multiplier * self.worker.concurrency - reserved, _INTAKE)

    async def _intake(self, receiver: Receiver) -> None:
        while True:
            # What was asked for before the end of consuming is still to come, and to go back.
            room = _INTAKE if self._cancelled is receiver else self.budget()
            if room <= 0:
                self._more.clear()
                await self._more.wait()
                continue
            if not self._paused:
                await self._fit_prefetch(receiver, room)
            deliveries = await receiver.receive(room)
            if self._paused:
                self.settler.add([Settlement(delivery, Verdict.RETURN) for delivery in deliveries])
                continue
            await self._take(deliveries)

    async def progress(self, seconds: float) -> None:
        """Return when more may be taken than before, or after so long. For who holds up the intake."""
        self._more.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._more.wait(), seconds)

    async def _fit_prefetch(self, receiver: Receiver, room: int) -> None:
        """For brokers that push: what is configured, and what waits for its time; else what is here and what is wanted,
        in powers of two so that it seldom changes.
        """
        multiplier = self.worker.prefetch_multiplier
        if multiplier is None:
            here = len(self.requests) + len(self.settler) + len(self._waits) + len(self.handover) + len(self.verbs)
            wanted = 1 << max(here + room - 1, 1).bit_length()
            if self._prefetch // 4 <= wanted <= self._prefetch:
                return
        else:
            wanted = multiplier and multiplier * self.worker.concurrency + len(self._waits)
        if wanted != self._prefetch:
            await receiver.prefetch(wanted)
            self._prefetch = wanted

    async def _take(self, deliveries: Sequence[Delivery]) -> None:
        now = time.time()
        jobs = []
        for delivery in deliveries:
            decision = self.strategy.decide(delivery, now)
            if decision.action is _COUNT:
                if self._orphans.adopt(delivery, decision, self.settler):
                    continue
                if now < self._recovered:
                    decision.action = Action.RUN
            if decision.action is not _RUN:
                self._handle_other(delivery, decision, now)
            elif decision.task is not None and decision.task.name in self.handover:
                self.handover.take(delivery, decision)
            elif self._orphans.adopt(delivery, decision, self.settler):
                continue
            elif not delivery.failures or self._suspects.may_begin(delivery, decision, now):
                jobs.append(self._reserve(delivery, decision))
        if not jobs:
            return
        try:
            await self._suspects.others_given_back()
            if signals.task_received.receivers:
                for job, _ in jobs:
                    request = self.requests[job.number]
                    await self.worker.run_hook(signals.task_received.send, sender=self, request=request)
        except BaseException:
            # The connection went meanwhile: the pool knows nothing of these yet.
            for job, _ in jobs:
                self.requests.pop(job.number, None)
            raise
        self.gate.submit(jobs)
        await self._suspects.begun()

    def _reserve(self, delivery: Delivery, decision: Decision, aftermath: Any = None) -> tuple[Job, Any]:
        assert decision.task is not None
        assert decision.handling is not None
        self._last_job += 1
        handling = decision.handling
        limits = (handling.soft_limit, handling.hard_limit) if handling.is_async else None
        job = job_of(self._last_job, delivery, aftermath, limits, decision.expires)
        make = self.watching.maker(handling.task)
        request = make(self.app, self.hostname, delivery, decision.source, decision.task, handling, job)
        self.requests[job.number] = request
        self.worker.state.total[handling.task] += 1
        if task_logger.isEnabledFor(20):
            context = {
                "id": request.id, "name": request.name, "args": request.argsrepr, "kwargs": request.kwargsrepr,
                "eta": request.eta,
            }  # fmt: skip
            task_logger.info(self.worker.log_received, context, extra={"data": context})
        return job, handling

    def _handle_other(self, delivery: Delivery, decision: Decision, now: float) -> None:
        if decision.action is Action.WAIT:
            assert decision.until is not None
            self._wait(delivery, decision, now)
        elif decision.action is Action.COUNT:
            first, most = _COUNTED_WITHIN
            pause = random.random() * min(first * 4**delivery.failures, most)  # noqa: S311 - no secret
            self._wait_here(delivery, pause, self._count)
        elif decision.action is Action.FAIL:
            assert decision.error is not None
            name = type(decision.error).__name__
            self.pool.submit([self._reserve(delivery, decision, (name, list(decision.error.args)))])
        elif decision.action is Action.DROP:
            if not self.verbs.asks(delivery, decision):
                self._drop(delivery, decision)
        else:
            self._refuse(delivery, decision)

    def _wait(self, delivery: Delivery, decision: Decision, now: float) -> None:
        assert self.receiver is not None
        assert decision.until is not None
        self.worker.state.task_scheduled(delivery, decision.headers, decision.until, self.hostname)
        here = decision.until - now <= SHORT_WAIT and len(self._waits) < _HELD_WAITS
        if not here and self.receiver.capabilities.delay:
            self.settler.settlement(delivery, Verdict.DELAY, until=decision.until)
            return
        self._wait_here(delivery, decision.until - now, self._due)

    def _wait_here(self, delivery: Delivery, seconds: float, then: Callable[[Delivery], None]) -> None:
        self._waits[id(delivery)] = delivery, asyncio.get_running_loop().call_later(seconds, then, delivery)

    def _count(self, delivery: Delivery) -> None:
        del self._waits[id(delivery)]
        self.settler.settlement(delivery, Verdict.COUNT)

    def _due(self, delivery: Delivery) -> None:
        del self._waits[id(delivery)]
        # The loop's timers are a little early at times: then it is decided to wait once more.
        now = time.time()
        again = self.strategy.decide(delivery, now)
        if again.action is Action.RUN and again.task is not None and again.task.name in self.handover:
            self.handover.take(delivery, again)
        else:
            self.take_decided(delivery, again, now)

    def take_decided(self, delivery: Delivery, decision: Decision, now: float) -> None:
        """Do what was decided, whatever strategy the task brings."""
        if decision.action is Action.RUN:
            self.gate.submit([self._reserve(delivery, decision)])
        else:
            self._handle_other(delivery, decision, now)

    def _drop(self, delivery: Delivery, decision: Decision, verdict: Verdict = Verdict.ACK) -> None:
        headers = decision.headers
        logger.info("Discarding revoked task: %s[%s]", headers.get("shadow") or headers["task"], headers["id"])
        context = self._context(delivery, headers)
        results = self._records(decision, context, states.REVOKED)
        self._give_up(delivery, verdict, decision, states.REVOKED, results)
        if signals.task_revoked.receivers:
            self.worker.hook_soon(
                signals.task_revoked.send, sender=decision.task, request=context, terminated=False, signum=None,
                expired=decision.reason == "expired",
            )  # fmt: skip

    def _refuse(self, delivery: Delivery, decision: Decision) -> None:
        headers = decision.headers
        task_id = headers.get("id")
        logger.error(
            "%s\nThe message (task %r, id %r, from queue %r) goes to the dead queue.",
            decision.reason, headers.get("task"), task_id, delivery.queue,
        )  # fmt: skip
        results: Any = ()
        if decision.error is not None and isinstance(task_id, str):
            results = self._records(decision, self._context(delivery, headers), states.FAILURE)
        self._give_up(delivery, Verdict.DEAD, decision, states.FAILURE, results)
        unknown = isinstance(decision.error, exceptions.NotRegistered)
        signal = signals.task_unknown if unknown else signals.task_rejected
        if signal.receivers:
            details = {"name": headers.get("task"), "id": task_id} if unknown else {}
            self.worker.hook_soon(signal.send, sender=self, message=delivery, exc=decision.error, **details)

    def _give_up(self, delivery: Delivery, verdict: Verdict, decision: Decision, state: str, results: Any) -> None:
        """Settle what will not run, with what that means for its chain and its chord."""
        results, parts = self._with_losses(delivery, decision, state, results)
        self.settler.settlement(delivery, verdict, reason=decision.reason, results=results, parts=parts)

    def _with_losses(self, delivery: Delivery, decision: Decision, state: str, results: Any) -> tuple[Any, Any]:
        parts: Any = ()
        if decision.error is not None and self.app.backend.async_writer:
            losses = self.settler.chords.losses(delivery, decision.error, state)
            results, parts = (*results, *losses.writes), losses.parts
        elif decision.error is not None:
            self.worker.hook_soon(self.settler.chords.lose, delivery, decision.error, state)
        return results, parts

    def _records(self, decision: Decision, context: Context, state: str) -> Any:
        task = decision.task
        if task is not None and task.ignore_result and not task.store_errors_even_if_ignored:
            return ()
        if not self.app.backend.async_writer:
            self.worker.hook_soon(self.app.backend.store_result, context.id, decision.error, state, request=context)
            return ()
        return record_of(self.app, context, state, decision.error)

    def _context(self, delivery: Delivery, headers: Any) -> Context:
        context = Context(headers, hostname=self.hostname, called_directly=False)
        context.reply_to = delivery.envelope.properties.get("reply_to")
        return context

    # -- what the pool tells

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        """These attempts are over."""
        over = []
        for outcome in outcomes:
            request = self.requests.get(outcome.job)
            if request is None:
                self.handover.pool.finished(outcome)
            elif request in self.watching:
                self.worker.spawn(self._watched(request, outcome))
            else:
                over.append((request, outcome))
        self._settle(over)

    async def _watched(self, request: Request, outcome: Outcome) -> None:
        await self.watching.finished(request, outcome)
        if self.requests.get(outcome.job) is request:
            if outcome.disposition is not Disposition.UNREADABLE:
                self.verbs.over(request)
            self._settle([(request, outcome)])

    def _settle(self, over: Sequence[tuple[Request, Outcome]]) -> None:
        settlements = []
        for request, outcome in over:
            del self.requests[outcome.job]
            if outcome.settled and self._leaves(request, outcome):
                continue
            settlement = Settlement(
                request.delivery, request.verdict(outcome), follow=outcome.follow, results=outcome.writes,
                reason=outcome.summary, after_start=request.settled_start, begins=outcome.begins, parts=outcome.parts,
            )  # fmt: skip
            if not self._orphans.finish(request, settlement):
                settlements.append(settlement)
        self.settler.add(settlements)
        self._more.set()
        self.worker.on_progress()

    def _leaves(self, request: Request, outcome: Outcome) -> bool:
        """Note what a child has left (`celery.worker.leaving`). Whether whoever comes next is to tell it as lost."""
        if outcome.disposition is not Disposition.LEFT:
            return False
        self.settler.left = True
        return request.settled_start and self.receiver is not None and self.receiver.capabilities.started_records

    def started(self, jobs: Sequence[tuple[int, int, float]]) -> None:
        """These run, and will for a while."""
        for number, pid, since in jobs:
            request = self.requests.get(number)
            if request is None:
                self.handover.pool.started(number, pid, since)
                continue
            request.started_at, request.pid = since, pid
            if request.job.aftermath is not None:
                continue
            if request in self.watching and self.watching.started(request, pid, since):
                pass  # it acknowledges itself
            elif not request.acks_late and request.asked is None:
                self._acknowledge(request)
            # A backend that only stores blockingly is told by the child itself.
            if request.task.track_started and not request.ignores_result and self.app.backend.async_writer:
                value = requests.started_value(self.hostname, pid)
                record = record_of(self.app, request.context(), states.STARTED, value)
                self.settler.announce(record, partial(self.pool.told, number))
        self._more.set()

    def _acknowledge(self, request: Request) -> None:
        """The message of what is in the pool leaves the broker's care."""
        here = self.requests.get(request.job.number) is request
        if here and not request.settled_start and not self._orphans.has(request):
            request.settled_start, request.acks_late = True, False
            self.settler.settlement(request.delivery, Verdict.START)

    def grown(self) -> None:
        """The pool has more room."""
        self._more.set()

    def lost(self, job: int, loss: Lost) -> None:
        """The attempt has no outcome: what the table in `celery.worker.request` says."""
        request = self.requests.get(job)
        if request is None:
            self.handover.pool.lost(job, loss)
            return
        if request.job.aftermath is not None:
            self.ending.died_again(request, exception_of(request.job.aftermath))
            return
        if loss.reason == "time-limit":
            logger.error("Hard time limit (%ss) exceeded for %s[%s]", loss.limit, request.name, request.id)
            error: tuple[str, list[Any]] = ("TimeLimitExceeded", [loss.limit])
            requeue = request.requeues_timeout
        elif loss.reason == "terminated":
            if self.ending.lost(request):
                return
            error, requeue = ("TaskRevokedError", ["terminated"]), False
        else:
            logger.error("Task %s[%s]: its process died: %s", request.name, request.id, loss.detail)
            error = ("WorkerLostError", [f"Worker exited prematurely: {loss.detail} Job: {job}."])
            requeue = request.requeues_loss
        if request in self.watching and self.watching.lost(request, loss, given_back=requeue):
            return  # it says itself what becomes of it
        if requeue:
            self._give_back(request, loss)
            return
        again = job_of(job, request.delivery, error)
        request.job = again
        self.pool.submit([(again, request.handling)])

    def _give_back(self, request: Request, loss: Lost) -> None:
        del self.requests[request.job.number]
        limit = self.strategy.delivery_limit
        if self._orphans.forget(request):
            pass  # its message comes again by itself, and is not to find it
        elif limit and request.delivery.failures + 1 >= limit:
            reason = f"{limit} processes died while running it (task_delivery_limit), the last by {loss.detail}"
            logger.error("Task %s[%s] goes to the dead queue: %s", request.name, request.id, reason)
            error = exceptions.WorkerLostError(reason)
            decision = Decision(Action.REFUSE, request.headers, request.task, reason=reason, error=error)
            results = self._records(decision, request.context(), states.FAILURE)
            self._give_up(request.delivery, Verdict.DEAD, decision, states.FAILURE, results)
        else:
            self.settler.settlement(request.delivery, Verdict.LOST)
        self._more.set()
        self.worker.on_progress()

    # -- the end

    def give_back_waiting(self) -> None:
        """What has not begun goes back to the queue."""
        for delivery, handle in self._waits.values():
            handle.cancel()
            self.settler.settlement(delivery, Verdict.RETURN)
        self._waits.clear()
        for number, request in list(self.requests.items()):
            if request.job.aftermath is None and self.gate.withdraw(number):
                del self.requests[number]
                self.settler.settlement(request.delivery, Verdict.RETURN)


class _both:  # noqa: N801 - reads as a word
    """Run two coroutines until one of them ends; then end the other."""

    def __init__(self, *coroutines: Any) -> None:
        self._tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]

    async def __aenter__(self) -> Any:
        return self._first()

    async def _first(self) -> None:
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
