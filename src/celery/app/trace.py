"""One attempt, from message to Outcome: the deliberately hot file.

The pipeline, the same for sync, async and eager attempts:

    read      message -> Attempt: the task and its arguments; the request is made when somebody asks for it
    begin     the request is current; task_prerun, before_start
    run       the body; the only step that differs (called, or awaited)
    conclude  what came of it: the state, and what follows (`succeed`, `fail`, `retry`, ...)
    record    the result as bytes, where it is wanted
    finish    hooks, signals and log lines, in the documented order (SIG-040, SIG-041); the request is current no more

Nothing is sent or stored here, unless the result backend can only store blockingly: then the child settles
(`celery.app.settling`). Hooks run before the worker settles: a task that reads its own record in one finds the state
before (STARTED), where Celery had stored it already (differs from API-038, SIG-008, SIG-040, SIG-041).

What a task is, for running it, is looked up once per process (`Plan`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from celery import _state, exceptions, signals, states
from celery.app import following, repeats, settling
from celery.app.attempt import Attempt, Plan, Source, run_to_end
from celery.app.attempt import task_has_custom as task_has_custom  # noqa: PLC0414 - integrations import it from here
from celery.app.context import Context
from celery.app.einfo import ExceptionInfo
from celery.app.outcome import Disposition, Outbox, Outcome
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.log import get_logger
from celery.utils.saferepr import saferepr
from celery.wire.opening import open_plain
from celery.wire.protocol import read_task
from celery.wire.sealed import UnreadableError, open_text
from celery.wire.serializers import resolve_accept

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery.app.base import Celery
    from celery.app.task import Task
    from celery.backends.base import Backend
    from celery.wire.envelope import Envelope

__all__ = ("TraceInfo", "build_tracer", "reset_worker_optimizations", "setup_worker_optimizations", "trace_task")

logger = get_logger(__name__)

#: Formats that users override (CLI-062).
LOG_RECEIVED = "Task %(name)s[%(id)s] received"
LOG_SUCCESS = "Task %(name)s[%(id)s] succeeded in %(runtime)ss: %(return_value)s"
LOG_FAILURE = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
LOG_INTERNAL_ERROR = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
LOG_IGNORED = "Task %(name)s[%(id)s] %(description)s"
LOG_REJECTED = "Task %(name)s[%(id)s] %(exc)s"
LOG_RETRY = "Task %(name)s[%(id)s] retry: %(exc)s"


class Tracer:
    """Makes attempts, for one application in one process."""

    def __init__(self, app: Celery, hostname: str | None = None, *, eager: bool = False) -> None:
        self.app = app
        self.hostname = hostname
        self.eager = eager
        self.accept = resolve_accept(app.conf.accept_content)
        #: A sync body runs now: the only time when a soft time limit may be raised.
        self.in_body = False
        #: Called before a custom state of a sync task is stored.
        self.before_update: Callable[[], None] | None = None
        #: Seconds that a store which is away is waited for.
        self.patience: Callable[[], float] = lambda: settling.PATIENCES[0]
        self._plans: dict[str, Plan] = {}
        #: Attempts that are on their way through what integrations have put around, by task id.
        self._inside: dict[str, Attempt] = {}

    def plan(self, name: str) -> Plan:
        """The plan of a task. Raises NotRegistered."""
        return self._plans.get(name) or self.plan_of(self.app.tasks[name])

    def plan_of(self, task: Task[..., Any]) -> Plan:
        """The plan of a task that need not be registered."""
        around = None
        if build_tracer is not _OWN_BUILD_TRACER and not task.is_async:
            around = build_tracer(task.name, task, hostname=self.hostname, eager=self.eager, app=self.app, tracer=self)
        # Looked up only now: integrations put something around the body too, while they build.
        plan = self._plans[task.name] = Plan.of(task)
        plan.around = around
        return plan

    # -- the pipeline

    def run(self, job: int, message: Envelope | bytes, info: Mapping[str, Any] | None) -> Outcome:
        """Make one attempt of a sync task. An async one is run on a loop of its own.

        Args:
            job: its number.
            message: the message, or the text of one that is still closed.
            info: `request.delivery_info`; of a text None, as it tells itself.
        """
        attempt = self._open(job, Source(message, info, self.hostname, self.before_update))
        if isinstance(attempt, Outcome):
            return attempt
        if attempt.plan.looks_back and (record := repeats.stored_success(attempt)) is not None:
            return self._stand_in(attempt, record)
        return self.make(attempt)

    def make(self, attempt: Attempt) -> Outcome:
        """Begin, run, conclude, record, finish; inside of what integrations have put around (see `build_tracer`)."""
        around = attempt.plan.around
        if around is None:
            return self._make(attempt)
        uuid = attempt.facts.id
        self._inside[uuid] = attempt
        try:
            outcome: Outcome = around(uuid, attempt.args, attempt.kwargs, attempt.request)
        except Exception as exc:
            begun = self._inside.pop(uuid, None) is None
            if self.eager:
                raise
            if not begun:
                return self._fail_before(attempt, exc)
            self._internal_error(attempt, exc)
            return attempt.outcome
        return outcome

    def _make(self, attempt: Attempt) -> Outcome:
        try:
            self.begin(attempt)
            self.in_body = True
            retval = attempt.plan.call(*attempt.args, **attempt.kwargs)
            self.in_body = False
            if attempt.plan.is_async:
                retval = run_to_end(retval)
        except Exception as exc:  # noqa: BLE001 - whatever a task raises is its outcome
            self.in_body = False
            self.conclude(attempt, exc)
        except BaseException:
            _state.pop_frame()
            raise
        else:
            self.succeed(attempt, retval)
        return self.finish(attempt)

    async def arun(self, job: int, message: Envelope | bytes, info: Mapping[str, Any] | None) -> Outcome:
        """Make one attempt of an async task, on the running loop. Arguments are those of `run`."""
        attempt = self._open(job, Source(message, info, self.hostname))
        if isinstance(attempt, Outcome):
            return attempt
        if attempt.plan.looks_back and (record := await repeats.stored_success_async(attempt)) is not None:
            return self._stand_in(attempt, record)
        try:
            self.begin(attempt)
            retval = await attempt.plan.call(*attempt.args, **attempt.kwargs)
        except Exception as exc:  # noqa: BLE001 - as in make
            self.conclude(attempt, exc)
        except BaseException:
            _state.pop_frame()
            raise
        else:
            self.succeed(attempt, retval)
        return self.finish(attempt)

    def aftermath(
        self, job: int, message: Envelope | bytes, info: Mapping[str, Any] | None, exc: BaseException
    ) -> Outcome:
        """What follows an attempt that was killed, or may not run: its failure, without its body."""
        attempt = self._open(job, Source(message, info, self.hostname))
        if isinstance(attempt, Outcome):
            return attempt
        return self._fail_before(attempt, exc)

    def _fail_before(self, attempt: Attempt, exc: BaseException) -> Outcome:
        """Conclude an attempt that has not begun."""
        _state.enter(attempt)
        attempt.clock = time.perf_counter()
        self.conclude(attempt, self._retried(attempt, exc))  # a retry asks for the current request
        return self.finish(attempt)

    def _stand_in(self, attempt: Attempt, record: Mapping[str, Any]) -> Outcome:
        """The outcome of an attempt that is not made (`celery.app.repeats`)."""
        value = record.get("result")
        try:
            if attempt.request.chord and attempt.plan.task.backend.chords is not None:
                self._count(attempt, value)
            repeats.stand_in(self.app, attempt, value, self.patience, sent=bool(record.get("children")))
        except Exception as exc:  # noqa: BLE001 - as in succeed
            attempt.request.outbox.clear()
            return self._fail_before(attempt, exc)
        _log(attempt, logging.INFO, LOG_IGNORED, None, description=repeats.DONE)
        return attempt.outcome

    @staticmethod
    def _retried(attempt: Attempt, exc: BaseException) -> BaseException:
        """The retry that the loss of a process leads to (`retry_on_worker_lost`); `exc` where there is none."""
        task = attempt.plan.task
        if isinstance(exc, exceptions.WorkerLostError) and task.retry_on_worker_lost:
            return task.retry(exc=exc, throw=False)
        return exc

    def _open(self, job: int, source: Source) -> Attempt | Outcome:
        """The attempt; or, of a message that cannot become one, its failure."""
        try:
            return self.read(job, source)
        except Exception as exc:  # noqa: BLE001 - whatever a message does to us becomes its failure
            return self.unreadable(job, source.message, exc)

    def read(self, job: int, source: Source) -> Attempt:
        """Message -> Attempt. Raises what `open_text` and `read_task` raise, and NotRegistered."""
        message, outcome = source.message, Outcome(job, states.SUCCESS)
        plain = open_plain(message, self.accept)
        if plain is not None:
            facts, args, kwargs, embed = plain
            plan = self._plans.get(facts.task) or self.plan(facts.task)
            return Attempt(plan, plan.task, args, kwargs, outcome, facts, embed, source)
        envelope = open_text(message).envelope if isinstance(message, bytes) else message
        _, headers, args, kwargs, around = read_task(envelope, self.accept, closed=True)
        request = source.request(source.envelope(), headers, around, args, kwargs)
        return Attempt.of(self.plan(headers["task"]), request, args, kwargs, outcome)

    def begin(self, attempt: Attempt) -> None:
        """The request becomes current. What raises here fails the attempt as its body would."""
        _state.enter(attempt)
        attempt.outcome.started = time.time()
        attempt.clock = time.perf_counter()
        plan = attempt.plan
        if plan.settles_here and plan.task.track_started and not self.eager:
            self._store_started(attempt)
        if signals.task_prerun.receivers:
            signals.task_prerun.send(
                sender=plan.task, task_id=attempt.facts.id, task=plan.task, args=attempt.args, kwargs=attempt.kwargs
            )
        if "before_start" in plan.custom:
            plan.task.before_start(attempt.facts.id, attempt.args, attempt.kwargs)

    def succeed(self, attempt: Attempt, retval: Any) -> None:
        """SUCCESS: callbacks and the next step follow, the value is recorded; failing in that is a failure."""
        attempt.outcome.runtime = time.perf_counter() - attempt.clock
        attempt.retval = retval
        embed = attempt.embed
        try:
            if embed.callbacks or embed.chain:
                request = attempt.request
                following.send_after_success(self.app, request, retval, request.outbox)
            self._record(attempt, retval)
            if embed.chord:
                self._count(attempt, retval)
        except Exception as exc:  # noqa: BLE001 - an unserializable value, a callback that cannot be sent
            if attempt.outbox is not None:
                attempt.outbox.clear()  # nothing of a success that failed may follow
            self.fail(attempt, exc)

    def conclude(self, attempt: Attempt, exc: BaseException) -> None:
        """What an exception means for the attempt."""
        attempt.outcome.runtime = time.perf_counter() - attempt.clock
        if isinstance(exc, Retry):
            self._retry(attempt, exc)
        elif isinstance(exc, Ignore):
            attempt.outcome.state, attempt.retval = states.IGNORED, exc
        elif isinstance(exc, Reject):
            self._reject(attempt, exc)
        else:
            self.fail(attempt, exc)

    def fail(self, attempt: Attempt, exc: BaseException) -> None:
        """FAILURE (or REVOKED): error callbacks follow; later steps of the chain fail too."""
        request, revoked = attempt.request, isinstance(exc, exceptions.TaskRevokedError)
        attempt.outcome.state = states.REVOKED if revoked else states.FAILURE
        attempt.retval = attempt.exc = exc
        attempt.einfo = ExceptionInfo(exc, hide=__file__)
        attempt.outcome.summary = saferepr(exc)
        attempt.outcome.traceback = attempt.einfo.traceback
        try:
            if request.errbacks and not revoked:  # CANVAS-013
                tb = attempt.einfo.traceback
                following.send_after_failure(self.app, request.errbacks, request, exc, tb, request.outbox)
            self._record(attempt, exc)
            if request.chain:
                self._tell_others(attempt, exc)
            if request.chord:
                self._count(attempt, exc)
        except Exception as error:  # noqa: BLE001 - the task's own failure must be told whatever happens here
            self._internal_error(attempt, error)

    def finish(self, attempt: Attempt) -> Outcome:
        """Hooks, signals, log; then the request is current no more."""
        try:
            outcome = attempt.outcome
            _FINISHERS[outcome.state](attempt)
            if signals.task_postrun.receivers:
                signals.task_postrun.send(
                    sender=attempt.task,
                    task_id=attempt.facts.id,
                    task=attempt.task,
                    args=attempt.args,
                    kwargs=attempt.kwargs,
                    retval=attempt.retval,
                    state=outcome.state,
                )
        except Exception as error:
            if self.eager:
                raise
            self._internal_error(attempt, error)
        finally:
            _state.pop_frame()
        outcome = attempt.outcome
        if attempt.outbox is not None:
            outcome.follow, outcome.begins = tuple(attempt.outbox.messages), tuple(attempt.outbox.begins)
        if attempt.plan.settles_here and not self.eager:
            settling.settle(self.app, attempt, self.patience)
        return outcome

    # -- parts of conclude

    def _retry(self, attempt: Attempt, exc: Retry) -> None:
        attempt.outcome.state = states.RETRY
        attempt.retval = exc
        attempt.exc = exc.exc if isinstance(exc.exc, BaseException) else exc
        attempt.einfo = ExceptionInfo(exc, hide=__file__)
        attempt.outcome.summary = saferepr(attempt.exc)
        attempt.outcome.traceback = attempt.einfo.traceback
        self._record(attempt, attempt.exc)

    def _reject(self, attempt: Attempt, exc: Reject) -> None:
        attempt.retval = attempt.exc = exc
        if exc.requeue:
            attempt.outcome.state, attempt.outcome.disposition = states.REJECTED, Disposition.REQUEUE
        else:
            self.fail(attempt, exc)
            attempt.outcome.disposition = Disposition.REJECT

    def _record(self, attempt: Attempt, value: Any) -> None:
        """The result as bytes. Raises EncodeError."""
        facts, outcome, task = attempt.facts, attempt.outcome, attempt.task
        if (task.ignore_result if facts.ignore_result is None else facts.ignore_result) and not (
            task.store_errors_even_if_ignored and outcome.state in states.EXCEPTION_STATES
        ):
            return
        if self.eager and not task.store_eager_result:
            return
        backend, write = attempt.plan.backend, None
        if outcome.state == states.SUCCESS:
            write = backend.prepare_success(facts.id, value, facts)
        if write is None:
            write = backend.prepare_write(facts.id, value, outcome.state, outcome.traceback, attempt.request)
        outcome.writes = (*outcome.writes, write) if outcome.writes else (write,)

    def _tell_others(self, attempt: Attempt, exc: BaseException) -> None:
        """Steps that will now never run fail too."""
        request, outcome = attempt.request, attempt.outcome
        losses = following.losses_of(
            attempt.plan.task.backend,
            reversed(request.chain),
            exc,
            outcome.state,
            outcome.traceback,
            request.reply_to,
        )
        outcome.writes += tuple(losses.writes)
        outcome.parts += tuple(losses.parts)

    def _count(self, attempt: Attempt, value: Any) -> None:
        """The chord of whose header this is a member counts it."""
        facts, outcome = attempt.facts, attempt.outcome
        if facts.group and not self.eager:
            place = following.Place(facts.group, facts.id, facts.group_index)
            outcome.parts += (following.part_of(attempt.plan.backend, place, outcome.state, value),)

    def _store_started(self, attempt: Attempt) -> None:
        """For a backend that only stores blockingly; elsewhere the worker stores STARTED, for a task that lasts."""
        task, request = attempt.plan.task, attempt.request
        if not get_actual_ignore_result(task, request):
            value = {"pid": os.getpid(), "hostname": self.hostname}
            task.backend.store_result(request.id, value, states.STARTED, None, request)

    def unreadable(self, job: int, message: Envelope | bytes, exc: Exception) -> Outcome:
        """The failure of a message that cannot become an attempt."""
        task_id = reply_to = None
        with contextlib.suppress(UnreadableError):
            envelope = open_text(message).envelope if isinstance(message, bytes) else message
            reply_to = envelope.properties.get("reply_to")
            task_id = envelope.headers.get("id") or envelope.properties.get("correlation_id")
        einfo = ExceptionInfo(exc, internal=True)
        outcome = Outcome(
            job,
            states.FAILURE,
            Disposition.UNREADABLE,
            summary=saferepr(exc),
            traceback=einfo.traceback,
            started=time.time(),
        )
        logger.error("Received invalid task message: %s", exc, extra={"data": {"id": task_id, "exc": outcome.summary}})
        if isinstance(task_id, str):
            request = Context(id=task_id, reply_to=reply_to)
            backend: Backend = self.app.backend
            try:
                outcome.writes = (backend.prepare_write(task_id, exc, states.FAILURE, einfo.traceback, request),)
            except exceptions.EncodeError:
                logger.exception("The failure of %s cannot be stored", task_id)
        return outcome

    def _internal_error(self, attempt: Attempt, error: Exception) -> None:
        """The machinery itself failed (SIG-011): told, and recorded as the attempt's failure where nothing is yet."""
        task, request = attempt.plan.task, attempt.request
        einfo = ExceptionInfo(error, internal=True)
        if signals.task_internal_error.receivers:
            signals.task_internal_error.send(
                sender=task,
                task_id=request.id,
                args=attempt.args,
                kwargs=attempt.kwargs,
                request=request.__dict__,
                exception=error,
                traceback=error.__traceback__,
                einfo=einfo,
            )
        _log(attempt, logging.CRITICAL, LOG_INTERNAL_ERROR, einfo, description="INTERNAL ERROR", exc=saferepr(error))
        if not attempt.outcome.writes and attempt.outcome.state == states.FAILURE and request.id:
            unstorable = exceptions.EncodeError(repr(error))
            backend: Backend = task.backend
            write = backend.prepare_write(request.id, unstorable, states.FAILURE, einfo.traceback, request)
            attempt.outcome.writes = (write,)


