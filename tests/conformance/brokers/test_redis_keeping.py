"""What follows a task on Redis and stays with its worker: when it does, and that it is never in nobody's care."""

from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec
import pytest
from redis_server import message, receiving

from celery import exceptions
from celery.brokers.base import Settlement, Verdict

pytestmark = pytest.mark.needs("redis")

LARGE = 100_000


@pytest.fixture(autouse=True)
def alone(server):
    """Who does not wait for messages knows that there are none without asking for more."""
    server.forbid_waiting()


def pushes(server):
    """How many of the commands since this was asked last put something into a list, each counted once."""
    return len({"lpush", "rpush"} & server.calls().keys())


@contextlib.asynccontextmanager
async def keeping(server, idle=1, queues=("q",), node="w@h"):
    """A receiver whose worker could run so many at once."""
    async with receiving(server, *queues, node=node) as receiver:
        receiver.keep_for(lambda: idle)
        yield receiver


async def take(receiver, count=1, limit=100):
    found = []
    async with asyncio.timeout(15):
        while len(found) < count:
            found += await receiver.receive(limit)
    return found


async def nothing_comes(receiver):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await receiver.receive(10)


async def begun(server, receiver, *task_ids):
    """Messages, taken by a worker that has seen since that there are no others."""
    server.send(*task_ids)
    found = await take(receiver, len(task_ids))
    await nothing_comes(receiver)
    return found


def ids(deliveries):
    return [delivery.envelope.headers["id"] for delivery in deliveries]


def done(delivery, *follow):
    return Settlement(delivery, Verdict.ACK, follow=follow)


@pytest.mark.parametrize("size", [10, LARGE])
def test_what_follows_is_in_no_list_and_comes_with_the_next_receive(server, size):
    async def run():
        async with keeping(server) as receiver:
            (first,) = await begun(server, receiver, "1")
            pushes(server)
            assert await receiver.settle([done(first, message("2", size=size))]) == []
            assert pushes(server) == 0
            assert server.held() == 1
            (second,) = await take(receiver)
            assert ids([second]) == ["2"]
            assert (second.queue, second.redelivered, second.failures) == ("q", False, 0)
            assert second.envelope.body == b"x" * size
            assert server.raw.call("HVALS", "unacked") == [b"[" + second.text + b', "", "q"]']
            score = server.raw.call("ZRANGE", "unacked_index", 0, 0, "WITHSCORES")[1]
            assert abs(float(score) - time.time()) < 60
            assert await receiver.settle([done(second)]) == []
            assert server.held() == 0
        assert server.raw.call("KEYS", "*") == []

    asyncio.run(run())


def test_who_waits_in_receive_is_woken(server):
    async def run():
        async with keeping(server) as receiver:
            (first,) = await begun(server, receiver, "1")
            waiting = asyncio.create_task(take(receiver))
            await asyncio.sleep(0)
            await receiver.settle([done(first, message("2"))])
            assert ids(await waiting) == ["2"]

    asyncio.run(run())


def test_a_worker_without_room_sends_what_follows_to_its_queue(server):
    async def run():
        async with keeping(server, idle=0) as receiver:
            (first,) = await begun(server, receiver, "1")
            await receiver.settle([done(first, message("2"))])
            assert (server.lying(), server.held()) == (1, 0)

    asyncio.run(run())


def test_no_more_are_kept_than_could_begin(server):
    async def run():
        async with keeping(server, idle=2) as receiver:
            first = await begun(server, receiver, *"12345")
            follow = [done(each, message(f"{number}b")) for number, each in enumerate(first, 1)]
            await receiver.settle(follow)
            assert (server.lying(), server.held()) == (3, 2)
            assert sorted(ids(await take(receiver, 5))) == ["1b", "2b", "3b", "4b", "5b"]

    asyncio.run(run())


@pytest.mark.parametrize(
    "follow",
    [
        [message("2", queue="other")],
        [message("2", eta="2100-01-01T00:00:00+00:00")],
        [msgspec.structs.replace(message("2"), until=4e9)],
        [message("2"), message("3")],
    ],
    ids=["another queue", "an eta", "a later moment", "several"],
)
def test_what_this_worker_would_not_run_at_once_goes_to_its_queue(server, follow):
    async def run():
        async with keeping(server) as receiver:
            (first,) = await begun(server, receiver, "1")
            await receiver.settle([done(first, *follow)])
            assert server.held() == 0
            assert sum(server.lying(name) for name in ("q", "other")) == len(follow)

    asyncio.run(run())


