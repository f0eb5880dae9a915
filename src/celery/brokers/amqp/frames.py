"""Frames of AMQP 0-9-1: cutting a byte stream into them, and the content that follows publish and deliver.

A frame is type (1 byte), channel (2), size (4), payload, and the octet CE. A message is a method frame, a header
frame (body size and properties) and the body in as many frames as the negotiated size asks for.

Publishing and delivering are the hot path: their methods have codecs of their own here, and the layout of a set of
properties is worked out once per flag word.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from celery.brokers.amqp.errors import ProtocolError
from celery.brokers.amqp.fields import (
    DECODE_ERRORS,
    FieldError,
    decode_short_string,
    decode_table,
    encode_short_string,
    encode_table,
    table_texts,
)
from celery.brokers.amqp.methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

METHOD = 1
HEADER = 2
BODY = 3
HEARTBEAT = 8

#: Bytes of a frame that are not payload.
OVERHEAD = 8
#: What both sides may send before they have negotiated a size.
SMALLEST_FRAME_MAX = 4096

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"

DELIVER = METHODS["basic.deliver"].id
_PUBLISH = METHODS["basic.publish"].id + b"\x00\x00"
_BASIC = 60
#: Ends a frame.
END = 0xCE

_frame_start = Struct(">BHI")
_pack_frame_start = _frame_start.pack
_unpack_frame_start = _frame_start.unpack_from
_content_start = Struct(">HHQH")
_pack_content_start = _content_start.pack
_unpack_content_start = _content_start.unpack_from
_unpack_tag = Struct(">QB").unpack_from
_pack_time = Struct(">Q").pack
_unpack_time = Struct(">Q").unpack_from


E = TypeVar("E")


class FrameReader:
    """Cuts a byte stream, however it was split, into frames."""

    def __init__(self) -> None:
        #: The largest frame that the peer may send, overhead included.
        self.frame_max = SMALLEST_FRAME_MAX
        self._chunks: list[bytes] = []
        self._size = 0
        self._needed = OVERHEAD

    def feed(
        self, data: bytes, whole: Callable[[bytes, int, int, int], tuple[E, int] | None] | None = None
    ) -> Iterator[tuple[int, int, bytes] | E]:
        """Take bytes; gives the frames, as (type, channel, payload), that they complete. To be read to its end, unless
        nothing will be fed any more.

        Args:
            data: the bytes.
            whole: called as (stream, where a method frame begins, its channel, length of its payload) to read more than
                a frame in one go; gives what that is, and where it stops.

        Raises:
            ProtocolError: this is not a frame, or one larger than `frame_max`.
        """
        self._chunks.append(data)
        self._size += len(data)
        if self._size < self._needed:
            return
        buffer = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        pos = 0
        size = len(buffer)
        needed = OVERHEAD
        while size - pos >= OVERHEAD:
            kind, channel, length = _unpack_frame_start(buffer, pos)
            needed = length + OVERHEAD
            if kind not in _FRAME_TYPES or needed > self.frame_max:
                raise _not_a_frame(buffer[pos : pos + OVERHEAD], kind, length, self.frame_max)
            if kind == METHOD and whole is not None and (found := whole(buffer, pos, channel, length)) is not None:
                read, pos = found
                needed = OVERHEAD
                yield read
                continue
            if size - pos < needed:
                break
            stop = pos + 7 + length
            if buffer[stop] != END:
                raise ProtocolError(f"a frame of {length} bytes ends with {buffer[stop]:#04x} instead of 0xce")
            yield kind, channel, buffer[pos + 7 : stop]
            pos = stop + 1
            needed = OVERHEAD
        rest = buffer[pos:]
        self._chunks = [rest] if rest else []
        self._size = len(rest)
        self._needed = needed


_FRAME_TYPES = frozenset((METHOD, HEADER, BODY, HEARTBEAT))


def _not_a_frame(start: bytes, kind: int, length: int, frame_max: int) -> ProtocolError:
    if start.startswith(b"AMQP"):
        version = ".".join(map(str, start[5:8]))
        return ProtocolError(f"the server does not speak AMQP 0-9-1; it asks for version {version}")
    if kind in _FRAME_TYPES:
        return ProtocolError(f"a frame of {length + OVERHEAD} bytes exceeds the negotiated {frame_max}")
    if start[:2] == b"\x15\x03":
        return ProtocolError("the server answers with TLS; use an amqps:// URL or broker_use_ssl")
    return ProtocolError(f"expected an AMQP frame, got {start!r}; is this an AMQP port?")


def encode_frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Encode one frame; the caller keeps to the negotiated size."""
    return _pack_frame_start(kind, channel, len(payload)) + payload + b"\xce"


# -- properties ---------------------------------------------------------------


def _encode_octet(value: int) -> bytes:
    if not 0 <= value <= 255:
        raise FieldError(f"{value} is not between 0 and 255")
    return bytes((value,))


def _decode_octet(data: bytes, pos: int) -> tuple[int, int]:
    return data[pos], pos + 1


def _encode_timestamp(value: float | datetime) -> bytes:
    return _pack_time(int(value.timestamp() if isinstance(value, datetime) else value))


def _decode_timestamp(data: bytes, pos: int) -> tuple[int, int]:
    return _unpack_time(data, pos)[0], pos + 8


