"""How a chord counts its members, once for all stores that can (wire.md 4.5).

A chord's header is a group. Each member that finishes adds its *part*; whoever adds the part that makes them complete
gets the *claim* to send the body, and only the holder of the claim does.

Rules
    1. A part counts once, by task id and position, however often its task ran.
    2. Parts may come before `begin`: a chord is complete when it has begun and as many parts are there as it has
       members, with those that `extend` added.
    3. A claim is a token with an end: it outlives the time that sending takes, and not much more. When its holder died,
       the next one who adds a part (the same part, delivered again) gets a new claim.
    4. Sending the body and `close` are one step where broker and store can do that; elsewhere the holder asks `hold`
       just before, and sends at most twice if it dies between the two.
    5. After `close` nothing is left but a mark, for some minutes, so that a part that comes once more is not counted.

A store that counts gives its backend a `ChordBook` (`Backend.chords`). The verbs block; the worker's main process calls
them on a thread, or does the same inside `Receiver.settle` where it shares the store. Backends without one follow the
documented hooks of `ChordHooks`: by default a task polls the header's results (`celery.chord_unlock`).
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.app.base import Celery
    from celery.brokers.base import ChordClaim, ChordPart, ChordStart


class Member(NamedTuple):
    """A finished member of a header, as it was counted."""

    task_id: str
    state: str
    #: The value; for FAILURE and REVOKED what `Backend.exception_to_python` takes.
    value: Any


class ChordBook(abc.ABC):
    """What counts chords in one store. All verbs block, from any thread. All raise OperationalError."""

    @abc.abstractmethod
    def begin(self, starts: Sequence[ChordStart]) -> None:
        """These have so many members. Beginning again is harmless until the chord is closed."""

    @abc.abstractmethod
    def add(self, parts: Sequence[ChordPart]) -> list[ChordClaim]:
        """Count parts; the claims that came of it, those held by others included (`ChordClaim.token` is "")."""

    @abc.abstractmethod
    def members(self, group_id: str) -> list[Member]:
        """The parts of a complete chord, in the order of their positions. Raises DecodeError and its kind."""

    @abc.abstractmethod
    def hold(self, claim: ChordClaim) -> bool:
        """Prolong a claim for the time that sending takes; False: it is void, another has taken it."""

    @abc.abstractmethod
    def close(self, claim: ChordClaim) -> None:
        """The body, or the failure, is sent: forget the chord. Nothing happens when the claim is void."""

    @abc.abstractmethod
    def extend(self, group_id: str) -> None:
        """One more member has been sent (`Task.add_to_chord`)."""
