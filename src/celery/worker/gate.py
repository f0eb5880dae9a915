"""Requests that take themselves to the pool: of classes that define `execute_using_pool` (API-042), or what it asks.

Celery 5.7 itself calls such methods only where a strategy makes the requests: those that it makes for a task are of a
class below the task's, which has its own. Where both are called, this agrees with it unless a rule says otherwise.

Vocabulary
    *Turn*: what is known of one request of a task's own class; it does what the methods of the request ask for.

    | its stage | which means                                                   | a worker stops, or loses its broker |
    | --------- | ------------------------------------------------------------- | ----------------------------------- |
    | WAITING   | `execute_using_pool` will be called                           | is given back                       |
    | CALLED    | it is being called, on the side thread, one after the other   | is waited for, and goes on          |
    | HELD      | it has returned, and nobody has handed the request over: this | is given back                       |
    |           | may still happen, or somebody may settle it                   |                                     |
    | HANDED    | it is in the pool, or executed here                           | as any other request                |
    | OVER      | it was taken back: handing it over has no effect              |                                     |

Rules
    1. Requests of other classes never come here, and a class is looked at once, when the worker starts.
    2. Who acknowledges or rejects before handing over has settled the message there and then; the task may run all the
       same, now or later, and only its effects are then left to apply. In the pool, `Request.acknowledge` and `reject`
       are as for every request.
    3. What is held counts as reserved, and takes up no process (in Celery each costs one until the worker stops).
    4. A request is handed over once. A second time is warned of, and runs nothing (in Celery it runs twice).
    5. What `execute_using_pool` raises before it hands over fails the task, with its error callbacks and its chord (in
       Celery it ends the worker, and the message comes to the next one). `TaskRevokedError` is no error: the task ends
       as REVOKED, unless its message was settled. Later exceptions are logged.
    6. What it changes in `request_dict`, but for arguments and what follows, the task sees as headers of its message;
       limits are those of `time_limits`. `execute` minds none.
"""

from __future__ import annotations

import enum
import os
import threading
import time
from collections import deque
from copy import copy, deepcopy
from typing import TYPE_CHECKING, Any

import msgspec

from celery import _state, exceptions, states
from celery.app.trace import Tracer
from celery.brokers.base import Settlement, Verdict
from celery.concurrency.base import Handling, Job, job_of
from celery.utils.log import get_logger
from celery.utils.saferepr import saferepr
from celery.wire.envelope import Envelope
from celery.worker.strategy import EXPIRED, Action, revocation
from celery.worker.verbs import for_verdict, when_off

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celery.app.attempt import Attempt
    from celery.app.outcome import Outcome
    from celery.worker.consumer.consumer import Consumer
    from celery.worker.request import Request
    from celery.worker.strategy import Decision
    from celery.worker.verbs import Call

logger = get_logger(__name__)

#: A class that defines one of these takes its requests to the pool itself.
OWN_ROAD = ("execute_using_pool", "maybe_expire", "request_dict", "revoked", "time_limits")
#: Requests that may be held before the worker takes no more messages.
MOST_HELD = 10_000
#: Of a `request_dict`: what a message does not have among its headers.
_NOT_HEADERS = frozenset({
    "args", "callbacks", "chain", "chord", "correlation_id", "delivery_info", "errbacks", "hostname", "kwargs",
    "reply_to",
})  # fmt: skip


class Stage(enum.Enum):
    """See the table above."""

    WAITING = "waiting"
    CALLED = "called"
    HELD = "held"
    HANDED = "handed"
    OVER = "over"


class Handed:
    """What `execute_using_pool` returns: how far the request is, and a way to end it.

    Nobody can wait here, as the hooks of all requests run on the thread that would: `on_success` tells.
    """

    def __init__(self, turn: Turn, request: Request, pool: Any) -> None:
        self._turn = turn
        self._request = request
        self._pool = pool
        self.correlation_id = request.id

    def accepted(self) -> bool:
        """Whether it has started."""
        return self._request.started_at is not None or self.ready()

    def ready(self) -> bool:
        """Whether the attempt is over."""
        return self._turn.state is not None

    def successful(self) -> bool:
        """Whether it was one. Raises ValueError before its end."""
        if self._turn.state is None:
            raise ValueError(f"{self._request.humaninfo()} is not ready")
        return self._turn.state == states.SUCCESS

    def worker_pids(self) -> list[int]:
        """The process that runs it, once it has started."""
        return [] if self._request.pid is None else [self._request.pid]

    def terminate(self, signum: Any = "TERM") -> None:
        """As `Request.terminate`."""
        self._request.terminate(self._pool, signum)


