"""Moments as they travel: ISO 8601 text, offset kept as the caller gave it, and no zone means UTC (wire.md 1.2)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import tzinfo

_MILLISECOND = timedelta(milliseconds=1)


def parse_time(value: str | datetime, zone: tzinfo = UTC) -> datetime:
    """Read a moment.

    Args:
        value: ISO 8601 text, or a datetime (bodies in pickle and YAML hold them).
        zone: what a value without an offset is in.

    Returns:
        An aware datetime.

    Raises:
        ValueError: the value is neither, or not a moment.
    """
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    elif not isinstance(value, datetime):
        raise ValueError(f"{value!r} is neither ISO 8601 text nor a datetime")  # noqa: TRY004 - one error for callers to catch
    return value if value.tzinfo is not None else value.replace(tzinfo=zone)


def eta_text(eta: str | datetime | None, countdown: float | None, now: datetime | None) -> str | None:
    """Give the text of the `eta` header.

    Args:
        eta: not before this moment.
        countdown: not before this many seconds from now; wins over `eta`, zero and None mean none.
        now: aware, needed with `countdown`.

    Raises:
        ValueError: not a moment, or out of range.
    """
    if countdown:
        return _after(now, countdown, "countdown").isoformat()
    return None if eta is None else _text(eta, "eta")


def expiry(expires: float | str | datetime, now: datetime | None) -> tuple[str, str]:
    """Give the text of the `expires` header and the `expiration` property.

    Args:
        expires: a moment, or seconds from now.
        now: aware.

    Returns:
        The moment, and the time left as text: whole milliseconds, `"0"` when past (wire.md 1.3).

    Raises:
        ValueError: not a moment, or out of range.
    """
    if now is None:
        raise ValueError("expires needs the present time")
    if isinstance(expires, (str, datetime)):
        text = _text(expires, "expires")
        moment = parse_time(expires)
    else:
        moment = _after(now, expires, "expires")
        text = moment.isoformat()
    return text, str(max(0, (moment - now) // _MILLISECOND))


def _after(now: datetime | None, seconds: float, option: str) -> datetime:
    if now is None:
        raise ValueError(f"{option} needs the present time")
    try:
        return now + timedelta(seconds=seconds)
    except (OverflowError, TypeError, ValueError) as exc:
        raise ValueError(f"{option} must be a number of seconds that leads to a date, not {seconds!r}: {exc}") from None


def _text(moment: str | datetime, option: str) -> str:
    """Text is checked and sent as it came."""
    try:
        parse_time(moment)
    except ValueError as exc:
        raise ValueError(f"{option} must be a datetime or ISO 8601 text, not {moment!r}: {exc}") from None
    return moment if isinstance(moment, str) else moment.isoformat()
