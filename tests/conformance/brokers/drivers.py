"""What a driver needs to be run through the conformance suite: one small `Bench` each, and words for its tests.

The list of drivers is explicit: a driver that is in it and cannot be imported is an error.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import asynccontextmanager, contextmanager

from celery.brokers.base import Publish, Settlement, Verdict
from celery.brokers.pool import SenderPool
from celery.brokers.topology import Queue
from celery.wire.envelope import Envelope

DRIVERS = {
    "memory": (),
    "sqlite": (),
    "redis": ("redis",),
    "amqp": ("rabbitmq",),
}

#: No test waits longer than this for what must come at once, in seconds.
SOON = 10.0

#: A dead worker's messages are back within 15 s (architecture); the rest is for a busy machine.
TAKEOVER = 25.0

#: Takes `count` messages from a queue, gives `verdict` to the first `started` of them, and waits to be killed.
DOOMED_WORKER = """
import asyncio, sys
from importlib import import_module
from celery.brokers.base import Settlement, Verdict
from celery.brokers.topology import Queue

async def main(module, url, queue, count, started):
    receiver = import_module(module).Receiver(url, {}, node="doomed@host")
    await receiver.open()
    await receiver.consume(Queue(queue))
    held = []
    while len(held) < int(count):
        held += await receiver.receive(int(count) - len(held))
    await receiver.settle([Settlement(one, Verdict.START) for one in held[: int(started)]])
    print("holding", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


def message(task_id: str | None = None, body: bytes = b"[[2, 3], {}, {}]", **fields) -> Envelope:
    """A small task message. Headers may be given; `properties` are added to the usual ones."""
    task_id = task_id or str(uuid.uuid4())
    properties = {"correlation_id": task_id, "reply_to": "r", "delivery_mode": 2, "priority": 0}
    properties |= fields.pop("properties", {})
    headers = {"lang": "py", "task": "w.add", "id": task_id, "retries": 0, **fields.pop("headers", {})}
    return Envelope(headers, body, properties=properties, **fields)


def start_process(code: str, *arguments: str) -> subprocess.Popen:
    """Run Python code in a process of its own, with a pipe for its output."""
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)


class Bench:
    """One driver on a store of the test's own. Everything made through it is closed after the test."""

    #: Exchanges that exist with another type are refused.
    keeps_exchange_types = True
    #: A fan-out exchange takes no notice of routing keys (on Redis they are part of the channel, wire.md 3.8).
    fanout_ignores_keys = True
    #: A worker's death counts as a failure of what it held, at once (on RabbitMQ it weighs a quarter of one).
    counts_deaths = True
    #: Processes share the store.
    between_processes = True

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url
        self.module = f"celery.brokers.{name}"
        self.driver = importlib.import_module(self.module)
        self._senders = []

    @property
    def can(self):
        return self.driver.Sender.capabilities

    def make(self, options=None):
        return self.driver.Sender(self.url, options or {})

    def sender(self, options=None):
        sender = self.make(options)
        self._senders.append(sender)
        return sender

    @contextmanager
    def pool(self, **options):
        pool = SenderPool(self.make, **options)
        try:
            yield pool
        finally:
            pool.close()

    @asynccontextmanager
    async def receiver(self, *queues, node="w1@host", options=None):
        receiver = self.driver.Receiver(self.url, options or {}, node=node)
        await receiver.open()
        try:
            for queue in queues:
                await receiver.consume(queue)
            yield receiver
        finally:
            await receiver.close()

    def queue(self, **fields) -> Queue:
        """A queue that only the default exchange reaches, declared."""
        queue = Queue(fields.pop("name", f"q-{uuid.uuid4()}"), **fields)
        self.sender().declare([queue])
        return queue

    def send(self, queue: Queue, *envelopes: Envelope, confirm=True) -> None:
        self.sender().publish([Publish(one, "", queue.name) for one in envelopes], confirm=confirm)

    async def abandon(self, queue: Queue, count: int, started: int = 0) -> None:
        """Let a worker take messages, start some of them, and die by SIGKILL."""
        worker = start_process(DOOMED_WORKER, self.module, self.url, queue.name, str(count), str(started))
        try:
            assert await asyncio.to_thread(worker.stdout.readline) == b"holding\n"
        finally:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            worker.stdout.close()

    def damage(self, queue: Queue) -> bool:
        """Put something unreadable into the queue; False when the store cannot hold such a thing."""
        return False

    def close(self) -> None:
        for sender in self._senders:
            sender.close()


class MemoryBench(Bench):
    between_processes = False

    async def abandon(self, queue, count, started=0):
        """No process of the store dies alone; a loop that ends without closing its receiver is the like."""

        async def doomed():
            receiver = self.driver.Receiver(self.url, {}, node="doomed@host")
            await receiver.open()
            await receiver.consume(queue)
            held = await take(receiver, count)
            await receiver.settle([Settlement(one, Verdict.START) for one in held[:started]])

        thread = threading.Thread(target=lambda: asyncio.run(doomed()))
        thread.start()
        await asyncio.to_thread(thread.join)
        gc.collect()


class SqliteBench(Bench):
    def damage(self, queue):
        import sqlite3

        self.send(queue, message())
        with sqlite3.connect(self.url.removeprefix("sqlite:///")) as file:
            file.execute("UPDATE message SET envelope = x'ff00ff' WHERE queue = ?", (queue.name,))
        file.close()
        return True


class RedisBench(Bench):
    keeps_exchange_types = False
    fanout_ignores_keys = False

    def damage(self, queue):
        import redis

        with redis.Redis.from_url(self.url) as server:
            server.lpush(queue.name, b'{"body": [1, 2')
        return True


class AmqpBench(Bench):
    counts_deaths = False


async def take(receiver, count: int, within: float = SOON, limit: int = 64) -> list:
    """The next `count` deliveries."""
    taken = []
    async with asyncio.timeout(within):
        while len(taken) < count:
            taken += await receiver.receive(min(limit, count - len(taken)))
    return taken


async def settle(receiver, deliveries, verdict=Verdict.ACK, **fields) -> list:
    """One verdict on all of them; those that were refused."""
    return await receiver.settle([Settlement(one, verdict, **fields) for one in deliveries])


async def eventually(condition, within: float = SOON) -> None:
    """Wait until it holds. For what has no event to wait on."""
    deadline = time.monotonic() + within
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "it did not come to hold in time"
        await asyncio.sleep(0.01)


def ids(deliveries) -> list[str]:
    return [one.envelope.headers["id"] for one in deliveries]
