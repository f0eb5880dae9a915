"""Dates as the protocol writes them."""
from __future__ import annotations

from datetime import datetime

__all__ = ("parse_iso8601",)


def parse_iso8601(datestring: str) -> datetime:
    """Return the datetime that an ISO 8601 text says; naive if it names no zone.

    Raises:
        ValueError: The text is not a date.
    """
    try:
        return datetime.fromisoformat(datestring)
    except ValueError:
        raise ValueError(f"{datestring!r} is not an ISO 8601 date such as 2026-11-22T10:56:03.626+00:00") from None
