"""The publishing half of the Redis broker."""

from __future__ import annotations

import time
from itertools import chain
from typing import TYPE_CHECKING, Any

from celery.brokers import base
from celery.brokers.redis import address, dead, envelope, routing
from celery.brokers.redis.blocking import Connection, remaining
from celery.brokers.redis.inbox import Inbox
from celery.brokers.redis.keys import Keys
from celery.brokers.redis.resp import pack_texts
from celery.brokers.redis.scripts import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from celery.brokers.redis.resp import Command
    from celery.brokers.topology import Queue

CAPABILITIES = base.Capabilities(name="redis", started_records=True, transactional=True)

#: Values of one LPUSH, and messages of one step, so that nothing holds the server up.
_PUSH_AT_ONCE = 510
#: Bytes of messages from which on a write is full: what is about to leave is in memory twice.
_WRITE = 1 << 20
#: From so many on they are packed here.
_MANY = 32
#: Dead letters that are read at once to be sent again.
_LETTERS_AT_ONCE = 100


class Sender(base.Sender):
    """Publishes over one socket, many messages in one round trip.

    Args:
        url: one broker URL (several hosts for Sentinel).
        options: transport options and connection settings (`celery.brokers.redis.address`).
    """

    capabilities = CAPABILITIES

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._address = address.read(url, options)
        self._keys = Keys(options, self._address.database)
        self._routes = routing.Routes(self._keys, options.get("deadletter_queue"))
        self._connection = Connection(self._address)
        self._declared: dict[str, Queue] = {}

    def publish(
        self,
        batch: Sequence[base.Publish],
        *,
        confirm: bool = False,  # noqa: ARG002 - a reply is the server's word, and there always is one
        timeout: float | None = None,
    ) -> None:
        """Send all, in order.

        `until` is left to the worker that receives the message (Verdict.DELAY): what waits must lie in the queue, where
        peers and queue tools look (wire.md 7.16). `mandatory` has no meaning here: a list needs no declaration.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._connection.connected:
            self._declared.clear()
        declared, straight = self._declared, True
        for publish in batch:
            queue = publish.queue
            if queue is not None and declared.get(queue.name) is not queue:
                self._declare(queue)
            if publish.exchange:
                straight = False
        members = {} if straight else self._members(batch, deadline)
        if len(batch) == 1:
            self._send(pushes((self._routes.post(batch[0], members),)), deadline)
            return
        for start in range(0, len(batch), _PUSH_AT_ONCE):
            self._send_many(batch[start : start + _PUSH_AT_ONCE], members, deadline)

    def declare(self, queues: Sequence[Queue]) -> None:
        """Bind queues; a queue itself exists once a message waits in it."""
        self._declared.clear()
        for queue in queues:
            self._declare(queue)

    def purge(self, queue: str) -> int:
        """Delete what waits in the queue."""
        lists = self._keys.lists(queue)
        replies = self._all([("MULTI",), *(("LLEN", name) for name in lists), ("DEL", *lists), ("EXEC",)])
        return sum(replies[-1][:-1])

    def length(self, queue: str) -> int:
        """How many messages wait in the queue now."""
        return sum(self._all([("LLEN", name) for name in self._keys.lists(queue)]))

    def inbox(self, queue: Queue) -> base.Inbox:
        """Read a private queue over a connection of its own."""
        self._routes.learn(queue)
        return Inbox(self._address, self._keys, self._routes, queue)

    def dead_letters(self, queue: str, limit: int = 100) -> list[base.DeadLetter]:
        """What was refused in this queue, the latest first."""
        values = self._connection.call("LRANGE", self._keys.dead(queue), 0, limit - 1) if limit > 0 else []
        return [dead.read(value, queue) for value in values]

    def replay(self, queue: str, limit: int) -> int:
        """Send again what was refused, one script for each."""
        letters, sent, kept = self._keys.dead(queue), 0, 0
        while sent < limit:
            last = -1 - kept
            values = self._connection.call("LRANGE", letters, last - min(limit - sent, _LETTERS_AT_ONCE) + 1, last)
            if not values:
                break
            for value in reversed(values):
                message = dead.read(value, queue).message
                if isinstance(message, bytes):
                    kept += 1
                    continue
                posting = self._routes.post(base.Publish(envelope.uncounted(message), "", queue), {})
                sent += self._connection.run(load("replay"), letters, value, *posting.pushes[0])
        return sent

    def bindings(self, exchange: str) -> list[tuple[str, str]]:
        """Those written down by us and by peers (wire.md 3.3)."""
        members = self._connection.call("SMEMBERS", self._keys.bindings(exchange))
        read = (self._keys.read_member(member.decode("utf-8", "replace")) for member in members)
        return sorted((queue, key) for key, queue in filter(None, read))

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()
        self._declared.clear()

    def _send(self, commands: list[Command], deadline: float | None) -> None:
        if commands:
            self._connection.pipeline(commands, timeout=remaining(deadline), check=True)

    def _send_many(
        self, batch: Sequence[base.Publish], members: Mapping[str, Iterable[bytes]], deadline: float | None
    ) -> None:
        """Send in one write; what is too long for that in a transaction, whose messages are made as it is written.

        A header is counted as a whole: a sender that dies leaves all of what it had begun to send, or nothing.
        """
        writes = self._in_writes(batch, members)
        first, second = next(writes), next(writes, None)
        if second is None:
            self._send(first, deadline)
        else:
            self._connection.transaction(chain((first, second), writes), timeout=remaining(deadline))

    def _in_writes(
        self, batch: Sequence[base.Publish], members: Mapping[str, Iterable[bytes]]
    ) -> Iterator[list[Command]]:
        """The commands for one write after the other."""
        post = self._routes.post
        postings: list[routing.Posting] = []
        size = 0
        for publish in batch:
            posting = post(publish, members)
            postings.append(posting)
            for _, text in posting.pushes or posting.channels:
                size += len(text)
            if size >= _WRITE:
                yield pushes(postings)
                postings, size = [], 0
        if postings:
            yield pushes(postings)

    def _members(self, batch: Sequence[base.Publish], deadline: float | None) -> dict[str, Iterable[bytes]]:
        """The binding sets that decide where the batch goes."""
        names, lookup = self._routes.lookup(batch)
        replies = self._connection.pipeline(lookup, timeout=remaining(deadline), check=True) if lookup else []
        return self._routes.found(names, replies)

    def _declare(self, queue: Queue) -> None:
        if self._declared.get(queue.name) == queue:
            return
        self._routes.learn(queue)
        # A fan-out copy is for whoever consumes: only a consumer binds its queue.
        if queue.name and not queue.no_declare and not queue.is_broadcast:
            self._bind(queue)
        self._declared[queue.name] = queue

    def _bind(self, queue: Queue) -> None:
        if not self._routes.members(queue):
            return
        if routing.expiry(queue) is None:
            self._all(self._routes.bind(queue))
        else:
            self._all(self._routes.announce(queue))
            self._connection.run(load("bind"), *self._routes.bind_expiring(queue))

    def _all(self, commands: Sequence[Command]) -> list[Any]:
        return self._connection.pipeline(commands, check=True) if commands else []


def pushes(postings: Iterable[routing.Posting]) -> list[Command]:
    """Postings as commands, in order; neighbours in one list share an LPUSH."""
    commands: list[Command] = []
    # The list that is pushed to, and what is not among the commands yet.
    last = ""
    texts: list[bytes] = []
    for posting in postings:
        for name, text in posting.pushes:
            if texts and (name != last or len(texts) >= _PUSH_AT_ONCE):
                commands.append(_push(last, texts))
                texts = []
            texts.append(text)
            last = name
        if posting.channels or posting.life is not None:
            if texts:
                commands.append(_push(last, texts))
                texts = []
            commands += [("PUBLISH", channel, text) for channel, text in posting.channels]
            if posting.life is not None:
                commands += [("PEXPIRE", name, posting.life) for name, _ in posting.pushes]
    if texts:
        commands.append(_push(last, texts))
    return commands


def _push(name: str, texts: list[bytes]) -> Command:
    return ("LPUSH", name, *texts) if len(texts) < _MANY else pack_texts(("LPUSH", name), texts)
