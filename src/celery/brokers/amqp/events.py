"""What a `Connection` reports when it is given bytes."""
# ruff: noqa: TC004 - nothing here is ever encoded, so msgspec does not look for these types

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from celery.wire.label import Label


class Opened(msgspec.Struct):
    """The handshake is over; channels can be opened."""

    server_properties: dict[str, Any]
    #: Negotiated, in seconds; 0: none. Send something at least every half of it, give up after two without a byte.
    heartbeat: int


class Reply(msgspec.Struct):
    """The answer to the oldest unanswered `call` on this channel."""

    channel: int
    method: str
    arguments: dict[str, Any]
    #: For basic.get-ok.
    properties: dict[str, Any] | None = None
    body: bytes = b""


class Delivered(msgspec.Struct):
    """A message for a consumer. `properties` is None when they could not be read; it still has to be settled."""

    channel: int
    consumer_tag: str
    delivery_tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    properties: dict[str, Any] | None
    body: bytes


class Way(msgspec.Struct, frozen=True, gc=False):
    """How deliveries came, and what their bodies are."""

    consumer_tag: str
    exchange: str
    routing_key: str
    content_type: str


class Closed(msgspec.Struct):
    """Messages for a consumer, on a channel whose deliveries stay closed where they can (`closed`)."""

    way: Way
    #: Delivery tag, label and text of each.
    messages: list[tuple[int, Label, bytes]]


class Returned(msgspec.Struct):
    """A mandatory message that no queue took. Its confirmation, if asked for, still follows."""

    channel: int
    code: int
    text: str
    exchange: str
    routing_key: str
    properties: dict[str, Any] | None
    body: bytes


class Confirmed(msgspec.Struct):
    """The server took (or refused: `accepted` False) responsibility for these publishes."""

    channel: int
    #: Sequence numbers as `publish` returned them, ascending.
    numbers: list[int]
    accepted: bool


class Cancelled(msgspec.Struct):
    """The server ended a consumer; its queue was deleted or moved."""

    channel: int
    consumer_tag: str


class Blocked(msgspec.Struct):
    """The server takes no publishes (memory or disk alarm) until Unblocked."""

    reason: str


class Unblocked(msgspec.Struct):
    """The server takes publishes again."""


class ChannelClosed(msgspec.Struct):
    """The server closed a channel: calls on it stay unanswered, publishes unconfirmed, deliveries are requeued."""

    channel: int
    code: int
    #: RabbitMQ names the queue or exchange and the differing argument here.
    text: str
    #: The method of ours that it is about; "" when the server does not say.
    method: str


class ConnectionClosed(msgspec.Struct):
    """No more will come. Code 200: as we asked; 0: the peer closed the socket without a word."""

    code: int
    text: str
    method: str = ""


Event = (
    Opened
    | Reply
    | Delivered
    | Closed
    | Returned
    | Confirmed
    | Cancelled
    | Blocked
    | Unblocked
    | ChannelClosed
    | ConnectionClosed
)
