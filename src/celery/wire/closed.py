"""Signatures of a message that stay closed, as the text they came as, until somebody looks inside.

A step of a long chain carries all the steps after it, and a member of a chord's header the whole body: of that an
attempt needs one step, or nothing. So large bodies in JSON are taken apart without reading what is in these two places,
and what goes on with the next message goes on as text. A step of a chain of a thousand costs a third of what it did.

To everybody else a `Steps` is a list of mappings, and a `ClosedSignature` a mapping.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableSequence
from typing import Any, overload

import msgspec

from celery.wire.serializers import LONG_MARK, cut_long_strings, put_long_strings_back

#: A signature, or its JSON text.
Step = Mapping[str, Any] | msgspec.Raw

_NULL = b"null"
_split = msgspec.json.Decoder(list[msgspec.Raw]).decode
_one = msgspec.json.Decoder(msgspec.Raw).decode
#: What stands between a step and the next one, as we and 5.7 write it, and as others may.
_BETWEEN = (b'}, {"task": ', b'},{"task":')


class Around(msgspec.Struct):
    """The third element of a body, its workflow closed."""

    callbacks: Any = None
    errbacks: Any = None
    chain: msgspec.Raw = msgspec.Raw(_NULL)
    chord: msgspec.Raw = msgspec.Raw(_NULL)

    def opened(self) -> dict[str, Any]:
        """As a mapping; what there is none of is None."""
        chain, chord = bytes(self.chain), bytes(self.chord)
        return {
            "callbacks": self.callbacks or None,
            "errbacks": self.errbacks or None,
            "chain": (Steps.read(chain) or None) if chain != _NULL else None,
            "chord": ClosedSignature(chord) if chord not in (_NULL, b"{}") else None,
        }


_read = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], Around]).decode


def read_body(payload: bytes) -> tuple[list[Any], dict[str, Any], dict[str, Any]] | None:
    """Arguments, keyword arguments and embed of a protocol 2 body in UTF-8 JSON; None when it is not just that."""
    try:
        if cut := cut_long_strings(payload):
            short, strings = cut
            args, kwargs, around = _read(short)
            if LONG_MARK not in bytes(around.chain) + bytes(around.chord):
                embed = around.opened()
                put_long_strings_back([args, kwargs, embed], strings)
                return args, kwargs, embed
        args, kwargs, around = _read(payload)
        return args, kwargs, around.opened()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


class Steps(MutableSequence[Any]):
    """Signatures in a row, each closed until it is asked for. Who takes the last one, the next step of a chain, leaves
    the others in one piece.
    """

    __slots__ = ("_before", "_steps")

    def __init__(self, steps: Iterable[Step] = (), before: bytes = b"") -> None:
        """A row of these.

        Args:
            steps: the last ones.
            before: those before them, as they stand between the brackets of an array.
        """
        self._steps: list[Step] = list(steps)
        self._before = before

    @classmethod
    def read(cls, text: bytes) -> Steps:
        """The steps of a JSON array, known to be one.

        The last one begins behind the last mark of a border, if what follows that is a whole value: inside of a string
        no quotation mark stands without a backslash, and inside of a nested array or object what follows ends more than
        it begins.
        """
        for mark in _BETWEEN:
            border = text.rfind(mark)
            if border > 0:
                begin = text.index(b"{", border)
                try:
                    return cls((_one(text[begin:-1]),), text[1 : border + 1])
                except msgspec.DecodeError:
                    break
        return cls(_split(text))

    def _all(self) -> list[Step]:
        if self._before:
            self._steps[:0] = _split(b"[" + self._before + b"]")
            self._before = b""
        return self._steps

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Steps: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            if index == slice(None, -1) and self._steps:
                return Steps(self._steps[:-1], self._before)
            return Steps(self._all()[index])
        steps = self._steps if index == -1 and self._steps else self._all()
        step = steps[index]
        if isinstance(step, msgspec.Raw):
            step = steps[index] = msgspec.json.decode(step)
        return step

    def __setitem__(self, index: Any, value: Any) -> None:
        self._all()[index] = value

    def __delitem__(self, index: int | slice) -> None:
        del self._all()[index]

    def __len__(self) -> int:
        return len(self._all())

    def __bool__(self) -> bool:
        return bool(self._before or self._steps)

    def insert(self, index: int, value: Any) -> None:
        """As of a list."""
        self._all().insert(index, value)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Steps):
            return list(self) == list(other)
        return list(self) == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as any sequence that can change

    def __repr__(self) -> str:
        return repr(list(self))

    def __copy__(self) -> Steps:
        return Steps(self._steps, self._before)

    def __deepcopy__(self, memo: Any) -> Steps:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)

    def __json__(self) -> list[Any]:
        return list(self)

    def texts(self) -> Iterator[bytes | Mapping[str, Any]]:
        """In order: as JSON what is closed, one or several with commas between them; else itself."""
        if self._before:
            yield self._before
        for step in self._steps:
            yield bytes(step) if isinstance(step, msgspec.Raw) else step


class ClosedSignature(Mapping[str, Any]):
    """A signature, closed until it is asked for something."""

    __slots__ = ("_opened", "_text")

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._opened: dict[str, Any] | None = None

    def _open(self) -> dict[str, Any]:
        if self._opened is None:
            self._opened = dict(msgspec.json.decode(self._text))
        return self._opened

    def __getitem__(self, key: str) -> Any:
        return self._open()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._open())

    def __len__(self) -> int:
        return len(self._open())

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return repr(self._open())

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self._open(),)

    def __json__(self) -> dict[str, Any]:
        return self._open()
