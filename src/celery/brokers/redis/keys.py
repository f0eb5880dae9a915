"""Names on a Redis server: keys, channels, priority steps and members of binding sets (wire.md 3.2, 3.3, 3.8).

All of them depend on transport options that the whole fleet must share; `Keys` holds these options and is
the only place that spells a name. `global_keyprefix` goes in front of every key and channel, and never into a value.

Keys of our own, which no peer reads, begin with `celeriac.`:
    celeriac.workers          sorted set: id of a worker -> end of its lease, unix seconds by the server's clock
    celeriac.held.<id>        set: tags that the worker holds in `unacked`
    celeriac.exchanges        hash: name of an exchange -> its type, where that is not direct
    celeriac.claim.<id>       list: large messages that the worker has taken and not recorded, the latest at the left;
                              then the name of the list that they come from
    celeriac.waiting.<id>     list: a message that came to the worker while it waited, until it is recorded; then what
                              ends its record. A text, for a while, when others have taken over from the worker
    celeriac.started.<id>     hash: tag -> record, as in `unacked`, of what it has started (early acknowledgement)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A tag that begins so is not held by anybody: it waits for its time (wire.md 3.6 restores it like any other).
DELAYED = "delayed:"

_BINDING = "_kombu.binding"


class Keys:
    """The names that one set of transport options gives.

    Args:
        options: `broker_transport_options` (ROUTE-031); what it lacks has 5.7's default.
        database: number of the database; fan-out channels carry it, as they are not scoped to one.
    """

    def __init__(self, options: Mapping[str, Any], database: int = 0) -> None:
        self.prefix: str = options.get("global_keyprefix") or ""
        self.separator: str = options.get("sep") or "\x06\x16"
        self.steps: tuple[int, ...] = tuple(sorted(options.get("priority_steps") or (0, 3, 6, 9)))
        self._step_of: dict[Any, int] = {number: self._step(number) for number in range(10)}
        self.unacked = self.prefix + options.get("unacked_key", "unacked")
        self.index = self.prefix + options.get("unacked_index_key", "unacked_index")
        self.workers = f"{self.prefix}celeriac.workers"
        self.exchanges = f"{self.prefix}celeriac.exchanges"
        self.deadlines = f"{self.prefix}{_BINDING}_deadlines"
        fanout = options.get("fanout_prefix", True)
        self.channel_prefix = f"/{database}." if fanout is True else fanout or ""
        self.channel_keys: bool = options.get("fanout_patterns", True)

    def held(self, worker: str) -> str:
        """The set of tags that a worker holds."""
        return f"{self.prefix}celeriac.held.{worker}"

    def claim(self, worker: str) -> str:
        """The list of what a worker has taken and not yet recorded."""
        return f"{self.prefix}celeriac.claim.{worker}"

    def waiting(self, worker: str) -> str:
        """The list that what the worker waits for comes to."""
        return f"{self.prefix}celeriac.waiting.{worker}"

    def started(self, worker: str) -> str:
        """The hash of what a worker has started and not finished."""
        return f"{self.prefix}celeriac.started.{worker}"

    def dead(self, queue: str) -> str:
        """The list of what was refused in a queue, the latest at the left."""
        return f"{self.prefix}{queue}.dead"

    def step(self, priority: Any) -> int:
        """The step that a priority belongs to: the greatest one not above it (4 -> 3). Tolerates anything."""
        try:
            return self._step_of[priority]
        except (KeyError, TypeError):
            pass  # a number out of range, or no number
        try:
            return self._step(min(max(int(priority or 0), 0), 9))
        except (TypeError, ValueError, OverflowError):
            return self._step(0)

    def _step(self, number: int) -> int:
        return next((step for step in reversed(self.steps) if step <= number), self.steps[0])

    def lane(self, queue: str, step: int) -> str:
        """The list of one step of a queue."""
        return f"{self.prefix}{queue}{self.separator}{step}" if step else self.prefix + queue

    def lists(self, queue: str) -> list[str]:
        """All lists of a queue, the most urgent first."""
        return [self.lane(queue, step) for step in self.steps]

    def bindings(self, exchange: str) -> str:
        """The set of an exchange's bindings."""
        return f"{self.prefix}{_BINDING}.{exchange}"

    def permanent_bindings(self, exchange: str) -> str:
        """The set whose existence protects `bindings` from being swept away by peers (wire.md 3.3)."""
        return f"{self.prefix}{_BINDING}_permanent.{exchange}"

    def member(self, kind: str, routing_key: str, queue: str) -> str:
        """A binding as a member of the set."""
        pattern = peer_pattern(routing_key) if kind == "topic" else ""
        return self.separator.join((routing_key, pattern, queue))

    def read_member(self, member: str) -> tuple[str, str] | None:
        """Routing key and queue of a binding; None for what is none."""
        parts = member.split(self.separator)
        return (parts[0], parts[-1]) if len(parts) == 3 else None

    def channel(self, exchange: str, routing_key: str) -> str:
        """The channel of a message to a fan-out exchange."""
        path = f"/{routing_key}" if routing_key and self.channel_keys else ""
        return f"{self.prefix}{self.channel_prefix}{exchange}{path}"

    def channel_pattern(self, exchange: str, binding_key: str) -> str:
        """The pattern that takes the messages a fan-out binding is for."""
        return self.channel(exchange, binding_key.replace("#", "*"))


def peer_pattern(key: str) -> str:
    """A topic binding key as the regular expression that peers store and evaluate (wire.md 3.3).

    It takes `#` as any text, so `a.#` lacks `a`, which AMQP includes; we store it as they do and match the key
    itself with `celery.brokers.topology.matches`.
    """
    words = {"*": r"[^\.]+", "#": ".*?"}
    return "^" + r"\.".join(words.get(word, re.escape(word)) for word in key.split(".")) + "$"
