"""The state of a connection's channels, and of the contents that arrive on them (`connection` has the rules)."""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.brokers.amqp.closed import Heads, OpenHeads
    from celery.brokers.amqp.events import Event


class State(enum.Enum):
    """Where a connection or a channel is in its life."""

    START = "start"
    TUNE = "tune"
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Content:
    """A message whose frames are arriving."""

    __slots__ = ("chunks", "event", "fields", "missing", "properties")

    def __init__(self, event: Callable[..., Event], fields: tuple[Any, ...]) -> None:
        #: What to report, and its fields before `properties` and `body`.
        self.event = event
        self.fields = fields
        #: Bytes of body to come; None before the content header.
        self.missing: int | None = None
        self.properties: dict[str, Any] | None = None
        self.chunks: list[bytes] = []


class Channel:
    """One that is open, or will be, or was until a moment ago."""

    __slots__ = ("awaited", "content", "heads", "published", "state", "unconfirmed")

    def __init__(self) -> None:
        self.state = State.OPENING
        #: The replies that may answer each call under way, oldest first.
        self.awaited: deque[frozenset[str]] = deque()
        self.content: Content | None = None
        #: The number of the last publish; None when not in confirm mode.
        self.published: int | None = None
        #: Numbers not confirmed yet, ascending (a dict for its order).
        self.unconfirmed: dict[int, None] = {}
        #: Reads deliveries that look alike; None: each is taken apart.
        self.heads: Heads | OpenHeads | None = None
