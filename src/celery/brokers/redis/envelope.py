"""Envelope -> the JSON object that a Redis message is (wire.md 3.1). `celery.wire.sealed` reads it.

Two kinds of text exist here: the *envelope* (what lies in a list) and the *record* (what lies in `unacked`):
`[<envelope>, <exchange>, <routing key>]`. Ours always read `"", <queue>`, so that whoever restores them returns them to
the queue they came from and to no other (wire.md 6.2). Records are cut apart as text, never re-encoded.

What changes an envelope (`marked`) uses the standard library's encoder: it is rare, and must not change anything else.
"""

from __future__ import annotations

import binascii
import itertools
import json
import os
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from celery.utils.uniqueid import uuid
from celery.wire.forms import TAG_MARK, Filled, cut
from celery.wire.sealed import COUNT_HEADER, UnreadableError, failures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery.wire.envelope import Envelope
    from celery.wire.forms import Message


class Record(NamedTuple):
    """An entry of `unacked`, the envelope still as text."""

    text: bytes
    exchange: str
    routing_key: str


_read_record = msgspec.json.Decoder(tuple[msgspec.Raw, str | None, str | None]).decode
#: Writes bytes in base64.
_write = msgspec.json.Encoder().encode
#: Bytes of a body from which on it is worth to look for something faster.
_LONG = 1 << 12
#: Whose cuts of a form are ours.
_REDIS = "redis"


class _Tags:
    """Delivery tags of this process: the beginning of a UUID4, its own, and a number. A fork begins anew."""

    def __init__(self) -> None:
        self.renew()
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.format = f"{uuid()[:24]}%012x".encode()
        self.next = itertools.count().__next__


_tags = _Tags()


def encode(envelope: Message, exchange: str, routing_key: str) -> bytes:
    """An envelope as text, under a fresh delivery tag."""
    tag = _tags.format % _tags.next()
    if type(envelope) is Filled:
        form = envelope.form
        key = _REDIS, exchange, routing_key
        shape = form.cuts.get(key) or cut(
            form, key, lambda marked: _text(marked, exchange, routing_key, TAG_MARK), _write
        )
        if shape is not None:
            try:
                return shape.fill(envelope, b'"%b"' % tag)
            except UnicodeEncodeError:
                pass  # as below
    return _text(envelope, exchange, routing_key, tag.decode())


def _text(envelope: Message, exchange: str, routing_key: str, tag: str) -> bytes:
    properties = {
        **envelope.properties,
        "delivery_info": {"exchange": exchange, "routing_key": routing_key},
        "body_encoding": "base64",
        "delivery_tag": tag,
    }
    body = envelope.body
    encode = _encoder() if len(body) >= _LONG else None
    wire = {
        "body": b"" if encode else body,
        "content-encoding": envelope.content_encoding,
        "content-type": envelope.content_type,
        "headers": envelope.headers,
        "properties": properties,
    }
    try:
        text = _write(wire)
        # The body comes first: '{"body":""'.
        return text if encode is None else b"".join((text[:9], encode(body), text[9:]))
    except TypeError as exc:
        raise _complaint(envelope.headers, exc) from None
    except UnicodeEncodeError:  # a lone surrogate, which only the escaped form can carry
        wire["body"] = binascii.b2a_base64(body, newline=False).decode("ascii")
        return json.dumps(wire).encode("ascii")


def _complaint(headers: Mapping[str, Any], exc: TypeError) -> TypeError:
    """The error with the name of the header that it is about."""
    for name, value in headers.items():
        try:
            _write(value)
        except TypeError:
            return TypeError(f"The header {name!r} has no form in JSON: {value!r}")
    return exc


@cache
def _encoder() -> Callable[[bytes], bytes] | None:
    """pybase64's (the extra `speed`): a thirtieth of the time of msgspec's. Looked for by who meets a long body."""
    try:
        from pybase64 import b64encode
    except ImportError:
        return None
    return b64encode


def uncounted(envelope: Envelope) -> Envelope:
    """The envelope without what `marked` has put into it."""
    headers = {name: value for name, value in envelope.headers.items() if name not in (COUNT_HEADER, "redelivered")}
    return msgspec.structs.replace(envelope, headers=headers)


def record_pieces(text: bytes, suffix: bytes) -> tuple[bytes, ...]:
    """The entry of `unacked` for an envelope, in pieces; `suffix` is `record_suffix(queue)`."""
    return b"[", text, suffix


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
            headers[COUNT_HEADER] = failures(headers.get(COUNT_HEADER)) + 1
        return json.dumps(wire).encode("ascii")
    except (ValueError, TypeError, AttributeError, RecursionError):
        return text
