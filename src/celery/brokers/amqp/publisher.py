"""What a worker publishes: messages on their way back to a queue, or into the delay ladder, confirmed.

It has a connection of its own, opened on first use: RabbitMQ stops reading from connections that publish when it runs
out of memory or disk, and acknowledgements must not wait behind that.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.brokers.amqp import declarations, messages
from celery.brokers.amqp.errors import ChannelError
from celery.brokers.amqp.events import ChannelClosed, Confirmed, Returned
from celery.brokers.amqp.fields import FieldError
from celery.brokers.amqp.streaming import Stream, connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.brokers.amqp.address import Address
    from celery.brokers.amqp.events import Event
    from celery.brokers.topology import Queue
    from celery.wire.envelope import Envelope


class Return(NamedTuple):
    """A message that goes back to its queue, or through the ladder to it."""

    envelope: Envelope
    queue: str
    #: Whole seconds that it waits in the ladder; None: not at all.
    delay: float | None = None

    @property
    def target(self) -> tuple[str, str]:
        """Exchange and routing key."""
        if self.delay is None:
            return "", self.queue
        return messages.LADDER_ENTRY, messages.delay_key(self.delay, messages.own_key(self.queue))


class Publisher:
    """Publishes on one channel in confirm mode."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = asyncio.Lock()
        self._stream: Stream | None = None
        self._channel = 0
        self._open: set[int] = set()
        self._refused: set[int] = set()
        self._returned: set[tuple[str, str]] = set()
        self._settled = asyncio.Event()
        self._laddered: set[str] = set()

    async def send(self, batch: Sequence[Return]) -> list[bool]:
        """Publish all and wait for the server's word on each: True where it took responsibility.

        Raises:
            OperationalError: the connection is lost, or there was no answer in time.
        """
        async with self._lock:
            stream = await self._ready()
            for sent in batch:
                if sent.delay is not None and sent.queue not in self._laddered:
                    await self._climb(stream, sent.queue)
            if stream.lost or not self._channel:
                raise self._address.lost("the connection failed before messages were sent")
            self._open.clear()
            self._refused.clear()
            self._returned.clear()
            self._settled.clear()
            numbers = [self._publish(stream, sent) for sent in batch]
            stream.write()
            await stream.drained()
            await self._confirmed(stream)
            return [
                number > 0 and number not in self._refused and sent.target not in self._returned
                for number, sent in zip(numbers, batch, strict=True)
            ]

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
            await self._call(stream, [*self._ladder(), *declarations.ladder_queue_calls(queue)])
            self._laddered.add(queue.name)

    # -- inner ----------------------------------------------------------------------

    async def _ready(self) -> Stream:
        if self._stream is not None and not self._stream.lost and self._channel:
            return self._stream
        await self.close()
        self._laddered.clear()
        stream = await connect(self._address, self._on_event, self._settled.set)
        self._channel = await stream.open_channel()
        await stream.calls(self._channel, [("confirm.select", {})])
        self._stream = stream
        return stream

    def _publish(self, stream: Stream, sent: Return) -> int:
        exchange, routing_key = sent.target
        try:
            number = stream.connection.publish(
                self._channel,
                exchange,
                routing_key,
                messages.properties_of(sent.envelope),
                sent.envelope.body,
                mandatory=True,
            )
        except FieldError:
            return 0  # what came in can be sent again, save a name that is too long; it stays where it is
        self._open.add(number)
        return number

    async def _confirmed(self, stream: Stream) -> None:
        try:
            async with asyncio.timeout(self._address.timeout):
                while self._open:
                    if stream.lost or not self._channel:
                        raise self._address.lost("the connection failed before messages were confirmed")
                    self._settled.clear()
                    await self._settled.wait()
        except TimeoutError:
            blocked = f"; the server blocks publishers: {stream.blocked}" if stream.blocked else ""
            await self.close()
            raise self._address.lost(f"messages were not confirmed in time{blocked}") from None

    async def _climb(self, stream: Stream, queue: str) -> None:
        binding = declarations.ladder_binding(queue)
        await self._call(stream, [*self._ladder(), binding])
        self._laddered.add(queue)

    def _ladder(self) -> list[declarations.Call]:
        return [] if self._laddered else declarations.ladder_calls(self._address.ladder_type)

    async def _call(self, stream: Stream, calls: Sequence[declarations.Call]) -> None:
        try:
            async with stream.passing_channel() as number:
                await stream.calls(number, calls)
        except ChannelError as error:
            raise self._address.refused(error.event, "the delay ladder: ") from None

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
            case _:
                return
        self._settled.set()
