"""The methods of AMQP 0-9-1 that we send or get, as one table, and the codec that the table drives.

A method is named ``class.method`` and has typed arguments; neighbouring bits share octets. Arguments that a caller
leaves out have the zero of their type, which is what wire.md 2.2 asks for wherever it says nothing. The two methods
of the hot path have codecs of their own in `frames`.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.brokers.amqp.fields import (
    FieldError,
    decode_short_string,
    decode_table,
    encode_short_string,
    encode_table,
    pack_long,
    unpack_long,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# number, name, arguments -> replies; an argument is a short string unless typed (:type), and ? is a bit
_TABLE = """
10.10 connection.start version_major:octet version_minor:octet server_properties:table mechanisms:text locales:text
10.11 connection.start-ok client_properties:table mechanism response:blob locale
10.20 connection.secure challenge:blob
10.21 connection.secure-ok response:blob
10.30 connection.tune channel_max:short frame_max:long heartbeat:short
10.31 connection.tune-ok channel_max:short frame_max:long heartbeat:short
10.40 connection.open virtual_host reserved_1 reserved_2?
10.41 connection.open-ok reserved_1
10.50 connection.close reply_code:short reply_text class_id:short method_id:short
10.51 connection.close-ok
10.60 connection.blocked reason
10.61 connection.unblocked
10.70 connection.update-secret new_secret:blob reason -> connection.update-secret-ok
10.71 connection.update-secret-ok
20.10 channel.open reserved_1 -> channel.open-ok
20.11 channel.open-ok reserved_1:text
20.20 channel.flow active? -> channel.flow-ok
20.21 channel.flow-ok active?
20.40 channel.close reply_code:short reply_text class_id:short method_id:short -> channel.close-ok
20.41 channel.close-ok
40.10 exchange.declare ticket:short exchange type passive? durable? auto_delete? internal? nowait? \
  arguments:table -> exchange.declare-ok
40.11 exchange.declare-ok
40.20 exchange.delete ticket:short exchange if_unused? nowait? -> exchange.delete-ok
40.21 exchange.delete-ok
40.30 exchange.bind ticket:short destination source routing_key nowait? arguments:table -> exchange.bind-ok
40.31 exchange.bind-ok
40.40 exchange.unbind ticket:short destination source routing_key nowait? arguments:table -> exchange.unbind-ok
40.51 exchange.unbind-ok
50.10 queue.declare ticket:short queue passive? durable? exclusive? auto_delete? nowait? arguments:table -> \
  queue.declare-ok
50.11 queue.declare-ok queue message_count:long consumer_count:long
50.20 queue.bind ticket:short queue exchange routing_key nowait? arguments:table -> queue.bind-ok
50.21 queue.bind-ok
50.30 queue.purge ticket:short queue nowait? -> queue.purge-ok
50.31 queue.purge-ok message_count:long
50.40 queue.delete ticket:short queue if_unused? if_empty? nowait? -> queue.delete-ok
50.41 queue.delete-ok message_count:long
50.50 queue.unbind ticket:short queue exchange routing_key arguments:table -> queue.unbind-ok
50.51 queue.unbind-ok
60.10 basic.qos prefetch_size:long prefetch_count:short global? -> basic.qos-ok
60.11 basic.qos-ok
60.20 basic.consume ticket:short queue consumer_tag no_local? no_ack? exclusive? nowait? arguments:table -> \
  basic.consume-ok