# -- parts of finish, by state


def _finish_success(attempt: Attempt) -> None:
    plan, outcome = attempt.plan, attempt.outcome
    task, custom = plan.task, plan.custom
    if "on_success" in custom:
        _guarded(attempt, task.on_success, attempt.retval, attempt.facts.id, attempt.args, attempt.kwargs)
    if signals.task_success.receivers:
        signals.task_success.send(sender=task, result=attempt.retval, runtime=outcome.runtime)
    if logger.isEnabledFor(logging.INFO):
        outcome.summary = saferepr(attempt.retval, task.resultrepr_maxsize)
        _log(attempt, logging.INFO, LOG_SUCCESS, None, runtime=outcome.runtime, return_value=outcome.summary)
    if "after_return" in custom:
        call = attempt.facts.id, attempt.args, attempt.kwargs
        _guarded(attempt, task.after_return, outcome.state, attempt.retval, *call, None)


def _finish_failure(attempt: Attempt) -> None:
    task, request, custom = attempt.plan.task, attempt.request, attempt.plan.custom
    exc, einfo, outcome = attempt.exc, attempt.einfo, attempt.outcome
    assert exc is not None
    assert einfo is not None
    rejected = isinstance(exc, Reject)  # whose message is refused: its hooks are not called
    if "on_failure" in custom and not rejected:
        task.on_failure(exc, request.id, attempt.args, attempt.kwargs, einfo)
    if signals.task_failure.receivers:
        signals.task_failure.send(
            sender=task,
            task_id=request.id,
            exception=exc,
            args=attempt.args,
            kwargs=attempt.kwargs,
            traceback=einfo.tb,
            einfo=einfo,
        )
    if rejected:
        _log(attempt, logging.WARNING, LOG_REJECTED, None, exc=saferepr(exc))
    elif isinstance(exc, task.throws):
        _log(attempt, logging.INFO, LOG_FAILURE, None, description="raised expected", exc=saferepr(exc))
    else:
        _log(attempt, logging.ERROR, LOG_FAILURE, einfo, description="raised unexpected", exc=saferepr(exc))
    if "after_return" in custom and not rejected:
        _guarded(attempt, task.after_return, outcome.state, exc, request.id, attempt.args, attempt.kwargs, einfo)


