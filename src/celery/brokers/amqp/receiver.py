"""The consuming half of the RabbitMQ broker.

Channels of the consuming connection: one for task queues (so that one prefetch count covers all of them), one for each
private queue that is listened to, and passing ones for declarations, because a refusal costs its channel. When the
connection or one of the lasting channels fails, or the server ends a consumer, every call raises OperationalError:
what was in our hands is back in its queues then, and the worker opens anew.

What becomes of a verdict
    ACK      acknowledged, many with one frame (`acks`); results over rpc go in front of it, or are confirmed (`riding`)
    START    acknowledged at once: RabbitMQ keeps nothing of a task that runs with early acknowledgement
    RETURN   rejected with requeue: back to its place, marked redelivered
    LOST     sent again with one loss more, confirmed, then acknowledged
    COUNT    sent again with its counts, confirmed, then acknowledged
    REQUEUE  sent again to the end of its queue, marked redelivered, confirmed, then acknowledged
    DELAY    sent again through the delay ladder, confirmed, then acknowledged; what is less than a second is waited
             out by the receiver that gets it, while the message counts in its prefetch
    DEAD     sent to the dead queue (`dead`), confirmed; then rejected without requeue, so that a dead-letter exchange
             that a policy gives the queue gets it as ever. Where the queue itself names one, it is only rejected.

Where the server does not take what is sent again (a full queue, a missing right), no task is lost either: LOST and
REQUEUE become RETURN, what was to be counted runs uncounted, what was to be delayed waits here. What is dead is only
rejected then.

Why there are no transactions. AMQP's would make a copy and its acknowledgement one step for a worker that dies. But
RabbitMQ (3.10) acknowledges at the commit whatever becomes of the publishes: what a full queue refuses, or no queue
takes, is then nowhere but in the worker's memory; and commit-ok was seen for messages that a full step of the ladder
had not taken. During an alarm, a publish silences the connection that it comes on, with its acknowledgements. So the
copies that are in two places when a worker dies are few: `_COPIES_AT_ONCE`, `_COUNTED_AT_ONCE`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from celery.backends.rpc import RPCBackend
from celery.brokers import base
from celery.brokers.amqp import address, dead, declarations, messages
from celery.brokers.amqp.acks import Unsettled
from celery.brokers.amqp.closed import Heads
from celery.brokers.amqp.consumers import Consumers
from celery.brokers.amqp.errors import ChannelError
from celery.brokers.amqp.events import Cancelled, ChannelClosed, Closed, Delivered
from celery.brokers.amqp.publisher import Outgoing, Publisher
from celery.brokers.amqp.riding import Riding, may_ride
from celery.brokers.amqp.sender import CAPABILITIES
from celery.brokers.amqp.streaming import Stream, connect
from celery.brokers.base import Verdict
from celery.wire.sealed import Sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celery.brokers.amqp.events import Event
    from celery.brokers.topology import Queue
    from celery.wire.envelope import Envelope

logger = logging.getLogger(__name__)

#: Acknowledgements that are remembered, and how many seconds before the last word of the server they are too old.
_LATELY = 4096, 5.0
#: Messages that are sent again before the first of them is acknowledged: what a worker killed just then has doubled.
_COPIES_AT_ONCE = 8
#: The same of those that are counted: they come when a worker has just died, and where one dies the next soon may.
_COUNTED_AT_ONCE = 2


class Receipt(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A delivery tag, the connection that it means something on, and what is held against the message."""

    stream: Stream
    tag: int
    counts: messages.Counts


