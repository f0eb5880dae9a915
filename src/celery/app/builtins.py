"""The tasks that every application has (API-020): they travel by name between workers of all versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import _state
from celery.canvas.signature import signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery.app.base import Celery
    from celery.app.task import Task

#: Those whose body needs composed signatures.
_OF_THE_CANVAS = ("chain", "chord", "chord_unlock", "chunks", "group")


def _register(app: Celery, name: str, body: Callable[..., Any], **options: Any) -> Task[..., Any]:
    task: Task[..., Any] = app.task(name=f"celery.{name}", shared=False, lazy=False, **options)(body)
    return task


@_state.connect_on_app_finalize
def add_backend_cleanup_task(app: Celery) -> Task[..., Any]:
    """celery.backend_cleanup: delete expired results."""

    def backend_cleanup() -> None:
        app.backend.cleanup()

    return _register(app, "backend_cleanup", backend_cleanup)


@_state.connect_on_app_finalize
def add_accumulate_task(app: Celery) -> Task[..., Any]:
    """celery.accumulate: its arguments, or one of them."""

    def accumulate(*args: Any, index: int | None = None, **_: Any) -> Any:
        return args if index is None else args[index]

    return _register(app, "accumulate", accumulate)


@_state.connect_on_app_finalize
def add_map_task(app: Celery) -> Task[..., Any]:
    """celery.map: the task's value for each item."""

    def xmap(task: Any, it: Iterable[Any]) -> list[Any]:
        body = signature(task, app=app).type
        return [body(item) for item in it]

    return _register(app, "map", xmap)


@_state.connect_on_app_finalize
def add_starmap_task(app: Celery) -> Task[..., Any]:
    """celery.starmap: the task's value for each list of arguments."""

    def xstarmap(task: Any, it: Iterable[Iterable[Any]]) -> list[Any]:
        body = signature(task, app=app).type
        return [body(*item) for item in it]

    return _register(app, "starmap", xstarmap)


@_state.connect_on_app_finalize
def add_canvas_tasks(app: Celery) -> None:
    """Names that are known, and say of themselves that they cannot run yet."""
    for name in _OF_THE_CANVAS:

        def unsupported(*_args: Any, _name: str = name, **_kwargs: Any) -> Any:
            raise NotImplementedError(f"celery.{_name} comes with the canvas, which this worker does not have yet.")

        _register(app, name, unsupported)
