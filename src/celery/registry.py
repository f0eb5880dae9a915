"""The tasks of the current application: an old path that OpenTelemetry's instrumentation reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import _state
from celery.local import Proxy

if TYPE_CHECKING:
    from celery.app.registry import TaskRegistry

__all__ = ("tasks",)


def _current_tasks() -> TaskRegistry:
    return _state.get_current_app().tasks


#: Stands for the registry of whichever application is current when it is used.
tasks: Any = Proxy(_current_tasks)
