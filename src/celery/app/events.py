"""Sending events to monitors (wire.md 5.4): `app.events`."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery import exceptions
from celery.brokers.base import Publish
from celery.brokers.topology import Exchange, Queue
from celery.utils.log import get_logger
from celery.wire import serializers
from celery.wire.envelope import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery.app.base import Celery
    from celery.brokers.base import Sender

__all__ = ("Dispatcher", "Events")

logger = get_logger(__name__)


class Dispatcher:
    """Publishes events of one node, each at once and by itself.

    Args:
        app: the application.
        hostname: node name; None: this process as a client, gen<pid>@<host>.
        enabled: whether anything is sent.
    """

    def __init__(self, app: Celery, hostname: str | None = None, enabled: bool = True) -> None:
        self.app = app
        self.hostname = hostname or app.origin_name()
        self.enabled = enabled
        #: Only the exchange: the queues are the monitors' own.
        self._declared = Queue("", Exchange(app.conf.event_exchange, "topic"))

    def send(
        self, type: str, *, retry: bool = False, retry_policy: dict[str, Any] | None = None, **fields: Any
    ) -> None:
        """Publish an event; nothing while disabled.

        An event that cannot be sent is dropped, with a warning: what it tells of goes on all the same.

        Args:
            type: with its group in front: "task-progress".
            retry: try again, by `retry_policy`, when the broker is away.
            retry_policy: as `task_publish_retry_policy`.
            fields: of the event.
        """
        if not self.enabled:
            return
        try:
            envelope = self._envelope(type, fields)
            policy = retry_policy if retry else None
            self.app.publisher.run(lambda sender: self._publish(sender, type, envelope), policy)
        except (exceptions.OperationalError, exceptions.EncodeError) as exc:
            logger.warning("The event %s of %s is dropped: %s", type, self.hostname, exc)

    def _envelope(self, type: str, fields: dict[str, Any]) -> Envelope:
        local = time.localtime()
        body = {
            "hostname": self.hostname,
            # Positive to the west, as all peers have it.
            "utcoffset": -local.tm_gmtoff / 3600,
            "pid": os.getpid(),
            "clock": self.app.clock.forward(),
            **fields,
            "timestamp": fields.get("timestamp") or time.time(),
            "type": type,
        }
        content_type, content_encoding, payload = serializers.dumps(body, self.app.conf.event_serializer)
        properties = {"delivery_mode": 1, "priority": 0}
        return Envelope({"hostname": self.hostname}, payload, content_type, content_encoding, properties)

    def _publish(self, sender: Sender, type: str, envelope: Envelope) -> None:
        sender.publish([Publish(envelope, self._declared.exchange.name, type.replace("-", "."), self._declared)])


class Events:
    """Events of an application (`app.events`)."""

    def __init__(self, app: Celery) -> None:
        self.app = app

    @contextmanager
    def default_dispatcher(self, hostname: str | None = None, enabled: bool = True) -> Iterator[Dispatcher]:
        """A dispatcher for the duration of a `with` block (EVT-023)."""
        yield Dispatcher(self.app, hostname, enabled)
