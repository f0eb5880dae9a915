"""The RabbitMQ broker: our own AMQP 0-9-1, shared with Celery 5.7 peers (wire.md section 2).

fields, methods, frames     the encoding: values and tables, the method table, frames and contents (no I/O)
shapes, closed              headers that look alike, read without parsing each; deliveries that stay closed (no I/O)
events, errors, connection  one connection as a state machine: bytes in, events out; its channels: channel (no I/O)
address                     where the server is, how to log in, and what its refusals mean
messages                    Publish and Delivery <-> AMQP's names and properties; the delay ladder's keys (no I/O)
declarations                queues and the delay ladder as methods to call (no I/O)
blocking, streaming         a connection over a socket, and over asyncio
sender, inbox, dead         publishing and reading blockingly; the dead queues
receiver, publisher, acks   consuming in a worker
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery.brokers.amqp.closed import FORMAT as Format  # noqa: N811 - a name of the module, as the others
    from celery.brokers.amqp.receiver import Receiver
    from celery.brokers.amqp.sender import Sender

__all__ = ("Format", "Receiver", "Sender")


def __getattr__(name: str) -> Any:
    """Find a half on first use: producers never import asyncio (PEP 562)."""
    if name == "Sender":
        from celery.brokers.amqp.sender import Sender

        return Sender
    if name == "Receiver":
        from celery.brokers.amqp.receiver import Receiver

        return Receiver
    if name == "Format":
        from celery.brokers.amqp.closed import FORMAT

        return FORMAT
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
