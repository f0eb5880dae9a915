"""Task states, their order of importance, and which may replace which (API-069, API-070).

Three views of the same names:

* **Sets** say what a caller may conclude: a task in `READY_STATES` is over, one in `EXCEPTION_STATES` carries an
  exception as its result, one in `PROPAGATE_STATES` makes ``get()`` raise it.
* **Precedence** ranks states for people and for merging events that arrive out of order: 0 is the most final. A
  custom state ranks between ``FAILURE`` and ``REVOKED``.
* **Transitions** say what a result store may write over what: see `may_follow`.
"""
from __future__ import annotations

from typing import Final

__all__ = (
    "EXCEPTION_STATES",
    "FAILURE",
    "IGNORED",
    "PENDING",
    "PROPAGATE_STATES",
    "READY_STATES",
    "RECEIVED",
    "REJECTED",
    "RETRY",
    "REVOKED",
    "STARTED",
    "SUCCESS",
    "UNREADY_STATES",
    "may_follow",
    "precedence",
    "state",
)

#: Nothing is known: not sent yet, expired, or never existed.
PENDING: Final = "PENDING"
#: A worker has it (only seen in events).
RECEIVED: Final = "RECEIVED"
#: It runs, and ``task_track_started`` is on.
STARTED: Final = "STARTED"
SUCCESS: Final = "SUCCESS"
FAILURE: Final = "FAILURE"
REVOKED: Final = "REVOKED"
#: The worker refused the message (only seen in events).
REJECTED: Final = "REJECTED"
#: It failed and will be tried again.
RETRY: Final = "RETRY"
#: The attempt ended with `~celery.exceptions.Ignore`.
IGNORED: Final = "IGNORED"

READY_STATES: Final = frozenset({SUCCESS, FAILURE, REVOKED})
UNREADY_STATES: Final = frozenset({PENDING, RECEIVED, STARTED, REJECTED, RETRY})
EXCEPTION_STATES: Final = frozenset({RETRY, FAILURE, REVOKED})
PROPAGATE_STATES: Final = frozenset({FAILURE, REVOKED})
ALL_STATES: Final = frozenset({PENDING, RECEIVED, STARTED, SUCCESS, FAILURE, RETRY, REVOKED})

#: From the most to the least important; None stands for every custom state.
PRECEDENCE: Final[list[str | None]] = [
    SUCCESS, FAILURE, None, REVOKED, STARTED, RECEIVED, REJECTED, RETRY, PENDING,
]  # fmt: skip
PRECEDENCE_LOOKUP: Final[dict[str | None, int]] = {name: rank for rank, name in enumerate(PRECEDENCE)}
NONE_PRECEDENCE: Final = PRECEDENCE_LOOKUP[None]

# What may replace a stored state; a state without an entry may be replaced by any. A failed or revoked task that is
# delivered again runs again, so only success is final (wire.md 4.1).
_TRANSITIONS: Final[dict[str, frozenset[str]]] = {SUCCESS: frozenset()}


def may_follow(stored: str, new: str) -> bool:
    """Tell whether a result store that holds the state ``stored`` may write ``new`` over it (wire.md 4.1)."""
    allowed = _TRANSITIONS.get(stored)
    return allowed is None or new in allowed


def precedence(state: str | None) -> int:
    """Return the rank of ``state``: 0 for the most important; custom states rank between FAILURE and REVOKED."""
    return PRECEDENCE_LOOKUP.get(state, NONE_PRECEDENCE)


class state(str):  # noqa: N801 - the documented name
    """A state that compares by importance: ``state("SUCCESS") > state("PENDING")``."""

    __slots__ = ()

    def __gt__(self, other: str) -> bool:
        return precedence(self) < precedence(other)

    def __ge__(self, other: str) -> bool:
        return precedence(self) <= precedence(other)

    def __lt__(self, other: str) -> bool:
        return precedence(self) > precedence(other)

    def __le__(self, other: str) -> bool:
        return precedence(self) >= precedence(other)