class Turn:
    """One request of a task's own class. Any thread, but where it says "loop"."""

    def __init__(self, gate: Gate, stage: Stage, verbs: frozenset[str]) -> None:
        self.gate = gate
        #: What its class overrides (`celery.worker.verbs`).
        self.verbs = verbs
        #: What the worker calls of that when its hooks have returned, if they do not.
        self._due: list[Call] = []
        #: The attempt is over, or will never be: what is asked now is settled with its outcome.
        self.over = False
        #: The attempt is over, and nobody had asked for anything by then.
        self.unasked = False
        #: `on_accepted` was told.
        self.accepted = False
        #: The signal that ends it from afar.
        self.signum: int | None = None
        self._told_off = False
        #: Written by the loop.
        self.stage = stage
        #: The message was acknowledged or rejected before the request was handed over.
        self.settled = False
        #: How the attempt ended.
        self.state: str | None = None
        #: Why it is not to run, once `is_off` has said so.
        self.off: Decision | None = None
        self._handed: Handed | None = None
        self._taken = stage is Stage.HANDED
        self._dict: tuple[dict[str, Any], dict[str, Any]] | None = None

    def is_off(self, request: Request) -> bool:
        """Whether it was revoked, or has expired."""
        decision = self.gate.consumer.strategy.decide(request.delivery, time.time())
        off = decision.action is Action.DROP
        if "maybe_expire" in self.verbs and request.expires is not None and decision.reason in ("", EXPIRED):
            off = bool(request.maybe_expire())
            if off and decision.action is not Action.DROP:
                decision = revocation(request.headers, request.task, EXPIRED)
        self.off = decision if off else None
        if off and not self._taken:
            self.tell_off(request, expired=decision.reason == EXPIRED)
        return off

    def tell_off(self, request: Request, *, expired: bool) -> None:
        """It is not going to run: its verbs have their turn, once. On the side thread, or where `revoked` is called."""
        if self._told_off or not self.verbs:
            return
        self._told_off = self.over = True
        try:
            self.tell(request, when_off(expired=expired))
        except Exception:
            logger.exception("%s: its request class raised when it was told that it is revoked", request.humaninfo())

    def tell(self, request: Request, calls: Sequence[Call], hook: Callable[..., Any] | None = None, *args: Any) -> None:
        """Call a hook, and what its class overrides of the worker's verbs. On the side thread."""
        self._due = list(calls) if self.verbs else []
        try:
            if hook is not None:
                hook(*args)
        finally:
            self.pay(request)

    def pay(self, request: Request) -> None:
        """Call what is due. What one raises leaves out the rest."""
        due, self._due = self._due, []
        for name, args, kwargs in due:
            getattr(request, name)(*args, **kwargs)

    def request_dict(self, build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The one of this request, which may be changed."""
        if self._dict is None:
            built = build()
            headers = {name: value for name, value in built.items() if name not in _NOT_HEADERS}
            self._dict = built, deepcopy(headers)
        return self._dict[0]

    def _changes(self) -> dict[str, Any]:
        if self._dict is None:
            return {}
        now, before = self._dict
        return {
            name: value
            for name, value in now.items()
            if name not in _NOT_HEADERS and (name not in before or before[name] != value)
        }

    def ask(self, request: Request, verdict: Verdict) -> bool:
        """Have the broker forget the message, refuse it, or take it back. False: somebody has asked before."""
        if self.settled or request.asked is not None:
            return False
        if not self._taken and not self.over:
            self.settled = True
            self.gate.on_loop(self.gate.let_go, request, self, verdict)
            return True
        request.asked = verdict
        if self.over:
            self.gate.on_loop(self.gate.consumer.verbs.settle, request)
        elif verdict is Verdict.ACK:
            self.gate.on_loop(self.gate.consumer._acknowledge, request)
        return True

    def _take(self, request: Request) -> bool:
        """Whether this is the first who would run it."""
        with self.gate.lock:
            first, self._taken = not self._taken, True
        if not first:
            logger.warning("%s was handed over before: it is not run a second time.", request.humaninfo())
        return first

    def hand(self, request: Request) -> Handed:
        """To the pool."""
        if self._handed is None:
            self._handed = Handed(self, request, self.gate.consumer.handover.pool)
        # What the class has to say may raise: then it has not been taken.
        job, handling = self._job(request, self._changes())
        if self._take(request):
            self.gate.on_loop(self.gate.hand, request, self, job, handling)
        return self._handed

    def execute(self, request: Request, context: Mapping[str, Any]) -> Any:
        """On this thread."""
        given = {name: value for name, value in context.items() if value is not None}
        job, _ = self._job(request, self._changes() | given)
        if not self._take(request):
            return None
        gate = self.gate
        gate.on_loop(gate.executing, request, self, job)
        try:
            if self.verbs and not request.task.acks_late:
                request.acknowledge()
        except Exception:
            logger.exception("%s: acknowledge of its request class raised", request.humaninfo())
        try:
            outcome, attempt = gate.attempt(job)
        except BaseException as exc:  # it ends nothing but the task
            gate.on_loop(gate.fail, request, self, exc)
            raise
        try:
            if self.verbs:
                verdict, self.over = request.verdict(outcome), True
                self.tell(request, [for_verdict(verdict)])
        finally:
            gate.on_loop(gate.executed, request, outcome)
        if attempt is None or outcome.state == states.FAILURE:
            return outcome.traceback or outcome.summary
        return attempt.retval

    def _job(self, request: Request, changes: Mapping[str, Any]) -> tuple[Job, Handling]:
        """The request's job and how to treat it, as it is by now."""
        hard, soft = (_seconds(value, request) for value in request.time_limits or (None, None))
        handling = self.gate.consumer.strategy.handling(request.task, soft, hard)
        job = request.job
        if changes:
            envelope = request.delivery.envelope
            changed = Envelope(
                {**envelope.headers, **changes}, envelope.body, envelope.content_type, envelope.content_encoding,
                envelope.properties,
            )  # fmt: skip
            job = msgspec.structs.replace(job, message=changed, delivery_info=request.delivery.info)
        if handling.is_async:
            limits = handling.soft_limit, handling.hard_limit
            job = msgspec.structs.replace(job, limits=limits)
        return job, handling


def _seconds(value: Any, request: Request) -> float | None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise TypeError(f"time_limits of {request.humaninfo()} has {value!r}; each is a number of seconds, or None")


class Gate:
    """The way into the pool of one worker. On the loop, but where it says otherwise."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.lock = threading.Lock()
        self.on_loop = consumer.handover.pool.on_loop
        self._waiting: deque[tuple[Request, Turn]] = deque()
        self._held: set[int] = set()
        self._serving = False
        self._local = threading.local()

    # -- what the consumer asks of a pool

    def submit(self, jobs: Sequence[tuple[Job, Handling]]) -> None:
        """Run these, or have those run that take themselves to the pool."""
        straight = []
        for each in jobs:
            request = self.consumer.requests[each[0].number]
            if request.keeper is not None and request.keeper.stage is Stage.WAITING:
                self._waiting.append((request, request.keeper))
            else:
                straight.append(each)
        if straight:
            self.consumer.pool.submit(straight)
        if self._waiting and not self._serving:
            self._serving = True
            self.consumer.worker.spawn(self._serve())

    def withdraw(self, number: int) -> bool:
        """Take back what has not begun: nobody has called it, it is held, or it lies in the pool."""
        request = self.consumer.requests.get(number)
        turn = request.keeper if request is not None else None
        if turn is None:
            return self.consumer.pool.withdraw(number)
        if turn.settled:
            return False  # nobody else would run it
        if turn.stage in (Stage.WAITING, Stage.HELD):
            assert request is not None
            turn.stage = Stage.OVER
            self._held.discard(number)
            self.consumer._orphans.forget(request)
            return True
        return self.consumer.pool.withdraw(number)

    def room(self) -> int:
        """How many more the pool could do with."""
        return 0 if len(self._held) >= MOST_HELD else self.consumer.pool.room() - len(self._waiting)

    # -- the turns

    async def _serve(self) -> None:
        try:
            while self._waiting:
                request, turn = self._waiting.popleft()
                if turn.stage is Stage.WAITING and (self._here(request) or turn.settled):
                    turn.stage = Stage.CALLED
                    self._returned(request, turn, await self.consumer.worker.run_hook(self._call, request))
                    self._moved()
        finally:
            self._serving = False

    def _call(self, request: Request) -> BaseException | None:
        """On the side thread: what was raised."""
        try:
            request.execute_using_pool(self.consumer.handover.pool)
        except BaseException as exc:  # noqa: BLE001 - not even SystemExit ends the worker
            return exc
        return None

    def _here(self, request: Request) -> bool:
        return self.consumer.requests.get(request.job.number) is request

    def _returned(self, request: Request, turn: Turn, error: BaseException | None) -> None:
        """Decide what becomes of a request whose method has returned."""
        if turn.stage is not Stage.CALLED:
            if error is not None:
                logger.error("%s raised after it was handed over", request.humaninfo(), exc_info=error)
            return
        if isinstance(error, exceptions.TaskRevokedError) or (error is None and turn.off and not turn.settled):
            self._drop(request, turn)
        elif error is not None:
            self.fail(request, turn, error)
        else:
            turn.stage = Stage.HELD
            if turn.settled:
                self._leave(request)
            else:
                self._held.add(request.job.number)

    def _drop(self, request: Request, turn: Turn) -> None:
        turn.stage = Stage.OVER
        decision = turn.off or revocation(request.headers, request.task, "revoked")
        if turn.verbs and not turn.settled:
            self.consumer.verbs.off(request, decision)
        # Of an orphan the message comes again, and is decided on anew.
        elif self._leave(request) and not turn.settled and not self.consumer._orphans.forget(request):
            self.consumer._drop(request.delivery, decision)

    def _leave(self, request: Request) -> bool:
        here = self._here(request)
        if here:
            del self.consumer.requests[request.job.number]
        return here

    def _moved(self) -> None:
        self.consumer._take_more()
        self.consumer.worker.on_progress()

    def let_go(self, request: Request, turn: Turn, verdict: Verdict) -> None:
        """Settle the message of what is not in the pool yet: rule 2."""
        if turn.stage is Stage.OVER or not self._here(request):
            return
        settlement = Settlement(request.delivery, verdict, reason=f"rejected by {type(request).__qualname__}")
        if not self.consumer._orphans.finish(request, settlement):
            self.consumer.settler.add([settlement])
        request.delivery = copy(request.delivery)
        request.delivery.receipt = None
        request.settled_start, request.acks_late = True, False
        if turn.stage is Stage.HELD:
            self._held.discard(request.job.number)
            self._leave(request)
            self._moved()

    def hand(self, request: Request, turn: Turn, job: Job, handling: Handling) -> None:
        """Put it into the pool."""
        if self._enter(request, turn, job):
            request.handling = handling
            self.consumer.pool.submit([(job, handling)])

    def executing(self, request: Request, turn: Turn, job: Job) -> None:
        """It runs here from now on."""
        if self._enter(request, turn, job):
            request.started_at, request.pid = time.time(), os.getpid()
            if not request.acks_late and not turn.verbs and request.asked is None:
                self.consumer._acknowledge(request)

    def _enter(self, request: Request, turn: Turn, job: Job) -> bool:
        number = request.job.number
        if turn.stage is Stage.OVER or not (self._here(request) or turn.settled):
            logger.warning("%s was given back before it was handed over: it is not run here.", request.humaninfo())
            return False
        turn.stage = Stage.HANDED
        self._held.discard(number)
        request.job = job
        self.consumer.requests[number] = request
        return True

    def executed(self, request: Request, outcome: Outcome) -> None:
        """It has run here."""
        if self._here(request):
            turn = request.keeper
            assert turn is not None
            turn.state = outcome.state
            self.consumer.verbs.over(request)
            self.consumer._settle([(request, outcome)])

    def fail(self, request: Request, turn: Turn, error: BaseException) -> None:
        """Fail the task: rule 5."""
        logger.error("%s cannot be run: %s", request.humaninfo(), saferepr(error), exc_info=error)
        if not self._here(request):
            return
        text = f"{type(request).__qualname__}.execute_using_pool raised {saferepr(error)}"
        again = job_of(request.job.number, request.delivery, ("TaskError", [text]))
        turn.stage, turn._taken = Stage.HANDED, True
        request.job = again
        self.consumer.pool.submit([(again, request.handling)])

    # -- on any thread

    def attempt(self, job: Job) -> tuple[Outcome, Attempt | None]:
        """Run a job on this thread."""
        tracer = getattr(self._local, "tracer", None)
        if tracer is None:
            tracer = self._local.tracer = _KeepingTracer(self.consumer.app, self.consumer.hostname)
        tracer.last = None
        envelope, info = job.open()
        token = _state.set_join_denied(True)
        try:
            return tracer.run(job.number, envelope, info), tracer.last
        finally:
            _state.reset_join_denied(token)


class _KeepingTracer(Tracer):
    """Knows the attempt that it made last."""

    last: Attempt | None = None

    def finish(self, attempt: Attempt) -> Outcome:
        self.last = attempt
        return super().finish(attempt)
