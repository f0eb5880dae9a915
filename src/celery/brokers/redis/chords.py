"""Chords as the scripts are told of them: for a result backend, and for a receiver that settles on the same server."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from celery.backends.chords import Terms
    from celery.brokers.base import ChordPart


class ChordStore(NamedTuple):
    """How chords are counted."""

    #: Put before a group's id, it gives the key.
    prefix: str
    #: The sorted set of chords whose members are being sent, and the hash of their bodies. Celery has no such thing.
    opened: str
    bodies: str
    terms: Terms
    #: Seconds that the saved group of a header is kept; None: for ever.
    group_life: float | None
    #: Parts are kept in the order of their positions (`result_chord_ordered`), else as they come.
    ordered: bool

    def key(self, group_id: str) -> str:
        """Of the header's group."""
        return self.prefix + group_id

    @property
    def life(self) -> int | str:
        """Seconds that bookkeeping is kept; "" for ever."""
        return _seconds(self.terms.life)

    @property
    def counting(self) -> tuple[str | int, ...]:
        """The first arguments of `chord_add`."""
        return ("1" if self.ordered else "0", self.life, _seconds(self.group_life), self.terms.claim)

    def part(self, part: ChordPart, token: str) -> tuple[str | bytes, ...]:
        """The arguments of `chord_add` for one part."""
        return (self.key(part.group_id), part.task_id, score_of(part), part.payload, token)


def score_of(part: ChordPart) -> str:
    """Where a part is among those of its chord."""
    return "+inf" if part.index is None else str(part.index)


def _seconds(value: float | None) -> int | str:
    return max(int(value), 1) if value else ""