_TEXT = (encode_short_string, decode_short_string)
#: A text that a process sends again and again.
_WORD = (lru_cache(maxsize=256)(encode_short_string), decode_short_string)
#: Every basic property in wire order, which is also the order of the flag bits from 15 down.
_PROPERTIES: tuple[tuple[str, Callable[[Any], bytes], Callable[[bytes, int], tuple[Any, int]]], ...] = (
    ("content_type", *_WORD),
    ("content_encoding", *_WORD),
    ("headers", encode_table, decode_table),
    ("delivery_mode", _encode_octet, _decode_octet),
    ("priority", _encode_octet, _decode_octet),
    ("correlation_id", *_TEXT),
    ("reply_to", *_WORD),
    ("expiration", *_TEXT),
    ("message_id", *_TEXT),
    ("timestamp", _encode_timestamp, _decode_timestamp),
    ("type", *_WORD),
    ("user_id", *_WORD),
    ("app_id", *_WORD),
    ("cluster_id", *_WORD),
)
_WRITERS = tuple((0x8000 >> index, name, encode) for index, (name, encode, _) in enumerate(_PROPERTIES))


def encode_content_header(properties: Mapping[str, Any], body_size: int) -> bytes:
    """Encode the payload of a header frame. Properties that are None or that AMQP does not have are left out.

    Raises:
        FieldError: a property does not fit; the text names it.
    """
    flags = 0
    parts = [b""]
    get = properties.get
    for flag, name, encode in _WRITERS:
        value = get(name)
        if value is not None:
            flags |= flag
            try:
                parts.append(encode(value))
            except FieldError as exc:
                raise FieldError(f"message property {name}: {exc}") from None
            except (AttributeError, TypeError, ValueError, ArithmeticError) as exc:
                raise FieldError(f"message property {name}: {value!r:.60} does not fit ({exc})") from exc
    parts[0] = _pack_content_start(_BASIC, 0, body_size, flags)
    return b"".join(parts)


def decode_content_header(payload: bytes) -> tuple[int, dict[str, Any] | None]:
    """Read the body size and the properties from the payload of a header frame.

    The properties are None when they are cut short or use a tag that does not exist: the frames around them are
    sound, so only this message suffers.

    Raises:
        One of `fields.DECODE_ERRORS`: there is not even a size.
    """
    _, _, size, flags = _unpack_content_start(payload)
    properties = {}
    pos = 14
    try:
        for name, decode in _layout(flags):
            properties[name], pos = decode(payload, pos)
    except DECODE_ERRORS:
        return size, None
    return size, properties if pos == len(payload) else None


class Text(NamedTuple):
    """Where a text, or a number of 32 bits, stands in the payload of a header frame."""

    in_headers: bool
    name: str
    start: int
    stop: int
    is_number: bool = False

    @property
    def decode(self) -> Callable[[bytes], Any]:
        """Reads it. May raise UnicodeDecodeError."""
        return _decode_number if self.is_number else bytes.decode


def content_texts(payload: bytes) -> list[Text]:
    """Where the texts and numbers of a content header are: properties, and headers outside of nested tables.

    Raises:
        One of `fields.DECODE_ERRORS`: it cannot be read, or has a header twice.
    """
    texts: list[Text] = []
    pos = 14
    for name, decode in _layout(_unpack_content_start(payload)[3]):
        start = pos
        _, pos = decode(payload, pos)
        if name == "headers":
            texts += [Text(True, *text) for text in table_texts(payload, start)]
        elif decode is decode_short_string:
            texts.append(Text(False, name, start + 1, pos))
    return texts


def _decode_number(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


@lru_cache(maxsize=256)
def _layout(flags: int) -> tuple[tuple[str, Callable[[bytes, int], tuple[Any, int]]], ...]:
    if flags & 0b11:
        raise ValueError(f"property flags {flags:#06x} name properties that do not exist")
    return tuple((name, decode) for bit, (name, _, decode) in enumerate(_PROPERTIES) if flags & 0x8000 >> bit)


# -- the hot methods ------------------------------------------------------------


def publish_frame(channel: int, exchange: str, routing_key: str, *, mandatory: bool) -> bytes:
    """Encode the method frame of a publish; the same for every message that goes to one place.

    Raises:
        FieldError: a name is too long.
    """
    address = encode_short_string(exchange) + encode_short_string(routing_key)
    return encode_frame(METHOD, channel, _PUBLISH + address + (b"\x01" if mandatory else b"\x00"))


def content_frames(channel: int, header: bytes, body: bytes, frame_max: int) -> list[bytes]:
    """Encode header and body frames, of what `encode_content_header` gave, as pieces to be joined.

    Raises:
        FieldError: the properties together exceed a frame.
    """
    limit = frame_max - OVERHEAD
    if len(header) > limit:
        raise FieldError(
            f"the headers take {len(header)} bytes; this server takes {limit} at most, put them in the body"
        )
    start, size = _pack_frame_start(HEADER, channel, len(header)), len(body)
    if 0 < size <= limit:
        return [start, header, b"\xce" + _pack_frame_start(BODY, channel, size), body, b"\xce"]
    pieces = [start, header]
    for at in range(0, size, limit):
        part = body[at : at + limit]
        pieces += (b"\xce" + _pack_frame_start(BODY, channel, len(part)), part)
    pieces.append(b"\xce")
    return pieces


def decode_deliver(payload: bytes) -> tuple[str, int, bool, str, str]:
    """Read a deliver method: consumer tag, delivery tag, redelivered, exchange, routing key."""
    pos = 5 + payload[4]
    tag, redelivered = _unpack_tag(payload, pos)
    start = pos + 10
    stop = start + payload[pos + 9]
    return (
        payload[5:pos].decode(),
        tag,
        redelivered & 1 == 1,
        payload[start:stop].decode(),
        payload[stop + 1 : stop + 1 + payload[stop]].decode(),
    )
