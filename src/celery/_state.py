"""Which application is current, and which task runs here.

The current application is per thread; a thread that set none gets the default one, made on first need. The running
task is per context (thread, coroutine or greenlet): a linked list of frames, so that tasks called inside tasks nest
and async tasks on one loop do not see each other's requests.
"""

from __future__ import annotations

import contextvars
import os
import threading
import weakref
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from celery.local import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery.app.base import Celery
    from celery.app.context import Context
    from celery.app.task import Task

__all__ = (
    "connect_on_app_finalize",
    "current_app",
    "current_task",
    "get_current_app",
    "get_current_task",
    "get_current_worker_task",
    "set_default_app",
)


class Frame(Protocol):
    """A running call of a task. An attempt is one itself (`celery.app.attempt`), and makes its request when asked."""

    #: Set by `enter`.
    outer: Frame | None

    @property
    def task(self) -> Task[..., Any]:
        """What runs."""

    @property
    def request(self) -> Context:
        """What the task may know of the call."""


class _Call:
    """A call whose request is there."""

    __slots__ = ("outer", "request", "task")

    def __init__(self, task: Task[..., Any], request: Context) -> None:
        self.task = task
        self.request = request
        self.outer: Frame | None = None


_frame: contextvars.ContextVar[Frame | None] = contextvars.ContextVar("celery_frame", default=None)

#: Given up when the last reference to an application goes.
_apps: weakref.WeakSet[Celery] = weakref.WeakSet()
_on_app_finalizers: list[Callable[[Celery], Any]] = []
_lock = threading.Lock()


class _ThreadState(threading.local):
    current_app: Celery | None = None


_thread = _ThreadState()
default_app: Celery | None = None
#: The default one, where it was made here.
implicit_app: Celery | None = None

#: Results may be waited for inside a task only where this is lifted (`celery.result.allow_join_result`).
_join_denied: contextvars.ContextVar[bool] = contextvars.ContextVar("celery_join_denied", default=False)


# -- tasks


def push_frame(task: Task[..., Any], request: Context) -> None:
    """A call of `task` begins."""
    enter(_Call(task, request))


def enter(frame: Frame) -> None:
    """A call begins."""
    frame.outer = _frame.get()
    _frame.set(frame)


def pop_frame() -> None:
    """The latest call ends."""
    frame = _frame.get()
    if frame is not None:
        _frame.set(frame.outer)


def request_of(task: Task[..., Any]) -> Context | None:
    """The request of the innermost running call of `task`, or None."""
    frame = _frame.get()
    while frame is not None:
        if frame.task is task:
            return frame.request
        frame = frame.outer
    return None


class RequestStack:
    """The calls of a task, as third parties push them (`Task.request_stack`)."""

    def __init__(self, task: Task[..., Any]) -> None:
        self._task = task

    def push(self, request: Context) -> None:
        """A call begins."""
        push_frame(self._task, request)

    def pop(self) -> None:
        """The latest call ends."""
        pop_frame()

    @property
    def top(self) -> Context | None:
        """The latest call."""
        return request_of(self._task)


class _TaskStack:
    """The tasks that run here, as third parties push them."""

    def push(self, task: Task[..., Any]) -> None:
        """A task begins; its call is what it was, or an empty one."""
        push_frame(task, task.request)

    def pop(self) -> None:
        """The latest task ends."""
        pop_frame()

    @property
    def top(self) -> Task[..., Any] | None:
        """The latest task."""
        return get_current_task()


#: Integrations import it under this name.
_task_stack = _TaskStack()


def current_frame() -> Frame | None:
    """The innermost running call."""
    return _frame.get()


def get_current_task() -> Task[..., Any] | None:
    """The task that runs here, or None (API-002)."""
    frame = _frame.get()
    return frame.task if frame is not None else None


def get_current_worker_task() -> Task[..., Any] | None:
    """The task that a worker runs here, seen through tasks which it calls as functions; None outside a worker."""
    frame = worker_frame()
    return frame.task if frame is not None else None


def worker_frame() -> Frame | None:
    """The innermost call that came from a message, or from eager mode."""
    frame = _frame.get()
    while frame is not None and frame.request.called_directly:
        frame = frame.outer
    return frame


def task_join_will_block() -> bool:
    """Whether waiting for a result here would hold up a worker's process."""
    return _join_denied.get()


def set_join_denied(denied: bool) -> contextvars.Token[bool]:
    """Forbid or allow waiting for results in this context; give the token to `reset_join_denied`."""
    return _join_denied.set(denied)


def reset_join_denied(token: contextvars.Token[bool]) -> None:
    """Undo `set_join_denied`."""
    _join_denied.reset(token)


# -- applications


def set_default_app(app: Celery) -> None:
    """The application of threads that have set none."""
    global default_app  # noqa: PLW0603 - the documented module attribute
    default_app = app


def get_current_app() -> Celery:
    """The application of this thread; the default one when it has set none (API-002)."""
    return _thread.current_app or _default_app()


def set_current_app(app: Celery | None) -> None:
    """Make `app` the current application of this thread."""
    _thread.current_app = app


def peek_current_app() -> Celery | None:
    """The application of this thread, without making one."""
    return _thread.current_app or default_app


def _default_app() -> Celery:
    global implicit_app  # noqa: PLW0603 - as the default one
    if default_app is None:
        # By its path: the application is above this module, and one is made here only for programs that made none.
        Celery = import_module("celery.app.base").Celery  # noqa: N806 - a class
        loader = os.environ.get("CELERY_LOADER") or "default"
        implicit_app = Celery("default", loader=loader, fixups=[], set_as_current=False, autofinalize=True)
        set_default_app(implicit_app)
    assert default_app is not None
    return default_app


def register_app(app: Celery) -> None:
    """Remember a living application: shared tasks reach it."""
    _apps.add(app)


def deregister_app(app: Celery) -> None:
    """Forget an application that was closed."""
    _apps.discard(app)


def living_apps() -> Iterable[Celery]:
    """All applications that are still in use."""
    return list(_apps)


def connect_on_app_finalize(callback: Callable[[Celery], Any]) -> Callable[[Celery], Any]:
    """Call `callback(app)` whenever an application is finalized: how shared and built-in tasks get into each."""
    with _lock:
        if callback not in _on_app_finalizers:
            _on_app_finalizers.append(callback)
    return callback


def connect_while_it_lives(callback: Callable[[Celery], Any]) -> None:
    """As `connect_on_app_finalize`, until nobody else refers to `callback`."""

    def call(app: Celery) -> None:
        if (alive := reference()) is not None:
            alive(app)

    def forget(_: object) -> None:
        if call in _on_app_finalizers:
            _on_app_finalizers.remove(call)

    reference = weakref.ref(callback, forget)
    _on_app_finalizers.append(call)


def announce_app_finalized(app: Celery) -> None:
    """Call what has been connected."""
    for callback in (*_on_app_finalizers,):  # one may be forgotten meanwhile
        callback(app)


current_app: Any = Proxy(get_current_app)
current_task: Any = Proxy(get_current_task)
