"""What follows a task on Redis and stays with its worker: when it does, and that it is never in nobody's care."""

from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec
import pytest

from celery import exceptions
from celery.brokers.base import Publish, Settlement, Verdict
from celery.brokers.redis import Receiver, Sender
from celery.brokers.redis.address import read
from celery.brokers.redis.blocking import Connection
from celery.brokers.topology import Queue
from celery.wire.envelope import Envelope

pytestmark = pytest.mark.needs("redis")

LARGE = 100_000


class Place:
    """A server of our own."""

    def __init__(self, url):
        self.url = url
        self.raw = Connection(read(url, {}))
        self.sender = Sender(url, {})

    def send(self, *ids, queue="q"):
        self.sender.publish([follower(each, queue=queue) for each in ids])

    def lying(self, queue="q"):
        return self.raw.call("LLEN", queue)

    def held(self):
        """How many messages workers hold, by each of the places that say so."""
        sets = self.raw.call("KEYS", "celeriac.held.*")
        index = set(self.raw.call("ZRANGE", "unacked_index", 0, -1))
        assert index == set(self.raw.call("HKEYS", "unacked"))
        assert index == {tag for name in sets for tag in self.raw.call("SMEMBERS", name)}
        return len(index)

    def pushes(self):
        """Commands since it was asked last that put something into a list."""
        text = self.raw.call("INFO", "commandstats").decode()
        self.raw.call("CONFIG", "RESETSTAT")
        return sum(text.count(f"cmdstat_{name}:") for name in ("lpush", "rpush"))


def follower(task_id, queue="q", size=10, priority=0, **headers):
    headers = {"task": "w.add", "id": task_id, **headers}
    return Publish(Envelope(headers, b"x" * size, properties={"priority": priority}), "", queue)


@pytest.fixture
def place(private_redis):
    place = Place(private_redis().url)
    # Who may not be called back does not wait for messages: he knows that there are none without asking for more.
    place.raw.call("ACL", "SETUSER", "default", "-client|unblock")
    yield place
    place.sender.close()
    place.raw.close()


@contextlib.asynccontextmanager
async def receiving(place, idle=1, queues=("q",), node="w@h"):
    receiver = Receiver(place.url, {}, node=node)
    await receiver.open()
    try:
        for queue in queues:
            await receiver.consume(Queue(queue))
        receiver.keep_for(lambda: idle)
        yield receiver
    finally:
        await receiver.close()


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


async def begun(place, receiver, *task_ids):
    """Messages, taken by a worker that has seen since that there are no others."""
    place.send(*task_ids)
    found = await take(receiver, len(task_ids))
    await nothing_comes(receiver)
    return found


def ids(deliveries):
    return [delivery.envelope.headers["id"] for delivery in deliveries]


def done(delivery, *follow):
    return Settlement(delivery, Verdict.ACK, follow=follow)


@pytest.mark.parametrize("size", [10, LARGE])
def test_what_follows_is_in_no_list_and_comes_with_the_next_receive(place, size):
    async def run():
        async with receiving(place) as receiver:
            (first,) = await begun(place, receiver, "1")
            place.pushes()
            assert await receiver.settle([done(first, follower("2", size=size))]) == []
            assert place.pushes() == 0
            assert place.held() == 1
            (second,) = await take(receiver)
            assert ids([second]) == ["2"]
            assert (second.queue, second.redelivered, second.failures) == ("q", False, 0)
            assert second.envelope.body == b"x" * size
            assert place.raw.call("HVALS", "unacked") == [b"[" + second.text + b', "", "q"]']
            score = place.raw.call("ZRANGE", "unacked_index", 0, 0, "WITHSCORES")[1]
            assert abs(float(score) - time.time()) < 60
            assert await receiver.settle([done(second)]) == []
            assert place.held() == 0
        assert place.raw.call("KEYS", "*") == []

    asyncio.run(run())


def test_who_waits_in_receive_is_woken(place):
    async def run():
        async with receiving(place) as receiver:
            (first,) = await begun(place, receiver, "1")
            waiting = asyncio.create_task(take(receiver))
            await asyncio.sleep(0)
            await receiver.settle([done(first, follower("2"))])
            assert ids(await waiting) == ["2"]

    asyncio.run(run())


def test_a_worker_without_room_sends_what_follows_to_its_queue(place):
    async def run():
        async with receiving(place, idle=0) as receiver:
            (first,) = await begun(place, receiver, "1")
            await receiver.settle([done(first, follower("2"))])
            assert (place.lying(), place.held()) == (1, 0)

    asyncio.run(run())


def test_no_more_are_kept_than_could_begin(place):
    async def run():
        async with receiving(place, idle=2) as receiver:
            first = await begun(place, receiver, *"12345")
            follow = [done(each, follower(f"{number}b")) for number, each in enumerate(first, 1)]
            await receiver.settle(follow)
            assert (place.lying(), place.held()) == (3, 2)
            assert sorted(ids(await take(receiver, 5))) == ["1b", "2b", "3b", "4b", "5b"]

    asyncio.run(run())


