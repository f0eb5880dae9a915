"""kombu's connections and producers, for code that brings or wants them (API-016).

Nothing of ours uses these: our own way to the broker is `celery.app.publisher`. kombu is imported on first use.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from celery import exceptions
from celery.app import brokers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery.app.base import Celery
    from celery.brokers.base import Publish
    from celery.brokers.topology import Queue

#: Brokers that kombu reaches through our own driver; its `memory` is another store than ours.
_OWN_TRANSPORTS = ("sqlite", "memory")
_OWN_TRANSPORT = "celery.brokers.kombu_transport:Transport"


def connection(app: Celery, url: str | None = None, *, read: bool = False, **options: Any) -> Any:
    """A kombu connection to the application's broker, not yet connected.

    Args:
        app: the application.
        url: another broker than the configured one.
        read: to the one that is consumed from.
        options: of kombu.Connection.
    """
    from kombu.connection import Connection

    urls = [url] if url else brokers.broker_urls(app, read=read)
    if urls[0].partition("://")[0] in _OWN_TRANSPORTS:
        options.setdefault("transport", _OWN_TRANSPORT)
    conf = app.conf
    options.setdefault("transport_options", dict(conf.broker_transport_options or {}))
    options.setdefault("connect_timeout", conf.broker_connection_timeout)
    options.setdefault("ssl", conf.broker_use_ssl)
    make: Any = Connection  # kombu is untyped
    return make(urls if len(urls) > 1 else urls[0], **options)


def connection_pool(app: Celery) -> Any:
    """A pool of at most `broker_pool_limit` kombu connections; 0 or None: without a limit."""
    return connection(app).Pool(limit=app.conf.broker_pool_limit)


def producer_pool(app: Celery) -> Any:
    """A pool of as many kombu producers, each with a connection.

    These are no connections of `app.pool`: kombu waits for one without a bound, so a thread that had the last of them
    and wanted a producer would wait for itself.
    """
    from kombu.pools import ProducerPool

    make: Any = ProducerPool  # kombu is untyped
    return make(connection_pool(app), limit=app.conf.broker_pool_limit)


def acquired_connection(app: Celery) -> AbstractContextManager[Any]:
    """A kombu connection of the application's pool."""
    return _acquired(app, app.pool, "connections")


def acquired_producer(app: Celery, producer: Any = None) -> AbstractContextManager[Any]:
    """A kombu producer: the one given, or one of the application's pool."""
    return nullcontext(producer) if producer is not None else _acquired(app, app.producer_pool, "producers")


@contextmanager
def _acquired(app: Celery, pool: Any, what: str) -> Iterator[Any]:
    """One of a pool, for the block.

    Raises:
        OperationalError: all are in use, for longer than `broker_pool_acquire_timeout` (API-016).
    """
    from kombu.exceptions import LimitExceeded

    timeout = app.conf.broker_pool_acquire_timeout
    try:
        found = pool.acquire(block=True, timeout=timeout)
    except LimitExceeded as exc:
        raise exceptions.OperationalError(
            f"all {pool.limit} {what} of the pool (broker_pool_limit) are in use, and none came back within "
            f"{timeout} s (broker_pool_acquire_timeout)"
        ) from exc
    try:
        yield found
    finally:
        found.release()


def consumer(channel: Any, queues: Sequence[Queue], **options: Any) -> Any:
    """A kombu consumer of queues of ours."""
    from kombu.messaging import Consumer

    make: Any = Consumer  # kombu is untyped
    return make(channel, queues=[_as_kombu(queue) for queue in queues], **options)


def publish(
    message: Publish, producer: Any, over: Any, declare: Any = None, policy: dict[str, Any] | None = None
) -> None:
    """Send a message of ours through a kombu producer, or over a kombu connection.

    Args:
        message: what to send.
        producer: kombu's producer; None: `over` is used.
        over: kombu's connection.
        declare: kombu's entities to declare instead of the message's queue.
        policy: the retry policy; None: no retries.
    """
    from kombu.messaging import Producer

    envelope = message.envelope
    make: Any = Producer  # kombu is untyped
    sender = producer if producer is not None else make(over)
    properties = dict(envelope.properties)
    if "expiration" in properties:
        properties["expiration"] = int(properties["expiration"]) / 1000  # kombu takes seconds
    sender.publish(
        envelope.body,
        exchange=message.exchange,
        routing_key=message.routing_key,
        headers=dict(envelope.headers),
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        serializer=None,
        mandatory=message.mandatory,
        declare=declare or ([_as_kombu(message.queue)] if message.queue is not None else []),
        retry=policy is not None,
        retry_policy=policy,
        **properties,
    )


def _as_kombu(queue: Queue) -> Any:
    from kombu import entity

    make_exchange: Any = entity.Exchange  # kombu is untyped
    make_queue: Any = entity.Queue
    make_binding: Any = entity.binding
    exchange, *others = (
        make_exchange(
            each.name, each.type, durable=each.durable, auto_delete=each.auto_delete, arguments=each.arguments
        )
        for each in (queue.exchange, *(bound.exchange for bound in queue.bindings))
    )
    return make_queue(
        queue.name,
        exchange,
        routing_key=queue.routing_key,
        bindings=[
            make_binding(other, routing_key=bound.routing_key, arguments=bound.arguments)
            for other, bound in zip(others, queue.bindings, strict=True)
        ],
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        queue_arguments=queue.declared_arguments(),
        binding_arguments=queue.binding_arguments,
    )
