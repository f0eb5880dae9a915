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
    """The result of a call and its message, ready to be sent. See `Celery.send_task`.

    Inside a task, the running one becomes the parent, and remembers the result among its children.
    """
    task_type = options.pop("task_type", None)
    result_cls = options.pop("result_cls", None) or app.AsyncResult
    task_id = options.pop("task_id", None) or uuid()
    if task_type is None:
        _fill_in_task_options(app, name, options)
        if app.conf.task_always_eager:
            warnings.warn(
                "task_always_eager has no effect on send_task: the task is sent.", AlwaysEagerIgnored, stacklevel=4
            )
    for link, header in (("link", "callbacks"), ("link_error", "errbacks")):
        linked = options.pop(link, None)
        if linked is not None:
            options[header] = list(linked) if isinstance(linked, (list, tuple)) else [linked]
    frame = _state.worker_frame()
    if frame is not None:
        parent = frame.request
        if options.get("root_id") is None:
            options["root_id"] = parent.root_id or parent.id
        if options.get("parent_id") is None:
            options["parent_id"] = parent.id
        if app.conf.task_inherit_parent_priority and options.get("priority") is None:
            options["priority"] = (parent.delivery_info or {}).get("priority")
    message = app.amqp.message(task_id, name, args, kwargs, options, task_type)
    result = result_cls(task_id)
    if options.get("ignore_result"):
        result.ignored = True
    else:
        app.backend.on_task_call(options.get("producer"), task_id)
    if frame is not None and options.get("add_to_parent", True) and frame.task.trail:
        frame.request.children.append(result)
    return result, message


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
