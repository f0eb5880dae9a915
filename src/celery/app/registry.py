"""The tasks of an application, by name (API-019)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from celery import _state
from celery.exceptions import InvalidTaskError, NotRegistered

if TYPE_CHECKING:
    from celery.app.task import Task

__all__ = ("TaskRegistry",)


class TaskRegistry(dict[str, "Task[..., Any]"]):
    """A dict of tasks; a missing name raises NotRegistered."""

    NotRegistered = NotRegistered

    def __missing__(self, key: str) -> Task[..., Any]:
        raise NotRegistered(key)

    def register(self, task: Task[..., Any] | type[Task[..., Any]]) -> None:
        """Enter a task (or the single instance of a class) under its name.

        Raises:
            InvalidTaskError: the task has no name.
        """
        if task.name is None:
            raise InvalidTaskError(
                f"Task class {type(task).__name__!r} must specify the .name attribute: every task needs one."
            )
        instance = task() if isinstance(task, type) else task
        self[instance.name] = instance

    def unregister(self, name: str | Task[..., Any]) -> None:
        """Take a task out, by its name or by itself. Raises NotRegistered."""
        key: str = getattr(name, "name", name)  # type: ignore[arg-type]  # a task or its name
        try:
            del self[key]
        except KeyError:
            raise NotRegistered(key) from None

    def regular(self) -> dict[str, Task[..., Any]]:
        """Tasks of type "regular"."""
        return self.filter_types("regular")

    def periodic(self) -> dict[str, Task[..., Any]]:
        """Tasks of type "periodic"."""
        return self.filter_types("periodic")

    def filter_types(self, type: str) -> dict[str, Task[..., Any]]:
        """Tasks whose attribute `type` has this value; "regular" is what has none."""
        return {name: task for name, task in self.items() if getattr(task, "type", "regular") == type}


def _unpickle_task_v2(name: str, module: str | None = None) -> Task[..., Any]:
    """A pickled task: the current application's one of this name, its module imported if need be.

    Pickles of Celery 5.7 name this function too.
    """
    tasks: TaskRegistry = _state.get_current_app().tasks
    if name not in tasks and module:
        import_module(module)
    return tasks[name]
