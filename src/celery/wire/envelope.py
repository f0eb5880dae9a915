"""The first of the three records that cross boundaries: a message as it travels (wire.md section 1).

An Envelope says what is sent and nothing about where: exchange and routing key are the
address on a `Publish`, the receipt and the queue it came from are on a `Delivery`
(`celery.brokers.base`). Its body stays serialized (and compressed) until a child runs it.
"""

from __future__ import annotations

from typing import Any

import msgspec

#: A header table: flat, JSON-like values (wire.md 1.2).
Headers = dict[str, Any]


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """One message: headers, properties and a serialized body. Treat the mappings as read-only.

    Array-like, so that a batch of envelopes packs without key names on the socket to a child.
    """

    #: Task metadata; empty for protocol 1.
    headers: Headers
    #: Serialized body, after compression.
    body: bytes
    #: Media type of the body; None when a peer left it out (such a message is refused).
    content_type: str | None = "application/json"
    content_encoding: str | None = "utf-8"
    #: correlation_id, reply_to, delivery_mode, priority, expiration and whatever else the publisher gave
    #: (wire.md 1.3). Never content type or encoding, and nothing that only one transport knows.
    properties: dict[str, Any] = {}
