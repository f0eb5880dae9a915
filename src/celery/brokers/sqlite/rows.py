"""Many rows with few statements.

A statement of 32 rows costs between two fifths and four fifths of 32 statements of one. It also gives up the
interpreter's lock once instead of 32 times; the thread of a busy worker may wait for it each time.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

#: Rows of one statement.
CHUNK = 32


def insert(db: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> int:
    """Execute `INSERT ... VALUES`, which ends there, for all rows in order; how many were written."""
    if not rows:
        return 0
    written = 0
    whole = len(rows) - len(rows) % CHUNK
    width = len(rows[0])
    for start in range(0, whole, CHUNK):
        values = list(chain.from_iterable(rows[start : start + CHUNK]))
        written += db.execute(_text(statement, width, CHUNK), values).rowcount
    if whole < len(rows):
        written += db.executemany(_text(statement, width, 1), rows[whole:]).rowcount
    return written


@lru_cache
def _text(statement: str, width: int, count: int) -> str:
    row = f"({', '.join('?' * width)})"
    return f"{statement} {', '.join([row] * count)}"


class Alike(NamedTuple):
    """Rows that differ in two columns: the first is an id, one more for each row; the last is the row's own."""

    statement: str
    #: Columns in which they agree.
    shared: int
    #: Whether there is a last column.
    own: bool


MESSAGES = Alike("INSERT INTO message (id, queue, priority, exchange, routing_key, envelope) VALUES", 4, own=True)
WAITING = Alike("INSERT INTO waiting (id, queue, priority) VALUES", 2, own=False)


def insert_alike(db: sqlite3.Connection, kind: Alike, shared: tuple[Any, ...], first: int, own: Sequence[Any]) -> None:
    """Write a row for each item of `own`; what they share is handed over once for each statement.

    That takes three quarters of the time of `insert` for messages, and half of it for small rows.
    """
    start = 0
    while start < len(own):
        # Whole chunks, then halves of one: statements of few lengths, which are compiled once.
        count = min(CHUNK, 1 << (len(own) - start).bit_length() - 1)
        mine = own[start : start + count] if kind.own else ()
        db.execute(_alike_text(kind, count), (*shared, first + start, *mine))
        start += count


@lru_cache
def _alike_text(kind: Alike, count: int) -> str:
    shared = ", ".join(f"?{number + 1}" for number in range(kind.shared))
    first = kind.shared + 1
    rows = (f"(?{first} + {row}, {shared}{f', ?{first + 1 + row}' if kind.own else ''})" for row in range(count))
    return f"{kind.statement} {', '.join(rows)}"
