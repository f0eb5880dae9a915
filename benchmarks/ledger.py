"""What was completed and when, on record outside of broker and backend, at a cost that is the same for all.

A file mapped into every process that runs tasks. Its first word counts the slots handed out; each process takes
one slot on its first task and is then the only one that writes there: how many completions, when the first and the
last of them were. Threads of a process take turns. Times are of the machine's monotonic clock, which all processes
share.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

#: Processes that may run tasks in one run; a worker that forks for each task needs one each.
SLOTS = 4096
WORD = struct.Struct("Q")
SLOT = struct.Struct("Qdd")
SIZE = WORD.size + SLOTS * SLOT.size


class Totals(NamedTuple):
    """All slots together; times in seconds of the monotonic clock."""

    completions: int
    first: float
    last: float

    @property
    def rate(self) -> float:
        """Completions per second, from the first one to the last."""
        return (self.completions - 1) / (self.last - self.first)


class Slot:
    """The place of one process in the ledger file."""

    def __init__(self, path: str) -> None:
        self.pid = os.getpid()
        self.turn = threading.Lock()
        with open(path, "r+b") as file:  # what pathlib imports would be in the memory of every worker
            fcntl.flock(file, fcntl.LOCK_EX)
            self.memory = mmap.mmap(file.fileno(), SIZE)
            (taken,) = WORD.unpack_from(self.memory)
            if taken == SLOTS:
                raise RuntimeError(
                    f"{path}: all {SLOTS} slots are taken; the worker replaces its children all the time"
                )
            WORD.pack_into(self.memory, 0, taken + 1)
            # Closing does not unlock: the map holds a duplicate of the descriptor.
            fcntl.flock(file, fcntl.LOCK_UN)
        self.offset = WORD.size + taken * SLOT.size
        self.count = 0
        self.first = 0.0

    def add(self) -> None:
        """Record one completion, now."""
        with self.turn:
            now = time.monotonic()
            self.count += 1
            self.first = self.first or now
            SLOT.pack_into(self.memory, self.offset, self.count, self.first, now)


_slot: Slot | None = None


def completed() -> None:
    """Record that a task has been completed in this process; nothing where no ledger is kept."""
    global _slot  # noqa: PLW0603  one per process is the point
    if _slot is None or _slot.pid != os.getpid():
        path = os.environ.get("BENCH_LEDGER")
        if path is None:
            return
        _slot = Slot(path)
    _slot.add()


class Reader:
    """A new ledger file, seen from outside.

    Args:
        path: where to make it; its name goes into ``BENCH_LEDGER`` of the processes that write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(SIZE))
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), SIZE, prot=mmap.PROT_READ)

    def totals(self) -> Totals:
        """What all processes have completed up to now."""
        (taken,) = WORD.unpack_from(self.memory)
        places = (SLOT.unpack_from(self.memory, WORD.size + number * SLOT.size) for number in range(taken))
        slots = [slot for slot in places if slot[0]]
        if not slots:
            return Totals(0, 0.0, 0.0)
        return Totals(sum(slot[0] for slot in slots), min(slot[1] for slot in slots), max(slot[2] for slot in slots))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.memory.close()
