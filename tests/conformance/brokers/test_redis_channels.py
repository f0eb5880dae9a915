"""The connection on which a receiver hears channels."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid

import pytest
from drivers import eventually
from redis_server import RedisServer

from celery.brokers.redis import Receiver, address, streaming
from celery.brokers.redis.keys import Keys
from celery.brokers.redis.routing import Routes
from celery.brokers.redis.subscriptions import Subscriptions
from celery.brokers.topology import Exchange, Queue

pytestmark = pytest.mark.needs("redis")


def broadcast():
    return Queue(f"q-{uuid.uuid4()}", Exchange(f"x-{uuid.uuid4()}", "fanout"))


async def test_one_that_opens_while_its_receiver_closes_is_closed_too(redis_url):
    name = f"w-{uuid.uuid4()}"
    url = f"{redis_url}?client_name={name}"
    with contextlib.closing(RedisServer(redis_url)) as server:

        def theirs():
            return server.raw.call("CLIENT", "LIST").decode().count(f"name={name}")

        for steps in range(0, 60, 3):  # one of them is in the middle of it
            receiver = Receiver(url, {}, node="w1@host")
            await receiver.open()
            listening = asyncio.create_task(receiver.listen(broadcast(), lambda _: None))
            for _ in range(steps):
                await asyncio.sleep(0)
            await receiver.close()
            await asyncio.gather(listening, return_exceptions=True)
        await eventually(lambda: theirs() == 0)


async def until(condition):
    while not condition():  # noqa: ASYNC110 - looks at each turn of the loop: it is soon over
        await asyncio.sleep(0)


class Jumping(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward, as when its process has stood still."""

    passed = 0.0

    def time(self):
        return super().time() + self.passed


def test_a_process_that_stood_still_while_its_sign_of_life_was_answered_has_lost_nothing(redis_url):
    server = address.read(redis_url, {})

    async def main(loop):
        heard = []

        async def connect(ended):
            heard.append(await streaming.connect(server, lambda push: subscriptions.pushed(push), ended))
            return heard[0]

        keys, queue = Keys({}, server.database), broadcast()
        stream = await streaming.connect(server, lambda _: None, lambda: None)
        subscriptions = Subscriptions(stream, connect, keys, Routes(keys, None), tracked=True)
        await subscriptions.bind(queue)
        await subscriptions.subscribe(queue, lambda _: None)
        for _ in range(2):
            loop.passed += 10.5
            await until(lambda: heard[0].asked)
            time.sleep(0.05)  # noqa: ASYNC251 - the server answers, and nobody reads it
            loop.passed += 10.5
            await until(lambda: not heard[0].asked)
            await asyncio.sleep(0.02)
            assert (stream.failure, heard[0].failure) == (None, None)
        subscriptions.stop()
        stream.close()

    loop = Jumping()
    loop.run_until_complete(asyncio.wait_for(main(loop), 60))
    loop.close()
