"""Representation of any object, bounded in length and depth (wire.md 1.7).

Every task message carries a representation of its arguments for people to read, so this is on the hot path and must
bear any argument: huge, deep, recursive, or with a ``__repr__`` that raises.

Rules: the text stops at ``maxlen`` characters of content; what is open is closed all the same, so brackets and quotes
balance and the result may be a few characters longer. A cut string ends in ``...`` inside its quote, a cut collection
in ``, ...``; a collection nested deeper than ``maxlevels``, or inside itself, shows as ``[...]``. Subclasses of the
built-in collections with a ``__repr__`` of their own speak for themselves.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ("saferepr",)

_PLAIN = frozenset({int, float, bool, type(None)})
_SMALL_STRING, _SMALL_COLLECTION = 100, 16
_NO_LIMIT = 1 << 62

_LIST, _TUPLE, _DICT, _SET, _FROZENSET = (kind.__repr__ for kind in (list, tuple, dict, set, frozenset))
_QUOTED: frozenset[Any] = frozenset({str.__repr__, bytes.__repr__})
_BRACKETS: dict[Any, tuple[str, str]] = {
    _LIST: ("[", "]"),
    _TUPLE: ("(", ")"),
    _DICT: ("{", "}"),
    _SET: ("{", "}"),
    _FROZENSET: ("frozenset({", "})"),
}


def saferepr(o: Any, maxlen: int | None = None, maxlevels: int = 3, seen: set[int] | None = None) -> str:
    """Return a representation of ``o``.

    Args:
        o: Anything.
        maxlen: Characters of content at most; None for all.
        maxlevels: Collections within each other at most.
        seen: Ids of the objects that this one is inside of.
    """
    limit = _NO_LIMIT if maxlen is None else maxlen
    if _is_small(o):
        text = repr(o)
        if len(text) <= limit:
            return text
    writer = _Writer(limit, maxlevels, seen)
    writer.write(o, 0)
    return "".join(writer.parts)


def _is_small(o: Any) -> bool:
    """Tell whether Python's own repr does: few plain values, no nesting."""
    kind = type(o)
    values: Iterable[Any]
    if kind is tuple or kind is list:
        values = o
    elif kind is dict:
        values = o.values()
        for key in o:
            if type(key) is not str or len(key) > _SMALL_STRING:
                return False
    else:
        return kind in _PLAIN or (kind is str and len(o) <= _SMALL_STRING)
    if len(o) > _SMALL_COLLECTION:
        return False
    for value in values:
        kind = type(value)
        if kind not in _PLAIN and (kind is not str or len(value) > _SMALL_STRING):
            return False
    return True


class _Writer:
    """One representation in the making."""

    def __init__(self, room: int, maxlevels: int, seen: set[int] | None) -> None:
        self.parts: list[str] = []
        self.room = room
        self.maxlevels = maxlevels
        self.inside = set(seen or ())

    def put(self, text: str) -> None:
        self.parts.append(text)
        self.room -= len(text)

    def write(self, o: Any, level: int) -> None:
        shape = type(o).__repr__
        if shape in _BRACKETS:
            self.write_collection(o, shape, level)
        else:
            self.write_scalar(o)

    def write_scalar(self, o: Any) -> None:
        if type(o).__repr__ in _QUOTED:
            # Cut before it is quoted, so that a megabyte costs no more than what is shown of it.
            text = repr(o[: max(self.room, 0)])
            if len(o) > self.room or len(text) > self.room:
                text = f"{text[:-1][: max(self.room, 2)]}...{text[-1]}"
        else:
            try:
                text = repr(o)
            except Exception as exc:  # noqa: BLE001 - any argument must be representable
                text = f"<{type(o).__name__} whose repr raised {type(exc).__name__}>"
            if len(text) > self.room:
                text = f"{text[: max(self.room, 0)]}..."
        self.put(text)

    def write_collection(self, o: Any, shape: Any, level: int) -> None:
        opening, closing = _BRACKETS[shape]
        if not o:
            self.put("()" if shape is _TUPLE else "[]" if shape is _LIST else "{}" if shape is _DICT else repr(o))
            return
        if level >= self.maxlevels or id(o) in self.inside:
            self.put(f"{opening}...{closing}")
            return
        self.inside.add(id(o))
        self.put(opening)
        self.write_items(o, shape, level + 1)
        self.put(",)" if shape is _TUPLE and len(o) == 1 else closing)
        self.inside.discard(id(o))

    def write_items(self, o: Any, shape: Any, level: int) -> None:
        for index, item in enumerate(o):
            if index:
                self.put(", ")
            if self.room <= 0:
                self.put("...")
                return
            self.write(item, level)
            if shape is _DICT:
                self.put(": ")
                self.write(o[item], level)
