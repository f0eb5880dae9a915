"""Tasks that wait for the database (API-050)."""

from __future__ import annotations

from functools import partial
from typing import Any, ParamSpec, TypeVar

from django.db import transaction

from celery.app.task import Task

__all__ = ("DjangoTask",)

P = ParamSpec("P")
R = TypeVar("R")


class DjangoTask(Task[P, R]):
    """A task that can be sent when the transaction around the call commits, and is not when it rolls back.

    Outside of a transaction it is sent at once. A coroutine is always outside: Django has no transactions there.
    """

    abstract = True

    def delay_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call `delay` on commit. There is no result to return yet."""
        transaction.on_commit(partial(self.delay, *args, **kwargs))

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Call `apply_async` on commit. There is no result to return yet."""
        transaction.on_commit(partial(self.apply_async, *args, **kwargs))
