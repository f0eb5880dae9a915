"""Tasks that can be asked to end while they run (API-104).

The asker writes the state ABORTED over the task's record, and the task looks there from time to time; what it then
returns is its result, as ever. So it takes a result backend where anybody may look a record up at any time: not rpc.

    @app.task(bind=True, base=AbortableTask)
    def count(self, numbers):
        total = 0
        for number in numbers:
            if self.is_aborted():
                break
            total += number
        return total

    result = count.delay(range(10))
    result.abort()
"""

from __future__ import annotations

from typing import Any, ParamSpec, TypeVar

from celery.app.task import Task
from celery.result import AsyncResult

__all__ = ("AbortableAsyncResult", "AbortableTask")

P = ParamSpec("P")
R = TypeVar("R")

#: The state of a task that was asked to end, until it has.
ABORTED = "ABORTED"


class AbortableAsyncResult(AsyncResult[R]):
    """The result of an `AbortableTask`."""

    def is_aborted(self) -> bool:
        """Whether the task was asked to end, and has not ended."""
        return self.state == ABORTED

    def abort(self) -> None:
        """Ask the task to end. One that has succeeded stays as it is."""
        self.backend.store_result(self.id, None, ABORTED)


class AbortableTask(Task[P, R]):
    """A task that may look whether somebody asked it to end."""

    abstract = True

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AbortableAsyncResult[R]:  # noqa: N802 - Celery's name
        """The result of a task with this id."""
        return AbortableAsyncResult(task_id, backend=self.backend, app=self.app, task_name=self.name, **kwargs)

    def is_aborted(self, **kwargs: Any) -> bool:
        """Whether the running task was asked to end.

        Args:
            kwargs: `task_id`, of another call of this task.
        """
        task_id = kwargs.get("task_id") or self.request.id
        return self.AsyncResult(task_id).is_aborted()
