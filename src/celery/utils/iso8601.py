"""Dates as the protocol writes them."""
from __future__ import annotations

import time
from datetime import UTC, datetime

__all__ = ("parse_iso8601", "utc_text")

#: A second in microseconds of Unix time, and its text without zone. Replaced as one: threads see both or neither.
_second: tuple[int, str] = (0, "1970-01-01T00:00:00")


def utc_text(microseconds: int | None = None) -> str:
    """The text of a moment in UTC, as `datetime.isoformat` writes it; its date and second are made once a second.

    Args:
        microseconds: of Unix time; None: now.
    """
    global _second  # noqa: PLW0603 - what it keeps is true for everybody
    now = time.time_ns() // 1000 if microseconds is None else microseconds
    second, text = _second
    rest = now - second
    if not 0 <= rest < 1_000_000:
        seconds, rest = divmod(now, 1_000_000)
        text = datetime.fromtimestamp(seconds, UTC).isoformat()[:-6]
        _second = now - rest, text
    # Six digits, in half the time that a format takes.
    return f"{text}.{str(rest + 1_000_000)[1:]}+00:00" if rest else f"{text}+00:00"


def parse_iso8601(datestring: str) -> datetime:
    """Return the datetime that an ISO 8601 text says; naive if it names no zone.

    Raises:
        ValueError: The text is not a date.
    """
    try:
        return datetime.fromisoformat(datestring)
    except ValueError:
        raise ValueError(f"{datestring!r} is not an ISO 8601 date such as 2026-11-22T10:56:03.626+00:00") from None