class Receiver(base.Receiver):
    """Consumes over one connection, and sends over another what has to be confirmed.

    Args:
        url: one broker URL.
        options: transport options and connection settings (`celery.brokers.amqp.address`).
        node: the worker's name; shown by the server's tools.
    """

    capabilities = CAPABILITIES
    settles_now = True

    def __init__(self, url: str, options: Mapping[str, Any], *, node: str) -> None:
        self._url = url
        self._address = address.read(url, options, name=node)
        self._publisher = Publisher(self._address)
        self._stream: Stream | None = None
        self._channel = 0
        self._consumers = Consumers(detects_quorum=bool(options.get("detect_quorum_queues", True)))
        #: Private queues by channel.
        self._listeners: dict[int, Callable[[Envelope], None]] = {}
        #: Channels whose end is the end of this receiver.
        self._lasting: set[int] = set()
        self._arrived: deque[base.Delivery] = deque()
        self._awake = asyncio.Event()
        self._unsettled = Unsettled()
        self._started: set[int] = set()
        #: What was acknowledged of late, and when.
        self._lately: deque[tuple[float, base.Over]] = deque(maxlen=_LATELY[0])
        #: Where results come from that go to this broker; None: results are not our business.
        self._replies: RPCBackend | None = None
        self._riding = Riding()
        self._held: set[asyncio.TimerHandle] = set()
        #: Arrivals that may be copies of what is being sent back: should one kill us before the original is
        #: acknowledged, there would be two. None: nothing is being sent back.
        self._early: list[base.Delivery] | None = None
        self._broken = ""

    async def open(self) -> None:
        """Connect, and open the channel for tasks."""
        stream = self._stream = await connect(self._address, self._on_event, self._awake.set)
        self._channel = await stream.open_channel()
        stream.connection.expect_alike(self._channel, Heads())
        self._lasting.add(self._channel)
        await self._consumers.open(stream, self._channel)

    async def consume(self, queue: Queue) -> None:
        """Declare the queue and begin to take messages from it."""
        await self._declare(queue)
        if messages.uses_ladder(queue):
            await self._publisher.bind(queue)
        try:
            await self._consumers.add(queue)
        except ChannelError as error:
            raise self._address.refused(error.event) from None

    async def cancel(self, queue: str) -> None:
        """Take no more from the queue; what was received stays ours."""
        stream = self._living()
        await self._consumers.remove(queue)
        # What the server has pushed and nobody has received yet is not ours to keep.
        for delivery in [delivery for delivery in self._arrived if delivery.queue == queue]:
            self._arrived.remove(delivery)
            if delivery.receipt is not None:
                self._reject(stream, delivery.receipt.tag, requeue=True)
        stream.write()

    async def prefetch(self, count: int) -> None:
        """At most `count` (0: any number of) deliveries will be unsettled at once; `consumers` says when it is more."""
        self._living()
        try:
            await self._consumers.limit(min(max(count, 0), 0xFFFF))
        except ChannelError as error:  # a queue is gone, perhaps: who connects anew declares it, or is told
            raise self._address.lost(self._address.explain(error.event)) from None

    async def receive(self, limit: int) -> list[base.Delivery]:
        """Wait until there is a message; up to `limit` of what is there now."""
        while not self._arrived:
            self._living()
            self._awake.clear()
            await self._awake.wait()
        self._living()
        arrived = self._arrived
        return [arrived.popleft() for _ in range(min(limit, len(arrived)))]

    async def settle(self, batch: Sequence[base.Settlement]) -> list[base.Delivery]:
        """Apply settlements."""
        refused: list[base.Delivery] = []
        telling = [settlement for settlement in batch if settlement.results]
        if len(telling) < len(batch):
            silent = [settlement for settlement in batch if not settlement.results]
            if any(settlement.verdict is not Verdict.START for settlement in silent):
                self._riding.refrain()
            await self._apply(silent, refused)
        if telling:
            riding, others = self._ride(telling)
            if riding:
                await self._apply(riding, refused)
            if others:
                await self._tell_confirmed(others)
                await self._apply(others, refused)
        await self._living().drained()
        return refused

    def settle_now(self, batch: Sequence[base.Settlement]) -> bool:
        """Acknowledge, with results that ride or with none: the server answers neither."""
        stream, tells, tags = self._stream, bool(batch[0].results), []
        if stream is None or self._broken or not stream.takes or (tells and not self._rides(stream)):
            return False
        for settlement in batch:
            receipt = settlement.delivery.receipt
            if receipt is None or receipt.stream is not stream or receipt.tag not in self._unsettled:
                return False
            if bool(settlement.results) != tells or not may_ride(settlement):
                return False
            tags.append(receipt.tag)
        if tells:
            self._riding.ride(stream.connection, self._channel, batch)
        else:
            self._riding.refrain()
        self._acknowledge(stream, tags)
        for settlement in batch:
            self._remember(settlement)
        return True

    def unsure(self) -> list[base.Over]:
        """What was acknowledged shortly before the server was heard last, or later: it answers no acknowledgement.

        In an alarm it is heard, but reads nothing of a connection on which results rode.
        """
        stream = self._stream
        since = min(stream.heard, stream.blocked_since) - _LATELY[1] if stream is not None else 0.0
        return [over for moment, over in self._lately if moment >= since]

    def share(self, backend: object) -> bool:
        """Whether it is the rpc backend, whose records are messages that go to this broker."""
        self._replies = backend if isinstance(backend, RPCBackend) and backend.sends_to(self._url) else None
        self._riding.replies = self._replies
        return self._replies is not None

    async def listen(self, queue: Queue, callback: Callable[[Envelope], None]) -> None:
        """Declare a private queue and call `callback` on the loop for each message."""
        stream = self._living()
        number = await stream.open_channel()
        self._listeners[number] = callback
        consume = ("basic.consume", {"queue": queue.name, "no_ack": True, "exclusive": queue.exclusive})
        try:
            await stream.calls(number, [*declarations.queue_calls(queue), consume])
        except ChannelError as error:
            del self._listeners[number]
            raise self._address.refused(error.event) from None
        self._lasting.add(number)

    async def close(self) -> None:
        """Disconnect; the server puts what is unsettled back into its queues."""
        for handle in self._held:
            handle.cancel()
        self._held.clear()
        if self._stream is not None:
            await self._stream.close()
        await self._publisher.close()
        self._awake.set()

    # -- consuming --------------------------------------------------------------------

    async def _declare(self, queue: Queue) -> None:
        refusal = None
        try:
            await self._call(declarations.queue_calls(queue))
        except ChannelError as error:
            refusal = error.event
            if refusal.code != address.ACCESS_REFUSED:
                raise self._address.refused(refusal) from None
        else:
            if not queue.no_declare:
                return
        try:
            # What we may not or shall not declare has to be there, or consuming would cost us the channel of all.
            await self._call(declarations.passive_calls(queue))
        except ChannelError as error:
            raise self._address.absent(queue.name, error.event, refusal) from None

    async def _call(self, calls: Sequence[declarations.Call]) -> None:
        if calls:
            async with self._living().passing_channel() as number:
                await self._living().calls(number, calls)

    def _living(self) -> Stream:
        stream = self._stream
        if stream is None or stream.lost:
            raise self._address.lost("not connected") if stream is None else stream.error()
        if self._broken:
            raise self._address.lost(self._broken)
        return stream

    def _on_event(self, event: Event) -> None:
        match event:
            case Closed():
                self._take_closed(event)
            case Delivered():
                listener = self._listeners.get(event.channel)
                if listener is not None:
                    self._tell(listener, event)
                    return
                self._take(event)
            case ChannelClosed() if event.channel in self._lasting:
                self._broken = event.text
                self._awake.set()
            case Cancelled():
                self._broken = f"the server ended the consumer {event.consumer_tag}: its queue was deleted or moved"
                self._awake.set()
            case _:
                return

    def _tell(self, listener: Callable[[Envelope], None], event: Delivered) -> None:
        if event.properties is None:
            logger.warning("A message for %r is dropped: its properties cannot be read", event.routing_key)
            return
        listener(messages.envelope_of(event.properties, event.body))

    def _take_closed(self, event: Closed) -> None:
        """Put arrivals that came for the first time, and have nothing to be taken off, where `receive` finds them."""
        stream, way = self._stream, event.way
        assert stream is not None
        queue = self._consumers.by_tag[way.consumer_tag]
        kind, exchange, routing_key = way.content_type, way.exchange, way.routing_key
        for tag, label, text in event.messages:
            envelope: Any = Sealed(kind, text)
            receipt = None
            if not queue.no_ack:
                self._unsettled.add(tag)
                receipt = Receipt(stream, tag, messages.NOTHING)
            self._arrived.append(
                base.Delivery(envelope, receipt, queue.name, exchange, routing_key, label=label, text=text)
            )
        self._awake.set()

    def _take(self, event: Delivered) -> None:
        """Put an arrival where `receive` finds it, refuse it, or hold it for the rest of its second."""
        assert self._stream is not None
        queue = self._consumers.by_tag[event.consumer_tag]
        if not queue.no_ack:
            self._unsettled.add(event.delivery_tag)
        if event.properties is None:
            logger.error(
                "A message in %r goes to its dead-letter exchange, if there is one: its properties cannot be read",
                queue.name,
            )
            self._reject(self._stream, event.delivery_tag, requeue=False)
            return
        envelope = messages.envelope_of(event.properties, event.body)
        exchange, routing_key = messages.origin_of(event.exchange, event.routing_key)
        counts = messages.take_counts(envelope.headers, event.redelivered)
        given_back = messages.take_mark(envelope.headers)
        delivery = base.Delivery(
            envelope,
            None if queue.no_ack else Receipt(self._stream, event.delivery_tag, counts),
            queue.name,
            exchange,
            routing_key,
            event.redelivered or given_back or counts != messages.NOTHING,
            counts.failures,
            uncounted=event.redelivered and not queue.no_ack,
        )
        until = messages.take_due_time(envelope.headers)
        if until is not None and until > time.time():
            self._hold(delivery, until)
        elif self._early is not None and counts != messages.NOTHING:
            self._early.append(delivery)
        else:
            self._show(delivery)

    def _show(self, delivery: base.Delivery) -> None:
        self._arrived.append(delivery)
        self._awake.set()

    def _hold(self, delivery: base.Delivery, until: float) -> None:
        """Show a delivery to `receive` when it is due. It stays in the server's care, and counts in the prefetch."""

        def show() -> None:
            self._held.discard(handle)
            self._show(delivery)

        # Timers may fire a little early; a task must not.
        handle = asyncio.get_running_loop().call_later(max(until - time.time(), 0) + 0.002, show)
        self._held.add(handle)

    # -- settling ---------------------------------------------------------------------------

    def _ride(self, telling: list[base.Settlement]) -> tuple[list[base.Settlement], list[base.Settlement]]:
        """Put in front of the acknowledgements what may ride with them; whose results that was, and the others."""
        stream = self._living()
        if not self._rides(stream):
            return [], telling
        riding: list[base.Settlement] = []
        others: list[base.Settlement] = []
        for settlement in telling:
            (riding if may_ride(settlement) else others).append(settlement)
        self._riding.ride(stream.connection, self._channel, riding)
        return riding, others

    def _rides(self, stream: Stream) -> bool:
        """Whether results may ride now."""
        return self._riding.open and not stream.blocked

    async def _tell_confirmed(self, telling: Sequence[base.Settlement]) -> None:
        assert self._replies is not None
        writes = [write for settlement in telling for write in settlement.results if write.reply_to]
        if writes:
            if all(await self._tell_results(writes)):
                self._riding.prove()
            elif refusals := self._refusals(writes):
                await self._tell_results(refusals)
        for settlement in telling:
            settlement.results = ()

    async def _tell_results(self, writes: Sequence[base.ResultWrite]) -> list[bool]:
        assert self._replies is not None
        return await self._publisher.send(
            [
                Outgoing(record.envelope, record.routing_key, mandatory=False)
                for record in self._replies.messages(writes)
            ]
        )

    def _refusals(self, writes: Sequence[base.ResultWrite]) -> list[base.ResultWrite]:
        """What is told in place of results that are too large for the server."""
        assert self._replies is not None
        refusals, largest = [], self._publisher.largest
        for write in writes:
            size = len(write.payload)
            if largest is not None and size > largest:
                text = f"The result of task {write.task_id} cannot be sent: {self._address.too_large(size, largest)}"
                logger.error(text)
                refusals.append(self._replies.refusal(write, text))
        return refusals

    async def _apply(self, batch: Sequence[base.Settlement], refused: list[base.Delivery]) -> None:
        stream = self._living()
        done: list[base.Settlement] = []
        back: list[tuple[base.Settlement, Outgoing]] = []
        for settlement in batch:
            receipt = settlement.delivery.receipt
            if receipt is None:
                continue
            if settlement.after_start:
                self._started.discard(receipt.tag)
            elif receipt.stream is not stream or not self._claim(receipt.tag, settlement, done, back):
                refused.append(settlement.delivery)
        self._acknowledge(stream, [settlement.delivery.receipt.tag for settlement in done])
        for settlement in done:
            self._remember(settlement)
        if back:
            await self._send_back(back)

    def _remember(self, settlement: base.Settlement) -> None:
        label = settlement.delivery.label
        if label is not None:
            over = base.Over(label.id, label.retries or 0, settlement.results)
        else:
            headers = settlement.delivery.envelope.headers
            over = base.Over(headers.get("id"), headers.get("retries") or 0, settlement.results)
        self._lately.append((time.monotonic(), over))

    def _acknowledge(self, stream: Stream, tags: Sequence[int]) -> None:
        for tag, multiple in self._unsettled.acknowledge(tags):
            stream.connection.ack(self._channel, tag, multiple=multiple)
        stream.write()

    def _claim(
        self,
        tag: int,
        settlement: base.Settlement,
        done: list[base.Settlement],
        back: list[tuple[base.Settlement, Outgoing]],
    ) -> bool:
        """Decide what becomes of one delivery; False: it was settled before."""
        verdict = settlement.verdict
        if tag in self._started:
            self._started.discard(tag)
            return True
        if tag not in self._unsettled:
            return False
        match verdict:
            case Verdict.ACK:
                done.append(settlement)
            case Verdict.START:
                self._started.add(tag)
                done.append(settlement)
            case Verdict.RETURN:
                self._reject(self._living(), tag, requeue=True)
            case _:
                self._decline(tag, settlement, back)
        return True

    def _decline(self, tag: int, settlement: base.Settlement, back: list[tuple[base.Settlement, Outgoing]]) -> None:
        """Decide how a message goes away from here."""
        delivery, verdict = settlement.delivery, settlement.verdict
        envelope, queue, counts = delivery.envelope, delivery.queue, delivery.receipt.counts
        if verdict is Verdict.DEAD:
            logger.info("A message of %r is refused: %s", queue, settlement.reason or "no reason given")
            if dead.keeps(self._consumers.queues[queue]):
                back.append((settlement, Outgoing(dead.letter(envelope, settlement.reason), queue, dead=True)))
            else:
                self._reject(self._living(), tag, requeue=False)
        elif verdict is Verdict.DELAY:
            until = settlement.until or 0.0
            left = until - time.time()
            if left <= 0:
                self._reject(self._living(), tag, requeue=True)
                return
            delayed = messages.delayed(envelope, until, **counts.headers())
            back.append((settlement, Outgoing(delayed, queue, math.floor(left) or None)))
        else:
            counts = counts._replace(losses=counts.losses + (verdict is Verdict.LOST))
            mark = {messages.REDELIVERED: True} if verdict is Verdict.REQUEUE else {}
            back.append((settlement, Outgoing(messages.again(envelope, **counts.headers(), **mark), queue)))

    async def _send_back(self, back: Sequence[tuple[base.Settlement, Outgoing]]) -> None:
        early: list[base.Delivery] = []
        self._early = early
        try:
            counted = [each for each in back if each[0].verdict is Verdict.COUNT]
            others = [each for each in back if each[0].verdict is not Verdict.COUNT]
            for some, at_once in ((others, _COPIES_AT_ONCE), (counted, _COUNTED_AT_ONCE)):
                for at in range(0, len(some), at_once):
                    await self._copy(some[at : at + at_once])
        finally:
            self._early = None
            for delivery in early:
                self._show(delivery)

    async def _copy(self, back: Sequence[tuple[base.Settlement, Outgoing]]) -> None:
        taken = await self._publisher.send([message for _, message in back])
        stream, done = self._living(), []
        for (settlement, _), accepted in zip(back, taken, strict=True):
            if not accepted:
                queue, verdict = settlement.delivery.queue, settlement.verdict
                logger.warning("RabbitMQ does not take a message of %r for %s", queue, verdict.name)
            if accepted and settlement.verdict is not Verdict.DEAD:
                done.append(settlement.delivery.receipt.tag)
            else:
                self._make_do(stream, settlement)
        self._acknowledge(stream, done)

    def _make_do(self, stream: Stream, settlement: base.Settlement) -> None:
        """What becomes of a message whose copy the server did not take, and of the original of a dead letter."""
        delivery, verdict = settlement.delivery, settlement.verdict
        if verdict is Verdict.DEAD:
            self._reject(stream, delivery.receipt.tag, requeue=False)
        elif verdict is Verdict.DELAY:
            self._hold(delivery, settlement.until or 0.0)
        elif verdict is Verdict.COUNT:
            delivery.uncounted = False
            self._show(delivery)
        else:
            self._reject(stream, delivery.receipt.tag, requeue=True)

    def _reject(self, stream: Stream, tag: int, *, requeue: bool) -> None:
        self._unsettled.discard(tag)
        stream.connection.reject(self._channel, tag, requeue=requeue)