def _finish_retry(attempt: Attempt) -> None:
    task, request = attempt.plan.task, attempt.request
    if "on_retry" in attempt.plan.custom:
        task.on_retry(attempt.retval.exc, request.id, attempt.args, attempt.kwargs, attempt.einfo)
    if signals.task_retry.receivers:
        signals.task_retry.send(sender=task, request=request, reason=attempt.retval, einfo=attempt.einfo)
    _log(attempt, logging.INFO, LOG_RETRY, None, exc=str(attempt.retval))


def _finish_ignored(attempt: Attempt) -> None:
    _log(attempt, logging.INFO, LOG_IGNORED, None, description="ignored")


def _finish_rejected(attempt: Attempt) -> None:
    _log(attempt, logging.WARNING, LOG_REJECTED, None, exc=saferepr(attempt.exc))


_FINISHERS = {
    states.SUCCESS: _finish_success,
    states.FAILURE: _finish_failure,
    states.REVOKED: _finish_failure,
    states.RETRY: _finish_retry,
    states.IGNORED: _finish_ignored,
    states.REJECTED: _finish_rejected,
}


def _guarded(attempt: Attempt, hook: Any, *args: Any) -> None:
    """Errors in on_success and after_return are only logged in a worker, and raised when eager (API-038)."""
    try:
        hook(*args)
    except (Reject, MemoryError):
        raise
    except Exception:
        if attempt.request.is_eager:
            raise
        logger.exception("%s of task %s raised", hook.__name__, attempt.plan.task.name)


