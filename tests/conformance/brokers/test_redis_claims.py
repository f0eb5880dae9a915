"""How a receiver on Redis claims and waits: what it asks the server for, and that no message escapes it.

A claim that no notice led to would come after five seconds at most, so what must be told has to come in less.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from redis_server import receiving

from celery.brokers.topology import Queue

pytestmark = pytest.mark.needs("redis")

#: Seconds in which a notice leads to a claim, on a busy machine too.
TOLD = 3.0


#: Of the commands, those that a claim is made of.
OF_CLAIMS = ("ltrim", "client|caching", "exists")


@pytest.fixture(autouse=True)
def alone(server):
    """`test_redis_waiting.py` is about connections on which somebody waits."""
    server.forbid_waiting()


def claims(server):
    """What was asked for since this was asked last."""
    calls = server.calls()
    return {name: calls.get(name, 0) for name in OF_CLAIMS}


async def take(receiver, limit=10):
    async with asyncio.timeout(TOLD):
        return [int(delivery.envelope.headers["id"]) for delivery in await receiver.receive(limit)]


@contextlib.asynccontextmanager
async def waiting(receiver, limit=10):
    """A `receive` that has found nothing and waits."""
    task = asyncio.create_task(take(receiver, limit))
    await asyncio.wait([task], timeout=0.3)
    assert not task.done()
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_lone_message_is_one_claim_with_one_look(server):
    async def run():
        async with receiving(server) as receiver:
            async with waiting(receiver) as first:
                claims(server)
                server.send(1)
                assert await first == [1]
            async with waiting(receiver):
                # The script asks once which lists have messages; the look asks whether they still do.
                assert claims(server) == {"ltrim": 1, "client|caching": 1, "exists": 2}

    asyncio.run(run())


def test_what_a_small_claim_leaves_comes_with_the_next_ones(server):
    async def run():
        async with receiving(server) as receiver:
            async with waiting(receiver) as warm:  # the server knows the script now
                server.send(9)
                assert await warm == [9]
            server.send(*range(5))
            assert [await take(receiver, 2) for _ in range(3)] == [[0, 1], [2, 3], [4]]
            async with waiting(receiver) as last:
                server.send(5)
                assert await last == [5]

    asyncio.run(run())


def test_a_backlog_is_claimed_without_a_look_each_time_and_what_follows_it_is_told(server):
    async def run():
        server.send(*range(40))
        async with receiving(server) as receiver:
            claims(server)
            for first in range(0, 40, 4):
                assert await take(receiver, 4) == list(range(first, first + 4))
            async with waiting(receiver) as last:
                assert claims(server)["client|caching"] <= 3
                server.send(40)
                assert await last == [40]

    asyncio.run(run())


def test_what_comes_while_nobody_waits_is_there_for_the_next_who_does(server):
    async def run():
        async with receiving(server, "q", "other") as receiver:
            for queue in ("q", "other", "q"):
                async with waiting(receiver):
                    pass  # given up
                server.send(1, queue=queue)
                assert await take(receiver) == [1]

    asyncio.run(run())


def test_what_was_claimed_for_one_who_gave_up_goes_to_the_next(server):
    async def run():
        async with receiving(server) as receiver:
            for number in range(20):
                impatient = asyncio.create_task(receiver.receive(1))
                server.send(number)
                await asyncio.sleep(number / 5000)  # anywhere between the notice and the delivery
                impatient.cancel()
                [given_up] = await asyncio.gather(impatient, return_exceptions=True)
                if isinstance(given_up, asyncio.CancelledError):
                    assert await take(receiver) == [number]

    asyncio.run(run())


def test_a_queue_that_is_added_while_a_receive_waits_is_claimed_from(server):
    async def run():
        server.send(1, queue="late")
        async with receiving(server) as receiver, waiting(receiver) as found:
            await receiver.consume(Queue("late"))
            assert await found == [1]

    asyncio.run(run())


def test_scripts_that_the_server_has_forgotten_are_sent_again(server):
    async def run():
        async with receiving(server) as receiver:
            for number in range(2):
                async with waiting(receiver) as found:
                    server.raw.call("SCRIPT", "FLUSH")
                    server.send(number)
                    assert await found == [number]

    asyncio.run(run())
