"""Content headers that look alike, read without parsing each.

A queue holds thousands of messages of one kind: their headers have the same names, types and lengths, and differ in a
few texts, such as ids, and numbers, such as places in a group, which are called texts here too. A *shape* is what they
share: the bytes that *stay*, and where the texts are that *vary*. Tags and lengths are among the bytes that stay, so a
payload that has them all in their places can be read in one way only: its properties are those of an example, with the
varying texts read anew. Anything else is parsed, and teaches:

    1. A payload that no shape of its length fits becomes an example, of which every byte stays.
    2. One that differs from an example inside of texts only makes these texts vary.
    3. Learning costs more than parsing, so of payloads that fit nothing only some are learnt from.

Measured: a fifth of the time of parsing, which was more than half of all that a delivery costs here.
"""

from __future__ import annotations

import contextlib
from struct import Struct
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from celery.brokers.amqp.fields import DECODE_ERRORS
from celery.brokers.amqp.frames import Text, content_texts, decode_content_header

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

#: Shapes kept for one length, and lengths.
_OF_A_LENGTH = 4
_LENGTHS = 512
#: Unknown payloads for one that is learnt from, once so many were.
_SELDOM, _AT_FIRST = 16, 64

_unpack_size = Struct(">4xQ").unpack_from
#: Where the size ends, which is no part of a shape.
_AFTER_SIZE = 12


class _Teachable(Protocol):
    def taught(self, example: bytes, texts: Sequence[Text], /) -> Self | None: ...


K = TypeVar("K", bound="Hashable")
S = TypeVar("S", bound=_Teachable)


class Learnt(Generic[K, S]):
    """What was learnt from examples, by what is looked at first: their lengths."""

    def __init__(self) -> None:
        #: How many examples were learnt from.
        self.count = 0
        #: What may fit.
        self.by_key: dict[K, list[S]] = {}
        self._credit = _SELDOM * _AT_FIRST

    def missed(self) -> bool:
        """Nothing did: whether to learn from that (rule 3)."""
        self._credit += 1
        if self._credit < _SELDOM:
            return False
        self._credit -= _SELDOM
        return True

    def learn(self, key: K, example: bytes, texts: Sequence[Text], make: Callable[[bytes, Sequence[Text]], S]) -> None:
        """Learn from an example; `make` may raise ValueError where that is no use."""
        self.count += 1
        if len(self.by_key) >= _LENGTHS:
            self.by_key.clear()
        known = self.by_key.setdefault(key, [])
        for index, each in enumerate(known):
            taught = each.taught(example, texts)
            if taught is not None:
                known[index] = taught
                return
        new = make(example, texts)
        del known[: len(known) + 1 - _OF_A_LENGTH]
        known.append(new)


class Shapes:
    """Reads the payloads of content headers; one for each connection."""

    def __init__(self) -> None:
        #: How many payloads were parsed.
        self.parsed = 0
        self._learnt: Learnt[int, _Shape] = Learnt()

    @property
    def learnt(self) -> int:
        """How many payloads were learnt from."""
        return self._learnt.count

    def read(self, payload: bytes) -> tuple[int, dict[str, Any] | None]:
        """The body size and the properties, as `frames.decode_content_header` returns them; nothing in them is shared.

        Raises:
            One of `fields.DECODE_ERRORS`: there is not even a size.
        """
        for shape in self._learnt.by_key.get(len(payload), ()):
            known = shape.read(payload)
            if known is not None:
                return _unpack_size(payload)[0], known
        size, properties = decode_content_header(payload)
        self.parsed += 1
        if self._learnt.missed() and properties is not None:
            with contextlib.suppress(*DECODE_ERRORS):
                self._learnt.learn(len(payload), payload, content_texts(payload), _Shape)
        return size, properties


class _Shape:
    __slots__ = (
        "_bare",
        "_example",
        "_fresh",
        "_headers",
        "_names",
        "_properties",
        "_stays",
        "_texts",
        "_unpack",
        "_varying",
    )

    def __init__(self, example: bytes, texts: Sequence[Text], varying: frozenset[int] = frozenset()) -> None:
        _, properties = decode_content_header(example)
        assert properties is not None  # it was parsed before
        #: Of the example; a mapping for every message is made from each.
        self._headers: dict[str, Any] = properties.get("headers", {})
        self._bare = "headers" not in properties
        self._properties = properties
        self._example = example
        self._texts = texts
        self._varying = varying
        spans = [texts[index] for index in sorted(varying)]
        self._names = [(text.in_headers, text.name, text.decode) for text in spans]
        #: Cuts a payload behind its size into what stays and what varies, by turns.
        self._unpack = Struct(_layout([(text.start, text.stop) for text in spans], len(example))).unpack
        self._stays = self._unpack(example)[::2]
        self._fresh = [(name, value) for name, value in self._headers.items() if isinstance(value, list | dict)]
        if any(_nested(value) for _, value in self._fresh):
            raise ValueError("what is nested deeper would be shared between messages")

    def read(self, payload: bytes) -> dict[str, Any] | None:
        """The properties; None when the payload is of another shape."""
        parts = self._unpack(payload)
        if parts[::2] != self._stays:
            return None
        headers = self._headers.copy()
        properties = self._properties.copy()
        if not self._bare:
            properties["headers"] = headers
        try:
            for (in_headers, name, decode), text in zip(self._names, parts[1::2], strict=True):
                (headers if in_headers else properties)[name] = decode(text)
        except UnicodeDecodeError:
            return None
        for name, value in self._fresh:
            headers[name] = value.copy()
        return properties

    def taught(self, payload: bytes, texts: Sequence[Text]) -> _Shape | None:
        """This shape, with those texts varying that differ in the payload; None when more than texts differ."""
        if texts != self._texts:
            return None
        parts = Struct(_layout([(text.start, text.stop) for text in texts], len(payload))).unpack
        ours, theirs = parts(self._example), parts(payload)
        if ours[::2] != theirs[::2]:
            return None
        differing = {
            index for index, pair in enumerate(zip(ours[1::2], theirs[1::2], strict=True)) if pair[0] != pair[1]
        }
        return _Shape(payload, texts, self._varying | differing)


def _layout(spans: Sequence[tuple[int, int]], length: int) -> str:
    parts, pos = [f"{_AFTER_SIZE}x"], _AFTER_SIZE
    for start, stop in spans:
        parts += (f"{start - pos}s", f"{stop - start}s")
        pos = stop
    return "".join(parts) + f"{length - pos}s"


def _nested(value: list[Any] | dict[str, Any]) -> bool:
    return any(isinstance(inner, list | dict) for inner in (value.values() if isinstance(value, dict) else value))
