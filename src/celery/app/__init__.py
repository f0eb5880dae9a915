"""Finding the application, and tasks for every one of them (API-003, API-004)."""

# Without `from __future__ import annotations`: its name would hide the module `celery.app.annotations`.
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from celery import _state
from celery.local import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from celery.app.base import Celery as Celery
    from celery.app.context import Context
    from celery.app.decorators import BoundTaskDecorator, TaskDecorator
    from celery.app.task import Task
    from celery.app.utils import AppPickler as AppPickler

P = ParamSpec("P")
R = TypeVar("R")

__all__ = (
    "AppPickler",
    "Celery",
    "app_or_default",
    "bugreport",
    "default_app",
    "disable_trace",
    "enable_trace",
    "pop_current_task",
    "push_current_task",
    "shared_task",
)

#: The application of threads that have set none; None before anyone asked for it.
default_app: Any = Proxy(lambda: _state.default_app)

_LAZY = {"Celery": "celery.app.base", "AppPickler": "celery.app.utils"}


def __getattr__(name: str) -> Any:
    # Modules of this package are imported for themselves too, without the application.
    if name in _LAZY:
        value = globals()[name] = getattr(import_module(_LAZY[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def app_or_default(app: "Celery | None" = None) -> "Celery":
    """The application given, else the current one."""
    return _state.get_current_app() if app is None else app


def bugreport(app: "Celery | None" = None) -> str:
    """What to put into a bug report (CLI-097)."""
    return app_or_default(app).bugreport()


def push_current_task(task: "Task[..., Any]", request: "Context | None" = None) -> None:
    """Make `task` the current one, until `pop_current_task`."""
    if request is None:
        task.push_request()
    else:
        _state.push_frame(task, request)


def pop_current_task() -> None:
    """End what `push_current_task` began."""
    _state.pop_frame()


def enable_trace() -> None:
    """Kept for code that calls it: how an application was found is not traced here."""


def disable_trace() -> None:
    """See `enable_trace`."""


@overload
def shared_task(fun: "Callable[P, Coroutine[Any, Any, R]]", /) -> "Task[P, R]": ...
@overload
def shared_task(fun: "Callable[P, R]", /) -> "Task[P, R]": ...
@overload
def shared_task(*, bind: Literal[True], **options: Any) -> "BoundTaskDecorator": ...
@overload
def shared_task(*, bind: Literal[False] = False, **options: Any) -> "TaskDecorator": ...


def shared_task(*args: Any, **options: Any) -> Any:
    """Make a task of a function for every application, those to come included (API-003).

    What it returns stands for the current application's task.

    Args:
        args: the function, when used without parentheses.
        options: as of `Celery.task`.

    Raises:
        TypeError: the function is a shared task already.
    """

    def decorate(fun: Any) -> Any:
        if isinstance(fun, Proxy):
            raise TypeError(
                "@shared_task was given a task that @shared_task made. Use the decorator once for each function."
            )

        def make(app: "Celery") -> "Task[..., Any]":
            return app._registration.make(fun, **options)

        _state.connect_on_app_finalize(make)
        for app in _state.living_apps():
            if app.finalized:
                make(app)

        def find() -> "Task[..., Any]":
            app = _state.get_current_app()
            return app.tasks[options.get("name") or app.gen_task_name(fun.__name__, fun.__module__)]

        return Proxy(find)

    if len(args) > 1:
        raise TypeError(f"@shared_task() takes exactly 1 argument ({len(args)} given)")
    if args and not callable(args[0]):
        raise TypeError("argument 1 to @shared_task() must be a callable")
    return decorate(args[0]) if args else decorate
