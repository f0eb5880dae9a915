"""What an attempt is made of: the task, looked up once per process, and one call of it while it lasts.

Most tasks never look at their request, so it is made when somebody does: the task, a hook, a signal, a line of the log,
an integration. Until then an attempt knows a few facts of its message, under the names that a request has for them
(`celery.wire.opening`); from then on it looks at the request, which the task may have changed.
"""
# ruff: noqa: TC004 - nothing here is ever encoded, so msgspec does not look for these types, which are above it

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import msgspec

from celery.app.context import Context, custom_headers
from celery.app.outcome import Outbox
from celery.wire.protocol import read_headers
from celery.wire.sealed import Sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from celery._state import Frame
    from celery.app.einfo import ExceptionInfo
    from celery.app.outcome import Outcome
    from celery.app.task import Task
    from celery.backends.base import Backend
    from celery.wire.envelope import Envelope, Headers
    from celery.wire.label import Facts
    from celery.wire.opening import Embed

#: Where the base class of tasks is, and what is above it.
_OUR_TASK = frozenset({"celery.app.task", "typing", "builtins"})
_HOOKS = ("before_start", "on_success", "on_retry", "on_failure", "after_return")


class Plan(msgspec.Struct, eq=False):
    """What running a task takes. A struct, as is an attempt: fields are read some thirty times for each attempt, which
    takes a named tuple twice as long.
    """

    task: Task[..., Any]
    #: Bypasses Task.__call__ unless a subclass has its own (API-041).
    call: Any
    is_async: bool
    #: Hooks that a subclass defines.
    custom: frozenset[str]
    settles_here: bool
    #: Of the thread that runs the task.
    backend: Backend
    #: A stored success stands in for a redelivered attempt (`celery.app.repeats`).
    looks_back: bool
    #: What integrations have put around an attempt (`celery.app.trace.build_tracer`).
    around: Any = None

    @classmethod
    def of(cls, task: Task[..., Any]) -> Plan:
        """Look a task up."""
        own_call = task_has_custom(task, "__call__")
        conf, backend = task.app.conf, task.backend
        late = task.acks_late or conf.task_acks_late
        return cls(
            task,
            task if own_call else task.run,
            task.is_async,
            frozenset(name for name in _HOOKS if task_has_custom(task, name)),
            not backend.async_writer,
            backend,
            bool(late and backend.persistent and conf.worker_deduplicate_successful_tasks),
        )


class Source(msgspec.Struct):
    """Where an attempt comes from: what its request is made of."""

    #: The message, or the text of one that is still closed.
    message: Envelope | bytes
    #: `request.delivery_info`; None: the text tells.
    info: Mapping[str, Any] | None
    #: Node name of the worker.
    hostname: str | None
    #: Called before a custom state of the task is stored.
    before_update: Callable[[], None] | None = None

    def envelope(self) -> Envelope | Sealed:
        """The message, or what opens itself as far as it is asked."""
        return Sealed(None, self.message) if isinstance(self.message, bytes) else self.message

    def request(
        self, envelope: Envelope | Sealed, headers: Headers, embed: Mapping[str, Any], args: Any, kwargs: Any
    ) -> Context:
        """The request of a message that has been read.

        Args:
            envelope: what `envelope` gave.
            headers: complete, and nobody else's.
            embed: the workflow around the task.
            args: positional arguments.
            kwargs: keyword arguments.
        """
        properties, own = envelope.properties, custom_headers(headers)
        request = Context.__new__(Context)
        values = request.__dict__ = headers
        values.update(embed)
        if self.before_update is not None:
            values["before_update"] = self.before_update
        values.update(
            args=args,
            kwargs=kwargs,
            called_directly=False,
            hostname=self.hostname,
            delivery_info=envelope.info if isinstance(envelope, Sealed) else self.info or {},
            correlation_id=properties.get("correlation_id"),
            reply_to=properties.get("reply_to"),
            properties=properties,
            headers=own,
            outbox=Outbox(),
        )
        return request


class Attempt(msgspec.Struct, eq=False):
    """One call of a task, while it lasts; a frame of `celery._state`."""

    plan: Plan
    task: Task[..., Any]
    args: Any
    kwargs: Any
    outcome: Outcome
    #: What the pipeline looks at: of the message, or the request once there is one.
    facts: Facts | Context
    embed: Embed | Context
    #: None: the request is there.
    source: Source | None = None
    #: The request, once somebody has asked for it; and what takes what the attempt sends.
    opened: Context | None = None
    outbox: Outbox | None = None
    retval: Any = None
    exc: BaseException | None = None
    einfo: ExceptionInfo | None = None
    #: When it began, of `time.perf_counter`.
    clock: float = 0.0
    outer: Frame | None = None

    @classmethod
    def of(cls, plan: Plan, request: Context, args: Any, kwargs: Any, outcome: Outcome) -> Attempt:
        """An attempt whose request is there."""
        return cls(plan, plan.task, args, kwargs, outcome, request, request, None, request, request.outbox)

    @property
    def request(self) -> Context:
        """What the task may know of the call."""
        return self.opened or self._open()

    def _open(self) -> Context:
        # Threads that a task has given its context ask for one request.
        with _opening:
            if self.opened is None:
                source, embed = self.source, self.embed
                assert source is not None
                envelope = source.envelope()
                headers = read_headers(envelope)  # type: ignore[arg-type]  # a Sealed has what it reads
                assert headers is not None
                around = {name: getattr(embed, name) or None for name in _AROUND}
                request = source.request(envelope, headers, around, self.args, self.kwargs)
                # In this order: whom a soft time limit interrupts here has no request yet.
                self.outbox = request.outbox
                self.facts = self.embed = request
                self.opened = request
        return self.opened


_AROUND = ("callbacks", "errbacks", "chain", "chord")
_opening = threading.RLock()


def task_has_custom(task: Task[..., Any], attr: str) -> bool:
    """Whether a subclass of Task defines the attribute itself. Looked up at call time, as integrations patch it."""
    return any(attr in cls.__dict__ for cls in type(task).__mro__ if cls.__module__ not in _OUR_TASK)


def takes_many(task: Task[..., Any]) -> bool:
    """Whether it is a function, not bound to its task, that takes more than one positional argument (CANVAS-010)."""
    body = getattr(task, "_orig_run", task.run)  # an automatic retry wraps the body in one that takes anything
    code = getattr(getattr(body, "__func__", body), "__code__", None)
    if code is None or getattr(body, "__self__", None) is not None:
        return False
    return code.co_argcount > 1 or bool(code.co_flags & 0x04)  # 0x04: *args


def run_to_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The value of an async body, for a caller that cannot await: on a loop of its own, in a thread of its own where
    this one is running a loop already.
    """
    import asyncio  # only where async tasks are called so

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    import concurrent.futures
    import contextvars

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(contextvars.copy_context().run, asyncio.run, coroutine).result()
