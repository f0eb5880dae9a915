"""The dead queue of a queue: `<queue>.dead`, where a worker puts what it refused.

A classic queue of ours, durable and bounded: the oldest letters make room. It is classic beside quorum queues too,
since those count how often somebody looked. A queue with an x-dead-letter-exchange has none: its owner has said where
refused messages go. A letter is the message as it was, with why and when it was refused in two more headers.

Reading takes letters without acknowledging them; the end of the channel puts them back where they were. One is sent
again before it is acknowledged, so a failure in between leaves it in both queues, and never in none.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from celery.brokers.amqp import messages
from celery.brokers.base import DeadLetter
from celery.wire.envelope import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery.brokers.amqp.blocking import Link
    from celery.brokers.amqp.declarations import Call
    from celery.brokers.amqp.events import Reply
    from celery.brokers.topology import Queue

REASON = "x-celery-reason"
REFUSED = "x-celery-refused"

#: Letters in one dead queue at most.
KEPT = 10_000
#: Characters of a reason: headers share one frame.
_LONGEST_REASON = 1000
#: Letters asked for in one go.
_AT_ONCE = 100


def name_of(queue: str) -> str:
    """Of the dead queue."""
    return f"{queue}.dead"


def keeps(queue: Queue) -> bool:
    """Whether refused messages of a queue go to its dead queue: it lasts, and names no exchange for them."""
    lasting = queue.durable and not queue.exclusive and not queue.auto_delete
    return lasting and "x-dead-letter-exchange" not in queue.declared_arguments()


def declaration(queue: str) -> Call:
    """Makes the dead queue."""
    arguments = {"x-queue-type": "classic", "x-max-length": KEPT}
    return "queue.declare", {"queue": name_of(queue), "durable": True, "arguments": arguments}


def letter(envelope: Envelope, reason: str) -> Envelope:
    """A message as it is kept, from now on. Its time to live ends here."""
    return messages.lasting(messages.again(envelope, **{REASON: reason[:_LONGEST_REASON], REFUSED: time.time()}))


def listed(link: Link, queue: str, limit: int) -> list[DeadLetter]:
    """The latest letters of a queue, the latest first.

    Raises:
        ChannelError: there is no dead queue, or no right to read it.
        OperationalError: the connection failed.
    """
    latest: deque[DeadLetter] = deque(maxlen=limit)
    number = link.open_channel(link.deadline(None))
    for reply in _taken(link, number, queue, _AT_ONCE):
        latest.appendleft(_read(reply, queue))
    link.close_channel(number, link.deadline(None))
    return list(latest)


def replay(link: Link, queue: str, limit: int, check: Callable[[], None]) -> int:
    """Send letters to their queue again, the earliest first; how many.

    Args:
        link: connected.
        queue: the task queue.
        limit: at most so many.
        check: raises when the server has refused a message that it was asked to confirm.

    Raises:
        ChannelError, OperationalError: as above.
    """
    if limit <= 0:
        return 0
    number = link.open_channel(link.deadline(None))
    link.calls(number, [("confirm.select", {})], link.deadline(None))
    sent = 0
    for reply in _taken(link, number, queue, 1):
        message = _read(reply, queue).message
        if isinstance(message, Envelope):
            properties = messages.properties_of(message)
            link.connection.publish(number, "", queue, properties, message.body, mandatory=True)
            link.confirmed(number, link.deadline(None))
            check()
            link.connection.ack(number, reply.arguments["delivery_tag"])
            sent += 1
        if sent == limit:
            break
    link.close_channel(number, link.deadline(None))
    return sent


def _taken(link: Link, number: int, queue: str, at_once: int) -> Iterator[Reply]:
    """What lies in the dead queue, the earliest first, unacknowledged."""
    ask = [("basic.get", {"queue": name_of(queue)})] * at_once
    for _ in range(0, KEPT, at_once):
        replies = link.calls(number, ask, link.deadline(None))
        found = [reply for reply in replies if reply.method == "basic.get-ok"]
        yield from found
        if len(found) < len(replies):
            return


def _read(reply: Reply, queue: str) -> DeadLetter:
    if reply.properties is None:
        return DeadLetter(reply.body, queue, "its properties cannot be read")
    envelope = messages.envelope_of(reply.properties, reply.body)
    reason, refused = envelope.headers.pop(REASON, ""), envelope.headers.pop(REFUSED, 0.0)
    return DeadLetter(envelope, queue, str(reason), refused if isinstance(refused, float) else 0.0)
