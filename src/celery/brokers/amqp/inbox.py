"""A private queue on RabbitMQ, read blockingly."""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import time
from collections import deque
from typing import TYPE_CHECKING

from celery.brokers import base
from celery.brokers.amqp import declarations, messages
from celery.brokers.amqp.blocking import Link
from celery.brokers.amqp.closed import OpenHeads
from celery.brokers.amqp.errors import ChannelError
from celery.brokers.amqp.events import Cancelled, ChannelClosed, Delivered

if TYPE_CHECKING:
    from celery.brokers.amqp.address import Address
    from celery.brokers.amqp.events import Event
    from celery.brokers.topology import Queue
    from celery.wire.envelope import Envelope

logger = logging.getLogger(__name__)

#: Seconds after which a `get` that still waits looks after its connection.
_WAIT = 60.0


class Inbox(base.Inbox):
    """Reads one queue over a connection of its own.

    A lost connection is an error of the `get` that finds it; the next one declares the queue again.
    """

    wakes = True

    def __init__(self, address: Address, queue: Queue) -> None:
        self._address = address
        self._queue = queue
        self._arrived: deque[Envelope] = deque()
        self._rope, self._bell = socket.socketpair()
        self._rope.setblocking(False)
        self._bell.setblocking(False)
        self._woken = False
        self._link = Link(address, self._on_event, self._bell)
        self._consuming = False
        self._patience = min(_WAIT, address.heartbeat / 2 or _WAIT)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def at_hand(self) -> int:
        """How many have arrived."""
        return len(self._arrived)

    def get(self, timeout: float | None) -> Envelope | None:
        """The next message, or None after `timeout` seconds."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self._arrived:
            try:
                if not (self._consuming and self._link.lives()):
                    self._open()
                step = min(deadline, time.monotonic() + self._patience)
                self._link.wait(lambda: bool(self._arrived) or self._woken or not self._consuming, step, keep=True)
            except Exception:
                self._consuming = False
                raise
            if not self._arrived and (self._woken or time.monotonic() >= deadline):
                self._woken = False
                return None
        return self._arrived.popleft()

    def wake(self) -> None:
        """Make a running `get`, or the next one that would wait, return at once."""
        self._woken = True
        with contextlib.suppress(OSError):  # full: it rings already; closed: nobody waits
            self._rope.send(b"!")

    def close(self) -> None:
        """Disconnect; the server deletes what is exclusive or has no consumer left."""
        self._link.close()
        self._rope.close()
        self._bell.close()

    def _open(self) -> None:
        """Connect and consume, unless that is so."""
        deadline = self._link.deadline(None)
        if self._link.ready(deadline) and self._consuming:
            raise self._address.lost("the connection was lost, perhaps with messages")
        if self._consuming:
            return
        try:
            number = self._link.open_channel(deadline)
            self._link.connection.expect_alike(number, OpenHeads())
            self._link.calls(
                number,
                [
                    *declarations.queue_calls(self._queue),
                    ("basic.consume", {"queue": self._queue.name, "no_ack": True, "exclusive": self._queue.exclusive}),
                ],
                deadline,
            )
        except ChannelError as error:
            raise self._address.refused(error.event) from None
        self._consuming = True

    def _on_event(self, event: Event) -> None:
        match event:
            case Delivered(properties=None):
                logger.warning("A message in %r is dropped: its properties cannot be read", self._queue.name)
            case Delivered(properties=dict() as properties):
                self._arrived.append(messages.envelope_of(properties, event.body))
            case Cancelled() | ChannelClosed():
                self._consuming = False
            case _:
                return