def _log(attempt: Attempt, level: int, template: str, einfo: ExceptionInfo | None, **fields: Any) -> None:
    if not logger.isEnabledFor(level):
        return
    request = attempt.request
    context = {
        "hostname": request.hostname,
        "id": request.id,
        "name": request.shadow or attempt.plan.task.name,
        "args": request.argsrepr if request.argsrepr is not None else saferepr(attempt.args),
        "kwargs": request.kwargsrepr if request.kwargsrepr is not None else saferepr(attempt.kwargs),
        **fields,
    }
    logger.log(level, template, context, exc_info=einfo.exc_info if einfo else None, extra={"data": context})


# -- documented names


class TraceInfo(NamedTuple):
    """State and value of an attempt, for code that inspects them."""

    state: str
    retval: Any = None


def get_actual_ignore_result(task: Task[..., Any], req: Any) -> bool:
    """Whether the call's result is unwanted: the call's own word, else the task's."""
    wanted = req.ignore_result if req is not None else None
    return bool(task.ignore_result if wanted is None else wanted)


def build_tracer(
    name: str,  # noqa: ARG001 - in Celery's signature
    task: Task[..., Any],
    hostname: str | None = None,
    eager: bool = False,
    tracer: Tracer | None = None,
    **_: Any,
) -> Any:
    """A function (uuid, args, kwargs, request) that makes an attempt and gives its Outcome.

    Integrations (Sentry) put a function in the place of this one, to wrap what it returns. Attempts of sync tasks then
    go through theirs. An async one would leave it as soon as it awaits, so these do not.

    Args:
        name: of the task.
        task: what to run.
        hostname: node name.
        eager: in place.
        tracer: whose attempts these are; None: of one made for the purpose.
    """
    tracer = tracer or Tracer(task.app, hostname, eager=eager)

    def trace(uuid: str, args: Any, kwargs: Any, request: Any = None) -> Outcome:
        attempt = tracer._inside.pop(uuid, None)
        if attempt is not None:
            attempt.args, attempt.kwargs = args, kwargs
            return tracer._make(attempt)
        context = request if isinstance(request, Context) else Context(request or {})
        context.update(id=uuid, args=args, kwargs=kwargs, called_directly=False, outbox=Outbox())
        context.__dict__.setdefault("root_id", uuid)
        return tracer._make(Attempt.of(Plan.of(task), context, args, kwargs, Outcome(0, states.SUCCESS)))

    return trace


_OWN_BUILD_TRACER = build_tracer


def trace_task(task: Task[..., Any], uuid: str, args: Any, kwargs: Any, request: Any = None, **opts: Any) -> Outcome:
    """Make one attempt of a task."""
    outcome: Outcome = build_tracer(task.name, task, **opts)(uuid, args, kwargs, request)
    return outcome


def setup_worker_optimizations(app: Celery, hostname: str | None = None) -> None:  # noqa: ARG001 - the documented signature
    """Make `app` what every thread of this process falls back to."""
    app.set_current()
    app.set_default()
    app.finalize()
    os.environ["FORKED_BY_MULTIPROCESSING"] = "1"


def reset_worker_optimizations(app: Any = None) -> None:
    """Nothing is patched, so there is nothing to undo."""