@pytest.mark.parametrize(
    "follow",
    [
        [follower("2", queue="other")],
        [follower("2", eta="2100-01-01T00:00:00+00:00")],
        [msgspec.structs.replace(follower("2"), until=4e9)],
        [follower("2"), follower("3")],
    ],
    ids=["another queue", "an eta", "a later moment", "several"],
)
def test_what_this_worker_would_not_run_at_once_goes_to_its_queue(place, follow):
    async def run():
        async with receiving(place) as receiver:
            (first,) = await begun(place, receiver, "1")
            await receiver.settle([done(first, *follow)])
            assert place.held() == 0
            assert sum(place.lying(name) for name in ("q", "other")) == len(follow)

    asyncio.run(run())


def test_where_other_messages_wait_what_follows_waits_behind_them(place):
    async def run():
        async with receiving(place) as receiver:
            place.send("1", "2")
            (first,) = await take(receiver, limit=1)
            await receiver.settle([done(first, follower("3"))])
            assert place.lying() == 2
            assert ids(await take(receiver, 2)) == ["2", "3"]

    asyncio.run(run())


def test_nothing_is_kept_of_a_queue_that_was_cancelled(place):
    async def run():
        async with receiving(place, queues=("q", "r")) as receiver:
            (first,) = await begun(place, receiver, "1")
            await receiver.cancel("q")
            await receiver.settle([done(first, follower("2"))])
            assert (place.lying(), place.held()) == (1, 0)

    asyncio.run(run())


def test_a_message_of_any_priority_is_kept(place):
    async def run():
        async with receiving(place) as receiver:
            (first,) = await begun(place, receiver, "1")
            await receiver.settle([done(first, follower("2", priority=9))])
            assert place.held() == 1
            assert ids(await take(receiver)) == ["2"]

    asyncio.run(run())


@pytest.mark.parametrize("size", [10, LARGE])
def test_a_settlement_that_comes_too_late_keeps_nothing(place, size):
    async def run():
        async with receiving(place) as receiver:
            (first,) = await begun(place, receiver, "1")
            tag = first.receipt.tag
            place.raw.call("HDEL", "unacked", tag)
            place.raw.call("ZREM", "unacked_index", tag)
            assert await receiver.settle([done(first, follower("2", size=size))]) == [first]
            place.raw.call("SREM", place.raw.call("KEYS", "celeriac.held.*")[0], tag)
            assert (place.lying(), place.held()) == (0, 0)
            await nothing_comes(receiver)

    asyncio.run(run())


def test_a_server_that_has_forgotten_the_script_is_told_it_again(place):
    async def run():
        async with receiving(place) as receiver:
            (first,) = await begun(place, receiver, "1")
            place.raw.call("SCRIPT", "FLUSH")
            await receiver.settle([done(first, follower("2", size=LARGE))])
            assert place.held() == 1
            assert ids(await take(receiver)) == ["2"]

    asyncio.run(run())


def test_what_was_kept_is_delivered_though_another_settlement_of_the_batch_fails(place):
    async def run():
        async with receiving(place) as receiver:
            place.raw.call("SET", "broken", "no list")
            first, second = await begun(place, receiver, "1", "2")
            with pytest.raises(exceptions.OperationalError):
                await receiver.settle([done(first, follower("1b")), done(second, follower("2b", queue="broken"))])
            assert ids(await take(receiver)) == ["1b"]
            assert place.held() == 3

    asyncio.run(run())


def test_what_was_not_kept_because_its_batch_failed_leaves_no_record(place):
    async def run():
        async with receiving(place) as receiver:
            place.raw.call("SET", "broken", "no list")
            first, second = await begun(place, receiver, "1", "2")
            with pytest.raises(exceptions.OperationalError):
                await receiver.settle([done(first, follower("1b", queue="broken")), done(second, follower("2b"))])
            assert place.held() == 2
            await nothing_comes(receiver)

    asyncio.run(run())


def test_what_was_kept_and_not_received_goes_back_when_the_worker_ends(place):
    async def run():
        async with receiving(place) as receiver:
            (first,) = await begun(place, receiver, "1")
            await receiver.settle([done(first, follower("2"))])
        assert (place.lying(), place.held()) == (1, 0)
        async with receiving(place) as receiver:
            (second,) = await take(receiver)
            assert (ids([second]), second.failures) == (["2"], 0)

    asyncio.run(run())


def test_what_was_kept_as_the_connection_was_cut_comes_to_the_next_one(place):
    async def run():
        async with receiving(place) as receiver:
            (first,) = await begun(place, receiver, "1")
            settling = asyncio.create_task(receiver.settle([done(first, follower("2"))]))
            await asyncio.sleep(0)  # it is written
            place.raw.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            with contextlib.suppress(exceptions.OperationalError):
                await settling
        async with receiving(place) as receiver:
            (found,) = await take(receiver)
            # Which one depends on who was faster; there is one in either case.
            assert ids([found]) in (["1"], ["2"])
            await nothing_comes(receiver)

    asyncio.run(run())


def test_a_kept_message_counts_as_what_the_next_receive_may_take(place):
    async def run():
        async with receiving(place) as receiver:
            (first,) = await begun(place, receiver, "1")
            waiting = asyncio.create_task(receiver.receive(1))
            await asyncio.sleep(0)
            place.send("3")
            # Written before the notice of what was sent is read.
            await receiver.settle([done(first, follower("2"))])
            assert ids(await waiting) == ["2"]
            assert (place.lying(), place.held()) == (1, 1)
            assert ids(await take(receiver)) == ["3"]

    asyncio.run(run())
