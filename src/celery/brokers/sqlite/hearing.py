"""The listening side of a bell: inotify by ctypes, where there is one (rules in `bell`)."""

from __future__ import annotations

import contextlib
import os
import select
import sys

from celery.brokers.sqlite.bell import LOOK_INTERVAL, POLL_INTERVAL

_IN_MODIFY = 0x2
#: More than any burst: equal events that follow each other are one.
_READ_SIZE = 65536


class Hearing:
    """Hears one bell; one thread. Knows nothing of what it means.

    Args:
        path: of the bell.
    """

    def __init__(self, path: str) -> None:
        self._file = _watch(path)
        #: Seconds after which to look without having heard anything.
        self.interval = POLL_INTERVAL if self._file is None else LOOK_INTERVAL

    def fileno(self) -> int | None:
        """A descriptor that is readable once the bell has rung; None: look every `interval` instead."""
        return self._file

    def clear(self) -> None:
        """Forget the rings so far. Look at the store after this, not before."""
        if self._file is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._file, _READ_SIZE)

    def wait(self, timeout: float, also: int | None = None) -> None:
        """Return when the bell rings or `also` is readable, at the latest after `interval` or `timeout` seconds."""
        poll = select.poll()
        for file in (self._file, also):
            if file is not None:
                poll.register(file, select.POLLIN)
        poll.poll(min(timeout, self.interval) * 1000)

    def close(self) -> None:
        """Stop listening. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _watch(path: str) -> int | None:
    """An inotify descriptor for writes to the file, None where that is not to be had."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes  # here, as those who only send do without

    libc = ctypes.CDLL(None, use_errno=True)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
        file: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, AttributeError):
        return None
    if file < 0:
        return None
    if libc.inotify_add_watch(file, os.fsencode(path), _IN_MODIFY) < 0:
        os.close(file)
        return None
    return file
