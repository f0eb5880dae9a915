"""Large messages on Redis: taken in two steps, and what happens when the second does not come (wire.md 6.1, 6.2)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import textwrap
import tracemalloc

import pytest
from redis_server import receiving

from celery import exceptions
from celery.brokers.base import Publish, Settlement, Verdict
from celery.brokers.redis import Receiver, Sender
from celery.brokers.redis.address import read
from celery.brokers.redis.blocking import Connection
from celery.brokers.redis.scripts import load
from celery.brokers.topology import Exchange, Queue
from celery.wire.envelope import Envelope

pytestmark = pytest.mark.needs("redis")

LARGE, SMALL = 100_000, 10


@pytest.fixture
def server(private_redis):
    return private_redis()


def send(url, *sizes, queue="q", priority=0, first=0):
    """Send messages of these sizes, numbered."""
    with contextlib.closing(Sender(url, {})) as sender:
        for number, size in enumerate(sizes, first):
            envelope = Envelope({"id": str(number)}, b"x" * size, properties={"priority": priority})
            sender.publish([Publish(envelope, "", queue)])


def raw(url):
    return contextlib.closing(Connection(read(url, {})))


async def take(receiver, count, limit=100):
    found = []
    async with asyncio.timeout(15):
        while len(found) < count:
            found += await receiver.receive(limit)
    return found


def numbers(deliveries):
    return [int(delivery.envelope.headers["id"]) for delivery in deliveries]


def acknowledge(receiver, deliveries):
    return receiver.settle([Settlement(delivery, Verdict.ACK) for delivery in deliveries])


def test_large_and_small_messages_come_in_order_and_are_recorded_alike(server):
    sizes = [LARGE, LARGE, SMALL, LARGE, SMALL, SMALL, LARGE, LARGE, LARGE] * 4
    send(server.url, *sizes)

    async def run():
        with raw(server.url) as redis:
            lying = redis.call("LRANGE", "q", 0, -1)
            async with receiving(server) as receiver:
                found = await take(receiver, len(sizes))
                assert numbers(found) == list(range(len(sizes)))
                records = redis.call("HVALS", "unacked")
                assert sorted(records) == sorted(b"[" + text + b', "", "q"]' for text in lying)
                assert redis.call("ZCARD", "unacked_index") == len(sizes)
                assert await acknowledge(receiver, found) == []
                assert redis.call("EXISTS", "unacked", "unacked_index") == 0
            assert redis.call("KEYS", "celeriac.*") == []

    asyncio.run(run())


def test_what_is_urgent_goes_before_what_is_large(server):
    send(server.url, *[LARGE] * 4, priority=9)

    async def run():
        async with receiving(server) as receiver:
            assert numbers(await take(receiver, 1, limit=1)) == [0]
            send(server.url, SMALL, first=100)
            assert numbers(await take(receiver, 4)) == [100, 1, 2, 3]

    asyncio.run(run())


def test_a_queue_of_large_messages_takes_turns_with_others(server):
    send(server.url, *[LARGE] * 40)
    send(server.url, *[SMALL] * 3, queue="other", first=100)

    async def run():
        async with receiving(server, "q", "other") as receiver:
            found = await take(receiver, 43, limit=4)
        assert max(numbers(found).index(number) for number in (100, 101, 102)) < 10

    asyncio.run(run())


def test_closing_returns_large_messages_in_order_and_uncounted(server):
    send(server.url, *[LARGE] * 12)

    async def run():
        async with receiving(server) as receiver:
            await take(receiver, 5)
        async with receiving(server) as receiver:
            found = await take(receiver, 12)
        assert numbers(found) == list(range(12))
        assert {delivery.failures for delivery in found} == {0}

    asyncio.run(run())


def test_one_claim_takes_some_megabytes_of_large_messages(server):
    send(server.url, *[LARGE] * 50)

    async def run():
        async with receiving(server) as receiver:
            await take(receiver, 1, limit=1)
            assert 10 < len(await receiver.receive(100)) <= (4 << 20) // LARGE

    asyncio.run(run())


def test_a_message_that_is_larger_than_a_subscriber_may_be_owed_is_claimed(server):
    """The server cuts off subscribers to whom it owes more than `client-output-buffer-limit` says, 32 MB by default."""
    with raw(server.url) as redis:
        redis.call("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 60")
    send(server.url, 3_000_000, 10, 3_000_000)

    async def run():
        async with receiving(server, "none") as receiver:
            await receiver.listen(Queue("", Exchange("news", "fanout")), print)
            await receiver.consume(Queue("q"))
            assert sorted(numbers(await take(receiver, 3))) == [0, 1, 2]

    asyncio.run(run())


async def until(condition):
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 - only the server knows
            await asyncio.sleep(0.01)


def test_large_messages_go_on_being_claimed_while_nobody_receives_up_to_the_room_that_there_was(server):
    send(server.url, *[LARGE] * 60)

    async def run():
        with raw(server.url) as redis:
            async with receiving(server) as receiver:
                await take(receiver, 1, limit=1)
                found = await receiver.receive(40)
                assert len(found) < 40
                await until(lambda: redis.call("LLEN", "q") < 60 - 1 - len(found))  # nobody receives now
                await until(lambda: redis.call("HLEN", "unacked") == 1 + 40)
                assert redis.call("LLEN", "q") == 60 - 1 - 40
                found += await receiver.receive(40)
                assert numbers(found) == list(range(1, 41))
                await until(lambda: redis.call("LLEN", "q") == 0)
                assert numbers(await take(receiver, 19)) == list(range(41, 60))

    asyncio.run(run())


def test_what_was_claimed_for_nobody_yet_goes_back_when_its_receiver_closes(server):
    send(server.url, *[LARGE] * 60)

    async def run():
        with raw(server.url) as redis:
            async with receiving(server) as receiver:
                await take(receiver, 1, limit=1)
                found = await receiver.receive(59)
                assert len(found) < 59
            assert redis.call("LLEN", "q") == 60
            async with receiving(server) as receiver:
                found = await take(receiver, 60)
        assert numbers(found) == list(range(60))
        assert {delivery.failures for delivery in found} == {0}

    asyncio.run(run())


DYING = """
    import asyncio, os, signal, sys
    from celery.brokers.base import Settlement, Verdict
    from celery.brokers.redis import Receiver
    from celery.brokers.redis.address import read
    from celery.brokers.redis.blocking import Connection
    from celery.brokers.topology import Exchange, Queue

    async def main(url):
        receiver = Receiver(url, {}, node="dying@host")
        await receiver.open()
        await receiver.consume(Queue("q"))
        [first] = await receiver.receive(1)
        await receiver.settle([Settlement(first, Verdict.ACK)])
        await receiver.receive(3)
        Connection(read(url, {})).call("ACL", "SETUSER", "default", "-hset")
        try:
            await receiver.receive(100)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main(*sys.argv[1:]))
