"""What all results share: who may wait, and who is told (API-053, API-059).

A wait inside a task may be for a task that has no place left to run: it is refused, unless allowed. Whether it is goes
with the context (thread, coroutine), as the current task does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from celery import _state

T = TypeVar("T")

#: Called with (task id, value).
Callback = Callable[[str, Any], Any]


def assert_will_not_block() -> None:
    """Refuse to wait inside a task (rule 3). Raises RuntimeError."""
    if _state.task_join_will_block():
        raise RuntimeError(
            "Never call result.get() within a task! The task waited for may have no process left to run in. "
            "Link the tasks in a chain or chord; or, if you know better, wait within allow_join_result()."
        )


@contextmanager
def allow_join_result() -> Generator[None]:
    """Allow waiting for results inside a task."""
    token = _state.set_join_denied(False)
    try:
        yield
    finally:
        _state.reset_join_denied(token)


@contextmanager
def denied_join_result() -> Generator[None]:
    """Refuse waiting for results."""
    token = _state.set_join_denied(True)
    try:
        yield
    finally:
        _state.reset_join_denied(token)


class Listeners:
    """Callbacks of `then`: called once, when what they wait for is ready (rule 4)."""

    __slots__ = ("_done", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[Any], Any], Callable[[BaseException], Any] | None]] = []
        self._done = False

    def add(self, callback: Callable[[Any], Any], on_error: Callable[[BaseException], Any] | None, result: Any) -> None:
        """Call `callback(result)` when it is time, which may be now; `on_error` gets what that raises."""
        self._waiting.append((callback, on_error))
        if self._done:
            self.tell(result)

    def tell(self, result: Any) -> None:
        """It is time."""
        self._done = True
        waiting, self._waiting = self._waiting, []
        for callback, on_error in waiting:
            try:
                callback(result)
            except Exception as exc:
                if on_error is None:
                    raise
                on_error(exc)


class ResultBase:
    """Base of all results."""

    __module__ = "celery.result"

    #: The result of the task that came before, in a chain.
    parent: ResultBase | None = None

    def as_tuple(self) -> Any:
        """How it travels (wire.md 4.3)."""
        raise NotImplementedError(f"{type(self).__name__} has no id to travel by")

    def forget(self) -> None:
        """Delete the record."""
        raise NotImplementedError(f"{type(self).__name__} cannot be forgotten")


def importable(cls: type[Any]) -> Any:
    """The class to pickle by: `app.AsyncResult` and its like are made for an application, and no module has them."""
    for base in cls.__mro__:
        if getattr(sys.modules.get(base.__module__), base.__name__, None) is base:
            return base
    return cls


async def in_thread(call: Callable[[], T]) -> T:
    """Call a blocking function without blocking the loop."""
    import asyncio

    return await asyncio.to_thread(call)
