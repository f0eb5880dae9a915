"""A message as one text, opened only as far as somebody asks (wire.md 3.1).

Where the broker has no format of its own, a message is a JSON object: body, content type and encoding, headers,
properties. A worker's main process takes its label from it in one pass, which makes no other objects, and hands the
text to a child as it came; the child opens it.

A broker that has a format of its own says here how its texts are opened (`formats`), and reads labels itself.
"""

from __future__ import annotations

import binascii
import json
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from celery.wire.envelope import Envelope
from celery.wire.label import Facts, Label

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.wire.envelope import Headers

#: How many times a message was handed to a worker that did not settle it.
COUNT_HEADER = "x-delivery-count"


class UnreadableError(ValueError):
    """The text is not a message."""


class Opened(NamedTuple):
    """What was sealed: an envelope, and what the transport says about it."""

    envelope: Envelope
    exchange: str
    routing_key: str
    redelivered: bool
    failures: int

    @property
    def info(self) -> dict[str, Any]:
        """`request.delivery_info` (API-044)."""
        return {
            "exchange": self.exchange,
            "routing_key": self.routing_key,
            "priority": self.envelope.properties.get("priority"),
            "redelivered": self.redelivered,
        }


class _Text(msgspec.Struct, kw_only=True):
    #: As it stands in the text; a str where only the standard library could read that.
    body: Any
    content_type: str | None = msgspec.field(name="content-type", default=None)
    content_encoding: str | None = msgspec.field(name="content-encoding", default=None)
    headers: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None


class _Fast(_Text, kw_only=True):
    body: msgspec.Raw


class _Thorough(_Text, kw_only=True):
    body: str


class _Headers(Label, gc=False):
    redelivered: Any = None
    count: Any = msgspec.field(name=COUNT_HEADER, default=None)


class _Info(msgspec.Struct):
    exchange: str | None = None
    routing_key: str | None = None
    redelivered: Any = None


class _Properties(msgspec.Struct):
    delivery_info: _Info | None = None


class _Around(_Text, kw_only=True):
    body: Any = None


class _Outside(msgspec.Struct, kw_only=True):
    headers: _Headers
    content_type: str | None = msgspec.field(name="content-type", default=None)
    properties: _Properties | None = None


class _Whole(_Outside, kw_only=True):
    #: Not even looked at, but for being there as text.
    body: str


class Ways(msgspec.Struct):
    """Properties that running a task takes."""

    body_encoding: Any = None
    reply_to: Any = None


class Plain(msgspec.Struct, kw_only=True):
    """What running a task takes of its message."""

    headers: Facts
    #: Decoded.
    body: bytes = b""
    content_type: str | None = msgspec.field(name="content-type", default=None)
    content_encoding: str | None = msgspec.field(name="content-encoding", default=None)
    properties: Ways


class Format(NamedTuple):
    """How texts that are no JSON are opened: as `open_text` and `read_plain` do."""

    open: Callable[[bytes], Opened]
    #: May raise ValueError too.
    plain: Callable[[bytes], Plain | None]


#: By the first byte of such texts. Whoever is handed texts has loaded what their broker has (`celery.app.brokers`).
formats: dict[bytes, Format] = {}
_read_around = msgspec.json.Decoder(_Around).decode
_read = msgspec.json.Decoder(_Fast).decode
_read_str = msgspec.json.Decoder(str).decode
_read_outside = msgspec.json.Decoder(_Outside).decode
_read_whole = msgspec.json.Decoder(_Whole).decode
_read_plain = msgspec.json.Decoder(Plain).decode
_NO_INFO = _Info()
#: Properties that are the transport's own.
_TRANSPORT = frozenset({"body_encoding", "delivery_info", "delivery_tag"})
_QUOTE, _BACKSLASH = b'"\\'
#: How texts begin, of ours and of peers.
_STARTS = (b'{"body":', b'{"body": ')
#: Bytes of a text from which on it is cut before it is read.
_LONG = 1 << 12


class Sealed(msgspec.Struct, eq=False, gc=False):
    """A closed message. It has what an `Envelope` has, and opens itself for that; whoever holds it need not know.

    Only who asks for the body finds that it is damaged: `UnreadableError`.
    """

    content_type: str | None
    text: bytes
    _inside: _Text | None = None

    def _open(self) -> _Text:
        if self._inside is None:
            form = formats.get(self.text[:1])
            self._inside = _parse(self.text) if form is None else _inside(form.open(self.text))
        return self._inside

    @property
    def headers(self) -> Headers:
        return self._open().headers or {}

    @property
    def properties(self) -> dict[str, Any]:
        own = self._open().properties or {}
        return {name: value for name, value in own.items() if name not in _TRANSPORT}

    @property
    def info(self) -> dict[str, Any]:
        """`request.delivery_info`."""
        inside = self._open()
        exchange, routing_key, redelivered = _way(inside)
        priority = (inside.properties or {}).get("priority")
        return {"exchange": exchange, "routing_key": routing_key, "priority": priority, "redelivered": redelivered}

    @property
    def body(self) -> bytes:
        return open_text(self.text).envelope.body

    @property
    def content_encoding(self) -> str | None:
        return self._open().content_encoding or "utf-8"


class Labelled(msgspec.Struct, gc=False):
    """What can be said of a message from outside."""

    envelope: Envelope
    label: Label
    exchange: str
    routing_key: str
    redelivered: bool
    failures: int


