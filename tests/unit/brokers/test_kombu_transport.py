"""kombu's own objects on the brokers that only we drive (API-016)."""

from __future__ import annotations

import uuid

import pytest
from kombu import Consumer, Exchange, Producer, Queue

from celery import Celery
from celery.app.brokers import open_sender

SOON = 10.0


@pytest.fixture(params=["memory", "sqlite"])
def app(request, tmp_path):
    """An application on a store of the test's own."""
    url = f"memory://{uuid.uuid4()}" if request.param == "memory" else f"sqlite:///{tmp_path}/store"
    with Celery("w", broker=url, set_as_current=False) as app:
        yield app


@pytest.fixture
def connection(app):
    with app.connection() as connection:
        yield connection


def dead_letters(app, queue):
    sender = open_sender(app, app.conf.broker_url)
    try:
        return [letter.message.body for letter in sender.dead_letters(queue)]
    finally:
        sender.close()


def test_a_message_goes_by_exchange_and_binding_and_arrives_as_it_was_sent(connection):
    queue = Queue("q", Exchange("weather", "topic"), routing_key="*.rain")
    producer = Producer(connection)
    sent = {"exchange": queue.exchange, "declare": [queue], "headers": {"h": "ä"}, "priority": 3}
    producer.publish({"a": 1}, routing_key="berlin.rain", correlation_id="c", **sent)
    producer.publish({"a": 2}, routing_key="berlin.sun", **sent)
    bound = queue(connection.default_channel)
    message = bound.get()
    assert message.payload == {"a": 1}
    assert message.headers == {"h": "ä"}
    assert (message.properties["correlation_id"], message.properties["priority"]) == ("c", 3)
    assert message.delivery_info["exchange"] == "weather"
    assert message.delivery_info["routing_key"] == "berlin.rain"
    message.ack()
    assert bound.get() is None


def test_a_fan_out_exchange_gives_each_queue_a_copy(connection):
    news = Exchange("news", "fanout")
    queues = [Queue(name, news)(connection.default_channel) for name in ("one", "two")]
    for queue in queues:
        queue.declare()
    Producer(connection).publish("extra", exchange=news)
    assert [queue.get(no_ack=True).payload for queue in queues] == ["extra", "extra"]


def test_a_simple_queue_works_between_two_connections(app, connection):
    with app.connection() as other, connection.SimpleQueue("simple") as mine, other.SimpleQueue("simple") as theirs:
        for number in range(3):
            mine.put({"number": number})
        assert theirs.qsize() == 3
        assert [theirs.get(timeout=SOON).payload["number"] for _ in range(2)] == [0, 1]
        assert mine.get(timeout=SOON).payload["number"] == 2
        with pytest.raises(mine.Empty):
            mine.get(block=False)
        with pytest.raises(mine.Empty):
            mine.get(timeout=0.05)


def test_what_is_not_settled_goes_back_when_the_connection_closes(app, connection):
    with connection.SimpleQueue("q") as queue:
        queue.put("kept")
        queue.put("done")
        with app.connection() as other:
            theirs = other.SimpleQueue("q")
            assert theirs.get(timeout=SOON).payload == "kept"
            theirs.get(timeout=SOON).ack()
            assert queue.qsize() == 0
        message = queue.get(timeout=SOON)
        assert (message.payload, message.delivery_info["redelivered"]) == ("kept", True)
        assert queue.qsize() == 0


def test_a_requeued_message_comes_again_and_a_rejected_one_is_a_dead_letter(app, connection):
    with connection.SimpleQueue("q") as queue:
        queue.put(1)
        queue.put(2)
        queue.get(timeout=SOON).requeue()
        first = queue.get(timeout=SOON)
        assert first.payload == 1
        first.reject()
        queue.get(timeout=SOON).ack()
        assert queue.qsize() == 0
    assert dead_letters(app, "q") == [b"1"]


def test_a_consumer_without_acknowledgement_keeps_nothing(app, connection):
    taken = []
    with app.connection() as other:
        Producer(other).publish("now", routing_key="q")
        with Consumer(other, [Queue("q")], callbacks=[lambda body, _: taken.append(body)], no_ack=True):
            other.drain_events(timeout=SOON)
    assert taken == ["now"]
    assert Queue("q")(connection.default_channel).get() is None


def test_a_prefetch_count_bounds_what_is_held(app, connection):
    held = []
    channel = connection.channel()
    with connection.SimpleQueue("q") as queue:
        for number in range(3):
            queue.put(number)
    with Consumer(channel, [Queue("q")], on_message=held.append, prefetch_count=2):
        for _ in range(2):
            connection.drain_events(timeout=SOON)
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.1)
        assert [message.payload for message in held] == [0, 1]
        held[0].ack()
        connection.drain_events(timeout=SOON)
    assert [message.payload for message in held] == [0, 1, 2]


def test_a_task_sent_by_the_application_is_read_with_kombu(app, connection):
    app.send_task("t", (1, 2), task_id="i")
    message = app.amqp.queues["celery"].name
    got = Queue(message)(connection.default_channel).get()
    assert (got.headers["task"], got.headers["id"], got.payload[0]) == ("t", "i", [1, 2])
    got.ack()


def test_a_file_that_cannot_be_had_is_a_connection_error():
    with Celery("w", broker="sqlite:////no/such/folder/file", set_as_current=False) as app:
        with app.connection() as connection, pytest.raises(Exception, match="cannot be opened"):
            connection.ensure_connection(max_retries=1)
