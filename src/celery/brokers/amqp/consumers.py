"""Which queues a receiver consumes from, on one channel, and how many messages may be in its hands.

RabbitMQ has two kinds of limit. That of a channel is *shared* by its consumers and can be changed at any time; for each
message a queue asks another process of the server whether it allows it. That of a consumer is its *own*: the queue
counts by itself, but only what it gave that consumer, and as many as were said when the consumer began.

Rules
    1. The limit is shared, unless the server has none such: for quorum queues, and from RabbitMQ 4.0 on (wire.md 2.4).
    2. Where `_MANY` are wanted from one queue, which then is a busy one, the limit is the consumer's own: processes of
       the server switch 0.4 times for a message, else 2.9 times. Not where the end of its only consumer means something
       to the queue.
    3. For another limit of its own, or another kind of limit, a consumer ends and another takes its place; what is in
       our hands by then does not count in an own one.
    4. RabbitMQ 3.10 lifts the shared limit as soon as an own one is named. So consumers that it held end before; those
       whose queues go with them are the exception, and may get more than they should for a moment.
    5. A new tag for each: RabbitMQ 3.10 fails when one that quorum queues know comes back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from celery.brokers.amqp import messages

if TYPE_CHECKING:
    from celery.brokers.amqp.declarations import Call
    from celery.brokers.amqp.streaming import Stream
    from celery.brokers.topology import Queue

#: Deliveries that may be in our hands before `limit` says otherwise.
_FIRST_LIMIT = 1000
#: Deliveries that are many (rule 2).
_MANY = 256
#: Arguments of queues that notice when a consumer ends, or do not count it as others do.
_NOTICING = frozenset({"x-single-active-consumer", "x-queue-type"})


class Consumers:
    """The consumers of one channel."""

    def __init__(self, *, detects_quorum: bool) -> None:
        """Nothing is consumed.

        Args:
            detects_quorum: quorum queues get limits of their own; else RabbitMQ refuses them by name (ROUTE-024).
        """
        #: By consumer tag.
        self.by_tag: dict[str, Queue] = {}
        #: All that were ever consumed, by name.
        self.queues: dict[str, Queue] = {}
        self._detects_quorum = detects_quorum
        self._quorum = False
        self._next = 1
        #: Held by who begins, ends or restarts consumers: a worker may be told to stop while its intake restarts them.
        self._changing = asyncio.Lock()
        self._limit = _FIRST_LIMIT
        #: None: nothing was said yet.
        self._shared: bool | None = None
        #: Rule 2.
        self._alone = False

    async def open(self, stream: Stream, channel: int) -> None:
        """Begin on a channel."""
        self._stream, self._channel = stream, channel
        await self._apply_limit()

    async def add(self, queue: Queue) -> None:
        """Consume from a queue. Raises ChannelError."""
        async with self._changing:
            quorum = self._detects_quorum and messages.is_quorum(queue)
            if quorum > self._quorum or self._alone:
                self._quorum |= quorum
                self._alone = False
                await self._apply_limit()
            await self._start(queue)

    async def remove(self, name: str) -> None:
        """Consume from a queue no more."""
        async with self._changing:
            for tag in [tag for tag, queue in self.by_tag.items() if queue.name == name]:
                await self._end(tag)

    async def limit(self, count: int) -> None:
        """So many deliveries, 0 for any number, may be in our hands. Raises ChannelError."""
        async with self._changing:
            if count != self._limit:
                self._limit = count
                self._alone = count >= _MANY and [_indifferent(queue) for queue in self.by_tag.values()] == [True]
                await self._apply_limit()

    async def _apply_limit(self) -> None:
        version = str(self._stream.connection.server_properties.get("version", "")).partition(".")[0]
        was = self._shared
        shared = self._shared = not (self._quorum or self._alone or (version.isdigit() and int(version) >= 4))
        limit = _qos(self._limit, shared=shared)
        lifting = [] if was is None or was == shared else [_qos(0, shared=was)]
        before = list(self.by_tag.items())
        if was and not shared:
            # From now on they would have no limit. A queue that has no consumer left stops asking, too (rule 2).
            for tag, queue in before:
                if not queue.auto_delete:
                    await self._end(tag)
        await self._call(*lifting, limit)
        if not (was and shared):
            for tag, queue in before:
                await self._start(queue)
                if tag in self.by_tag:  # only now: some queues go with their last consumer
                    await self._end(tag)

    async def _start(self, queue: Queue) -> None:
        tag = f"c{self._next}"
        self._next += 1
        self.by_tag[tag] = self.queues[queue.name] = queue
        arguments = {
            "queue": queue.name,
            "consumer_tag": tag,
            "no_ack": queue.no_ack,
            "arguments": queue.consumer_arguments or {},
        }
        await self._call(("basic.consume", arguments))

    async def _end(self, tag: str) -> None:
        await self._call(("basic.cancel", {"consumer_tag": tag}))
        del self.by_tag[tag]

    async def _call(self, *calls: Call) -> None:
        await self._stream.calls(self._channel, calls)


def _qos(count: int, *, shared: bool) -> Call:
    return "basic.qos", {"prefetch_count": count, "global": shared}


def _indifferent(queue: Queue) -> bool:
    """Whether it is nothing to a queue that a consumer ends and another begins."""
    return not queue.auto_delete and _NOTICING.isdisjoint(queue.queue_arguments or ())
