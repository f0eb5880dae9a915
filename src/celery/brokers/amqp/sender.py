"""The publishing half of the RabbitMQ broker.

All messages travel on one channel, so that they keep their order; it is put into confirm mode when confirmation is
first asked for. Every declaration and question has a passing channel, because a refused one costs its channel.

A plain publish has no answer. That the server refused one (an exchange that does not exist) is seen when the sender
is used next, and logged: whoever has to know asks for confirmation. While the server blocks publishers, being out of
memory or disk, both kinds wait for it as long as they may.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, TypeVar

from celery import exceptions
from celery.brokers import base
from celery.brokers.amqp import address, cuts, dead, declarations, messages
from celery.brokers.amqp.blocking import Link
from celery.brokers.amqp.errors import ChannelError
from celery.brokers.amqp.events import ChannelClosed, Confirmed, Returned
from celery.brokers.amqp.fields import FieldError
from celery.brokers.amqp.inbox import Inbox

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celery.brokers.amqp.declarations import Call
    from celery.brokers.amqp.events import Event, Reply
    from celery.brokers.topology import Queue
    from celery.wire.forms import Message

_Answer = TypeVar("_Answer")

logger = logging.getLogger(__name__)

CAPABILITIES = base.Capabilities(
    name="amqp", max_priority=255, high_priority_first=True, confirms=True, dead_letter_exchanges=True
)

#: Messages written in one go, between two looks at what the server says.
_AT_ONCE = 256


class Sender(base.Sender):
    """Publishes over one socket.

    Args:
        url: one broker URL.
        options: transport options and connection settings (`celery.brokers.amqp.address`).
    """

    capabilities = CAPABILITIES

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._address = address.read(url, options)
        self._link = Link(self._address, self._on_event)
        self._declared: dict[str, Queue] = {}
        self._laddered: set[str] = set()
        #: Number of the publishing channel; 0: not open.
        self._channel = 0
        self._confirming = False
        #: What the server said against the publishes of this call.
        self._objections: list[str] = []
        #: What they are, where no other attempt will bring anything else.
        self._kind: type[Exception] | None = None
        #: Bytes that a body may have; None: the server has not complained yet.
        self._largest: int | None = None

    def publish(self, batch: Sequence[base.Publish], *, confirm: bool = False, timeout: float | None = None) -> None:
        """Send all, in order.

        Raises:
            EncodeError: a header or property does not fit into AMQP, or the message is larger than the server takes;
                nothing was sent, unless it is the first that is too large.
            OperationalError: see the contract; with `confirm` also when the server refused a message.
            ImproperlyConfigured: the account may not do that; the rest of the batch may have been sent.
        """
        deadline = self._ready(timeout)
        self._link.await_unblocked(deadline)
        for publish in batch:
            if publish.queue is not None and self._declared.get(publish.queue.name) is not publish.queue:
                self._declare(publish.queue, declarations.producer_calls(publish.queue), deadline)
        plan = [self._place(publish, deadline) for publish in batch]
        channel = self._publishing(confirm, deadline)
        encoded = [self._encode(channel, *placed) for placed in plan]
        link, connection = self._link, self._link.connection
        self._report()
        for start in range(0, len(encoded), _AT_ONCE):
            if start:
                link.poll()
            if not self._channel:
                raise self._objection()
            for frames in encoded[start : start + _AT_ONCE]:
                connection.send_publish(channel, frames)
            link.flush(deadline)
        if confirm:
            link.wait(lambda: not connection.unconfirmed(channel), deadline)
            self._check()

    def declare(self, queues: Sequence[Queue]) -> None:
        """Create what does not exist; on a channel of its own, all in one round trip.

        Raises:
            ImproperlyConfigured: the server has a queue or exchange otherwise; its text says which argument differs.
        """
        deadline = self._ready(None)
        for queue in queues:
            self._declared.pop(queue.name, None)
            self._declare(queue, declarations.queue_calls(queue), deadline)

    def purge(self, queue: str) -> int:
        """Delete what waits in the queue; 0 for one that does not exist."""
        return self._ask("queue.purge", queue=queue)

    def length(self, queue: str) -> int:
        """How many messages wait in the queue now; 0 for one that does not exist."""
        return self._ask("queue.declare", queue=queue, passive=True)

    def inbox(self, queue: Queue) -> base.Inbox:
        """Read a private queue over a connection of its own."""
        return Inbox(self._address, queue)

    def dead_letters(self, queue: str, limit: int = 100) -> list[base.DeadLetter]:
        """What lies in the dead queue, the latest first. All of it is read, and put back."""
        self._ready(None)
        return self._of_dead(queue, lambda: dead.listed(self._link, queue, limit), [])

    def replay(self, queue: str, limit: int) -> int:
        """Send again what was refused, one by one and confirmed. A failure may leave one in both queues."""
        self._ready(None)
        self._report()
        return self._of_dead(queue, lambda: dead.replay(self._link, queue, limit, self._check), 0)

    def close(self) -> None:
        """Disconnect."""
        self._link.close()

    # -- inner ------------------------------------------------------------------

    def _ready(self, timeout: float | None) -> float:
        """Connect unless connected; returns the deadline of this call."""
        deadline = self._link.deadline(timeout)
        if self._link.ready(deadline):
            self._channel = 0
            self._declared.clear()
            self._laddered.clear()
            self._largest = None
        return deadline

    def _publishing(self, confirm: bool, deadline: float) -> int:
        """The channel to publish on, in confirm mode where that is asked for."""
        if not self._channel:
            self._channel = self._link.open_channel(deadline)
            self._confirming = False
        if confirm and not self._confirming:
            self._link.calls(self._channel, [("confirm.select", {})], deadline)
            self._confirming = True
        return self._channel

    def _place(self, publish: base.Publish, deadline: float) -> tuple[str, str, Message, bool]:
        """Where a message is sent to, and as what: itself, or into the delay ladder."""
        straight = publish.exchange, publish.routing_key, publish.envelope, publish.mandatory
        if publish.until is None:
            return straight
        delay = publish.until - time.time()
        if not messages.takes_ladder(publish, delay):
            return straight
        assert publish.queue is not None
        if publish.queue.name not in self._laddered:
            calls = [] if self._laddered else declarations.ladder_calls(self._address.ladder_type)
            self._call([*calls, *declarations.ladder_queue_calls(publish.queue)], deadline)
            self._laddered.add(publish.queue.name)
        key = messages.delay_key(delay, publish.routing_key)
        return messages.LADDER_ENTRY, key, messages.delayed(publish.envelope, publish.until), publish.mandatory

    def _encode(
        self, channel: int, exchange: str, routing_key: str, envelope: Message, mandatory: bool
    ) -> list[bytes]:
        connection = self._link.connection
        if self._largest is not None and (size := len(envelope.body)) > self._largest:
            reason = self._address.too_large(size, self._largest)
            raise exceptions.EncodeError(f"A message for {routing_key!r} cannot be sent: {reason}")
        try:
            header = cuts.content_header(envelope)
            return connection.encode_publish(channel, exchange, routing_key, header, envelope.body, mandatory)
        except FieldError as error:
            raise exceptions.EncodeError(f"A message for {routing_key!r} cannot be sent: {error}") from error

    def _declare(self, queue: Queue, calls: Sequence[Call], deadline: float) -> None:
        if self._declared.get(queue.name) != queue:
            try:
                self._call(calls, deadline)
            except ChannelError as error:
                if error.event.code != address.ACCESS_REFUSED:
                    raise self._address.refused(error.event) from None
                self._check_exists(queue, error.event, deadline)
        self._declared[queue.name] = queue

    def _check_exists(self, queue: Queue, refusal: ChannelClosed, deadline: float) -> None:
        """An account without the right to declare can still send to what exists."""
        try:
            self._call(declarations.passive_calls(queue), deadline)
        except ChannelError as error:
            raise self._address.absent(queue.name, error.event, refusal) from None

    def _call(self, calls: Sequence[Call], deadline: float) -> list[Reply]:
        """Call methods on a passing channel."""
        if not calls:
            return []
        number = self._link.open_channel(deadline)
        replies = self._link.calls(number, calls, deadline)
        self._link.close_channel(number, deadline)
        return replies

    def _ask(self, method: str, **arguments: Any) -> int:
        deadline = self._ready(None)
        try:
            (reply,) = self._call([(method, arguments)], deadline)
        except ChannelError as error:
            if error.event.code == address.NOT_FOUND:
                return 0
            raise self._address.refused(error.event) from None
        return int(reply.arguments["message_count"])

    def _of_dead(self, queue: str, ask: Callable[[], _Answer], nothing: _Answer) -> _Answer:
        try:
            return ask()
        except ChannelError as error:
            if error.event.code == address.NOT_FOUND:
                return nothing
            raise self._address.refused(error.event, f"dead letters of {queue!r}: ") from None

    def _check(self) -> None:
        if self._objections:
            raise self._objection()

    def _objection(self) -> Exception:
        text = "; ".join(dict.fromkeys(self._objections))
        self._objections.clear()
        kind, self._kind = self._kind, None
        return self._address.lost(text) if kind is None else kind(f"RabbitMQ at {self._address.url}: {text}")

    def _report(self) -> None:
        """Log what the server said against messages that nobody waits for any more."""
        for objection in self._objections:
            logger.error("RabbitMQ at %s refused a message that was sent before: %s", self._address.url, objection)
        self._objections.clear()
        self._kind = None

    def _on_event(self, event: Event) -> None:
        match event:
            case Confirmed(accepted=False):
                self._objections.append(f"{len(event.numbers)} messages were refused; is the queue full?")
            case Returned():
                # Somebody deleted the queue: the next publish declares it again.
                self._declared.clear()
                self._objections.append(f"no queue takes {event.routing_key!r} of exchange {event.exchange!r}")
            case ChannelClosed() if event.channel == self._channel:
                self._channel = 0
                self._objections.append(self._address.explain(event))
                largest = address.largest_message(event)
                if largest is not None:
                    self._largest, self._kind = largest, exceptions.EncodeError
                elif event.code == address.ACCESS_REFUSED:
                    self._kind = exceptions.ImproperlyConfigured
            case _:
                return
