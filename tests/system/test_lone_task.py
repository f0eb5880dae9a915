"""A task that is sent and waited for alone: what it costs, in commands of its broker, and that it is not lost."""

import asyncio
import contextlib
import os
import random
import signal
import time

import pytest
import redis
from harness import Census, Stage, measured, size
from proxy import Proxy

from celery.brokers.base import Publish
from celery.brokers.redis import Receiver, Sender
from celery.brokers.topology import Queue
from celery.exceptions import WorkerLostError
from celery.wire.envelope import Envelope

#: Commands that a server gets for a task that is sent and waited for alone, those of scripts included.
ALONE = {
    # The wait; the settlement, and before it a record, where the machine is too busy for a task in two milliseconds.
    "brpoplpush": 1, "evalsha": 2, "hset": 1, "zadd": 1, "zrem": 1, "set": 1, "publish": 1,
    # Nobody is told of it, so nobody looks.
    "client|caching": 0, "exists": 0,
    # Of who waits.
    "subscribe": 1, "mget": 1, "unsubscribe": 1,
    "lpush": 1, "lrange": 0, "ltrim": 1, "rpush": 1,
}  # fmt: skip


@pytest.mark.needs("redis")
@pytest.mark.timeout(120)
def test_a_lone_task_on_redis_is_one_wait_and_one_settlement(private_redis, tmp_path):
    """Nothing is looked at: the server hands the message to the worker that waits for it."""
    server, rounds = private_redis().url, 100
    stage = Stage("redis", server, server, tmp_path)
    add = stage.app.signature("project.add", (1, 1))
    try:
        stage.worker("-c", "1")
        for _ in range(5):
            assert add.delay().get(timeout=30) == 2
        with redis.Redis.from_url(server) as client:
            client.config_resetstat()
            began = time.monotonic()
            for _ in range(rounds):
                assert add.delay().get(timeout=30) == 2
            seconds = time.monotonic() - began
            stats = client.info("commandstats")
    finally:
        stage.close()
    # Leases are looked at once a second; and workers at all their queues every five.
    spare = 3 * seconds + rounds / 20
    counted = {name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ALONE}
    assert all(counted[name] <= rounds * calls + spare for name, calls in ALONE.items()), counted
    assert counted["hset"] < rounds, "none was settled in place of its record"


@pytest.mark.needs("redis")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("stage", ["redis"], indirect=True)
@pytest.mark.parametrize("task", ["nap", "nap_late"])
def test_workers_are_killed_while_tasks_come_one_by_one(stage, task):
    """Each is handed to a worker that waits for it, and workers die at any moment of that."""
    census, chance = Census(stage), random.Random(stage.key())
    stage.worker("-c", "1")
    stage.worker("-c", "1")
    results, kills = {}, size(6, 40)
    for number in range(kills):
        last = time.monotonic() + chance.uniform(0.3, 0.8)
        while time.monotonic() < last:
            key = stage.key()
            census.keys.append(key)
            results[key] = stage.send(task, key, chance.choice((0, 0.001, 0.01)))
            time.sleep(chance.uniform(0, 0.01))
        victim = stage.workers[number]
        os.kill(victim.pid, signal.SIGSTOP if number % 3 == 2 else signal.SIGKILL)
        stage.worker("-c", "1")
        victim.kill()
    failed = []
    for key, result in results.items():
        try:
            result.get(timeout=40)
        except WorkerLostError:
            failed.append(key)
    lost, twice = set(census.lost()), census.twice()
    measured(stage, f"lone tasks, workers killed, {task}", sent=len(results), failed=len(failed), twice=len(twice))
    # One that had begun, and was acknowledged, is told as lost; others run, and in a window of milliseconds again.
    assert lost <= set(failed)
    assert len(failed) <= (kills if task == "nap" else 0)
    assert len(twice) <= kills


@pytest.mark.needs("redis")
def test_what_was_waited_for_is_received_before_what_was_claimed_beside_it(private_redis):
    """The server gives the first message to who waits, and the others to the claim that news of another list bring."""
    server = private_redis()

    def message(name, **properties):
        return Publish(Envelope({"task": "t", "id": f"held-{name}"}, b"x", properties=properties), "", "q")

    async def until(condition):
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - only the server and the proxy know
                await asyncio.sleep(0.005)

    async def run(proxy, sender, client):
        receiver = Receiver(f"redis://127.0.0.1:{proxy.port}/0", {}, node="w@h")
        await receiver.open()
        await receiver.consume(Queue("q"))
        given_up = asyncio.create_task(receiver.receive(4))
        await until(lambda: client.info("clients")["blocked_clients"] == 1)
        proxy.hold(b"held-")
        sender.publish([message("first"), message("second"), message("other", priority=3)])
        await until(lambda: proxy.holds == 2)
        given_up.cancel()
        proxy.let_go()
        await receiver.cancel("q")  # ends when the wait does, so both answers are here
        found = [delivery.envelope.headers["id"] for delivery in await receiver.receive(4)]
        await receiver.close()
        return found

    with (
        Proxy(server.port) as proxy,
        contextlib.closing(Sender(server.url, {})) as sender,
        redis.Redis.from_url(server.url) as client,
    ):
        assert asyncio.run(run(proxy, sender, client)) == ["held-first", "held-second", "held-other"]
