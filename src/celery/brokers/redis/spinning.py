"""When to spin for a reply: to ask the socket for it again and again, in place of sleeping until it is there.

A server on this machine answers in some 20 µs, and being put to sleep and woken takes twice as long. So it pays to ask
for a short while where replies come that soon, and nowhere else: not where the way to the server is longer, not where
there is one core for both, or where others keep the server waiting. Which it is, is seen by what became of it lately.

Rules
    1. A spin asks `TRIES` times at most, which is some 100 µs. It *paid* when the reply came while it asked.
    2. After a spin that did not pay the next replies are slept for: a number of them that grows fourfold each time, up
       to `LONGEST_REST`, and is halved by each spin that paid. So it goes on where nine of ten pay, and costs next to
       nothing where none does: less than half a microsecond a reply.
    3. A new connection begins anew, with a spin.
"""

from __future__ import annotations

#: How often a spin asks. With the reply not there this takes 1.5 to 2 µs, most of it the system's.
TRIES = 50
#: Replies that are slept for between two spins, at most.
LONGEST_REST = 512

_GROWTH = 4


class Spinning:
    """What spinning gave lately, on one connection."""

    __slots__ = ("_left", "_rest")

    def __init__(self) -> None:
        #: Replies that are still to be slept for.
        self._left = 0
        #: How many, after the next spin that does not pay.
        self._rest = 1

    def tries(self) -> int:
        """How often to ask for the next reply before sleeping: TRIES, or not at all."""
        if self._left:
            self._left -= 1
            return 0
        return TRIES

    def ended(self, paid: bool) -> None:
        """A spin is over."""
        if paid:
            if self._rest > 1:
                self._rest //= 2
        else:
            self._left = self._rest
            self._rest = min(self._rest * _GROWTH, LONGEST_REST)