def test_where_other_messages_wait_what_follows_waits_behind_them(server):
    async def run():
        async with keeping(server) as receiver:
            server.send("1", "2")
            (first,) = await take(receiver, limit=1)
            await receiver.settle([done(first, message("3"))])
            assert server.lying() == 2
            assert ids(await take(receiver, 2)) == ["2", "3"]

    asyncio.run(run())


def test_nothing_is_kept_of_a_queue_that_was_cancelled(server):
    async def run():
        async with keeping(server, queues=("q", "r")) as receiver:
            (first,) = await begun(server, receiver, "1")
            await receiver.cancel("q")
            await receiver.settle([done(first, message("2"))])
            assert (server.lying(), server.held()) == (1, 0)

    asyncio.run(run())


def test_a_message_of_any_priority_is_kept(server):
    async def run():
        async with keeping(server) as receiver:
            (first,) = await begun(server, receiver, "1")
            await receiver.settle([done(first, message("2", priority=9))])
            assert server.held() == 1
            assert ids(await take(receiver)) == ["2"]

    asyncio.run(run())


@pytest.mark.parametrize("size", [10, LARGE])
def test_a_settlement_that_comes_too_late_keeps_nothing(server, size):
    async def run():
        async with keeping(server) as receiver:
            (first,) = await begun(server, receiver, "1")
            tag = first.receipt.tag
            server.raw.call("HDEL", "unacked", tag)
            server.raw.call("ZREM", "unacked_index", tag)
            assert await receiver.settle([done(first, message("2", size=size))]) == [first]
            server.raw.call("SREM", server.raw.call("KEYS", "celeriac.held.*")[0], tag)
            assert (server.lying(), server.held()) == (0, 0)
            await nothing_comes(receiver)

    asyncio.run(run())


def test_a_server_that_has_forgotten_the_script_is_told_it_again(server):
    async def run():
        async with keeping(server) as receiver:
            (first,) = await begun(server, receiver, "1")
            server.raw.call("SCRIPT", "FLUSH")
            await receiver.settle([done(first, message("2", size=LARGE))])
            assert server.held() == 1
            assert ids(await take(receiver)) == ["2"]

    asyncio.run(run())


def test_what_was_kept_is_delivered_though_another_settlement_of_the_batch_fails(server):
    async def run():
        async with keeping(server) as receiver:
            server.raw.call("SET", "broken", "no list")
            first, second = await begun(server, receiver, "1", "2")
            with pytest.raises(exceptions.OperationalError):
                await receiver.settle([done(first, message("1b")), done(second, message("2b", queue="broken"))])
            assert ids(await take(receiver)) == ["1b"]
            assert server.held() == 3

    asyncio.run(run())


def test_what_was_not_kept_because_its_batch_failed_leaves_no_record(server):
    async def run():
        async with keeping(server) as receiver:
            server.raw.call("SET", "broken", "no list")
            first, second = await begun(server, receiver, "1", "2")
            with pytest.raises(exceptions.OperationalError):
                await receiver.settle([done(first, message("1b", queue="broken")), done(second, message("2b"))])
            assert server.held() == 2
            await nothing_comes(receiver)

    asyncio.run(run())


def test_what_was_kept_and_not_received_goes_back_when_the_worker_ends(server):
    async def run():
        async with keeping(server) as receiver:
            (first,) = await begun(server, receiver, "1")
            await receiver.settle([done(first, message("2"))])
        assert (server.lying(), server.held()) == (1, 0)
        async with keeping(server) as receiver:
            (second,) = await take(receiver)
            assert (ids([second]), second.failures) == (["2"], 0)

    asyncio.run(run())


def test_what_was_kept_as_the_connection_was_cut_comes_to_the_next_one(server):
    async def run():
        async with keeping(server) as receiver:
            (first,) = await begun(server, receiver, "1")
            settling = asyncio.create_task(receiver.settle([done(first, message("2"))]))
            await asyncio.sleep(0)  # it is written
            server.raw.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            with contextlib.suppress(exceptions.OperationalError):
                await settling
        async with keeping(server) as receiver:
            (found,) = await take(receiver)
            # Which one depends on who was faster; there is one in either case.
            assert ids([found]) in (["1"], ["2"])
            await nothing_comes(receiver)

    asyncio.run(run())


def test_a_kept_message_counts_as_what_the_next_receive_may_take(server):
    async def run():
        async with keeping(server) as receiver:
            (first,) = await begun(server, receiver, "1")
            waiting = asyncio.create_task(receiver.receive(1))
            await asyncio.sleep(0)
            server.send("3")
            # Written before the notice of what was sent is read.
            await receiver.settle([done(first, message("2"))])
            assert ids(await waiting) == ["2"]
            assert (server.lying(), server.held()) == (1, 1)
            assert ids(await take(receiver)) == ["3"]

    asyncio.run(run())
