"""Envelope <-> the JSON object that a Redis message is (wire.md 3.1).

Reading tolerates all that a 5.7 worker executes and more: a missing delivery tag or delivery info is no reason
to refuse, as we need neither. A missing content type is passed on as None, for the worker to refuse.

Two kinds of text exist here: the *envelope* (what lies in a list) and the *record* (what lies in `unacked`):
`[<envelope>, <exchange>, <routing key>]`. Ours always read `"", <queue>`, so that whoever restores them returns them to
the queue they came from and to no other (wire.md 6.2). Records are cut apart as text, never re-encoded.

What changes an envelope (`marked`) uses the standard library's encoder: it is rare, and must not change anything else.
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from celery.wire.envelope import Envelope

#: How many times a message was handed to a worker that did not settle it.
COUNT_HEADER = "x-delivery-count"


class UnreadableError(ValueError):
    """The text is not an envelope."""


class Message(NamedTuple):
    """An envelope and what the transport says about it."""

    envelope: Envelope
    exchange: str
    routing_key: str
    redelivered: bool
    failures: int


class Record(NamedTuple):
    """An entry of `unacked`, the envelope still as text."""

    text: bytes
    exchange: str
    routing_key: str


class _Wire(msgspec.Struct):
    body: str
    content_type: str | None = msgspec.field(name="content-type", default=None)
    content_encoding: str | None = msgspec.field(name="content-encoding", default=None)
    headers: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None


_read = msgspec.json.Decoder(_Wire).decode
_read_record = msgspec.json.Decoder(tuple[msgspec.Raw, str | None, str | None]).decode
_write = msgspec.json.Encoder().encode


def encode(envelope: Envelope, exchange: str, routing_key: str) -> bytes:
    """An envelope as text, under a fresh delivery tag."""
    properties = {
        **envelope.properties,
        "delivery_info": {"exchange": exchange, "routing_key": routing_key},
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
    wire = {
        "body": base64.b64encode(envelope.body).decode("ascii"),
        "content-encoding": envelope.content_encoding,
        "content-type": envelope.content_type,
        "headers": envelope.headers,
        "properties": properties,
    }
    try:
        return _write(wire)
    except UnicodeEncodeError:  # a lone surrogate, which only the escaped form can carry
        return json.dumps(wire).encode("ascii")


def decode(text: bytes) -> Message:
    """Read what lies in a list.

    Raises:
        UnreadableError: saying why.
    """
    try:
        wire = _parse(text)
        properties = wire.properties or {}
        if properties.pop("body_encoding", None) == "base64":
            body = binascii.a2b_base64(wire.body)
        else:
            body = wire.body.encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError) as error:  # msgspec's and binascii's errors are ValueErrors
        raise UnreadableError(f"not a message: {error}") from error
    headers = wire.headers or {}
    properties.pop("delivery_tag", None)
    info = properties.pop("delivery_info", None)
    if not isinstance(info, dict):
        info = {}
    return Message(
        Envelope(headers, body, wire.content_type, wire.content_encoding or "utf-8", properties),
        str(info.get("exchange") or ""),
        str(info.get("routing_key") or ""),
        bool(headers.get("redelivered") or info.get("redelivered")),
        failures(headers),
    )


def failures(headers: dict[str, Any]) -> int:
    """The delivery count in a header table; 0 when there is none, or nonsense."""
    count = headers.get(COUNT_HEADER)
    return count if type(count) is int and count > 0 else 0


def uncounted(envelope: Envelope) -> Envelope:
    """The envelope without what `marked` has put into it."""
    headers = {name: value for name, value in envelope.headers.items() if name not in (COUNT_HEADER, "redelivered")}
    return msgspec.structs.replace(envelope, headers=headers)


def _parse(text: bytes) -> _Wire:
    try:
        return _read(text)
    except msgspec.DecodeError:
        # NaN in a header and lone surrogates are what the standard library writes and msgspec does not read.
        return msgspec.convert(json.loads(text), _Wire)


def record(text: bytes, suffix: bytes) -> bytes:
    """The entry of `unacked` for an envelope; `suffix` is `record_suffix(queue)`."""
    return b"[" + text + suffix


@lru_cache(maxsize=1024)
def record_suffix(queue: str) -> bytes:
    """What follows the envelope in a record: the default exchange, and the queue as its routing key."""
    return b', "", ' + json.dumps(queue).encode("ascii") + b"]"


def read_record(value: bytes) -> Record:
    """Cut an entry of `unacked` apart.

    Raises:
        UnreadableError: it is none.
    """
    try:
        text, exchange, routing_key = _read_record(value)
        return Record(bytes(text), exchange or "", routing_key or "")
    except (msgspec.DecodeError, RecursionError):
        pass  # the standard library has the last word, as in `_parse`
    try:
        decoded, exchange, routing_key = json.loads(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise UnreadableError(f"not a record of a delivery: {error}") from error
    return Record(json.dumps(decoded).encode("ascii"), str(exchange or ""), str(routing_key or ""))


def marked(text: bytes, *, failed: bool) -> bytes:
    """The envelope as it goes back into a queue: redelivered, and counted if its worker `failed` (wire.md 3.6).

    Text that is no envelope comes back as it was.
    """
    try:
        wire = json.loads(text)
        headers = wire["headers"] = wire.get("headers") or {}
        properties = wire["properties"] = wire.get("properties") or {}
        info = properties["delivery_info"] = properties.get("delivery_info") or {}
        headers["redelivered"] = info["redelivered"] = True
        if failed:
            headers[COUNT_HEADER] = failures(headers) + 1
        return json.dumps(wire).encode("ascii")
    except (ValueError, TypeError, AttributeError, RecursionError):
        return text
