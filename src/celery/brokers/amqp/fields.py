"""Field values and tables of AMQP 0-9-1 (wire.md 2.1).

A table is a 32 bit length and then, per entry, a short string, one tag byte and a value. We write the tags that
every peer writes:

    str S   bool t   int I (32 bit) or l (64 bit)   float d   None V   list, tuple A   mapping F   datetime T
    Decimal D   bytes x

and read in addition what RabbitMQ and other clients write: ``b B s u i L f``. Text that is not UTF-8 stays bytes and a
time that no calendar holds stays a number of seconds: odd data of a stranger must not cost us the message.

Tables are the hot part of a message (some twenty headers each way), so the common tags are handled inside the loops
and the rest through tables of functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from struct import Struct
from struct import error as struct_error
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: What reading a truncated or senseless value can raise; callers turn it into their own error.
DECODE_ERRORS = (IndexError, KeyError, ValueError, struct_error, RecursionError)

pack_long = Struct(">I").pack
unpack_long = Struct(">I").unpack_from

_INT32 = Struct(">ci").pack
_INT64 = Struct(">cq").pack
_DOUBLE = Struct(">cd").pack
_DECIMAL = Struct(">cBi").pack
_DECIMAL_VALUE = Struct(">Bi").unpack_from
_SIGNED64 = Struct(">q").unpack_from

_KNOWN_KEYS_LIMIT = 1024
#: Keys as they are written: alone, before a text, and before nothing.
_known_keys: dict[str, tuple[bytes, bytes, bytes]] = {}


class FieldError(ValueError):
    """A value that AMQP cannot carry where it was put; the text says which and why."""


def encode_short_string(text: str) -> bytes:
    """Encode a name: at most 255 bytes.

    Raises:
        FieldError: it is longer.
    """
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) > 255:
        raise FieldError(f"{text[:40]!r}... takes {len(raw)} bytes; AMQP names and short properties hold 255 at most")
    return bytes((len(raw),)) + raw


def decode_short_string(data: bytes, pos: int) -> tuple[str, int]:
    """Read a short string at ``pos``; returns it and the position after it."""
    start = pos + 1
    stop = start + data[pos]
    raw = data[start:stop]
    try:
        return raw.decode(), stop
    except UnicodeDecodeError:
        return raw.decode("utf-8", "surrogateescape"), stop


def encode_table(table: Mapping[str, Any]) -> bytes:
    """Encode a table, with its length in front.

    Raises:
        FieldError: a key or a value does not fit; the text gives the path to it.
    """
    parts: list[bytes] = []
    add = parts.append
    for key, value in table.items():
        alone, before_text, before_nothing = _known_keys.get(key) or _encode_key(key)
        if value is None:
            add(before_nothing)
        elif type(value) is str:
            raw = value.encode("utf-8", "surrogatepass")
            add(before_text)
            add(pack_long(len(raw)))
            add(raw)
        else:
            add(alone)
            try:
                add(_ENCODERS.get(type(value), _encode_other)(value))
            except FieldError as exc:
                raise FieldError(f"{key}: {exc}") from None
            except RecursionError:
                raise FieldError(f"{key}: nested too deeply") from None
    body = b"".join(parts)
    return pack_long(len(body)) + body


def decode_table(data: bytes, pos: int) -> tuple[dict[str, Any], int]:
    """Read a table at ``pos``; returns it and the position after it.

    Raises:
        One of DECODE_ERRORS: it is cut short or uses a tag that does not exist.
    """
    end = pos + 4 + unpack_long(data, pos)[0]
    pos += 4
    table: dict[str, Any] = {}
    while pos < end:
        start = pos + 1
        pos = start + data[pos]
        key = data[start:pos].decode()
        tag = data[pos]
        if tag == _TEXT:
            start = pos + 5
            pos = start + unpack_long(data, pos + 1)[0]
            raw = data[start:pos]
            try:
                table[key] = raw.decode()
            except UnicodeDecodeError:
                table[key] = _odd_text(raw)
        elif tag == _VOID:
            table[key] = None
            pos += 1
        else:
            table[key], pos = _DECODERS[tag](data, pos + 1)
    if pos != end or end > len(data):
        raise IndexError("a table ends amid a value")
    return table, end


def table_texts(data: bytes, pos: int) -> list[tuple[str, int, int, bool]]:
    """Where the texts of a table are, and its numbers of 32 bits, but for those inside of nested ones: (key, start,
    stop, whether it is a number).

    Raises:
        One of DECODE_ERRORS: it cannot be read, or has a key twice.
    """
    end = pos + 4 + unpack_long(data, pos)[0]
    pos += 4
    texts: list[tuple[str, int, int, bool]] = []
    keys: set[str] = set()
    while pos < end:
        key, pos = decode_short_string(data, pos)
        if key in keys:
            raise KeyError(key)
        keys.add(key)
        start = pos + 1
        _, pos = _DECODERS[data[pos]](data, start)
        if data[start - 1] == _TEXT:
            texts.append((key, start + 4, pos, False))
        elif data[start - 1] == _NUMBER:
            texts.append((key, start, pos, True))
    return texts


# -- writing ----------------------------------------------------------------


def _encode_key(key: object) -> tuple[bytes, bytes, bytes]:
    if not isinstance(key, str):
        raise FieldError(f"the key {key!r} is a {type(key).__name__}; keys of an AMQP table are text")
    alone = encode_short_string(key)
    encoded = alone, alone + b"S", alone + b"V"
    if len(_known_keys) < _KNOWN_KEYS_LIMIT:
        _known_keys[key] = encoded
    return encoded


def _encode_text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"S" + pack_long(len(raw)) + raw


def _encode_bool(value: bool) -> bytes:
    return b"t\x01" if value else b"t\x00"


@lru_cache(maxsize=256)
def _encode_int(value: int) -> bytes:
    if -0x80000000 <= value <= 0x7FFFFFFF:
        return _INT32(b"I", value)
    if -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        return _INT64(b"l", value)
    raise FieldError(f"the integer {value} takes more than 64 bits; send it as text")


def _encode_float(value: float) -> bytes:
    return _DOUBLE(b"d", value)


def _encode_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if isinstance(exponent, int) and -255 <= exponent <= 0:
        unscaled = int("".join(map(str, digits)) or "0") * (-1 if sign else 1)
        if -0x80000000 <= unscaled <= 0x7FFFFFFF:
            return _DECIMAL(b"D", -exponent, unscaled)
    raise FieldError(f"the decimal {value} does not fit in 32 bits and a scale; send it as text")


def _encode_time(value: datetime) -> bytes:
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return _INT64(b"T", int(aware.timestamp()))


def _encode_list(values: list[Any] | tuple[Any, ...]) -> bytes:
    body = b"".join([_ENCODERS.get(type(value), _encode_other)(value) for value in values])
    return b"A" + pack_long(len(body)) + body


def _encode_mapping(value: Mapping[str, Any]) -> bytes:
    return b"F" + encode_table(value) if value else b"F\0\0\0\0"


def _encode_bytes(value: bytes | bytearray | memoryview) -> bytes:
    raw = bytes(value)
    return b"x" + pack_long(len(raw)) + raw


def _encode_other(value: object) -> bytes:
    """Encode an instance of a subclass, by the first type of _BY_ISINSTANCE that it is an instance of."""
    for kind, encode in _BY_ISINSTANCE:
        if isinstance(value, kind):
            return encode(value)
    raise FieldError(f"{value!r:.60} is a {type(value).__name__}, which AMQP cannot carry; send it as text")


_BY_ISINSTANCE: tuple[tuple[type[Any], Callable[[Any], bytes]], ...] = (
    (str, _encode_text),
    (bool, _encode_bool),
    (int, _encode_int),
    (float, _encode_float),
    (list, _encode_list),
    (tuple, _encode_list),
    (Mapping, _encode_mapping),
    (datetime, _encode_time),
    (Decimal, _encode_decimal),
    (bytes, _encode_bytes),
    (bytearray, _encode_bytes),
    (memoryview, _encode_bytes),
)
_ENCODERS: dict[type[Any], Callable[[Any], bytes]] = {
    type(None): lambda _: b"V",
    dict: _encode_mapping,
    **{kind: encode for kind, encode in _BY_ISINSTANCE if kind is not Mapping},
}


# -- reading ----------------------------------------------------------------


def _odd_text(raw: bytes) -> str | bytes:
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return raw


def _decode_text(data: bytes, pos: int) -> tuple[str | bytes, int]:
    raw, stop = _decode_bytes(data, pos)
    return _odd_text(raw), stop


def _decode_bytes(data: bytes, pos: int) -> tuple[bytes, int]:
    start = pos + 4
    stop = start + unpack_long(data, pos)[0]
    return data[start:stop], stop


def _decode_decimal(data: bytes, pos: int) -> tuple[Decimal, int]:
    scale, unscaled = _DECIMAL_VALUE(data, pos)
    return Decimal(unscaled).scaleb(-scale), pos + 5


def _decode_time(data: bytes, pos: int) -> tuple[datetime | int, int]:
    (seconds,) = _SIGNED64(data, pos)
    try:
        return datetime.fromtimestamp(seconds, UTC), pos + 8
    except (ValueError, OverflowError, OSError):
        return seconds, pos + 8


def _decode_list(data: bytes, pos: int) -> tuple[list[Any], int]:
    end = pos + 4 + unpack_long(data, pos)[0]
    pos += 4
    values = []
    while pos < end:
        value, pos = _DECODERS[data[pos]](data, pos + 1)
        values.append(value)
    if pos != end or end > len(data):
        raise IndexError("a list ends amid a value")
    return values, end


def _number(layout: str) -> Callable[[bytes, int], tuple[Any, int]]:
    packed = Struct(layout)
    size, unpack = packed.size, packed.unpack_from

    def decode(data: bytes, pos: int) -> tuple[Any, int]:
        return unpack(data, pos)[0], pos + size

    return decode


_TEXT = ord("S")
_VOID = ord("V")
_NUMBER = ord("I")
_DECODERS: dict[int, Callable[[bytes, int], tuple[Any, int]]] = {
    ord(tag): decode
    for tag, decode in (
        ("S", _decode_text),
        ("V", lambda _, pos: (None, pos)),
        ("I", _number(">i")),
        ("t", _number(">?")),
        ("F", decode_table),
        ("A", _decode_list),
        ("l", _number(">q")),
        ("L", _number(">q")),
        ("T", _decode_time),
        ("d", _number(">d")),
        ("f", _number(">f")),
        ("D", _decode_decimal),
        ("x", _decode_bytes),
        ("b", _number(">b")),
        ("B", _number(">B")),
        ("s", _number(">h")),
        ("u", _number(">H")),
        ("i", _number(">I")),
    )
}
