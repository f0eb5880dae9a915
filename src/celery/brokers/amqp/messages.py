"""Messages between our records and AMQP: properties, delivery counts, the keys of the delay ladder.

What a message carries for us alone; taken off on arrival
    x-celery-losses    how often its process died while running it
    x-celery-returns   how often it came back because a worker died or its connection ended, begun or not
    x-celery-until     when a delayed message is due, as unix seconds: the ladder knows whole seconds only, whoever
                       receives it waits out the rest
    redelivered        true: it was sent again to the end of its queue, which the server cannot know

Counting. The server knows no more than that a message was in somebody's hands (a quorum queue: how often); what was
only fetched beside a task that killed its worker comes back with it. So a return weighs a quarter of a loss, and many
cut connections do not condemn what never ran. The number is in our header, in a copy that is sent before a message that
came back may run (`Verdict.COUNT`). What was not sent again when the killer strikes is not counted, so the worker takes
its time, and no order, with what came back often. Quorum queues are treated like others: their count rises for all.

Delay ladder (wire.md 2.5): a routing key begins with the delay in seconds as 28 binary digits, dot by dot. Peers put
the original key behind them; we come from a queue and go back to it, so ours is `celery-queue.<queue>`, which only
that queue is bound for. The digits are stripped on arrival, whoever sent it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.wire.envelope import Envelope

if TYPE_CHECKING:
    from celery.brokers.base import Publish
    from celery.brokers.topology import Queue
    from celery.wire.forms import Message

LOSSES = "x-celery-losses"
RETURNS = "x-celery-returns"
#: Of quorum queues: how often this message came back. Not sent again.
SERVER_COUNT = "x-delivery-count"
RETURNS_PER_LOSS = 4
UNTIL = "x-celery-until"
REDELIVERED = "redelivered"

LEVELS = 28
#: The longest delay, in seconds, that the digits can say.
LONGEST_DELAY = 2**LEVELS - 1
LADDER_ENTRY = f"celery_delayed_{LEVELS - 1}"
LADDER_EXIT = "celery_delayed_delivery"
_LADDER = "celery_delayed_"

_DIGITS = re.compile(rf"(?:[01]\.){{{LEVELS}}}")
_OWN_KEY = "celery-queue."
#: Headers of RabbitMQ's dead-lettering, which grow with every stage and are not to be sent again (wire.md 1.2).
_DEATHS = ("x-death", "x-first-death-", "x-last-death-")


def properties_of(envelope: Message) -> dict[str, Any]:
    """The basic properties, headers among them, that carry an envelope. A priority out of range becomes the nearest."""
    properties = {
        **envelope.properties,
        "content_type": envelope.content_type,
        "content_encoding": envelope.content_encoding,
        "headers": envelope.headers,
    }
    priority = properties.get("priority")
    if isinstance(priority, int) and not 0 <= priority <= 255:
        properties["priority"] = min(max(priority, 0), 255)
    return properties


def envelope_of(properties: dict[str, Any], body: bytes) -> Envelope:
    """The envelope that basic properties (taken over, not copied) and a body make."""
    pop = properties.pop
    return Envelope(pop("headers", {}), body, pop("content_type", None), pop("content_encoding", None), properties)


class Counts(NamedTuple):
    """What is held against a message."""

    losses: int = 0
    returns: int = 0

    @property
    def failures(self) -> int:
        """As one number."""
        return self.losses + self.returns // RETURNS_PER_LOSS

    def headers(self) -> dict[str, Any]:
        """As a copy carries them."""
        return {name: count for name, count in ((LOSSES, self.losses), (RETURNS, self.returns)) if count}


NOTHING = Counts()


def take_counts(headers: dict[str, Any], came_back: bool) -> Counts:
    """What is held against a message that has arrived, its coming back this time included; taken off."""
    if not came_back and LOSSES not in headers and RETURNS not in headers:
        return NOTHING
    headers.pop(SERVER_COUNT, None)
    return Counts(_count(headers.pop(LOSSES, 0)), _count(headers.pop(RETURNS, 0)) + came_back)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def take_mark(headers: dict[str, Any]) -> bool:
    """Whether the message was sent again by a worker that gave it back; the mark is taken off."""
    if headers.get(REDELIVERED) is not True:
        return False
    del headers[REDELIVERED]
    return True


def take_due_time(headers: dict[str, Any]) -> float | None:
    """When a delayed message is due; None: now. Taken off."""
    until = headers.pop(UNTIL, None)
    return until if isinstance(until, float) else None


def again(envelope: Message, **headers: Any) -> Envelope:
    """The envelope as it is sent once more: without the traces of dead-lettering, and with these headers."""
    kept = {name: value for name, value in envelope.headers.items() if not name.startswith(_DEATHS)}
    return Envelope(
        kept | headers, envelope.body, envelope.content_type, envelope.content_encoding, envelope.properties
    )


def delayed(envelope: Message, until: float, **headers: Any) -> Envelope:
    """The envelope for a delay."""
    return lasting(again(envelope, **{UNTIL: until}, **headers))


def lasting(envelope: Message) -> Envelope:
    """The envelope without the time to live that its queue would end it after; the `expires` header says it too."""
    properties = {name: value for name, value in envelope.properties.items() if name != "expiration"}
    return Envelope(envelope.headers, envelope.body, envelope.content_type, envelope.content_encoding, properties)


def delay_key(delay: float, routing_key: str) -> str:
    """The key that lets a message out of the ladder after `delay` whole seconds (rounded down)."""
    seconds = min(int(delay), LONGEST_DELAY)
    return ".".join(f"{seconds:0{LEVELS}b}") + "." + routing_key


def own_key(queue: str) -> str:
    """Behind the digits: leads from the ladder's exit to one queue."""
    return _OWN_KEY + queue


def origin_of(exchange: str, routing_key: str) -> tuple[str, str]:
    """Where a message came from, as it was before the ladder; for one of a peer, the ladder's exit.

    A message carries the name of the level that it left last: the exit only if the last digit is 1 (wire.md 2.5 shows
    that case). Sent to the exit, the original key leads to the same queues.
    """
    if not exchange.startswith(_LADDER):
        return exchange, routing_key
    digits = _DIGITS.match(routing_key)
    key = routing_key[digits.end() :] if digits else routing_key
    if key.startswith(_OWN_KEY):
        return "", key.removeprefix(_OWN_KEY)
    return (LADDER_EXIT, key) if digits else (exchange, key)


def takes_ladder(publish: Publish, delay: float) -> bool:
    """Whether a producer sends a message through the ladder (ROUTE-027): quorum queue, exchange not direct."""
    queue = publish.queue
    return queue is not None and delay >= 1 and uses_ladder(queue) and publish.exchange == queue.exchange.name


def uses_ladder(queue: Queue) -> bool:
    """Whether peers expect the queue to be bound to the ladder's exit by its own key."""
    return is_quorum(queue) and bool(queue.exchange.name) and queue.exchange.type not in {"direct", "fanout"}


def is_quorum(queue: Queue) -> bool:
    """Whether the queue is declared as a quorum queue."""
    return (queue.queue_arguments or {}).get("x-queue-type") == "quorum"
