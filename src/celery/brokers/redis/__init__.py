"""The Redis broker: lists, one hash and one sorted set, shared with Celery 5.7 peers (wire.md section 3).

    address     where the server is and how to log in: URL and options as data
    resp        the protocol's sentences: handshake, errors (no I/O)
    blocking    a socket connection, for senders, inboxes and the result backend
    streaming   an asyncio connection with pipelining and pushes, for the receiver
    sentinel    which server is the master
    envelope    Envelope <-> JSON text (no I/O)
    keys        names of keys and channels, priority steps, members of binding sets (no I/O)
    routing     an address -> the lists and channels that it reaches; declarations as commands (no I/O)
    scripts/    the atomic steps, in Lua
    sender, inbox, receiver, claiming, settling, leases   the driver

One server holds all keys: the scripts name keys that they compute, so Redis Cluster is out of scope.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery.brokers.redis.receiver import Receiver
    from celery.brokers.redis.sender import Sender

__all__ = ("Receiver", "Sender")


def __getattr__(name: str) -> Any:
    """Find a half on first use: producers never import asyncio (PEP 562)."""
    if name == "Sender":
        from celery.brokers.redis.sender import Sender

        return Sender
    if name == "Receiver":
        from celery.brokers.redis.receiver import Receiver

        return Receiver
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