60.21 basic.consume-ok consumer_tag
60.30 basic.cancel consumer_tag nowait? -> basic.cancel-ok
60.31 basic.cancel-ok consumer_tag
60.40 basic.publish ticket:short exchange routing_key mandatory? immediate?
60.50 basic.return reply_code:short reply_text exchange routing_key
60.60 basic.deliver consumer_tag delivery_tag:longlong redelivered? exchange routing_key
60.70 basic.get ticket:short queue no_ack? -> basic.get-ok basic.get-empty
60.71 basic.get-ok delivery_tag:longlong redelivered? exchange routing_key message_count:long
60.72 basic.get-empty reserved_1
60.80 basic.ack delivery_tag:longlong multiple?
60.90 basic.reject delivery_tag:longlong requeue?
60.110 basic.recover requeue? -> basic.recover-ok
60.111 basic.recover-ok
60.120 basic.nack delivery_tag:longlong multiple? requeue?
85.10 confirm.select nowait? -> confirm.select-ok
85.11 confirm.select-ok
"""


class Method(NamedTuple):
    """One row of the table."""

    name: str
    #: Class and method number as they open the frame.
    id: bytes
    #: (name, type) of each argument, in order.
    arguments: tuple[tuple[str, str], ...]
    #: Names of the methods that answer it; empty for one that is not answered.
    replies: frozenset[str]


class _Codec(NamedTuple):
    zero: Any
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes, int], tuple[Any, int]]


def encode_method(name: str, arguments: Mapping[str, Any]) -> bytes:
    """Encode the payload of a method frame.

    Raises:
        FieldError: an argument is unknown or does not fit its type.
    """
    method = METHODS[name]
    unknown = arguments.keys() - {argument for argument, _ in method.arguments}
    if unknown:
        raise FieldError(f"{name} has no argument {', '.join(sorted(unknown))}")
    parts = [method.id]
    bits = 0
    octet = 0
    for argument, kind in method.arguments:
        if kind == "bit":
            octet |= bool(arguments.get(argument)) << bits
            bits += 1
            continue
        if bits:
            parts.append(bytes((octet,)))
            bits = octet = 0
        codec = _CODECS[kind]
        try:
            parts.append(codec.encode(arguments.get(argument, codec.zero)))
        except (FieldError, AttributeError, OverflowError, TypeError, ValueError) as exc:
            raise FieldError(f"{name}: {argument}: {exc}") from exc
    if bits:
        parts.append(bytes((octet,)))
    return b"".join(parts)


def decode_method(payload: bytes) -> tuple[Method, dict[str, Any]]:
    """Read the payload of a method frame.

    Raises:
        One of `fields.DECODE_ERRORS`: the method is not in the table, or its arguments are cut short.
    """
    method = METHODS_BY_ID[payload[:4]]
    arguments: dict[str, Any] = {}
    pos = 4
    bits = 0
    for argument, kind in method.arguments:
        if kind == "bit":
            if bits == 0:
                pos += 1
            arguments[argument] = bool(payload[pos - 1] >> bits & 1)
            bits += 1
            continue
        bits = 0
        arguments[argument], pos = _CODECS[kind].decode(payload, pos)
    if pos > len(payload):
        raise IndexError("a method ends amid an argument")
    return method, arguments


def name_of(class_id: int, method_id: int) -> str:
    """Return the name of a method by its two numbers; "" for those we do not know (0, 0 among them)."""
    method = METHODS_BY_ID.get(_METHOD_ID(class_id, method_id))
    return method.name if method else ""


def _integer(layout: str) -> _Codec:
    packed = Struct(layout)
    pack, unpack, size = packed.pack, packed.unpack_from, packed.size
    top = 256**size - 1

    def encode(value: int) -> bytes:
        if not 0 <= value <= top:
            raise FieldError(f"{value} is not between 0 and {top}")
        return pack(value)

    def decode(data: bytes, pos: int) -> tuple[int, int]:
        return unpack(data, pos)[0], pos + size

    return _Codec(0, encode, decode)


def _encode_blob(value: bytes) -> bytes:
    return pack_long(len(value)) + value


def _decode_blob(data: bytes, pos: int) -> tuple[bytes, int]:
    start = pos + 4
    stop = start + unpack_long(data, pos)[0]
    return data[start:stop], stop


def _encode_text(value: str) -> bytes:
    return _encode_blob(value.encode())


def _decode_text(data: bytes, pos: int) -> tuple[str, int]:
    raw, stop = _decode_blob(data, pos)
    return raw.decode(errors="replace"), stop


_CODECS = {
    "octet": _integer(">B"),
    "short": _integer(">H"),
    "long": _integer(">I"),
    "longlong": _integer(">Q"),
    "name": _Codec("", encode_short_string, decode_short_string),
    "text": _Codec("", _encode_text, _decode_text),
    "blob": _Codec(b"", _encode_blob, _decode_blob),
    "table": _Codec({}, encode_table, decode_table),
}
_METHOD_ID = Struct(">HH").pack


def _parse(line: str) -> Method:
    signature, _, replies = line.partition(" -> ")
    number, name, *arguments = signature.split()
    class_id, _, method_id = number.partition(".")
    return Method(
        name,
        _METHOD_ID(int(class_id), int(method_id)),
        tuple(_parse_argument(argument) for argument in arguments),
        frozenset(replies.split()),
    )


def _parse_argument(text: str) -> tuple[str, str]:
    if text.endswith("?"):
        return text[:-1], "bit"
    name, _, kind = text.partition(":")
    return name, kind or "name"


METHODS: dict[str, Method] = {method.name: method for method in map(_parse, _TABLE.strip().splitlines())}
METHODS_BY_ID: dict[bytes, Method] = {method.id: method for method in METHODS.values()}
