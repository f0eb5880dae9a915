"""Lamport clocks: an order of messages that needs no common time (wire.md 5.5, EVT-038).

Rules
    1. Sending a control message or an event counts one up; the message carries the result.
    2. Receiving one sets the clock to the greater of its own value and the message's, and counts one up.
So what happened because of something has a greater number than that something.
"""

from __future__ import annotations

import threading

__all__ = ("LamportClock",)


class LamportClock:
    """One process's clock, for any number of threads."""

    def __init__(self, initial_value: int = 0) -> None:
        self.value = initial_value
        self._lock = threading.Lock()

    def forward(self) -> int:
        """Count one up; the new value (rule 1)."""
        with self._lock:
            self.value += 1
            return self.value

    def adjust(self, other: int) -> int:
        """Take a received value into account; the new value (rule 2)."""
        with self._lock:
            self.value = max(self.value, other) + 1
            return self.value

    def __str__(self) -> str:
        return str(self.value)

    def __repr__(self) -> str:
        return f"<LamportClock: {self.value}>"
