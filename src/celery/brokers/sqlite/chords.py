"""Chords counted in the file: rows of `chord`, and of `chord_part` until they are closed (`celery.backends.chords`).

Everything here happens inside a transaction of the caller: of the book's own, or of a receiver that settles.
A chord costs one row to look up and one to change for each batch of its parts, and a part costs its own row, however
many there are.

A claim ends by the system's monotonic clock. After a restart of the machine that clock begins anew, so a claim that
would last longer than any may is over.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from celery.backends.chords import orphan
from celery.brokers.base import ChordClaim

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from celery.backends.chords import Terms
    from celery.brokers.base import ChordPart, ChordStart, Settlement

_BEGIN = """
    INSERT INTO chord (group_id, size, expires_at) VALUES (?1, ?2, ?3)
    ON CONFLICT (group_id) DO UPDATE SET size = ?2, expires_at = ?3, claim_ends = 0,
        extra = iif(closed, 0, extra), closed = 0"""
_ENTER = "INSERT OR IGNORE INTO chord (group_id) VALUES (?)"
_CHORD = "SELECT id, closed FROM chord WHERE group_id = ?"
_PART = "INSERT OR IGNORE INTO chord_part (chord, position, task_id, payload) VALUES (?, ?, ?, ?)"
_COUNT = """
    UPDATE chord SET counted = counted + ?, expires_at = ? WHERE id = ?
    RETURNING ifnull(counted >= size + extra, 0), claim_ends"""
_CLAIM = "UPDATE chord SET token = ?, claim_ends = ? WHERE id = ?"
_PARTS = """
    SELECT payload FROM chord_part WHERE chord = (SELECT id FROM chord WHERE group_id = ?)
    ORDER BY position, task_id"""
# A claim that has ended is its holder's until another one takes it.
_HOLD = """
    UPDATE chord SET token = ?2, claim_ends = ?3
    WHERE group_id = ?1 AND NOT closed AND (token = ?2 OR size IS NOT NULL AND claim_ends NOT BETWEEN ?4 AND ?5)
    RETURNING id"""
_CLOSE = "UPDATE chord SET closed = 1, counted = 0, expires_at = ? WHERE id = ?"
_FORGET_PARTS = "DELETE FROM chord_part WHERE chord = ?"
_EXTEND = """
    INSERT INTO chord (group_id, extra, expires_at) VALUES (?1, 1, ?2)
    ON CONFLICT (group_id) DO UPDATE SET extra = extra + 1, expires_at = ?2"""
_ANY_EXPIRED = "SELECT 1 FROM chord WHERE expires_at <= ? LIMIT 1"
_EXPIRED = "SELECT id FROM chord WHERE expires_at <= ?"
_FORGET = "DELETE FROM chord WHERE id = ?"
_OPEN = """
    INSERT INTO chord_sender (group_id, body, lease_ends) SELECT ?1, ?2, ?3
    WHERE NOT EXISTS (SELECT 1 FROM chord WHERE group_id = ?1 AND closed)
    ON CONFLICT (group_id) DO UPDATE SET lease_ends = ?3"""
_SENT = "DELETE FROM chord_sender WHERE group_id = ?"
_SILENT = "SELECT group_id, body FROM chord_sender WHERE lease_ends NOT BETWEEN ? AND ?"
_STATE = "SELECT id, closed OR ifnull(counted >= size + extra, 0), claim_ends FROM chord WHERE group_id = ?"

#: Position of a part that has none.
_LAST = 2**63 - 1
#: Seconds that no claim lasts.
_TOO_LONG = 3600.0


def begin(db: sqlite3.Connection, starts: Iterable[ChordStart], terms: Terms) -> None:
    """These have so many members."""
    end = _end(terms)
    db.executemany(_BEGIN, [(start.group_id, start.size, end) for start in starts])


def add(db: sqlite3.Connection, parts: Sequence[ChordPart], terms: Terms) -> list[ChordClaim]:
    """Count parts; the claims that came of it, with an empty token for those that others hold."""
    by_group: dict[str, list[ChordPart]] = {}
    for part in parts:
        by_group.setdefault(part.group_id, []).append(part)
    return [claim for group_id, some in by_group.items() if (claim := _count(db, group_id, some, terms)) is not None]


def _count(db: sqlite3.Connection, group_id: str, parts: list[ChordPart], terms: Terms) -> ChordClaim | None:
    """Count parts of one chord."""
    db.execute(_ENTER, (group_id,))
    id, closed = db.execute(_CHORD, (group_id,)).fetchone()
    if closed:
        return None
    rows = [(id, _LAST if part.index is None else part.index, part.task_id, part.payload) for part in parts]
    added = db.executemany(_PART, rows).rowcount
    complete, claim_ends = db.execute(_COUNT, (added, _end(terms), id)).fetchone()
    if not complete:
        return None
    now = time.monotonic()
    if now <= claim_ends <= now + _TOO_LONG:
        return ChordClaim(parts[-1], "")
    token = uuid.uuid4().hex
    db.execute(_CLAIM, (token, now + terms.claim, id))
    return ChordClaim(parts[-1], token)


def members(db: sqlite3.Connection, group_id: str) -> list[bytes]:
    """The parts, in the order of their positions."""
    return [payload for (payload,) in db.execute(_PARTS, (group_id,))]


def hold(db: sqlite3.Connection, claim: ChordClaim, seconds: float) -> int | None:
    """Prolong a claim; the number of its chord, None when the claim is void."""
    now = time.monotonic()
    row = db.execute(_HOLD, (claim.part.group_id, claim.token, now + seconds, now, now + _TOO_LONG)).fetchone()
    return None if row is None else int(row[0])


def close(db: sqlite3.Connection, claim: ChordClaim, terms: Terms) -> bool:
    """Forget all but that it is over; False: the claim is void, and nothing has changed."""
    id = hold(db, claim, 0.0)
    if id is None:
        return False
    db.execute(_FORGET_PARTS, (id,))
    db.execute(_CLOSE, (time.time() + terms.mark, id))
    sent(db, claim.part.group_id)
    return True


def extend(db: sqlite3.Connection, group_id: str, terms: Terms) -> None:
    """One more member."""
    db.execute(_EXTEND, (group_id, _end(terms)))


def open(db: sqlite3.Connection, group_id: str, body: bytes, lease: float) -> bool:
    """Its members are being sent; False: the chord is closed."""
    return db.execute(_OPEN, (group_id, body, time.monotonic() + lease)).rowcount == 1


def sent(db: sqlite3.Connection, group_id: str) -> None:
    """All of its members have been sent."""
    db.execute(_SENT, (group_id,))


def any_silent(db: sqlite3.Connection) -> bool:
    """Whether a producer's word has run out."""
    now = time.monotonic()
    return db.execute(_SILENT, (now, now + _TOO_LONG)).fetchone() is not None