def read_label(text: bytes) -> Labelled | None:
    """Read the label; None when that takes opening the message."""
    try:
        outside = _read_outside(cut[1]) if (cut := _cut(text)) else _read_whole(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    headers = outside.headers
    if not headers.task or not headers.id:
        return None
    info = (outside.properties and outside.properties.delivery_info) or _NO_INFO
    return Labelled(
        cast("Envelope", Sealed(outside.content_type, text)),
        headers,
        info.exchange or "",
        info.routing_key or "",
        bool(headers.redelivered or info.redelivered),
        0 if headers.count is None else failures(headers.count),
    )


def open_text(text: bytes) -> Opened:
    """Read a message.

    Tolerates all that a 5.7 worker executes and more: a missing delivery tag or delivery info is no reason to refuse,
    as we need neither. A missing content type is passed on as None, for the worker to refuse.

    Raises:
        UnreadableError: saying why.
    """
    if form := formats.get(text[:1]):
        return form.open(text)
    try:
        read = _parse(text)
        exchange, routing_key, redelivered = _way(read)
        properties = read.properties or {}
        body = _body(read.body, in_base64=properties.pop("body_encoding", None) == "base64")
    except (ValueError, RecursionError) as error:  # msgspec's and binascii's errors are ValueErrors
        raise UnreadableError(f"not a message: {error}") from error
    headers = read.headers or {}
    properties.pop("delivery_tag", None)
    properties.pop("delivery_info", None)
    return Opened(
        Envelope(headers, body, read.content_type, read.content_encoding or "utf-8", properties),
        exchange,
        routing_key,
        redelivered,
        failures(headers.get(COUNT_HEADER)),
    )


def _way(read: _Text) -> tuple[str, str, bool]:
    """By which exchange and routing key it came, and whether not for the first time."""
    info = (read.properties or {}).get("delivery_info")
    if not isinstance(info, dict):
        info = {}
    again = bool((read.headers or {}).get("redelivered") or info.get("redelivered"))
    return str(info.get("exchange") or ""), str(info.get("routing_key") or ""), again


def read_plain(text: bytes) -> Plain | None:
    """Read what running the task takes; None when that takes `open_text`: a body that is not in base64, a header of
    an odd kind, or no message at all.
    """
    try:
        if form := formats.get(text[:1]):
            return form.plain(text)
        if cut := _cut(text):
            read = _read_plain(cut[1])
            read.body = _strictly(cut[0][1:-1])
        else:
            read = _read_plain(text)
    except (ValueError, RecursionError):
        return None
    return read if read.properties.body_encoding == "base64" else None


def failures(count: Any) -> int:
    """The value of `COUNT_HEADER`; 0 when there is none, or nonsense."""
    return count if type(count) is int and count > 0 else 0


@cache
def _decoder() -> Callable[[memoryview, None, bool], bytes] | None:
    """pybase64's (the extra `speed`): an eighth of the time of msgspec's. Looked for by who meets a long body."""
    try:
        from pybase64 import b64decode
    except ImportError:
        return None
    return b64decode


def _strictly(text: memoryview) -> bytes:
    """What base64 stands for. Raises ValueError: it has line breaks, escapes, no padding, or is none."""
    if len(text) >= _LONG and (decode := _decoder()):
        return decode(text, None, True)
    # In a quarter of binascii's time, and two thirds of a JSON parser's, which looks for the end first.
    return msgspec.convert(str(text, "ascii"), bytes)


def _body(body: msgspec.Raw | str, *, in_base64: bool) -> bytes:
    if in_base64 and not isinstance(body, str) and (inside := memoryview(body))[0] == _QUOTE:
        try:
            return _strictly(inside[1:-1])
        except ValueError:
            pass  # escapes, line breaks, no padding: the standard library has the last word
    if not isinstance(body, str):
        body = _read_str(body)
    return binascii.a2b_base64(body) if in_base64 else body.encode("utf-8", "surrogatepass")


def _inside(message: Opened) -> _Text:
    """A message of another format, as if it were in a text of this."""
    envelope = message.envelope
    info = {"exchange": message.exchange, "routing_key": message.routing_key, "redelivered": message.redelivered}
    return _Text(
        body=envelope.body,
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        headers=envelope.headers,
        properties={**envelope.properties, "delivery_info": info},
    )


def _cut(text: bytes) -> tuple[memoryview, bytes] | None:
    """The body of a long text as it stands there, and an object of all the rest; None where that takes a parser.

    The body comes first, as all clients write it, and its end is looked for in a tenth of the time that a parser takes
    to skip it: it is the first quotation mark, unless a backslash is before that.
    """
    if len(text) < _LONG:
        return None
    for start in _STARTS:
        begin = len(start)
        if text.startswith(start) and text[begin] == _QUOTE:
            end = text.find(b'"', begin + 1) + 1
            if end and text[end - 2] != _BACKSLASH and text[end : end + 1] == b",":
                return memoryview(text)[begin:end], b"{" + text[end + 1 :]
    return None


def _parse(text: bytes) -> _Text:
    try:
        if cut := _cut(text):
            read = _read_around(cut[1])
            read.body = msgspec.Raw(cut[0])
            return read
        return _read(text)
    except msgspec.DecodeError:
        # NaN in a header and lone surrogates are what the standard library writes and msgspec does not read.
        return msgspec.convert(json.loads(text), _Thorough)
