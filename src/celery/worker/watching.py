"""Requests of classes that tasks bring: `Task.Request`, a subclass of `Request` or its import path (API-042).

Rules
    1. Such a request is told what becomes of its attempt, by the hooks of `Request`: on the side thread and in order.
       What a hook raises is logged. The attempt is settled when its hooks have returned; everything else goes on.
    2. Hooks watch. The attempt's result and its acknowledgement are the worker's business, whatever a hook does or
       leaves: Celery's own hooks do this work, so that there `super()` must be called. A request that wants its message
       settled otherwise says so, by `acknowledge` or `reject`.
    3. A class that defines `execute_using_pool`, or what that asks, takes its requests to the pool itself
       (`celery.worker.gate`). One that defines `acknowledge`, `reject`, `send_event`, ... is asked to do that, between
       the hooks (`celery.worker.verbs`).

The value is told as its repr, as Celery does (as nothing where the log level is above INFO: nobody has made one); an
exception is the one in the stored record or, when the worker's main process stores none, a plain one with its repr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import exceptions, states
from celery.app.einfo import ExceptionInfo
from celery.app.task import Task
from celery.utils.imports import symbol_by_name
from celery.utils.log import get_logger
from celery.worker import verbs
from celery.worker.gate import OWN_ROAD, Gate, Stage, Turn
from celery.worker.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.app.outcome import Outcome
    from celery.concurrency.base import Lost, Pool
    from celery.worker.consumer.consumer import Consumer

logger = get_logger(__name__)

#: What a task raises to end so.
_ASKED: dict[str, Callable[[str], BaseException]] = {
    states.RETRY: exceptions.Retry,
    states.REJECTED: exceptions.Reject,
    states.IGNORED: exceptions.Ignore,
}


class Watching:
    """The request classes of tasks, and their hooks."""

    def __init__(self, consumer: Consumer) -> None:
        """Look the classes up.

        Args:
            consumer: of the worker that runs hooks.

        Raises:
            ImproperlyConfigured: a task's `Request` is no subclass of `celery.worker.request.Request`.
        """
        self._app = consumer.app
        self._verbs = consumer.verbs
        self._worker = consumer.worker
        self._hook = self._worker.hook_soon
        self._gate = Gate(consumer)
        tasks = self._app.tasks.items()
        classes = {name: _request_class(task) for name, task in tasks if task.Request != Task.Request}
        self._makers = {name: self._maker(cls) for name, cls in classes.items()}
        #: Names of tasks whose class overrides a verb.
        self.acting = frozenset(name for name, cls in classes.items() if _defines(cls, verbs.VERBS))
        #: What takes requests to the pool: where no class does that itself, the pool.
        self.gate: Gate | Pool = self._gate if any(map(_takes_own_road, classes.values())) else consumer.pool

    def maker(self, task_name: str) -> Callable[..., Request]:
        """What makes requests of a task."""
        return self._makers.get(task_name, Request)

    def _maker(self, cls: type[Request]) -> Callable[..., Request]:
        first = Stage.WAITING if _takes_own_road(cls) else Stage.HANDED
        own = frozenset(_defines(cls, verbs.VERBS))

        def make(*args: Any) -> Request:
            request = cls(*args)
            request.keeper = Turn(self._gate, first, own)
            return request

        return make

    def __contains__(self, request: Request) -> bool:
        return type(request) is not Request

    def started(self, request: Request, pid: int, since: float) -> bool:
        """A tick found it running. True: it decides itself whether it is acknowledged now."""
        turn = _turn(request)
        self._hook(self._tell_start, request, turn, pid, since)
        return bool(turn.verbs)

    async def finished(self, request: Request, outcome: Outcome) -> None:
        """The attempt is over; so is what followed one that was killed, or lost. Returns when its hooks have."""
        turn = _turn(request)
        turn.state = outcome.state
        aftermath = request.job.aftermath
        if aftermath is None and request.started_at is None:
            turn.over = True
            await self._told(self._tell_start, request, turn, None, outcome.started)
        if aftermath is None or aftermath[0] != "TimeLimitExceeded":
            await self._told(self._tell_end, request, turn, outcome)
        else:
            await self._told(int)  # they run in order: when this one's turn comes, `on_timeout` has returned

    def lost(self, request: Request, loss: Lost, *, given_back: bool) -> bool:
        """The attempt has no outcome. True: it decides itself whether it is repeated."""
        turn = _turn(request)
        decides = given_back and bool(turn.verbs)
        if turn.verbs:
            turn.over = True
            self._hook(self._tell_missed, request, turn)
        if loss.reason != "time-limit" and not given_back:
            return False
        told = self._told(self._tell_loss, request, turn, loss, given_back)
        self._worker.spawn(self._verbs.run_again(request, loss, told) if decides else told)
        return decides

    async def _told(self, hook: Callable[..., Any], *args: Any) -> None:
        try:
            await self._worker.run_hook(hook, *args)
        except Exception:
            logger.exception("%r raised", hook)

    # -- on the side thread

    @staticmethod
    def _tell_start(request: Request, turn: Turn, pid: int | None, since: float) -> None:
        turn.accepted = True
        turn.tell(request, verbs.at_start(late=bool(request.task.acks_late)), request.on_accepted, pid, since)

    @staticmethod
    def _tell_missed(request: Request, turn: Turn) -> None:
        """It began and was lost, and no tick has seen it."""
        if not turn.accepted:
            turn.accepted = True
            turn.tell(request, verbs.at_start(late=bool(request.task.acks_late)))

    @staticmethod
    def _tell_loss(request: Request, turn: Turn, loss: Lost, given_back: bool) -> None:
        timed_out = loss.reason == "time-limit"
        error = exceptions.TimeLimitExceeded(loss.limit) if timed_out else exceptions.WorkerLostError(loss.detail)
        einfo, late = ExceptionInfo(error), bool(request.task.acks_late)
        calls = verbs.to_run_again() if given_back else verbs.at_failure(einfo, late=late)
        hook = (request.on_timeout, False, loss.limit) if timed_out else (request.on_failure, einfo)
        turn.tell(request, calls, *hook)

    def _tell_end(self, request: Request, turn: Turn, outcome: Outcome) -> None:
        turn.over = True
        failed = outcome.state != states.SUCCESS
        value: Any = self._einfo(request, outcome) if failed else outcome.summary
        if turn.verbs:
            try:
                if not turn.accepted and not request.task.acks_late:  # it failed before it began
                    turn.tell(request, verbs.at_start(late=False)[:1])
                if outcome.state == states.REVOKED:
                    turn.tell(request, verbs.when_off(signum=turn.signum))
            except Exception:
                logger.exception("%s: its request class raised", request.humaninfo())
        soft = request.handling.soft_limit
        # The pool counts from a moment before the task's own clock starts.
        interrupted = failed and isinstance(value.exception, exceptions.SoftTimeLimitExceeded)
        if soft is not None and (interrupted or outcome.runtime >= soft):
            request.on_timeout(True, soft)
        calls: list[verbs.Call] = []
        if turn.verbs and outcome.state != states.REVOKED:
            late = bool(request.task.acks_late)
            calls = verbs.at_end(outcome, value if failed else None, late=late, refused=request.refuses_failure)
        turn.tell(request, calls, request.on_success, (failed, value, outcome.runtime))

    def _einfo(self, request: Request, outcome: Outcome) -> ExceptionInfo:
        einfo = ExceptionInfo(self._exception(request, outcome))
        einfo.traceback = outcome.traceback or einfo.traceback
        return einfo

    def _exception(self, request: Request, outcome: Outcome) -> BaseException:
        asked = _ASKED.get(outcome.state)
        if asked is not None:
            return asked(outcome.summary)
        for write in outcome.writes:
            if write.task_id == request.id:
                found: BaseException = self._app.backend.decode_result(write.payload)["result"]
                return found
        return Exception(outcome.summary)


def _turn(request: Request) -> Turn:
    assert request.keeper is not None
    return request.keeper


def _defines(cls: type[Request], names: Sequence[str]) -> list[str]:
    """Which of these names a class has of its own."""
    above = set(Request.__mro__)
    return [name for name in names if any(name in each.__dict__ for each in cls.__mro__ if each not in above)]


def _takes_own_road(cls: type[Request]) -> bool:
    return bool(_defines(cls, OWN_ROAD))


def _request_class(task: Task[..., Any]) -> type[Request]:
    found = symbol_by_name(task.Request)
    if not (isinstance(found, type) and issubclass(found, Request)):
        raise exceptions.ImproperlyConfigured(
            f"Request of task {task.name} is {found!r}; it must be a subclass of celery.worker.request.Request, or its "
            "import path."
        )
    return found
