"""The result table: values under keys, each with a state and perhaps an end.

A stored SUCCESS is final: the statement itself does not replace it (wire.md 4.1). Expired values are invisible at
once and deleted in small steps by whoever keeps house.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from celery.brokers.sqlite.rows import insert as insert_rows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Sequence

_ADD = "INSERT OR IGNORE INTO result (key, state, expires_at, payload) VALUES"
_REPLACE = """
    INSERT OR REPLACE INTO result (key, state, expires_at, payload)
    SELECT ?1, ?2, ?3, ?4
    WHERE NOT EXISTS (SELECT 1 FROM result WHERE key = ?1 AND state = 'SUCCESS' AND ifnull(expires_at > ?5, 1))"""
_READ = """
    SELECT key, payload FROM result
    WHERE key IN (SELECT value FROM json_each(?)) AND ifnull(expires_at > ?, 1)"""
_NEWEST = "SELECT coalesce(max(version), 0) FROM result"
_NEWER_OF = """
    SELECT key, payload FROM result
    WHERE key IN (SELECT value FROM json_each(?)) AND version > ? ORDER BY version"""
_NEWER = "SELECT key, payload FROM result WHERE version > ? ORDER BY version"
_DELETE = "DELETE FROM result WHERE key = ?"
_EXPIRE = """
    DELETE FROM result
    WHERE version IN (SELECT version FROM result WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)"""
_ANY_EXPIRED = "SELECT 1 FROM result WHERE expires_at <= ? LIMIT 1"

#: Up to so many keys are looked up one by one; for more, everything new is read.
_FEW = 100
#: Key, state, payload.
Value = tuple[str, str, bytes]


def write(db: sqlite3.Connection, values: Iterable[Value], expires_at: float | None, now: float) -> None:
    """Store values inside a transaction, save where a SUCCESS is stored already."""
    rows = [(key, state, expires_at, payload) for key, state, payload in values]
    # Most values are the first of their key, which costs two thirds; doing the rest again changes nothing new.
    if insert_rows(db, _ADD, rows) < len(rows):
        db.executemany(_REPLACE, [(*row, now) for row in rows])


def read(db: sqlite3.Connection, keys: Sequence[str], now: float) -> dict[str, bytes]:
    """The values of those keys that have one."""
    return dict(db.execute(_READ, (msgspec.json.encode(keys).decode(), now)))


def newest(db: sqlite3.Connection) -> int:
    """The version behind which everything written from now on will be."""
    version: int = db.execute(_NEWEST).fetchone()[0]
    return version


def newer(db: sqlite3.Connection, keys: Collection[str], version: int) -> dict[str, bytes]:
    """Those of the values under the keys that were written after a version."""
    if len(keys) <= _FEW:
        return dict(db.execute(_NEWER_OF, (msgspec.json.encode(list(keys)).decode(), version)))
    return {key: payload for key, payload in db.execute(_NEWER, (version,)) if key in keys}


def delete(db: sqlite3.Connection, key: str) -> None:
    """Delete a value, if there is one."""
    db.execute(_DELETE, (key,))


def any_expired(db: sqlite3.Connection, now: float) -> bool:
    """Whether there is something to delete."""
    return db.execute(_ANY_EXPIRED, (now,)).fetchone() is not None


def delete_expired(db: sqlite3.Connection, now: float, limit: int) -> int:
    """Delete up to `limit` values that have ended; how many."""
    return db.execute(_EXPIRE, (now, limit)).rowcount
