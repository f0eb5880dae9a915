"""The time zone of an application (SET-005)."""

from __future__ import annotations

import datetime
from typing import Any

from celery.exceptions import ImproperlyConfigured


def read_zone(name: Any, enable_utc: bool) -> datetime.tzinfo:
    """The zone that the setting `timezone` names; without one UTC, or where `enable_utc` is off, the machine's.

    Raises:
        ImproperlyConfigured: there is no such zone.
    """
    if isinstance(name, datetime.tzinfo):
        return name
    if name:
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            raise ImproperlyConfigured(f"timezone is {name!r}, which is no known time zone.") from None
    if enable_utc:
        return datetime.UTC
    local = datetime.datetime.now().astimezone().tzinfo
    assert local is not None
    return local
