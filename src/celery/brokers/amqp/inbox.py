"""A private queue on RabbitMQ, read blockingly."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from celery.brokers import base
from celery.brokers.amqp import declarations, messages
from celery.brokers.amqp.blocking import Link
from celery.brokers.amqp.errors import ChannelError
from celery.brokers.amqp.events import Cancelled, ChannelClosed, Delivered

if TYPE_CHECKING:
    from celery.brokers.amqp.address import Address
    from celery.brokers.amqp.events import Event
    from celery.brokers.topology import Queue
    from celery.wire.envelope import Envelope

logger = logging.getLogger(__name__)

#: The longest single wait of a `get` without a bound, in seconds.
_WAIT = 60.0


class Inbox(base.Inbox):
    """Reads one queue over a connection of its own. After a lost connection the next `get` declares it again."""

    def __init__(self, address: Address, queue: Queue) -> None:
        self._address = address
        self._queue = queue
        self._arrived: deque[Envelope] = deque()
        self._link = Link(address, self._on_event)
        self._consuming = False
        self._open()

    def get(self, timeout: float | None) -> Envelope | None:
        """The next message, or None after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._arrived:
            if not self._consuming or not self._link.connected:
                self._open()
            step = time.monotonic() + _WAIT if deadline is None else deadline
            self._link.wait(lambda: bool(self._arrived) or not self._consuming, step, keep=True)
            if not self._arrived and deadline is not None and time.monotonic() >= deadline:
                return None
        return self._arrived.popleft()

    def close(self) -> None:
        """Disconnect; the server deletes what is exclusive or has no consumer left."""
        self._link.close()

    def _open(self) -> None:
        deadline = self._link.deadline(None)
        self._link.ready(deadline)
        try:
            number = self._link.open_channel(deadline)
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
