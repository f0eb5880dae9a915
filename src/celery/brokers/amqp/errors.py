"""What goes wrong between an AMQP server and us.

The driver turns these into `celery.exceptions.OperationalError` and `ImproperlyConfigured` (broker contract, rule 5;
see `address`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery.brokers.amqp.events import ChannelClosed


class AmqpError(Exception):
    """Base of the errors below."""


class ProtocolError(AmqpError):
    """The peer sent what AMQP 0-9-1 does not allow here; the connection is of no further use."""


class StateError(AmqpError):
    """We asked for something that the state of the connection or the channel does not allow."""


class ChannelError(AmqpError):
    """The server closed the channel of a call instead of answering it."""

    def __init__(self, event: ChannelClosed) -> None:
        super().__init__(event.text)
        self.event = event