"""


def test_a_worker_that_dies_between_taking_and_recording_loses_nothing(server):
    send(server.url, *[LARGE] * 10)
    command = [sys.executable, "-c", textwrap.dedent(DYING), server.url]
    assert subprocess.run(command, timeout=30, check=False).returncode == -signal.SIGKILL

    async def run():
        with raw(server.url) as redis:
            redis.call("ACL", "SETUSER", "default", "+@all")
            [dead] = redis.call("ZRANGE", "celeriac.workers", 0, -1)
            claimed = redis.call("LLEN", b"celeriac.claim." + dead) - 1
            assert claimed > 0
            assert redis.call("HLEN", "unacked") + claimed + redis.call("LLEN", "q") == 9
            redis.call("ZADD", "celeriac.workers", 0, dead)
            async with receiving(server) as receiver:
                found = await take(receiver, 9)
            assert sorted(numbers(found)) == list(range(1, 10))
            counted = {int(delivery.envelope.headers["id"]): delivery.failures for delivery in found}
            assert counted == {number: int(number in (1, 2, 3)) for number in range(1, 10)}
            assert not any(redis.call("KEYS", pattern) for pattern in ("celeriac.claim.*", "unacked*"))

    asyncio.run(run())


def test_a_receiver_that_may_not_record_leaves_the_messages_to_the_next(server):
    send(server.url, *[LARGE] * 6)

    async def run():
        with raw(server.url) as redis:
            receiver = Receiver(server.url, {}, node="w@h")
            await receiver.open()
            await receiver.consume(Queue("q"))
            assert await acknowledge(receiver, await take(receiver, 1, limit=1)) == []
            redis.call("ACL", "SETUSER", "default", "-hset")
            with pytest.raises(exceptions.ImproperlyConfigured, match="hset"):
                await take(receiver, 1)
            await receiver.close()
            redis.call("ACL", "SETUSER", "default", "+@all")
            async with receiving(server) as heir:
                found = await take(heir, 5)
            assert numbers(found) == [1, 2, 3, 4, 5]
            assert {(delivery.failures, delivery.redelivered) for delivery in found} == {(0, False)}

    asyncio.run(run())


def test_who_comes_too_late_to_record_what_was_put_back_changes_nothing(server):
    with raw(server.url) as redis:
        names = ("unacked", "unacked_index", "celeriac.held.w", "celeriac.claim.w")
        redis.call("HSET", "unacked", "t1", json.dumps([{}, "", "q"]), "t2", json.dumps([{}, "", "q"]))
        assert redis.run(load("record"), *names, "t1", "t2") == 0
        assert redis.call("KEYS", "*") == []


def test_commands_that_arrive_after_a_takeover_are_found_by_the_next_look(server):
    # What a lost connection still had on its way: its worker's id is forgotten by then.
    send(server.url, *[LARGE] * 2)

    async def run():
        with raw(server.url) as redis:
            async with receiving(server) as receiver:
                assert await acknowledge(receiver, await take(receiver, 1, limit=1)) == []
                [worker] = redis.call("ZRANGE", "celeriac.workers", 0, -1)
                redis.call("ZREM", "celeriac.workers", worker)
                found = await take(receiver, 1)
                assert redis.call("ZRANGE", "celeriac.workers", 0, -1) == [worker]
                assert await acknowledge(receiver, found) == []

    asyncio.run(run())


# --- batches that are too long for one write --------------------------------------------------------------------------


def large_batch(count, queue="q"):
    """Messages that share their body, so that they are small until they are written."""
    body = b"x" * LARGE
    return [Publish(Envelope({"id": str(number)}, body), "", queue) for number in range(count)]


def test_of_a_long_batch_a_little_is_in_memory_at_a_time(server):
    batch = large_batch(100)
    with contextlib.closing(Sender(server.url, {})) as sender, raw(server.url) as redis:
        sender.publish(batch[:2])
        redis.call("DEL", "q")
        tracemalloc.start()
        try:
            sender.publish(batch)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        lying = [json.loads(text) for text in reversed(redis.call("LRANGE", "q", 0, -1))]
    assert [message["headers"]["id"] for message in lying] == [str(number) for number in range(100)]
    assert {len(message["body"]) for message in lying} == {(LARGE + 2) // 3 * 4}
    assert peak < 6_000_000


DYING_SENDER = """
    import os, signal, sys
    from celery.brokers.base import Publish
    from celery.brokers.redis import Sender
    from celery.wire.envelope import Envelope

    class Deadly:
        def __getattr__(self, name):
            os.kill(os.getpid(), signal.SIGKILL)

    batch = [Envelope({"id": str(number)}, b"x" * 100_000) for number in range(50)]
    Sender(sys.argv[1], {}).publish([Publish(each, "", "q") for each in (*batch, Deadly())])
"""


def test_a_sender_that_dies_in_the_middle_of_a_long_batch_leaves_nothing_of_it(server):
    """So a header is there as a whole, or is not: what has been written of it by then does not count."""
    command = [sys.executable, "-c", textwrap.dedent(DYING_SENDER), server.url]
    assert subprocess.run(command, timeout=30, check=False).returncode == -signal.SIGKILL
    with raw(server.url) as redis:
        asyncio.run(until(lambda: redis.call("CLIENT", "LIST").count(b"\n") == 1))
        assert int(redis.call("INFO", "stats").partition(b"total_net_input_bytes:")[2].split()[0]) > 2_000_000
        assert redis.call("KEYS", "*") == []


def test_a_long_batch_that_is_refused_says_so_and_the_next_one_is_sent(server):
    with contextlib.closing(Sender(server.url, {})) as sender, raw(server.url) as redis:
        redis.call("SET", "q", "no list")
        with pytest.raises(exceptions.OperationalError, match="WRONGTYPE"):
            sender.publish(large_batch(30))
        redis.call("DEL", "q")
        sender.publish(large_batch(30))
        assert redis.call("LLEN", "q") == 30
