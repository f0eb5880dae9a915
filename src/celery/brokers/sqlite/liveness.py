"""Which receivers live, and what becomes of what the dead ones held.

A receiver is a row of `worker` that it renews every `BEAT` seconds. Any other receiver finds it dead when its process
is gone from this machine (looked for at every tick), or when its row is older than `LEASE`; it then deletes the row,
and in the same transaction everything held by an owner without a row goes back to its queue: counted as a failure
what had not started, marked as lost what had. So both come back within LEASE + TICK seconds.

A stopped process that comes back finds that its row is gone. Its owner number is burnt: it takes a new one, and what it
settles under the old one is refused.

Moments are of the system's monotonic clock, which all processes of a machine share; it does not jump with the
wall clock and stands still while the machine sleeps. After a restart of the machine it begins anew: a moment in the
future is from before.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

from celery.brokers.sqlite import messages

if TYPE_CHECKING:
    import sqlite3

#: Seconds between two looks at the others.
TICK = 1.0
#: Seconds between two signs of life.
BEAT = 3.0
#: Seconds without a sign of life after which a receiver is dead.
LEASE = 10.0

_ENTER = "INSERT INTO worker (owner, node, host, pid, birth, seen_at) VALUES (?, ?, ?, ?, ?, ?)"
_BEAT = "UPDATE worker SET seen_at = ? WHERE owner = ?"
_LEAVE = "DELETE FROM worker WHERE owner = ?"
_ALL = "SELECT owner, host, pid, birth, seen_at FROM worker"
_ORPHANED = "SELECT EXISTS (SELECT 1 FROM held WHERE owner NOT IN (SELECT owner FROM worker))"
_ORPHANS = "SELECT id, started FROM held WHERE owner NOT IN (SELECT owner FROM worker)"
_MINE = "SELECT id FROM held WHERE owner = ? AND started = 0"
_RELEASE = "DELETE FROM held WHERE id IN (SELECT value FROM json_each(?))"


def new_owner() -> int:
    """A number that no receiver had before."""
    return int.from_bytes(os.urandom(7))


def enter(db: sqlite3.Connection, owner: int, node: str) -> None:
    """Write this process down as a living receiver."""
    pid = os.getpid()
    db.execute(_ENTER, (owner, node, this_host(), pid, birth_of(pid) or 0, time.monotonic()))


def beat(db: sqlite3.Connection, owner: int) -> bool:
    """Give a sign of life; False when the others have given this owner up."""
    return db.execute(_BEAT, (time.monotonic(), owner)).rowcount == 1


def leave(db: sqlite3.Connection, owner: int) -> None:
    """Give back what has not started and cross the owner out; what has started is for the others to report."""
    mine = [id for (id,) in db.execute(_MINE, (owner,))]
    db.execute(_RELEASE, (messages.json_list(mine),))
    messages.give_back(db, mine)
    db.execute(_LEAVE, (owner,))


def dead(db: sqlite3.Connection, asking: int) -> list[int]:
    """Owners that have a row and do not live. Who asks does, however long the disk has kept it from saying so."""
    rows = db.execute(_ALL).fetchall()
    now = time.monotonic()  # after reading: a row may be newer than the question, never newer than the answer
    here = this_host()
    return [
        owner
        for owner, host, pid, birth, seen_at in rows
        if owner != asking
        if not now - LEASE <= seen_at <= now or (host == here and birth_of(pid) != birth)
    ]


def orphaned(db: sqlite3.Connection) -> bool:
    """Whether something is held by an owner that has no row."""
    return bool(db.execute(_ORPHANED).fetchone()[0])


def bury(db: sqlite3.Connection, owners: list[int]) -> int:
    """Cross dead owners out and give back what they, and owners without a row, held; how many messages."""
    db.executemany(_LEAVE, [(owner,) for owner in owners])
    held = db.execute(_ORPHANS).fetchall()
    db.execute(_RELEASE, (messages.json_list(id for id, _ in held),))
    messages.give_back(db, [id for id, started in held if not started], failed=True)
    messages.give_back(db, [id for id, started in held if started], failed=True, lost=True)
    return len(held)


def this_host() -> str:
    """Where a process number means something: the host's name and, on Linux, the namespace of processes."""
    try:
        namespace = str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}:{namespace}"


def birth_of(pid: int) -> int | None:
    """When a process began, in ticks since the machine did; None when there is no such process.

    0 where only its existence can be told. A process that has ended and was not waited for does not exist.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return None if os.path.isdir("/proc/self") else _exists(pid)
    state, *fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold anything
    return None if state in {"Z", "X"} else int(fields[18])


def _exists(pid: int) -> int | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0
