"""Which deliveries of a channel are unsettled, and how to acknowledge many with few frames.

RabbitMQ numbers the deliveries of a channel from 1. An acknowledgement names one number, or with `multiple` all up to
it; that is only right up to the highest number below which *everything* is done, or a task that still runs would be
acknowledged with its neighbours (wire.md 6.4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Unsettled:
    """The delivery tags that the server waits for, ascending."""

    def __init__(self) -> None:
        self._tags: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._tags)

    def __contains__(self, tag: int) -> bool:
        return tag in self._tags

    def add(self, tag: int) -> None:
        """A delivery has arrived; its tag is higher than all before."""
        self._tags[tag] = None

    def discard(self, tag: int) -> None:
        """It was settled by itself (rejected)."""
        self._tags.pop(tag, None)

    def acknowledge(self, tags: Sequence[int]) -> list[tuple[int, bool]]:
        """Settle these; returns the acknowledgements to send, as (tag, multiple)."""
        if len(tags) == 1:
            return [(tag, False) for tag in tags if self._tags.pop(tag, self) is None]
        done = {tag for tag in tags if tag in self._tags}
        highest = 0
        together = 0
        for tag in self._tags:
            if tag not in done:
                break
            highest = tag
            together += 1
        frames = [(highest, together > 1)] if together else []
        frames += [(tag, False) for tag in sorted(done) if tag > highest]
        for tag in done:
            del self._tags[tag]
        return frames
