"""A kombu transport over our own drivers, for code that wants kombu's objects on a broker that kombu does not know.

Producers, consumers, `SimpleQueue` and whatever else takes a kombu connection work on `sqlite://` and `memory://`
through it, and share queues with applications and workers. Publishing is a driver's Sender. Consuming is one Receiver
for each queue, on an event loop that the connection runs on a thread of its own: so leases are kept, and what a
channel has not settled goes back to its queue when it is closed, or when its process dies.

This is a bridge, not a road: a consumer polls, and takes messages one at a time. Queues are not deleted, only emptied.
Imported with kombu only (`celery.app.bridge`).
"""

from __future__ import annotations

import asyncio
import threading
from importlib import import_module
from queue import Empty
from typing import TYPE_CHECKING, Any

from kombu import exceptions
from kombu.transport import virtual as kombus
from kombu.transport.base import to_rabbitmq_queue_arguments
from kombu.utils.uuid import uuid

from celery.brokers.base import Publish, Settlement, Verdict
from celery.brokers.topology import Exchange, Queue
from celery.wire.envelope import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

    from celery.brokers.base import Delivery, Receiver, Sender

virtual: Any = kombus  # its methods are untyped

#: Seconds that a driver may take for what it can do at once.
SOON = 10.0
#: Seconds to wait for a message that is known to be in its queue; another consumer may be faster.
GRACE = 0.5
#: Properties that belong to kombu's own bookkeeping.
_OF_KOMBU = ("body_encoding", "delivery_info", "delivery_tag")


class QoS(virtual.QoS):  # type: ignore[misc]  # kombu is untyped
    """Which messages of a channel are not settled yet."""

    def ack(self, delivery_tag: str) -> None:
        """Let the broker forget the message."""
        self.channel.settle(delivery_tag, Verdict.ACK)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give the message back to its queue, or refuse it: it becomes a dead letter."""
        self.channel.settle(delivery_tag, Verdict.RETURN if requeue else Verdict.DEAD)
        super().ack(delivery_tag)


class Channel(virtual.Channel):  # type: ignore[misc]  # kombu is untyped
    """Publishes through a Sender; gets and settles through a Receiver for each queue."""

    QoS = QoS
    supports_fanout = True
    #: The receivers give back what is not settled.
    do_restore = False

    def __init__(self, connection: Transport, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self.sender: Sender = connection.driver.Sender(connection.url, connection.client.transport_options)
        self._types: dict[str, str] = {}
        self._queues: dict[str, Queue] = {}
        self._sources: dict[str, _Source] = {}
        #: What is not settled, by delivery tag.
        self._held: dict[str, tuple[_Source, Delivery]] = {}

    # -- declaring

    def exchange_declare(
        self,
        exchange: str | None = None,
        type: str = "direct",
        durable: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
        nowait: bool = False,  # noqa: ARG002 - in AMQP's signature
        passive: bool = False,
    ) -> None:
        """Create the exchange."""
        name = exchange or f"amq.{type}"
        if not passive:
            self.sender.declare([Queue("", Exchange(name, type or "direct", durable, auto_delete, arguments))])
            self._types[name] = type or "direct"

    def queue_declare(self, queue: str | None = None, passive: bool = False, **kwargs: Any) -> Any:  # noqa: ARG002 - every name is a queue here
        """Create the queue; its name, and how many messages wait in it."""
        name = queue or f"amq.gen-{uuid()}"
        declared = Queue(
            name,
            exclusive=bool(kwargs.get("exclusive")),
            auto_delete=bool(kwargs.get("auto_delete")),
            expires=((kwargs.get("arguments") or {}).get("x-expires") or 0) / 1000 or None,
        )
        self._queues[name] = declared
        self.sender.declare([declared])
        return virtual.base.queue_declare_ok_t(name, self.sender.length(name), 0)

    def queue_bind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = "",
        arguments: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Bind the queue to an exchange, which was declared by this channel or is a direct one."""
        name = exchange or "amq.direct"
        source = Exchange(name, self._types.get(name, "direct"))
        self.sender.declare([Queue(queue, source, routing_key or "", binding_arguments=arguments or None)])

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **_: Any) -> None:  # noqa: ARG002 - in AMQP's signature
        """Empty the queue."""
        if not if_empty:
            self.sender.purge(queue)

    def prepare_queue_arguments(self, arguments: dict[str, Any], **kwargs: Any) -> Any:
        """Expiry and limits as AMQP names them."""
        return to_rabbitmq_queue_arguments(arguments, **kwargs)

    def _size(self, queue: str) -> int:
        return self.sender.length(queue)

    def _purge(self, queue: str) -> int:
        return self.sender.purge(queue)

    # -- messages

    def basic_publish(self, message: dict[str, Any], exchange: str, routing_key: str, **_: Any) -> None:
        """Send a message that kombu has prepared."""
        body = message["body"]
        properties = {key: value for key, value in message["properties"].items() if key not in _OF_KOMBU}
        envelope = Envelope(
            message["headers"],
            body.encode() if isinstance(body, str) else bytes(body or b""),
            message["content-type"],
            message["content-encoding"],
            properties,
        )
        self.sender.publish([Publish(envelope, exchange or "", routing_key or "")])

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """The next message of the queue; None when there is none."""
        message = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if message is not None and no_ack:
            self.settle(message.delivery_tag, Verdict.ACK)
        return message

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], Any], consumer_tag: str, **kwargs: Any
    ) -> None:
        """Begin to consume; what is taken without acknowledgement is settled before it is handed on."""

        def settled(message: Any) -> Any:
            self.settle(message.delivery_tag, Verdict.ACK)
            return callback(message)

        super().basic_consume(queue, no_ack, settled if no_ack else callback, consumer_tag, **kwargs)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:  # noqa: ARG002 - never waits for a message to come
        source = self._sources.get(queue)
        if source is None:
            source = self._sources[queue] = self.connection.open_source(self._queues.get(queue) or Queue(queue))
        delivery = source.get(self.sender.length(queue) > 0)
        tag = uuid()
        self._held[tag] = (source, delivery)
        envelope = delivery.envelope
        return {
            "body": envelope.body,
            "content-type": envelope.content_type,
            "content-encoding": envelope.content_encoding,
            "headers": dict(envelope.headers),
            "properties": {
                **envelope.properties,
                "delivery_tag": tag,
                "delivery_info": {
                    "exchange": delivery.exchange,
                    "routing_key": delivery.routing_key,
                    "redelivered": delivery.redelivered,
                },
            },
        }

    def settle(self, tag: str, verdict: Verdict) -> None:
        """Tell the broker what becomes of a message; nothing when that was said before."""
        held = self._held.pop(tag, None)
        if held is not None:
            source, delivery = held
            source.settle(delivery, verdict)

    def close(self) -> None:
        """End consuming; what is not settled goes back. Idempotent."""
        if self.closed:
            return
        super().close()
        for source in self._sources.values():
            source.close()
        self._sources.clear()
        self._held.clear()
        self.sender.close()


