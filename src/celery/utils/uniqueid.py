"""Ids of tasks, groups and requests."""
from __future__ import annotations

from os import urandom
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("uuid",)


def uuid(_uuid: Callable[[], Any] | None = None) -> str:
    """Return a random UUID (version 4) as text.

    Formatting the bytes here takes half the time of ``str(uuid.uuid4())``, and every task needs one.

    Args:
        _uuid: Makes the id instead; whatever it returns is turned into text.
    """
    if _uuid is not None:
        return str(_uuid())
    digits = urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
