"""A Redis of our own for tests of its driver: what is in it, what it has been asked, and receivers on it."""

from __future__ import annotations

import contextlib

from celery.brokers.base import Publish
from celery.brokers.redis import Receiver, Sender
from celery.brokers.redis.address import read
from celery.brokers.redis.blocking import Connection
from celery.brokers.topology import Queue
from celery.wire.envelope import Envelope


class RedisServer:
    """A server, a connection to it, and a sender."""

    def __init__(self, url):
        self.url = url
        self.raw = Connection(read(url, {}))
        self.sender = Sender(url, {})

    def close(self):
        self.sender.close()
        self.raw.close()

    def forbid_waiting(self):
        """Nobody may be called back, so nobody waits for messages on a connection of its own."""
        self.raw.call("ACL", "SETUSER", "default", "-client|unblock")

    def send(self, *ids, queue="q", priority=0, size=10):
        """Send messages in one step."""
        self.sender.publish([message(each, queue=queue, priority=priority, size=size) for each in ids])

    def calls(self):
        """Commands since they were asked for last, and how often."""
        text = self.raw.call("INFO", "commandstats").decode()
        self.raw.call("CONFIG", "RESETSTAT")
        rows = (line.removeprefix("cmdstat_").split(":calls=") for line in text.splitlines() if ":calls=" in line)
        return {name: int(rest.split(",")[0]) for name, rest in rows}

    def blocked(self):
        """How many clients wait for a message."""
        text = self.raw.call("INFO", "clients").decode()
        return int(text.partition("blocked_clients:")[2].split()[0])

    def key(self, kind):
        """The key of the one worker."""
        [key] = self.raw.call("KEYS", f"celeriac.{kind}.*")
        return key

    def lying(self, queue="q"):
        """How many messages wait in the queue."""
        return self.raw.call("LLEN", queue)

    def held(self):
        """How many messages workers hold, by each of the places that say so."""
        sets = self.raw.call("KEYS", "celeriac.held.*")
        index = set(self.raw.call("ZRANGE", "unacked_index", 0, -1))
        assert index == set(self.raw.call("HKEYS", "unacked"))
        assert index == {tag for name in sets for tag in self.raw.call("SMEMBERS", name)}
        return len(index)


def message(task_id, queue="q", size=10, priority=0, **headers):
    """A message of a task."""
    headers = {"task": "w.add", "id": str(task_id), **headers}
    return Publish(Envelope(headers, b"x" * size, properties={"priority": priority}), "", queue)


@contextlib.asynccontextmanager
async def receiving(server, *queues, node="w@h"):
    """A receiver that consumes."""
    receiver = Receiver(server.url, {}, node=node)
    await receiver.open()
    try:
        for queue in queues or ("q",):
            await receiver.consume(Queue(queue))
        yield receiver
    finally:
        await receiver.close()
