"""The tasks that every application has (API-020): they travel by name between workers of all versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import _state, exceptions
from celery.app.outcome import Outbox
from celery.canvas.signature import signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery.app.base import Celery
    from celery.app.task import Task


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
def add_chunk_task(app: Celery) -> Task[..., Any]:
    """celery.chunks: sends a group of starmaps."""

    def chunks(task: Any, it: Iterable[Iterable[Any]], n: int) -> Any:
        return app._load("celery.canvas.maps:chunks").apply_chunks(task, it, n, app=app).as_tuple()

    return _register(app, "chunks", chunks)


@_state.connect_on_app_finalize
def add_group_task(app: Celery) -> Task[..., Any]:
    """celery.group: sends a group from a worker."""

    def group(tasks: Any, result: Any, group_id: str, partial_args: Any, add_to_parent: bool = True) -> Any:  # noqa: ARG001 - in Celery's signature
        members = app._load("celery.canvas.groups:group")(tasks, app=app)
        return members.apply_async(partial_args, task_id=group_id, add_to_parent=add_to_parent).as_tuple()

    return _register(app, "group", group)


@_state.connect_on_app_finalize
def add_chain_task(app: Celery) -> Task[..., Any]:
    """celery.chain: a name that every worker knows; chains themselves are run by their steps."""

    def chain(*_args: Any, **_kwargs: Any) -> Any:
        raise NotImplementedError("A chain is not run as a task: its first step is, and brings the others along.")

    return _register(app, "chain", chain)


@_state.connect_on_app_finalize
def add_chord_task(app: Celery) -> Task[..., Any]:
    """celery.chord: starts a chord from a worker."""

    def chord(header: Any, body: Any, partial_args: Any = (), kwargs: Any = None, **options: Any) -> Any:
        made = app._load("celery.canvas.chords:chord")(header, body, app=app)
        options = {name: value for name, value in options.items() if name not in ("eager", "countdown")}
        return made.apply_async(partial_args, kwargs, **options).as_tuple()

    return _register(app, "chord", chord)


@_state.connect_on_app_finalize
def add_unlock_chord_task(app: Celery) -> Task[..., Any]:
    """celery.chord_unlock: finishes a chord where the result store cannot count."""

    def chord_unlock(
        self: Any,
        group_id: str,
        callback: Any,
        interval: float | None = None,
        max_retries: int | None = None,
        result: Any = None,
        **_: Any,
    ) -> None:
        body, backend = app.signature(callback), app.backend
        reason = None
        try:
            header = app.GroupResult(group_id, [app.result_from_tuple(member) for member in result or ()])
            if backend.chord_is_over(group_id):
                return
            if backend.header_is_complete(header):
                outbox = self.request.outbox
                backend.finish_chord(header, body, self.request, outbox if isinstance(outbox, Outbox) else None)
                return
        except exceptions.OperationalError as error:  # the store is away: look again later
            reason = error
        if interval is None:
            interval = app.conf.result_chord_retry_interval
        try:
            self.retry(exc=reason, countdown=interval, max_retries=max_retries)
        except exceptions.Retry:
            raise
        except Exception as error:  # noqa: BLE001 - the limit that the sender of the chord has set
            failure = exceptions.ChordError(f"chord_unlock could not be retried: {error!r}")
            backend.chord_error_from_stack(body, failure)

    # Killed while it looks, it has to look again: nobody else does.
    stays = {"acks_late": True, "reject_on_worker_lost": True}
    return _register(app, "chord_unlock", chord_unlock, bind=True, ignore_result=True, max_retries=None, **stays)
