"""What goes wrong between an AMQP server and us.

The driver turns these into `celery.exceptions.OperationalError` and `ImproperlyConfigured` (broker contract, rule 5).
"""

from __future__ import annotations


class AmqpError(Exception):
    """Base of the errors below."""


class ProtocolError(AmqpError):
    """The peer sent what AMQP 0-9-1 does not allow here; the connection is of no further use."""


class StateError(AmqpError):
    """We asked for something that the state of the connection or the channel does not allow."""
