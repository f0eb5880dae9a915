"""What an attempt is made of: the task, looked up once per process, and one call of it while it lasts."""
# ruff: noqa: TC004 - nothing here is ever encoded, so msgspec does not look for these types, which are above it

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from celery.app.context import Context
    from celery.app.einfo import ExceptionInfo
    from celery.app.outcome import Outbox, Outcome
    from celery.app.task import Task
    from celery.backends.base import Backend

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


class Attempt(msgspec.Struct, eq=False):
    """One call of a task, while it lasts."""

    plan: Plan
    request: Context
    args: Any
    kwargs: Any
    outbox: Outbox
    outcome: Outcome
    retval: Any = None
    exc: BaseException | None = None
    einfo: ExceptionInfo | None = None
    #: When it began, of `time.perf_counter`.
    clock: float = 0.0


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
