"""Results that *ride*: sent on the consuming channel, in one write with the acknowledgement behind them, and not
confirmed.

Why nothing is lost by that. A result of rpc is transient: the server's word on it would promise nothing beyond its own
life. On one channel the server does what it is told in order, and a connection that is cut has brought it a beginning
of what was written: so the message is never let go of without its result. Whether both arrived nobody says, so what
rode lately is remembered (`Receiver.unsure`), and told again should its message come again.

Rules
    1. What rides is small, transient, and answers a message that is let go of behind it. What was acknowledged early,
       what is to survive the server (`result_persistent`) and all else is confirmed first (`publisher`).
    2. The first result of a connection is confirmed: a right that is missing would cost the channel of all.
    3. In an alarm RabbitMQ stops reading from who publishes, acknowledgements behind it included. So results ride only
       where nearly everything has one, and would wait for the end of the alarm anyway: for `_APART` seconds after
       something else was let go of they are confirmed, on the other connection.
"""

from __future__ import annotations

import time
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING

from celery.brokers.amqp.fields import encode_short_string
from celery.brokers.amqp.frames import encode_content_header
from celery.brokers.base import Verdict

if TYPE_CHECKING:
    from celery.brokers.base import Settlement
    from celery.wire.forms import Message

_pack_size = Struct(">Q").pack

#: Bytes of a result that may ride: some thousands of them are remembered.
_SMALL = 2048
#: Of nearly every settlement: Python 3.11 takes 0.1 us to find a member of an enumeration.
_ACK = Verdict.ACK
#: Seconds without a ride after something was let go of that has no result.
_APART = 60.0


class Riding:
    """Which results ride, on one connection."""

    def __init__(self) -> None:
        #: Whether any may, by rule 2; and from when on, by rule 3, on the monotonic clock.
        self._proved = False
        self._from = 0.0

    def prove(self) -> None:
        """The server has taken results."""
        self._proved = True

    def refrain(self) -> None:
        """Something without a result is settled. The start of an attempt is nothing of that kind: its end will tell."""
        self._from = time.monotonic() + _APART

    @property
    def open(self) -> bool:
        """Whether results may ride now."""
        return self._proved and time.monotonic() >= self._from


def may_ride(settlement: Settlement) -> bool:
    """Whether the results of this one may."""
    size = 0
    for record in settlement.results:
        size += len(record.payload)
    return (
        settlement.verdict is _ACK
        and size <= _SMALL
        and not settlement.after_start
        and settlement.delivery.receipt is not None
    )


def header_of(envelope: Message) -> bytes:
    """The content header of a result as the rpc backend makes it: all but its size and its id, which is its last
    property on the wire, is as in others.

    Raises:
        FieldError: the id is too long.
    """
    properties = envelope.properties
    start, rest = _header(
        envelope.content_type, envelope.content_encoding, properties["delivery_mode"], properties["priority"]
    )
    return start + _pack_size(len(envelope.body)) + rest + encode_short_string(properties["correlation_id"])


@lru_cache
def _header(content_type: str, content_encoding: str, delivery_mode: int, priority: int) -> tuple[bytes, bytes]:
    """What is in front of the size, and what is between it and the id."""
    properties = {
        "content_type": content_type, "content_encoding": content_encoding, "headers": {},
        "delivery_mode": delivery_mode, "priority": priority, "correlation_id": "",
    }  # fmt: skip
    header = encode_content_header(properties, 0)
    return header[:4], header[12:-1]
