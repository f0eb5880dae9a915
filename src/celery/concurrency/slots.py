"""What a child is doing, in shared memory: no message is needed to know it.

Each child has a row of 64-bit words. The first nine are its sync lane's:

    BEGUN    sequence number of the last job begun (never goes back)           child writes
    SINCE    when, in monotonic nanoseconds                                    child writes
    ENDED    sequence number of the last job ended; it runs while BEGUN > this  child writes
    FIRST    jobs from this number ...                                         worker writes
    LAST     ... to this one are recalled: they must not begin                 worker writes
    SOFT     the job whose soft time limit is up                               worker writes
    TOLD     the last job whose start is stored                                worker writes
    TERM     not 0: SIGTERM is meant, it came from the worker                  worker writes
    LEAVE    what is away is waited for: 0 for ever, 1 a while, 2 not at all   worker writes

Then two words for each running position of the async lane: sequence number (0: free), and since when.

Each word has one writer. A recall races with the child's next step: the child writes BEGUN and then looks at FIRST
and LAST, the worker writes those and looks at BEGUN a tick later, so at least one of them sees the other; a job that
both saw is returned by the child, and one that only the child returned is not counted twice by the worker.
"""

from __future__ import annotations

import mmap
import os

BEGUN, SINCE, ENDED, FIRST, LAST, SOFT, TOLD, TERM, LEAVE = range(9)
_SYNC_WORDS = 9


class Slots:
    """The rows of all children."""

    def __init__(self, fd: int, rows: int, positions: int) -> None:
        """Map the memory.

        Args:
            fd: of the shared memory.
            rows: children at most.
            positions: of the async lane, each.
        """
        self.fd = fd
        self.rows = rows
        self.positions = positions
        self._words = _SYNC_WORDS + 2 * positions
        self._map = mmap.mmap(fd, rows * self._words * 8)
        self._view = memoryview(self._map).cast("Q")

    def __del__(self) -> None:
        os.close(self.fd)

    @classmethod
    def make(cls, rows: int, positions: int) -> Slots:
        """New shared memory."""
        fd = os.memfd_create("celery-slots", 0)
        os.ftruncate(fd, rows * (_SYNC_WORDS + 2 * positions) * 8)
        return cls(fd, rows, positions)

    def row(self, index: int) -> memoryview:
        """The words of one child."""
        start = index * self._words
        return self._view[start : start + self._words]

    def clear(self, index: int) -> None:
        """Ready for a new child."""
        row = self.row(index)
        for word in range(self._words):
            row[word] = 0


def position(number: int) -> int:
    """The first word of an async position."""
    return _SYNC_WORDS + 2 * number
