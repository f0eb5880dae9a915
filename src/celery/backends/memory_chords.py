"""Chords counted inside one process, beside the results of `celery.backends.memory`."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from celery.backends.chords import ChordBook, Member, read_members, terms_of
from celery.brokers.base import ChordClaim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.backends.memory import MemoryBackend
    from celery.brokers.base import ChordPart, ChordStart

_NEVER = float("inf")
#: Position in the header (behind all others for a part without one), task id.
_Place = tuple[float, str]


class Chord:
    """The bookkeeping of one chord. Moments are seconds of the monotonic clock."""

    def __init__(self) -> None:
        #: None: it has not begun.
        self.size: int | None = None
        self.extra = 0
        self.parts: dict[_Place, bytes] = {}
        self.token = ""
        self.claimed_until = 0.0
        self.closed = False
        self.end = _NEVER

    @property
    def complete(self) -> bool:
        return self.size is not None and len(self.parts) >= self.size + self.extra

    def holds(self, token: str, now: float) -> bool:
        """Whether the token is the claim, or may be it again, as it has ended and nobody else has taken it."""
        return not self.closed and (token == self.token or (self.size is not None and now >= self.claimed_until))


class MemoryBook(ChordBook):
    """Counts in the store of the backend, under its lock."""

    def __init__(self, backend: MemoryBackend) -> None:
        self._backend = backend
        self._store = backend.store
        self._terms = terms_of(backend.app.conf, backend.expires)

    def begin(self, starts: Sequence[ChordStart]) -> None:
        with self._store.lock:
            for start in starts:
                chord = self._chord(start.group_id)
                if chord.closed:
                    chord = self._store.chords[start.group_id] = Chord()
                chord.size = start.size
                chord.end = self._end()

    def add(self, parts: Sequence[ChordPart]) -> list[ChordClaim]:
        claims = []
        with self._store.lock:
            for part in parts:
                chord = self._chord(part.group_id)
                if chord.closed:
                    continue
                chord.parts.setdefault((_NEVER if part.index is None else part.index, part.task_id), part.payload)
                chord.end = self._end()
                if chord.complete:
                    claims.append(ChordClaim(part, self._claim(chord)))
        return claims

    def _claim(self, chord: Chord) -> str:
        now = time.monotonic()
        if now < chord.claimed_until:
            return ""
        chord.token, chord.claimed_until = uuid.uuid4().hex, now + self._terms.claim
        return chord.token

    def members(self, group_id: str) -> list[Member]:
        with self._store.lock:
            chord = self._store.chords.get(group_id)
            parts = [] if chord is None else [part for _, part in sorted(chord.parts.items())]
        return read_members(self._backend, parts)

    def hold(self, claim: ChordClaim) -> bool:
        with self._store.lock:
            now = time.monotonic()
            chord = self._store.chords.get(claim.part.group_id)
            if chord is None or not chord.holds(claim.token, now):
                return False
            chord.token, chord.claimed_until = claim.token, now + self._terms.hold
            return True

    def close(self, claim: ChordClaim) -> None:
        with self._store.lock:
            now = time.monotonic()
            chord = self._store.chords.get(claim.part.group_id)
            if chord is not None and chord.holds(claim.token, now):
                chord.parts.clear()
                chord.closed, chord.end = True, now + self._terms.mark

    def extend(self, group_id: str) -> None:
        with self._store.lock:
            self._chord(group_id).extra += 1

    def _chord(self, group_id: str) -> Chord:
        return self._store.chords.setdefault(group_id, Chord())

    def _end(self) -> float:
        return time.monotonic() + self._terms.life if self._terms.life else _NEVER


def sweep(chords: dict[str, Chord], now: float) -> None:
    """Forget the chords whose time is over."""
    for group_id in [group_id for group_id, chord in chords.items() if chord.end <= now]:
        del chords[group_id]
