"""Ids of tasks, groups and requests."""

from __future__ import annotations

from os import urandom
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Ids", "uuid", "uuids")

#: The digit that says which kind of UUID it is, from a random one: the upper two of its bits are fixed.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def uuid(_uuid: Callable[[], Any] | None = None) -> str:
    """Return a random UUID (version 4) as text.

    Formatting the bytes here takes half the time of ``str(uuid.uuid4())``, and every task needs one.

    Args:
        _uuid: Makes the id instead; whatever it returns is turned into text.
    """
    if _uuid is not None:
        return str(_uuid())
    digits = urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"


#: How one stands among many, and where its digits do.
_BLANK = b"00000000-0000-0000-0000-000000000000 "
_PLACES = [place for place, character in enumerate(_BLANK) if character == _BLANK[0]]
#: What the bytes become in which version and variant are.
_VERSIONS = bytes(byte & 0x0F | 0x40 for byte in range(256))
_VARIANTS = bytes(byte & 0x3F | 0x80 for byte in range(256))

#: Ids that are made one by one before many are: a loop over 32 digits takes as long as ten of them.
_SINGLE, _AT_ONCE = 20, 100


def uuids(count: int) -> list[str]:
    """Return many of what `uuid` gives: one digit of all is set at a time, which takes a fifth of that for 500."""
    random = bytearray(urandom(16 * count))
    random[6::16] = random[6::16].translate(_VERSIONS)
    random[8::16] = random[8::16].translate(_VARIANTS)
    digits = random.hex().encode()
    text = bytearray(_BLANK * count)
    for number, place in enumerate(_PLACES):
        text[place :: len(_BLANK)] = digits[number::32]
    return text.decode().split()


class Ids:
    """Ids for one purpose, of one thread: the more were asked for, the more are made at once."""

    __slots__ = ("_ready", "_taken")

    def __init__(self) -> None:
        self._taken = 0
        self._ready: list[str] = []

    def new(self) -> str:
        """The next one."""
        if self._ready:
            return self._ready.pop()
        self._taken += 1
        if self._taken < _SINGLE:
            return uuid()
        self._ready = uuids(_AT_ONCE)
        return self._ready.pop()
