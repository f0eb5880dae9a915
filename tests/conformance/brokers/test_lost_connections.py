"""What every driver with a server does when the server cannot be reached, or dies."""

from __future__ import annotations

import asyncio
import importlib
import socket
import uuid

import pytest
from drivers import SOON, AmqpBench, RedisBench, ids, message, settle, take

from celery import exceptions
from celery.brokers.base import Publish, Verdict
from celery.brokers.topology import Queue

BENCHES = {"redis": RedisBench, "amqp": AmqpBench}


@pytest.fixture(params=list(BENCHES))
def nobody(request):
    """A driver and the URL of a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = importlib.import_module(f"celery.brokers.{request.param}")
    return driver, f"{request.param}://user:s3cret@127.0.0.1:{port}/0"


@pytest.fixture(
    params=[
        pytest.param("redis", marks=pytest.mark.needs("redis")),
        pytest.param("amqp", marks=pytest.mark.needs("rabbitmq")),
    ]
)
def mortal(request):
    """A bench on a server of its own, and the server."""
    kind = "redis" if request.param == "redis" else "rabbitmq"
    server = request.getfixturevalue(f"private_{kind}")()
    bench = BENCHES[request.param](request.param, server.url)
    yield bench, server
    bench.close()


def test_a_sender_says_which_server_it_could_not_reach(nobody):
    driver, url = nobody
    sender = driver.Sender(url, {"connect_timeout": 2.0})
    with pytest.raises(exceptions.OperationalError) as caught:
        sender.publish([Publish(message(), "", "q")], timeout=5.0)
    assert "127.0.0.1" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    sender.close()


async def test_a_receiver_says_which_server_it_could_not_reach(nobody):
    driver, url = nobody
    receiver = driver.Receiver(url, {"connect_timeout": 2.0}, node="w1@host")
    with pytest.raises(exceptions.OperationalError) as caught:
        await receiver.open()
    assert "127.0.0.1" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    await receiver.close()


async def test_a_server_that_dies_ends_every_wait_and_a_new_receiver_finds_the_messages(mortal):
    bench, server = mortal
    queue = Queue(f"q-{uuid.uuid4()}")
    sender = bench.sender()
    sender.publish([Publish(message("a"), "", queue.name, queue=queue)], confirm=True)
    async with bench.receiver(queue) as receiver:
        held = await take(receiver, 1)
        await settle(receiver, held, Verdict.RETURN)
        await receiver.cancel(queue.name)
        waiting = asyncio.create_task(receiver.receive(1))
        await asyncio.to_thread(server.stop)
        with pytest.raises(exceptions.OperationalError):
            await asyncio.wait_for(waiting, 15)
        with pytest.raises(exceptions.OperationalError):
            await asyncio.to_thread(sender.publish, [Publish(message("b"), "", queue.name)], timeout=3.0)
    await asyncio.to_thread(server.start)
    sender.publish([Publish(message("c"), "", queue.name, queue=queue)], confirm=True)
    async with bench.receiver(queue) as receiver:
        # What the server kept of the first one is its own affair.
        got = await take(receiver, 1)
        while ids(got)[-1] != "c":
            got += await take(receiver, 1, within=SOON)
        assert await settle(receiver, got) == []