def abandoned(db: sqlite3.Connection, terms: Terms) -> list[ChordClaim]:
    """Claims of chords whose producers have died."""
    claims = []
    now = time.monotonic()
    for group_id, body in db.execute(_SILENT, (now, now + _TOO_LONG)).fetchall():
        db.execute(_ENTER, (group_id,))
        id, over, claim_ends = db.execute(_STATE, (group_id,)).fetchone()
        if over:
            sent(db, group_id)
        elif not now <= claim_ends <= now + _TOO_LONG:
            token = uuid.uuid4().hex
            db.execute(_CLAIM, (token, now + terms.claim, id))
            claims.append(orphan(group_id, body, token))
    return claims


def any_expired(db: sqlite3.Connection, now: float) -> bool:
    """Whether there is something to delete."""
    return db.execute(_ANY_EXPIRED, (now,)).fetchone() is not None


def delete_expired(db: sqlite3.Connection, now: float) -> None:
    """Forget the chords whose time is over."""
    for (id,) in db.execute(_EXPIRED, (now,)).fetchall():
        db.execute(_FORGET_PARTS, (id,))
        db.execute(_FORGET, (id,))


class Settling:
    """What a batch of settlements means for chords, in the transaction that applies it (`celery.brokers.base`).

    Args:
        db: inside the transaction.
        batch: settlements of deliveries that are ours.
        terms: of the backend.
    """

    def __init__(self, db: sqlite3.Connection, batch: Sequence[Settlement], terms: Terms) -> None:
        self._db = db
        self._batch = batch
        self._terms = terms
        self._applied = batch
        self._claims: dict[int, list[ChordClaim]] = {}

    def begin(self) -> Sequence[Settlement]:
        """First: chords are closed and begun. Gives the settlements of which more than the verdict is applied."""
        db, terms = self._db, self._terms
        if any(item.closes is not None for item in self._batch):
            self._applied = [item for item in self._batch if item.closes is None or close(db, item.closes, terms)]
        starts = [start for item in self._applied for start in item.begins]
        if starts:
            begin(db, starts, terms)
        return self._applied

    def count(self) -> Sequence[Settlement]:
        """Last but for the verdicts: parts are counted. Gives the settlements whose verdict is applied."""
        owners = {id(part): number for number, item in enumerate(self._applied) for part in item.parts}
        if not owners:
            return self._batch
        for claim in add(self._db, [part for item in self._applied for part in item.parts], self._terms):
            self._claims.setdefault(owners[id(claim.part)], []).append(claim)
        claimed = {id(self._applied[number]) for number in self._claims}
        return [item for item in self._batch if id(item) not in claimed]

    def tell(self) -> None:
        """After the commit: the settlements are told of their claims."""
        for number, item in enumerate(self._applied):
            if item.parts:
                item.claims = self._claims.get(number, [])


def _end(terms: Terms) -> float | None:
    return time.time() + terms.life if terms.life else None
