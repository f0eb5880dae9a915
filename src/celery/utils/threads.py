"""Threads that live as long as the program, and values that each thread has for itself (API-046)."""
from __future__ import annotations

import os
import socket
import sys
import threading
import traceback
from contextlib import contextmanager
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ("Local", "LocalManager", "LocalStack", "bgThread", "default_socket_timeout", "get_ident")


@contextmanager
def default_socket_timeout(timeout: float | None) -> Iterator[None]:
    """Give sockets made inside the block a time-out in seconds."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)


class bgThread(threading.Thread):  # noqa: N801 - the documented name
    """A background thread that calls `body` until `stop`; an error in it ends the process.

    Without its service thread a program would go on half dead, which is worse than a restart.
    """

    def __init__(self, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name or type(self).__name__, daemon=True, **kwargs)
        self._stop_requested = threading.Event()
        self._ended = threading.Event()

    def body(self) -> None:
        """Do one round of work."""
        raise NotImplementedError(f"{type(self).__name__} has no body()")

    def on_crash(self, msg: str, *fmt: Any, **kwargs: Any) -> None:
        """Report an error of `body` on stderr."""
        sys.stderr.write(f"{msg.format(*fmt, **kwargs)}\n")
        traceback.print_exc(file=sys.stderr)

    def run(self) -> None:
        """Call `body` until asked to stop."""
        try:
            while not self._stop_requested.is_set():
                try:
                    self.body()
                except Exception as exc:  # noqa: BLE001 - reported, then the process ends
                    self.on_crash("{0!r} crashed: {1!r}", self.name, exc)
                    sys.stderr.flush()
                    os._exit(1)
        finally:
            self._ended.set()

    def stop(self) -> None:
        """Ask the thread to end and wait until it has."""
        self._stop_requested.set()
        if self.is_alive() and threading.current_thread() is not self:
            self._ended.wait()
            self.join()


class LocalStack:
    """A stack that each thread, and each asyncio task, has for itself.

    The stack of a context is an immutable tuple: an asyncio task that is started inside a running task sees what was
    on top then, and neither disturbs the other.
    """

    def __init__(self) -> None:
        self._items: ContextVar[tuple[Any, ...]] = ContextVar("celery_local_stack", default=())

    def push(self, obj: Any) -> None:
        """Put an object on top."""
        self._items.set((*self._items.get(), obj))

    def pop(self) -> Any:
        """Take the top object off; None if the stack is empty."""
        items = self._items.get()
        if not items:
            return None
        self._items.set(items[:-1])
        return items[-1]

    def __len__(self) -> int:
        return len(self._items.get())

    @property
    def stack(self) -> list[Any]:
        """The objects, the top one last."""
        return list(self._items.get())

    @property
    def top(self) -> Any:
        """The top object; None if the stack is empty."""
        items = self._items.get()
        return items[-1] if items else None


class Local(threading.local):
    """An object whose attributes each thread has for itself."""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self.__dict__.items())

    def __release_local__(self) -> None:
        """Forget the attributes of this thread."""
        self.__dict__.clear()


class LocalManager:
    """Forgets what this thread has in a number of `Local` objects.

    Args:
        locals: One or several.
        ident_func: Identifies the thread instead of its id.
    """

    def __init__(
        self, locals: Local | Iterable[Local] | None = None, ident_func: Callable[[], Any] | None = None
    ) -> None:
        self.locals = [locals] if isinstance(locals, Local) else [] if locals is None else list(locals)
        self._ident_func = ident_func or get_ident

    def get_ident(self) -> Any:
        """Return what identifies this thread."""
        return self._ident_func()

    def cleanup(self) -> None:
        """Forget it."""
        for local in self.locals:
            local.__release_local__()
