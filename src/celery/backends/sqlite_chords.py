"""Chords counted in the file of a SQLite backend (`celery.brokers.sqlite.chords`), for who does not settle there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.backends.chords import ChordBook, Member, read_members, terms_of
from celery.brokers.sqlite import chords

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.backends.sqlite import SQLiteBackend
    from celery.brokers.base import ChordClaim, ChordPart, ChordStart


class SQLiteBook(ChordBook):
    """Counts with one transaction for each verb."""

    def __init__(self, backend: SQLiteBackend) -> None:
        self._backend = backend
        #: For a receiver that counts while it settles.
        self.terms = terms_of(backend.app.conf, backend.expires)

    def begin(self, starts: Sequence[ChordStart]) -> None:
        with self._backend.store.writing() as db:
            chords.begin(db, starts, self.terms)

    def add(self, parts: Sequence[ChordPart]) -> list[ChordClaim]:
        with self._backend.store.writing() as db:
            return chords.add(db, parts, self.terms)

    def members(self, group_id: str) -> list[Member]:
        with self._backend.store.reading() as db:
            parts = chords.members(db, group_id)
        return read_members(self._backend, parts)

    def hold(self, claim: ChordClaim) -> bool:
        with self._backend.store.writing() as db:
            return chords.hold(db, claim, self.terms.hold) is not None

    def close(self, claim: ChordClaim) -> None:
        with self._backend.store.writing() as db:
            chords.close(db, claim, self.terms)

    def extend(self, group_id: str) -> None:
        with self._backend.store.writing() as db:
            chords.extend(db, group_id, self.terms)

    def open(self, group_id: str, body: bytes, lease: float) -> bool:
        with self._backend.store.writing() as db:
            return chords.open(db, group_id, body, lease)

    def sent(self, group_id: str) -> None:
        with self._backend.store.writing() as db:
            chords.sent(db, group_id)

    def abandoned(self) -> list[ChordClaim]:
        with self._backend.store.reading() as db:
            if not chords.any_silent(db):
                return []
        with self._backend.store.writing() as db:
            return chords.abandoned(db, self.terms)

    def disconnect(self) -> None:
        self._backend.store.close()
