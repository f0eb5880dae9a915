"""Which deliveries of a channel are unsettled, and how to acknowledge many with few frames.

RabbitMQ numbers the deliveries of a channel from 1. An acknowledgement names one number, or with `multiple` all up to
it; that is only right up to the highest number below which *everything* is done, or a task that still runs would be
acknowledged with its neighbours (wire.md 6.4).

Children work on different stretches of the numbers, so what is done often lies behind a gap that will be closed in
milliseconds. A frame costs the server 10 us or more, so some of these are *kept* for then:

    1. Only so many as the caller allows: what is kept counts in the prefetch, and must not starve a child.
    2. `overdue`, asked at intervals, gives up those that were kept when it was asked before.
    3. What is kept is settled as far as anybody here may ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Unsettled:
    """The delivery tags that the server waits for, ascending."""

    def __init__(self) -> None:
        self._tags: dict[int, None] = {}
        #: Of them: done, but not acknowledged yet; and which of these were there when `overdue` was asked last.
        self._kept: set[int] = set()
        self._old: set[int] = set()

    def __len__(self) -> int:
        return len(self._tags)

    def __contains__(self, tag: int) -> bool:
        return tag in self._tags and tag not in self._kept

    @property
    def keeps(self) -> bool:
        """Whether some are done and not acknowledged yet."""
        return bool(self._kept)

    def add(self, tag: int) -> None:
        """A delivery has arrived; its tag is higher than all before."""
        self._tags[tag] = None

    def discard(self, tag: int) -> None:
        """It was settled by itself (rejected)."""
        self._tags.pop(tag, None)

    def acknowledge(self, tags: Iterable[int], keep: int = 0) -> list[tuple[int, bool]]:
        """Settle these; returns the acknowledgements to send, as (tag, multiple).

        Args:
            tags: as they arrived.
            keep: how many, of all that lie behind a gap, may be kept; when there are more, none of these is.
        """
        kept = self._kept
        new = {tag for tag in tags if tag in self._tags and tag not in kept}
        kept |= new
        highest = together = 0
        for tag in self._tags:
            if tag not in kept:
                break
            highest = tag
            together += 1
        frames = [(highest, together > 1)] if together else []
        behind = sorted(tag for tag in new if tag > highest)
        if together < len(kept) <= together + keep:
            behind = []
        frames += [(tag, False) for tag in behind]
        self._forget([tag for tag in kept if tag <= highest] + behind)
        return frames

    def overdue(self) -> list[tuple[int, bool]]:
        """The acknowledgements of what has been kept since before the last time that this was asked."""
        late = sorted(self._old)
        self._forget(late)
        self._old = self._kept.copy()
        return [(tag, False) for tag in late]

    def rest(self) -> list[tuple[int, bool]]:
        """The acknowledgements of all that is kept."""
        self._old |= self._kept
        return self.overdue()

    def _forget(self, tags: Sequence[int]) -> None:
        for tag in tags:
            del self._tags[tag]
        self._kept.difference_update(tags)
        self._old.difference_update(tags)
