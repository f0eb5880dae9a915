"""A receiver on Redis that waits for one message on a connection of its own: who gets it, and that it is never lost.

A message that nobody waited for would be found after five seconds at most, so what is waited for has to come in less.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest
from redis_server import receiving

from celery.brokers.base import ResultWrite, Settlement, Verdict
from celery.brokers.redis.address import read
from celery.brokers.redis.blocking import Connection
from celery.brokers.redis.settling import ResultStore

pytestmark = pytest.mark.needs("redis")

#: Seconds in which a message comes, on a busy machine too.
SOON = 3.0


async def until(condition, seconds=SOON):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - only the server knows
            await asyncio.sleep(0.005)


async def take(receiver, count=1, limit=10):
    found = []
    async with asyncio.timeout(SOON):
        while len(found) < count:
            found += await receiver.receive(limit)
    return found


@contextlib.asynccontextmanager
async def waiting(server, receiver, limit=10, among=1):
    """A `receive` that has found nothing and waits, as the last of so many."""
    task = asyncio.create_task(take(receiver, limit=limit))
    await until(lambda: server.blocked() == among)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def numbers(deliveries):
    return [int(delivery.envelope.headers["id"]) for delivery in deliveries]


def acknowledge(receiver, deliveries):
    return receiver.settle([Settlement(delivery, Verdict.ACK) for delivery in deliveries])


def test_what_came_is_recorded_as_peers_expect_it_and_settled_without_a_trace(server):
    async def run():
        async with receiving(server) as receiver:
            for number in range(3):
                async with waiting(server, receiver) as first:
                    server.send(number)
                    [found] = await first
                await until(lambda: server.raw.call("HLEN", "unacked") == 1)
                [tag] = server.raw.call("ZRANGE", "unacked_index", 0, -1)
                assert server.raw.call("HKEYS", "unacked") == [tag]
                assert server.raw.call("HVALS", "unacked") == [b"[" + found.text + b', "", "q"]']
                assert server.raw.call("SMEMBERS", server.key("held")) == [tag]
                assert (found.queue, found.redelivered, found.failures) == ("q", False, 0)
                assert await acknowledge(receiver, [found]) == []
                assert server.raw.call("KEYS", "unacked*") == []
        assert server.raw.call("KEYS", "*") == []

    asyncio.run(run())


def test_what_is_settled_at_once_is_ours(server):
    async def run():
        async with receiving(server) as receiver:
            for number in range(20):
                async with waiting(server, receiver) as first:
                    server.send(number)
                    assert await acknowledge(receiver, await first) == []
            assert server.raw.call("KEYS", "unacked*") == []
            assert server.raw.call("LLEN", "q") == 0

    asyncio.run(run())


def sharing(server, receiver, database=0):
    """Let a receiver store results, in a database of its server."""
    place = read(f"{server.url.rpartition('/')[0]}/{database}", {})
    backend = type("Backend", (), {"shared_store": ResultStore(place, "meta-", 60, None)})()
    assert receiver.share(backend)


def done(delivery, state="SUCCESS"):
    """It has run, and gave a result."""
    task_id = delivery.envelope.headers["id"]
    return Settlement(delivery, Verdict.ACK, results=[ResultWrite(task_id, state, f'{{"status":"{state}"}}'.encode())])


@pytest.mark.parametrize(("state", "life"), [("SUCCESS", range(50, 61)), ("FAILURE", [-1])])
def test_what_ends_at_once_is_settled_in_place_of_its_record(server, state, life):
    async def run():
        async with receiving(server) as receiver:
            sharing(server, receiver)
            server.calls()
            for number in range(20):
                async with waiting(server, receiver) as first:
                    server.send(number)
                    [found] = await first
                    assert await receiver.settle([done(found, state)]) == []
                assert server.raw.call("GET", f"meta-{number}") == f'{{"status":"{state}"}}'.encode()
                assert server.raw.call("TTL", f"meta-{number}") in life
            calls = server.calls()
            assert calls["set"] == calls["publish"] == 20
            # A busy machine may be late with some.
            assert calls.get("hset", 0) < 10
            assert server.raw.call("KEYS", "unacked*") == []

    asyncio.run(run())


@pytest.mark.parametrize("database", [0, 1])
@pytest.mark.parametrize(("before", "after"), [("STARTED", "FAILURE"), ("SUCCESS", "SUCCESS")])
def test_a_record_that_is_stored_already_is_replaced_only_where_it_may_be(server, before, after, database):
    async def run():
        async with receiving(server) as receiver:
            sharing(server, receiver, database)
            with contextlib.closing(Connection(read(f"{server.url.rpartition('/')[0]}/{database}", {}))) as results:
                for number in range(5):
                    results.call("SET", f"meta-{number}", f'{{"status":"{before}"}}')
                    async with waiting(server, receiver) as first:
                        server.send(number)
                        [found] = await first
                        assert await receiver.settle([done(found, "FAILURE")]) == []
                    assert results.call("GET", f"meta-{number}") == f'{{"status":"{after}"}}'.encode()
            assert server.raw.call("KEYS", "unacked*") == []
        assert server.raw.call("KEYS", "celeriac*") == []

    asyncio.run(run())


def test_what_was_taken_over_before_it_was_recorded_is_not_settled_by_who_had_it(server):
    async def run():
        async with receiving(server) as receiver:
            sharing(server, receiver)
            async with waiting(server, receiver) as first:
                server.send(1)
                [found] = await first
                # As `inherit` leaves it, but for the record, which is its heir's by now.
                server.raw.call("SET", server.key("waiting"), "")
                server.raw.call("DEL", "unacked", "unacked_index")
                assert await receiver.settle([done(found)]) == [found]
            assert server.raw.call("EXISTS", "meta-1") == 0

    asyncio.run(run())


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_that_came_one_after_the_other_each_is_settled_as_itself(server, order):
    async def run():
        async with receiving(server) as receiver:
            sharing(server, receiver)
            for number in range(0, 40, 2):
                found = []
                async with waiting(server, receiver) as first:
                    server.send(number)
                    found += await first
                second = asyncio.create_task(take(receiver))
                server.send(number + 1)
                found += await second
                for delivery in found[::order]:
                    assert await receiver.settle([done(delivery)]) == []
                    assert server.raw.call("EXISTS", "meta-" + delivery.envelope.headers["id"]) == 1
            assert server.raw.call("KEYS", "unacked*") == []
            assert server.raw.call("LLEN", "q") == 0

    asyncio.run(run())


def test_a_server_that_has_forgotten_its_scripts_is_told_them_again(server):
    async def run():
        async with receiving(server) as receiver:
            sharing(server, receiver)
            for number in range(5):
                async with waiting(server, receiver) as first:
                    server.send(number)
                    [found] = await first
                    server.raw.call("SCRIPT", "FLUSH")
                    assert await receiver.settle([done(found)]) == []
                assert server.raw.call("EXISTS", f"meta-{number}") == 1

    asyncio.run(run())


def test_of_an_idle_fleet_each_message_wakes_one_worker(server):
    workers, messages = 8, 40

    async def run():
        found = []

        async def work(receiver):
            while True:
                some = await receiver.receive(4)
                found.extend(numbers(some))
                await acknowledge(receiver, some)

        async with contextlib.AsyncExitStack() as stack:
            receivers = [await stack.enter_async_context(receiving(server, node=f"{n}@h")) for n in range(workers)]
            tasks = [asyncio.create_task(work(receiver)) for receiver in receivers]
            await until(lambda: server.blocked() == workers)
            server.calls()
            for number in range(messages):
                await until(lambda: server.blocked() == workers)
                server.send(number)
                await until(lambda: len(found) == number + 1)
            calls = server.calls()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert found == list(range(messages))
        assert calls["brpoplpush"] <= messages + 2 * workers
        # Its record and its settlement; each worker looks at its queues and its lease now and then.
        assert calls["evalsha"] + calls.get("eval", 0) <= 2 * messages + 6 * workers
        assert calls.get("exists", 0) <= 3 * workers

    asyncio.run(run())


def test_who_blocked_first_is_served_first_peers_among_them(server):
    got = []

    def peer():
        with contextlib.closing(Connection(read(server.url, {}))) as connection:
            got.append(connection.call("BRPOP", "q", 10))

    async def run():
        thread = threading.Thread(target=peer)
        thread.start()
        await until(lambda: server.blocked() == 1)
        async with receiving(server) as receiver, waiting(server, receiver, among=2) as ours:
            server.send(1)
            await asyncio.to_thread(thread.join)
            assert len(got) == 1
            server.send(2)
            assert numbers(await ours) == [2]

    asyncio.run(run())


@pytest.mark.parametrize("limit", [1, 10])
def test_other_queues_and_steps_wake_who_waits_for_one(server, limit):
    async def run():
        async with receiving(server, "q", "other") as receiver:
            for queue, priority in (("other", 0), ("q", 9), ("other", 6), ("q", 0)):
                async with waiting(server, receiver, limit) as first:
                    server.send(1, queue=queue, priority=priority)
                    found = await first
                assert [delivery.queue for delivery in found] == [queue]
                assert await acknowledge(receiver, found) == []

    asyncio.run(run())


def test_a_burst_comes_in_order_though_its_first_ones_were_waited_for(server):
    async def run():
        async with receiving(server) as receiver:
            for _ in range(3):
                async with waiting(server, receiver, 4) as first:
                    server.send(*range(200))
                    found = await first
                    while len(found) < 200:
                        found += await take(receiver, limit=4)
                assert numbers(found) == list(range(200))
                assert await acknowledge(receiver, found) == []
                async with contextlib.AsyncExitStack() as stack:
                    for number in range(50):  # one by one again
                        task = asyncio.create_task(take(receiver))
                        stack.callback(task.cancel)
                        server.send(number)
                        assert await acknowledge(receiver, await task) == []

    asyncio.run(run())


def test_nothing_comes_to_who_does_not_ask_for_it(server):
    async def run():
        async with receiving(server) as receiver:
            async with waiting(server, receiver):
                pass  # given up
            await until(lambda: server.blocked() == 0)
            server.send(1)
            await asyncio.sleep(0.1)
            assert server.raw.call("LLEN", "q") == 1
            assert numbers(await take(receiver)) == [1]

    asyncio.run(run())


def test_what_comes_as_its_receiver_gives_up_is_there_for_the_next_receive(server):
    async def run():
        async with receiving(server) as receiver:
            for number in range(30):
                async with waiting(server, receiver, 1) as impatient:
                    if number % 2:
                        server.send(number)
                        impatient.cancel()
                    else:
                        impatient.cancel()
                        await asyncio.sleep(0)
                        server.send(number)
                    [given_up] = await asyncio.gather(impatient, return_exceptions=True)
                found = await take(receiver) if isinstance(given_up, asyncio.CancelledError) else given_up
                assert numbers(found) == [number]
                assert await acknowledge(receiver, found) == []

    asyncio.run(run())


def test_nothing_is_taken_from_a_queue_that_was_cancelled_while_it_was_waited_for(server):
    async def run():
        async with receiving(server, "q", "other") as receiver, waiting(server, receiver) as task:
            async with asyncio.timeout(SOON):
                await receiver.cancel("q")
            server.send(1)
            server.send(2, queue="other")
            assert numbers(await task) == [2]
            assert server.raw.call("LLEN", "q") == 1

    asyncio.run(run())


def test_what_came_is_ours_though_another_queue_is_waited_for_at_once(server):
    async def run():
        async with receiving(server, "q", "other") as receiver:
            async with waiting(server, receiver) as first:
                server.send(1)
                found = await first
            await receiver.cancel("q")
            second = asyncio.create_task(take(receiver))
            await asyncio.sleep(0)
            server.send(2, queue="other")
            found += await second
            assert [(delivery.queue, numbers([delivery])) for delivery in found] == [("q", [1]), ("other", [2])]
            assert await acknowledge(receiver, found) == []
            assert server.raw.call("KEYS", "unacked*") == []

    asyncio.run(run())


def test_closing_gives_back_what_came_and_leaves_nothing(server):
    async def run():
        for number in range(10):
            async with receiving(server) as receiver, waiting(server, receiver) as task:
                server.send(number)
                task.cancel()
                await asyncio.sleep(number / 2000)
            assert server.raw.call("KEYS", "*") == [b"q"]
            assert server.raw.call("LLEN", "q") == 1
            async with receiving(server, node="heir@h") as heir:
                found = await take(heir)
                assert [(delivery.failures, numbers([delivery])) for delivery in found] == [(0, [number])]
                assert await acknowledge(heir, found) == []

    asyncio.run(run())


DYING = """
    import asyncio, os, signal, sys
    from celery.brokers.redis import Receiver
    from celery.brokers.topology import Queue

    async def main(url):
        receiver = Receiver(url, {}, node="dying@host")
        await receiver.open()
        await receiver.consume(Queue("q"))
        await receiver.receive(1)
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main(sys.argv[1]))
"""


def dying(server):
    """A process that dies as soon as it has received a message."""
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(DYING), server.url])


def test_what_came_to_a_worker_that_died_before_its_record_counts_as_held(server):
    async def run():
        process = dying(server)
        await until(lambda: server.blocked() == 1, 30)
        server.send(1)
        assert await asyncio.to_thread(process.wait, 30) == -signal.SIGKILL
        [dead] = server.raw.call("ZRANGE", "celeriac.workers", 0, -1)
        # In one place: what it has of its own, or the record.
        came = server.raw.call("LLEN", b"celeriac.waiting." + dead) - 1
        assert came + server.raw.call("HLEN", "unacked") == 1
        server.raw.call("ZADD", "celeriac.workers", 0, dead)
        async with receiving(server) as receiver:
            found = await take(receiver)
            assert [(delivery.failures, delivery.redelivered) for delivery in found] == [(1, True)]
            assert await acknowledge(receiver, found) == []
            # What such a worker still had under way moves nothing.
            server.send(2)
            with pytest.raises(Exception, match="WRONGTYPE"):
                server.raw.call("RPOPLPUSH", "q", b"celeriac.waiting." + dead)
            assert numbers(await take(receiver)) == [2]

    asyncio.run(run())


def test_who_was_taken_over_from_while_it_waited_sets_up_its_list_again(server):
    async def run():
        async with receiving(server) as receiver, waiting(server, receiver) as task:
            server.raw.call("SET", server.key("waiting"), "")
            server.send(1)
            found = await task
            assert numbers(found) == [1]
            assert await acknowledge(receiver, found) == []
            assert server.raw.call("KEYS", "unacked*") == []

    asyncio.run(run())


@pytest.mark.parametrize("right", ["-brpoplpush", "-client|unblock", "-client|id", "-info"])
def test_who_may_not_wait_is_told(server, right):
    server.raw.call("ACL", "SETUSER", "default", right)

    async def run():
        async with receiving(server) as receiver:
            for number in range(5):
                task = asyncio.create_task(take(receiver))
                await asyncio.sleep(0.05)
                server.send(number)
                assert numbers(await task) == [number]

    asyncio.run(run())


def test_the_loss_of_either_connection_is_the_loss_of_both(server):
    async def run():
        async with receiving(server) as receiver, waiting(server, receiver) as task:
            blocked = [
                line for line in server.raw.call("CLIENT", "LIST").decode().splitlines() if "cmd=brpoplpush" in line
            ]
            [number] = (word.removeprefix("id=") for word in blocked[0].split() if word.startswith("id="))
            server.raw.call("CLIENT", "KILL", "ID", number)
            with pytest.raises(Exception, match="lost"):
                await task
        server.send(1)
        async with receiving(server) as heir:
            assert numbers(await take(heir)) == [1]

    asyncio.run(run())


def test_a_large_message_comes_too(server):
    async def run():
        async with receiving(server) as receiver:
            for number in range(3):
                async with waiting(server, receiver) as first:
                    server.send(number, size=300_000)
                    found = await first
                assert [len(delivery.envelope.body) for delivery in found] == [300_000]
                assert await acknowledge(receiver, found) == []

    asyncio.run(run())


def test_a_process_that_was_stopped_in_its_wait_is_answered_by_the_server(server):
    # Its server lets go of it after some seconds: the message is left to others.
    async def run():
        process = dying(server)
        try:
            await until(lambda: server.blocked() == 1, 30)
            os.kill(process.pid, signal.SIGSTOP)
            await until(lambda: server.blocked() == 0, 10)
            server.send(1)
            async with receiving(server) as receiver:
                assert numbers(await take(receiver)) == [1]
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)

    asyncio.run(run())
