"""What a worker's receiver publishes: messages on their way back to a queue, into the delay ladder or a dead queue, and
results that do not travel with an acknowledgement (`riding`); all confirmed.

It has a connection of its own, opened on first use: RabbitMQ stops reading from connections that publish when it runs
out of memory or disk, and acknowledgements must not wait behind that.

What the server does not take is told, message by message; an account without the right to publish is told of once. One
that is too large costs the channel, and all that was not confirmed by then is sent again: so none is sent once it is
known how large they may be.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from celery import exceptions
from celery.brokers.amqp import address, dead, declarations, messages
from celery.brokers.amqp.errors import ChannelError
from celery.brokers.amqp.events import ChannelClosed, Confirmed, Returned
from celery.brokers.amqp.fields import FieldError
from celery.brokers.amqp.streaming import Stream, connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.brokers.amqp.address import Address
    from celery.brokers.amqp.events import Event
    from celery.brokers.topology import Queue
    from celery.wire.forms import Message

logger = logging.getLogger(__name__)


class Outgoing(NamedTuple):
    """A message that goes (back) to a queue, or through the ladder to it, or into its dead queue."""

    envelope: Message
    queue: str
    #: Whole seconds that it waits in the ladder; None: not at all.
    delay: float | None = None
    dead: bool = False
    #: A queue that is not there has refused it.
    mandatory: bool = True

    @property
    def straight(self) -> bool:
        """It needs nothing on its way."""
        return self.delay is None and not self.dead

    @property
    def target(self) -> tuple[str, str]:
        """Exchange and routing key."""
        if self.dead:
            return "", dead.name_of(self.queue)
        if self.delay is None:
            return "", self.queue
        return messages.LADDER_ENTRY, messages.delay_key(self.delay, messages.own_key(self.queue))


class Publisher:
    """Publishes on one channel in confirm mode."""

    def __init__(self, server: Address) -> None:
        self._address = server
        self._lock = asyncio.Lock()
        self._stream: Stream | None = None
        self._channel = 0
        self._open: set[int] = set()
        self._refused: set[int] = set()
        self._returned: set[tuple[str, str]] = set()
        #: What waits for confirmations; its value says whether it was in vain.
        self._waiting: asyncio.Future[bool] | None = None
        #: Whether what leads a queue's messages through the ladder, or into its dead queue, is declared; by queue.
        self._laddered: dict[str, bool] = {}
        self._kept: dict[str, bool] = {}
        #: The account may not publish.
        self._forbidden = False
        #: Bytes that a body may have; None: the server has not complained yet.
        self.largest: int | None = None

    async def send(self, batch: Sequence[Outgoing]) -> list[bool]:
        """Publish all and wait for the server's word on each: True where it took responsibility.

        Raises:
            OperationalError: the connection is lost, or there was no answer in time.
        """
        async with self._lock:
            while not self._forbidden:
                largest = self.largest
                taken = await self._send(batch)
                if self.largest == largest:
                    return taken
            return [False] * len(batch)

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        if self._stream is not None:
            await self._stream.close()
            self._stream = None

    async def bind(self, queue: Queue) -> None:
        """Declare the ladder and lead it to the queue, for producers that will use it (ROUTE-026).

        Raises:
            OperationalError, ImproperlyConfigured: the server does not take it.
        """
        async with self._lock:
            stream = await self._ready()
            calls = [*self._ladder(), *declarations.ladder_queue_calls(queue)]
            await self._call(stream, calls, f"the delay ladder of {queue.name!r}: ")
            self._laddered[queue.name] = True

    # -- inner ----------------------------------------------------------------------

    async def _ready(self) -> Stream:
        stream = self._stream
        if stream is not None and not stream.lost:
            if self._channel:
                return stream
        else:
            await self.close()
            self._laddered.clear()
            self._kept.clear()
            stream = await connect(self._address, self._on_event, self._tell)
        self._stream = stream
        self._channel = await stream.open_channel()
        await stream.calls(self._channel, [("confirm.select", {})])
        return stream

    async def _send(self, batch: Sequence[Outgoing]) -> list[bool]:
        stream = await self._ready()
        ways = [sent.straight or await self._way(stream, sent) for sent in batch]
        if stream.lost or not self._channel:
            raise self._address.lost("the connection failed before messages were sent")
        self._open.clear()
        self._refused.clear()
        self._returned.clear()
        numbers = [self._publish(stream, sent) if way else 0 for sent, way in zip(batch, ways, strict=True)]
        stream.write()
        await stream.drained()
        await self._confirmed(stream)
        return [
            number > 0 and number not in self._refused | self._open and sent.target not in self._returned
            for number, sent in zip(numbers, batch, strict=True)
        ]

    def _publish(self, stream: Stream, sent: Outgoing) -> int:
        if self.largest is not None and len(sent.envelope.body) > self.largest:
            return 0
        exchange, routing_key = sent.target
        try:
            number = stream.connection.publish(
                self._channel,
                exchange,
                routing_key,
                messages.properties_of(sent.envelope),
                sent.envelope.body,
                mandatory=sent.mandatory,
            )
        except FieldError:
            return 0  # what came in can be sent again, save a name that is too long; it stays where it is
        self._open.add(number)
        return number

    async def _confirmed(self, stream: Stream) -> None:
        loop = asyncio.get_running_loop()
        while self._open and not self._forbidden:
            if stream.lost or not self._channel:
                raise self._address.lost("the connection failed before messages were confirmed")
            # Not asyncio.timeout: uvloop writes when this has come to wait, and the time would be added to each result.
            waiting = self._waiting = loop.create_future()
            timer = loop.call_later(self._address.timeout, self._tell, True)
            try:
                late = await waiting
            finally:
                self._waiting = None
                timer.cancel()
            # A server out of memory or disk says so, and lives: it will take them.
            if late and not stream.blocked:
                await self.close()
                raise self._address.lost("messages were not confirmed in time")

    def _tell(self, late: bool = False) -> None:
        """There may be no more to wait for, or no more time."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(late)

    async def _way(self, stream: Stream, sent: Outgoing) -> bool:
        """Declare, once, what a message needs on its way. False: it cannot be had, which is logged."""
        if sent.dead:
            ways, calls, subject = self._kept, [dead.declaration(sent.queue)], "the dead queue"
        elif sent.delay is not None:
            ways, calls = self._laddered, [*self._ladder(), declarations.ladder_binding(sent.queue)]
            subject = "the delay ladder"
        else:
            return True  # straight to its queue
        if sent.queue not in ways:
            try:
                await self._call(stream, calls, f"{subject} of {sent.queue!r}: ")
                ways[sent.queue] = True
            except (FieldError, exceptions.ImproperlyConfigured) as error:
                ways[sent.queue] = False
                logger.warning("Messages of %r cannot be sent there: %s", sent.queue, error)
        return ways[sent.queue]

    def _ladder(self) -> list[declarations.Call]:
        there = any(self._laddered.values())
        return [] if there else declarations.ladder_calls(self._address.ladder_type)

    async def _call(self, stream: Stream, calls: Sequence[declarations.Call], subject: str) -> None:
        try:
            async with stream.passing_channel() as number:
                await stream.calls(number, calls)
        except ChannelError as error:
            raise self._address.refused(error.event, subject) from None

    def _on_event(self, event: Event) -> Any:
        match event:
            case Confirmed():
                self._open.difference_update(event.numbers)
                if not event.accepted:
                    self._refused.update(event.numbers)
            case Returned():
                self._returned.add((event.exchange, event.routing_key))
            case ChannelClosed() if event.channel == self._channel:
                self._channel = 0
                largest = address.largest_message(event)
                if largest is not None and largest != self.largest:
                    self.largest = largest
                    self._open.clear()  # `send` begins anew
                elif event.code == address.ACCESS_REFUSED:
                    self._forbidden = True
                    logger.warning("Messages cannot be sent back to their queues: %s", self._address.explain(event))
            case _:
                return
        if not self._open or type(event) is not Confirmed:
            self._tell()
