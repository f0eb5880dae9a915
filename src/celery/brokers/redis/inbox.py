"""A private queue on Redis, read blockingly: a list with BRPOP, or a channel pattern (wire.md 3.8, 5.2)."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from celery import exceptions
from celery.brokers import base
from celery.brokers.redis import resp, routing
from celery.brokers.redis.blocking import Connection
from celery.brokers.redis.scripts import load
from celery.wire.sealed import UnreadableError, open_text

if TYPE_CHECKING:
    from celery.brokers.redis.address import Address
    from celery.brokers.redis.keys import Keys
    from celery.brokers.redis.resp import Command
    from celery.brokers.topology import Queue
    from celery.wire.envelope import Envelope

logger = logging.getLogger(__name__)

#: One blocking call of the server, in seconds: a broken connection is noticed after this.
_WAIT = 5.0


class Inbox(base.Inbox):
    """Reads one queue. After a lost connection the next `get` declares it again; what a list holds survives that."""

    def __init__(self, address: Address, keys: Keys, routes: routing.Routes, queue: Queue) -> None:
        self._address = address
        self._connection = Connection(address)
        self._keys = keys
        self._routes = routes
        self._queue = queue
        self._lists = keys.lists(queue.name)
        self._patterns = [
            keys.channel_pattern(bound.exchange.name, bound.routing_key)
            for bound in queue.all_bindings()
            if routes.kind(bound.exchange.name) == "fanout"
        ]
        # A subscribed connection takes no other commands.
        self._control = Connection(address) if self._patterns else self._connection
        self._closed = False
        self._arrived: deque[bytes] = deque()
        self._renew_at = 0.0
        self._open()

    def get(self, timeout: float | None) -> Envelope | None:
        """The next message that can be read, or None after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._connection.connected:
            self._open()
        elif time.monotonic() >= self._renew_at:
            self._bind()
        while True:
            remaining = _WAIT if deadline is None else min(_WAIT, deadline - time.monotonic())
            text = self._next(max(remaining, 0.0))
            if text is not None:
                try:
                    return open_text(text).envelope
                except UnreadableError as error:
                    logger.warning("A message in %r is dropped: %s", self._queue.name, error)
            elif deadline is not None and time.monotonic() >= deadline:
                return None

    def close(self) -> None:
        """Take bindings and lists away, and disconnect."""
        if self._closed:
            return
        self._closed = True
        try:
            self._control.pipeline(self._routes.unbind(self._queue))
        except exceptions.OperationalError:
            logger.debug("The queue %r is left to its expiry: no connection", self._queue.name)
        finally:
            self._control.close()
            self._connection.close()

    def _open(self) -> None:
        """Bind the queue, and subscribe if it reads a channel: when this returns nothing is missed."""
        self._bind()
        if self._patterns:
            self._connection.send((("PSUBSCRIBE", *self._patterns),))
            for _ in self._patterns:
                resp.check(self._address, self._connection.read())

    def _bind(self) -> None:
        self._renew_at = time.monotonic() + routing.binding_life(self._queue) / 3000
        if not self._routes.members(self._queue):
            return
        if routing.expiry(self._queue) is None:
            self._control.pipeline(self._routes.bind(self._queue), check=True)
            return
        if announcement := self._routes.announce(self._queue):
            self._control.pipeline(announcement, check=True)
        self._control.run(load("bind"), *self._routes.bind_expiring(self._queue))

    def _next(self, timeout: float) -> bytes | None:
        if self._patterns:
            return self._text(self._connection.poll(timeout))
        if self._arrived:
            return self._arrived.popleft()
        if timeout <= 0:
            commands: list[Command] = [("RPOP", name) for name in self._lists]
            replies = self._connection.pipeline(commands, check=True)
            self._arrived.extend(reply for reply in replies if reply is not None)
            return self._arrived.popleft() if self._arrived else None
        reply = self._connection.call("BRPOP", *self._lists, timeout, timeout=timeout + self._address.timeout)
        return None if reply is None else reply[1]

    @staticmethod
    def _text(push: Any) -> bytes | None:
        return push[3] if isinstance(push, list) and push[0] == b"pmessage" else None
