"""What only the memory broker has: names, sharing inside a process, forks."""

import asyncio
import os
import uuid

import pytest

from celery.brokers import memory
from celery.brokers.base import Publish, Settlement, Verdict
from celery.brokers.topology import Queue
from celery.exceptions import ImproperlyConfigured, OperationalError
from celery.wire.envelope import Envelope


def publish(queue, name="m", **fields):
    return Publish(Envelope({"id": name}, b""), "", queue, **fields)


@pytest.fixture
def url():
    return f"memory://{uuid.uuid4()}"


def test_a_name_is_one_store_and_another_name_another(url):
    one, same, other = (memory.Sender(at, {}) for at in (url, url + "/", url + "-other"))
    one.publish([publish("q")])
    assert (one.length("q"), same.length("q"), other.length("q")) == (1, 1, 0)


def test_a_forked_process_begins_with_an_empty_store(url):
    memory.Sender(url, {}).publish([publish("q")])
    child = os.fork()
    if child == 0:
        os._exit(memory.Sender(url, {}).length("q"))
    assert os.waitpid(child, 0)[1] == 0
    assert memory.Sender(url, {}).length("q") == 1


def test_a_message_may_be_held_back_by_its_sender(url):
    async def scenario():
        sender = memory.Sender(url, {})
        receiver = memory.Receiver(url, {}, node="w")
        await receiver.open()
        await receiver.consume(Queue("q"))
        from time import time

        until = time() + 0.2
        sender.publish([publish("q", "later", until=until), publish("q", "now")])
        (now,) = await receiver.receive(10)
        assert sender.length("q") == 0
        (later,) = await asyncio.wait_for(receiver.receive(10), 10)
        assert time() >= until
        assert [one.envelope.headers["id"] for one in (now, later)] == ["now", "later"]
        await receiver.settle([Settlement(one, Verdict.ACK) for one in (now, later)])
        await receiver.close()

    asyncio.run(scenario())


def test_a_queue_that_deletes_itself_goes_with_its_last_consumer(url):
    async def scenario():
        sender = memory.Sender(url, {})
        queue = Queue("private", auto_delete=True)
        receivers = [memory.Receiver(url, {}, node=f"w{number}") for number in range(2)]
        for receiver in receivers:
            await receiver.open()
            await receiver.consume(queue)
        sender.publish([publish("private")])
        await receivers[0].cancel("private")
        assert sender.length("private") == 1
        await receivers[1].cancel("private")
        assert sender.length("private") == 0
        for receiver in receivers:
            await receiver.close()

    asyncio.run(scenario())


def test_a_closed_receiver_says_so(url):
    async def scenario():
        receiver = memory.Receiver(url, {}, node="w")
        await receiver.open()
        await receiver.close()
        with pytest.raises(OperationalError, match="closed"):
            await receiver.receive(1)
        with pytest.raises(OperationalError, match="closed"):
            await receiver.listen(Queue("l"), print)

    asyncio.run(scenario())


def test_a_priority_that_is_no_number_is_the_usual_one(url):
    sender = memory.Sender(url, {})
    envelopes = [Envelope({"id": str(value)}, b"", properties={"priority": value}) for value in (None, "high", 9)]
    sender.publish([Publish(one, "", "q") for one in envelopes])
    assert sender.length("q") == 3


def test_the_dead_queue_is_bounded(url, monkeypatch):
    async def scenario():
        sender = memory.Sender(url, {})
        sender.publish([publish("q", str(number)) for number in range(memory.MAX_DEAD + 5)])
        receiver = memory.Receiver(url, {}, node="w")
        await receiver.open()
        await receiver.consume(Queue("q"))
        got = await receiver.receive(memory.MAX_DEAD + 5)
        await receiver.settle([Settlement(one, Verdict.DEAD) for one in got])
        assert sender.length("q.dead") == memory.MAX_DEAD
        assert sender.dead_letters("q", 1)[0].message.headers["id"] == str(memory.MAX_DEAD + 4)
        await receiver.close()

    asyncio.run(scenario())


def test_a_url_that_is_none_is_refused():
    with pytest.raises(ImproperlyConfigured):
        memory.Sender("memory://h:port", {})
