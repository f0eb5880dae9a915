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
from struct import Struct
from typing import TYPE_CHECKING

from celery.brokers.amqp.fields import FieldError
from celery.brokers.amqp.frames import encode_content_header
from celery.brokers.amqp.messages import properties_of
from celery.brokers.base import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.backends.rpc import RPCBackend
    from celery.brokers.amqp.connection import Connection
    from celery.brokers.base import ResultWrite, Settlement

_pack_size, _pack_length = Struct(">Q").pack, Struct(">I").pack

#: Kinds of results, as told apart by their frames, that are known at once.
_KINDS = 256
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
        #: Makes the messages; None: there are no results here.
        self.replies: RPCBackend | None = None
        #: What stays of frames that differ in size, id and body.
        self._cuts: dict[tuple[str, str, str, int], tuple[bytes, bytes, bytes]] = {}

    def prove(self) -> None:
        """The server has taken results."""
        self._proved = True

    def refrain(self) -> None:
        """Something without a result is settled. The start of an attempt is nothing of that kind: its end will tell."""
        self._from = time.monotonic() + _APART

    @property
    def open(self) -> bool:
        """Whether results may ride now."""
        lasting = self.replies is None or self.replies.outlives_server
        return self._proved and not lasting and time.monotonic() >= self._from

    def ride(self, connection: Connection, channel: int, batch: Sequence[Settlement]) -> None:
        """Put the results of settlements that may ride in front of their acknowledgements, which are to follow."""
        for settlement in batch:
            for write in settlement.results:
                if write.reply_to:
                    try:
                        frames = self._frames(connection, channel, write, write.reply_to)
                    except FieldError:
                        continue  # no queue has a name that is too long
                    connection.send_publish(channel, frames)

    def _frames(self, connection: Connection, channel: int, write: ResultWrite, reply_to: str) -> list[bytes]:
        # The id is the last of the properties, and small results have one frame for their body.
        task_id, size = write.task_id.encode("utf-8", "surrogatepass"), len(write.payload)
        kind = reply_to, write.content_type, write.content_encoding, len(task_id)
        cut = self._cuts.get(kind)
        if cut is None:
            assert self.replies is not None
            (message,) = self.replies.messages([write])
            header = encode_content_header(properties_of(message.envelope), size)
            frames = connection.encode_publish(channel, "", reply_to, header, write.payload, False)
            if len(self._cuts) >= _KINDS:
                self._cuts.clear()
            front, middle = frames[0] + frames[1] + header[:4], header[12 : len(header) - len(task_id)]
            cut = self._cuts[kind] = front, middle, frames[3][:-4]
        front, middle, behind = cut
        return [front, _pack_size(size), middle, task_id, behind, _pack_length(size), write.payload, b"\xce"]


def may_ride(settlement: Settlement) -> bool:
    """Whether the results of this one may."""
    size = 0
    for record in settlement.results:
        size += len(record.payload) or _SMALL + 1  # a body of nothing has no frame
    return (
        settlement.verdict is _ACK
        and size <= _SMALL
        and not settlement.after_start
        and settlement.delivery.receipt is not None
    )
