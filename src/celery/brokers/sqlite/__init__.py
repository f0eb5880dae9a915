"""The embedded broker: one SQLite file, no server. See `schema.sql`, then `store`, `messages`, `leases`, `liveness`.

The two halves are loaded apart: a producer needs neither asyncio nor the result backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery.brokers.sqlite.receiver import Receiver
    from celery.brokers.sqlite.sender import Sender

__all__ = ("Receiver", "Sender")


def __getattr__(name: str) -> Any:
    """Load a half on first use (PEP 562)."""
    if name == "Sender":
        from celery.brokers.sqlite.sender import Sender

        return Sender
    if name == "Receiver":
        from celery.brokers.sqlite.receiver import Receiver

        return Receiver
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
