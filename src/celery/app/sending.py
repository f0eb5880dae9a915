"""From a call to a result and a message: the first steps of the road (API-012..015)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from celery import _state
from celery.app.task import EXECUTION_OPTIONS
from celery.exceptions import AlwaysEagerIgnored
from celery.utils.uniqueid import uuid

if TYPE_CHECKING:
    from celery.app.base import Celery
    from celery.brokers.base import Publish
    from celery.result import AsyncResult


def prepare(
    app: Celery, name: str, args: Any, kwargs: Any, options: dict[str, Any]
) -> tuple[AsyncResult[Any], Publish]:
    """The result of a call and its message, ready to be sent. See `Celery.send_task`."""
    task_id = options.pop("task_id", None) or uuid()
    return Calls(app, name, args, kwargs, options).make(task_id, args, kwargs)


class Calls:
    """A call, and others that differ from it in ids and arguments only.

    Inside a task, the running one becomes the parent, and remembers the results among its children.

    Args:
        app: the application.
        name: task name.
        args: positional arguments of the first call, for routers.
        kwargs: its keyword arguments, for routers.
        options: of `Celery.send_task`, without the id; changed in place.
    """

    __slots__ = ("_children", "_expect", "_producer", "_result_cls", "_series")

    def __init__(self, app: Celery, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> None:
        task_type = options.pop("task_type", None)
        self._result_cls = options.pop("result_cls", None) or app.AsyncResult
        if task_type is None:
            _fill_in_task_options(app, name, options)
            if app.conf.task_always_eager:
                warnings.warn(
                    "task_always_eager has no effect on send_task: the task is sent.",
                    AlwaysEagerIgnored,
                    stacklevel=4,
                )
        if (linked := options.pop("link", None)) is not None:
            options["callbacks"] = list(linked) if isinstance(linked, (list, tuple)) else [linked]
        if (linked := options.pop("link_error", None)) is not None:
            options["errbacks"] = list(linked) if isinstance(linked, (list, tuple)) else [linked]
        frame = _state.worker_frame()
        self._children = None
        if frame is not None:
            _inherit(app, frame.request, options)
            if options.get("add_to_parent", True) and frame.task.trail:
                self._children = frame.request.children
        self._producer = options.get("producer")
        if self._producer is None:
            options.pop("producer", None)  # said of each call by `Task.apply_async`: a word less to look at
        self._series = app.amqp.series(name, args, kwargs, options, task_type)
        self._expect = None if options.get("ignore_result") else app.backend.on_task_call

    def make(
        self, task_id: str, args: Any, kwargs: Any, group_index: int | None = None
    ) -> tuple[AsyncResult[Any], Publish]:
        """The result of one of the calls and its message. Raises what `Template.fill` does."""
        message = self._series.message(task_id, args, kwargs, group_index)
        result = self._result_cls(task_id)
        if self._expect is None:
            result.ignored = True
        else:
            self._expect(self._producer, task_id)
        if self._children is not None:
            self._children.append(result)
        return result, message


def _inherit(app: Celery, parent: Any, options: dict[str, Any]) -> None:
    """What a call has from the task that makes it."""
    if options.get("root_id") is None:
        options["root_id"] = parent.root_id or parent.id
    if options.get("parent_id") is None:
        options["parent_id"] = parent.id
    if app.conf.task_inherit_parent_priority and options.get("priority") is None:
        options["priority"] = (parent.delivery_info or {}).get("priority")


def _fill_in_task_options(app: Celery, name: str, options: dict[str, Any]) -> None:
    """What a task that happens to be registered here has set for its calls; an explicit None clears a limit."""
    known = app._registration.tasks.get(name)
    if known is None:
        return
    for option in EXECUTION_OPTIONS:
        value = getattr(known, option, None)
        if value is not None:
            options.setdefault(option, value)
    if known.ignore_result:  # a False is left to what the worker's own task says
        options.setdefault("ignore_result", True)
