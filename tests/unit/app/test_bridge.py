"""Through kombu's producers and connections, messages are the same as without (API-016, API-021, API-026)."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from kombu import Exchange, Queue

from celery import Celery
from celery.app.brokers import open_receiver

SOON = 10.0
BROKERS = [
    "memory",
    "sqlite",
    pytest.param("redis", marks=pytest.mark.needs("redis")),
    pytest.param("rabbitmq", marks=pytest.mark.needs("rabbitmq")),
]


@pytest.fixture(params=BROKERS)
def app(request):
    """An application with a queue of its own."""
    if request.param == "memory":
        url = f"memory://{uuid.uuid4()}"
    elif request.param == "sqlite":
        url = f"sqlite:///{request.getfixturevalue('sqlite_path')}"
    else:
        url = request.getfixturevalue(f"{request.param}_url")
    with Celery("w", broker=url, set_as_current=False) as app:
        app.conf.task_default_queue = f"bridge-{uuid.uuid4()}"
        yield app


def received(app, count):
    """So many envelopes from the application's queues."""

    async def receive():
        receiver = open_receiver(app, app.conf.broker_url, "w@h")
        await receiver.open()
        try:
            for queue in app.amqp.queues.values():
                await receiver.consume(queue)
            found = []
            async with asyncio.timeout(SOON):
                while len(found) < count:
                    found += await receiver.receive(count)
            return [delivery.envelope for delivery in found]
        finally:
            await receiver.close()

    return asyncio.run(receive())


def shape(envelope):
    """All of a message but what differs each time."""
    properties = {key: value for key, value in envelope.properties.items() if key not in ("delivery_tag", "reply_to")}
    return (
        {key: value for key, value in envelope.headers.items() if key not in ("eta", "expires")},
        properties.pop("priority", 0) or 0,
        {key: str(value) for key, value in properties.items() if key in ("correlation_id", "delivery_mode", "app_id")},
        envelope.content_type,
        envelope.content_encoding,
        envelope.body,
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib"}, {"serializer": "pickle", "priority": 3}, {"headers": {"x": 1}, "app_id": "me"}],
    ids=str,
)
def test_a_message_is_the_same_by_every_way(app, options):
    app.send_task("t", (1,), {"k": "ä"}, task_id="i", **options)
    with app.producer_or_acquire() as producer:
        app.send_task("t", (1,), {"k": "ä"}, task_id="i", producer=producer, **options)
    with app.connection_for_write() as connection:
        app.send_task("t", (1,), {"k": "ä"}, task_id="i", connection=connection, **options)
        asyncio.run(app.asend_task("t", (1,), {"k": "ä"}, task_id="i", connection=connection, **options))
    ours, *others = map(shape, received(app, 4))
    for other in others:
        assert other == ours


def test_an_expiry_is_the_same_by_every_way(app):
    app.send_task("t", expires=60)
    with app.producer_or_acquire() as producer:
        app.send_task("t", expires=60, producer=producer)
    left = [int(envelope.properties["expiration"]) for envelope in received(app, 2)]
    assert all(50_000 < each <= 60_000 for each in left)


def test_entities_of_kombu_are_declared_with_it(app):
    name = f"extra-{uuid.uuid4()}"
    with app.connection_for_write() as connection:
        queue = Queue(name, Exchange(f"x-{name}", "topic"), routing_key="a.#", auto_delete=True)
        app.send_task("t", connection=connection, declare=[queue], queue=queue, routing_key="a.b")
        app.amqp.queues.add(queue)
        assert received(app, 1)[0].headers["task"] == "t"


def test_a_consumer_of_kombu_reads_what_was_sent(app):
    app.send_task("t", (1,))
    bodies = []
    with app.connection_for_read() as connection:

        def keep(body, message):
            bodies.append(body)
            message.ack()

        with app.amqp.TaskConsumer(connection.default_channel, callbacks=[keep]):
            while not bodies:
                connection.drain_events(timeout=SOON)
    assert bodies[0][0] == [1]


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_message_made_by_hand_is_like_another(app, protocol):
    app.conf.task_protocol = protocol
    app.send_task("t", (1,), {"k": 2}, task_id="i", argsrepr="(1,)", ignore_result=True)
    made = app.amqp.create_task_message("i", "t", (1,), {"k": 2}, ignore_result=True)
    assert made.properties["correlation_id"] == "i"
    make = {1: app.amqp.as_task_v1, 2: app.amqp.as_task_v2}[protocol]
    assert make("i", "t", (1,), {"k": 2}, ignore_result=True) == made
    with app.producer_or_acquire() as producer:
        app.amqp.send_task_message(producer, "t", made)
    app.amqp.send_task_message(None, "t", made)
    first, second, third = map(shape, received(app, 3))
    assert first == second == third


def test_kombus_classes_are_at_hand(app):
    import kombu

    assert app.amqp.Connection is kombu.Connection
    assert app.amqp.Producer is kombu.Producer
    assert app.amqp.Consumer is kombu.Consumer
    assert app.amqp.producer_pool is app.amqp.publisher_pool is app.producer_pool
    assert app.amqp.BrokerConnection is kombu.Connection
    assert app.amqp.utc is app.conf.enable_utc