class Transport(virtual.Transport):  # type: ignore[misc]  # kombu is untyped
    """One connection: its URL, its driver, and the loop that its receivers live on."""

    Channel = Channel
    can_parse_url = True
    driver_type = driver_name = "celeriac"
    polling_interval = 0.02
    connection_errors = (*virtual.Transport.connection_errors, exceptions.OperationalError)
    implements = virtual.Transport.implements.extend(exchange_type=frozenset(["direct", "topic", "fanout", "headers"]))

    def __init__(self, client: Any, **kwargs: Any) -> None:
        self.url: str = client.hostname
        self.driver: Any = import_module(f"celery.brokers.{self.url.partition('://')[0]}")
        self._loop: _Loop | None = None
        super().__init__(client, **kwargs)

    def establish_connection(self) -> Any:
        """See that the broker can be had."""
        established = super().establish_connection()
        self._avail_channels[-1].sender.declare(())
        return established

    def open_source(self, queue: Queue) -> _Source:
        """Begin to take messages from a queue."""
        if self._loop is None:
            self._loop = _Loop()
        options = self.client.transport_options
        return _Source(self._loop, self.driver.Receiver(self.url, options, node="kombu"), queue)

    def close_connection(self, connection: Any) -> None:
        """Close the channels, then the loop."""
        super().close_connection(connection)
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()


class _Loop:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="celery-kombu", daemon=True)
        self._thread.start()

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.start(coroutine).result(SOON)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SOON)
        self._loop.close()


class _Source:
    """One queue, read by a receiver of its own."""

    def __init__(self, loop: _Loop, receiver: Receiver, queue: Queue) -> None:
        self._loop = loop
        self._receiver = receiver
        #: A message that was asked for and has not come yet.
        self._asked: Future[list[Delivery]] | None = None
        loop.run(receiver.open())
        loop.run(receiver.consume(queue))

    def get(self, expected: bool) -> Delivery:
        """The next message. Raises Empty: none came, although one was perhaps `expected`."""
        if self._asked is None:
            if not expected:
                raise Empty
            self._asked = self._loop.start(self._receiver.receive(1))
        try:
            (delivery,) = self._asked.result(GRACE if expected else 0)
        except TimeoutError:
            raise Empty from None
        except BaseException:
            self._asked = None
            raise
        self._asked = None
        return delivery

    def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        self._loop.run(self._receiver.settle([Settlement(delivery, verdict)]))

    def close(self) -> None:
        if self._asked is not None:
            self._asked.cancel()
        self._loop.run(self._receiver.close())
