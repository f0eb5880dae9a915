"""Deliveries whose frames are read in one go, while they look alike. Those of tasks stay closed: what a worker decides
by is cut out of the frames, the rest is for who asks. Those without headers, as results are, are opened at once.

Vocabulary
    *Text*: the method, header and body frame of a delivery as the server sent them, but for the octet that ends the
    last. Its first octet, a method's, tells it from texts of other brokers (`celery.wire.sealed`). *Head*: a text up to
    its body.

Rules
    1. Heads that look alike are read as `shapes` reads headers: what stays is compared, texts that vary are cut out; so
       are the delivery tag and both lengths of the body; one delivery after the other while they are alike. One whose
       head is not known, or that is not here as a whole, is taken apart frame by frame, and is not closed.
    2. A delivery stays closed only where nothing is to be taken off, or counted: it comes for the first time, is not
       from the delay ladder, carries nothing of ours (`messages`), says what its body is, and has it in one frame.
    3. Whoever has the text reads the same there as is read of an open message: the worker, the child that runs it.

Measured: receiving a delivery, deciding and packing its job took 9.3 us, and takes 2.6; a child's part 6.2, and 5.4.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import msgspec

from celery.brokers.amqp import messages
from celery.brokers.amqp.events import Closed, Delivered, Way
from celery.brokers.amqp.fields import DECODE_ERRORS
from celery.brokers.amqp.frames import (
    BODY,
    DELIVER,
    END,
    METHOD,
    content_texts,
    decode_content_header,
    decode_deliver,
)
from celery.brokers.amqp.shapes import Learnt, Shapes
from celery.wire import sealed
from celery.wire.label import Facts, Label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.brokers.amqp.frames import Text
    from celery.wire.envelope import Headers

_frame_start = Struct(">BHI")
_START = _frame_start.size
_unpack_start = _frame_start.unpack_from
#: In a frame: where the length of its payload is.
_LENGTH = 3
#: In a method frame: where the length of the consumer tag is. In a header frame: where the body's size is.
_TAG_LENGTH, _BODY_SIZE = _START + 4, _START + 4
#: What is taken off on arrival.
_OURS = frozenset({messages.LOSSES, messages.RETURNS, messages.SERVER_COUNT, messages.UNTIL, messages.REDELIVERED})
#: Properties that have to stay as they are.
_KIND = frozenset({"content_type", "content_encoding"})


class _Head:
    """Heads that look alike, of whatever."""

    __slots__ = ("_example", "_stays", "_texts", "_unpack", "_varying", "size")

    def __init__(self, example: bytes, texts: Sequence[Text], varying: frozenset[int] = frozenset()) -> None:
        """Learn from a head, whose last four octets are the length of the body.

        Raises:
            ValueError: it is not one that may stay closed.
        """
        self._example = example
        self._texts = texts
        self._varying = varying
        spans = [texts[index] for index in sorted(varying)]
        layout = Struct(_layout(example, [(text.start, text.stop) for text in spans]))
        #: Octets up to the body.
        self.size = layout.size
        self._unpack = layout.unpack_from
        self._stays = self._unpack(example)[::2]
        # Behind the delivery tag and the size of the body, with what stays between.
        self._prepare(list(zip(range(5, 5 + 2 * len(spans), 2), spans, strict=True)))

    def _prepare(self, places: Sequence[tuple[int, Text]]) -> None:
        """Read the example; told where the texts that vary are found. Raises ValueError."""
        raise NotImplementedError

    def taught(self, example: bytes, texts: Sequence[Text]) -> Self | None:
        """This head, with those texts varying that differ in the example; None when more than texts differ. Raises
        ValueError as above.
        """
        if texts != self._texts:
            return None
        parts = Struct(_layout(example, [(text.start, text.stop) for text in texts])).unpack
        ours, theirs = parts(self._example), parts(example)
        if ours[::2] != theirs[::2]:
            return None
        pairs = zip(ours[5:-1:2], theirs[5:-1:2], strict=True)
        differing = {index for index, (old, new) in enumerate(pairs) if old != new}
        return type(self)(example, texts, self._varying | differing)


class _TaskHead(_Head):
    """Heads of tasks."""

    __slots__ = ("_facts", "_facts_at", "_label", "_label_at", "_plain", "_reply_to_at", "_way")

    def _prepare(self, places: Sequence[tuple[int, Text]]) -> None:
        self._way, headers, properties = _checked(self._example)
        if any(not text.in_headers and text.name in _KIND for _, text in places):
            raise ValueError("what the bodies are varies")
        inside = [(text.name, at, text.decode) for at, text in places if text.in_headers]
        self._label = msgspec.convert(headers, Label)
        self._label_at = [place for place in inside if place[0] in _LABEL]
        self._facts = msgspec.convert(headers, Facts)
        self._facts_at = [place for place in inside if place[0] in _FACTS]
        self._reply_to_at = next((at for at, text in places if not text.in_headers and text.name == "reply_to"), None)
        self._plain = sealed.Plain(
            headers=self._facts,
            content_type=properties["content_type"],
            content_encoding=properties["content_encoding"],
            properties=sealed.Ways(reply_to=properties.get("reply_to")),
        )

    def deliveries(self, data: bytes, pos: int, limit: int) -> tuple[Closed, int] | None:
        """Those that begin here in a stream, one after the other, and where they stop. None: the first has another
        head, or is not here as a whole, or not in one frame.
        """
        # A loop of its own: the calls that a delivery takes otherwise are half of what it costs.
        unpack, stays, labels, size, end = self._unpack, self._stays, self._label_at, self.size, len(data)
        start, found = pos, []
        try:
            while pos + size < end:
                parts = unpack(data, pos)
                length = parts[-1]
                stop = pos + size + length
                if parts[::2] != stays or length != parts[3] or length > limit or stop >= end or data[stop] != END:
                    break
                label = self._label.__copy__()  # type: ignore[attr-defined]  # structs have it
                for name, at, decode in labels:
                    setattr(label, name, decode(parts[at]))
                found.append((parts[1], label, data[pos:stop]))
                pos = stop + 1
        except UnicodeDecodeError:
            pass  # such a header is not text
        return (Closed(self._way, found), pos) if pos > start else None

    def plain(self, text: bytes) -> sealed.Plain | None:
        """What running the task takes of a text; None: it has another head."""
        parts = self._unpack(text)
        if parts[::2] != self._stays:
            return None
        plain: sealed.Plain = self._plain.__copy__()  # type: ignore[attr-defined]  # structs have it
        facts: Facts = self._facts.__copy__()  # type: ignore[attr-defined]  # as above
        try:
            for name, at, decode in self._facts_at:
                setattr(facts, name, decode(parts[at]))
            if self._reply_to_at is not None:
                plain.properties = sealed.Ways(reply_to=parts[self._reply_to_at].decode())
        except UnicodeDecodeError:
            return None
        plain.headers = facts
        plain.body = text[self.size :]
        return plain


class _OpenHead(_Head):
    """Heads of messages without headers, which are not closed."""

    __slots__ = ("_names", "_properties", "_way")

    def _prepare(self, places: Sequence[tuple[int, Text]]) -> None:
        example = self._example
        method = _START + _unpack_start(example)[2]
        self._way = decode_deliver(example[_START:method])
        _, properties = decode_content_header(example[method + 1 + _START : -_START - 1])
        if properties is None or properties.get("headers") != {}:
            raise ValueError("its headers are to be read")
        self._properties = properties
        self._names = [(text.name, at, text.decode) for at, text in places]

    def deliveries(self, data: bytes, pos: int, limit: int) -> tuple[Delivered, int] | None:
        """As that of `_TaskHead`; one of them."""
        if pos + self.size >= len(data):
            return None
        parts = self._unpack(data, pos)
        length, start = parts[-1], pos + self.size
        stop = start + length
        if parts[::2] != self._stays or length != parts[3] or length > limit or stop >= len(data) or data[stop] != END:
            return None
        properties = self._properties.copy()
        properties["headers"] = {}
        try:
            for name, at, decode in self._names:
                properties[name] = decode(parts[at])
        except UnicodeDecodeError:
            return None
        consumer_tag, _, redelivered, exchange, routing_key = self._way
        channel = _unpack_start(data, pos)[1]
        body = data[start:stop]
        return Delivered(
            channel, consumer_tag, parts[1], redelivered, exchange, routing_key, properties, body
        ), stop + 1


H = TypeVar("H", _TaskHead, _OpenHead)


class _Heads(Generic[H]):
    """Reads the heads of texts of one kind; one for each connection, and one for each process that is handed texts."""

    _kind: type[H]

    def __init__(self) -> None:
        self._learnt: Learnt[bytes, H] = Learnt()

    def deliveries(self, data: bytes, pos: int, length: int, limit: int) -> tuple[Closed | Delivered, int] | None:
        """Deliveries that can be read in one go, from where a method frame begins in a stream, and where they stop.
        None: what begins there is to be taken apart.

        Args:
            data: the stream.
            pos: where the frame begins.
            length: of its payload.
            limit: the largest payload of a frame.
        """
        header = pos + _START + length + 1
        start = data[header : header + _START]
        for head in self._learnt.by_key.get(start, ()):
            if (found := head.deliveries(data, pos, limit)) is not None:
                return found
        if self._learnt.missed() and data.startswith(DELIVER, pos + _START):
            self._learn(data, pos, header)
        return None

    def _learn(self, data: bytes, pos: int, header: int) -> None:
        start = data[header : header + _START]
        if len(start) < _START:
            return
        body = header + _START + _unpack_start(start)[2] + 1
        example = data[pos : body + _START]
        if len(example) < body + _START - pos or example[body - pos] != BODY:
            return
        shift = header + _START - pos
        try:
            found = content_texts(example[shift : body - pos - 1])
            texts = [text._replace(start=text.start + shift, stop=text.stop + shift) for text in found]
            self._learnt.learn(start, example, texts, self._kind)
        except DECODE_ERRORS:
            return  # msgspec's errors are ValueErrors


class OpenHeads(_Heads[_OpenHead]):
    """Of messages without headers."""

    _kind = _OpenHead


class Heads(_Heads[_TaskHead]):
    """Of tasks, which stay closed."""

    _kind = _TaskHead

    def plain(self, text: bytes) -> sealed.Plain:
        """What running the task takes of a text. Raises ValueError: that takes `open_text`, or there is no telling."""
        header = _START + int.from_bytes(text[_LENGTH:_START], "big") + 1
        for head in self._learnt.by_key.get(text[header : header + _START], ()):
            if head.size <= len(text) and (found := head.plain(text)) is not None:
                return found
        if self._learnt.missed():
            self._learn(text, 0, header)
        envelope = open_text(text).envelope
        return sealed.Plain(
            headers=msgspec.convert(envelope.headers, Facts),
            body=envelope.body,
            content_type=envelope.content_type,
            content_encoding=envelope.content_encoding,
            properties=sealed.Ways(reply_to=envelope.properties.get("reply_to")),
        )


def open_text(text: bytes) -> sealed.Opened:
    """Read a text as a whole. Raises UnreadableError."""
    try:
        method = _START + _unpack_start(text)[2]
        _, _, redelivered, exchange, routing_key = decode_deliver(text[_START:method])
        header = method + 1
        end = header + _START + _unpack_start(text, header)[2]
        _, properties = _headers.read(text[header + _START : end])
    except DECODE_ERRORS as error:
        raise sealed.UnreadableError(f"not a delivery: {error}") from error
    if properties is None:
        raise sealed.UnreadableError("not a delivery: its properties cannot be read")
    envelope = messages.envelope_of(properties, text[end + 1 + _START :])
    return sealed.Opened(envelope, exchange, routing_key, redelivered, 0)


def _checked(example: bytes) -> tuple[Way, Headers, dict[str, Any]]:
    """What a head says. Raises ValueError: such deliveries do not stay closed; and DECODE_ERRORS."""
    method = _START + _unpack_start(example)[2]
    consumer_tag, _, redelivered, exchange, routing_key = decode_deliver(example[_START:method])
    header = example[method + 1 + _START : -_START - 1]
    _, properties = decode_content_header(header)
    if properties is None or redelivered or messages.origin_of(exchange, routing_key) != (exchange, routing_key):
        raise ValueError("more is to be done than to run it")
    headers: Headers = properties.pop("headers", {})
    if not _OURS.isdisjoint(headers):
        raise ValueError("something is to be taken off")
    if not all(isinstance(properties.get(name), str) for name in _KIND):
        raise ValueError("it does not say what its body is")
    label = msgspec.convert(headers, Label)
    if not label.task or not label.id:
        raise ValueError("the body has to be opened")
    return Way(consumer_tag, exchange, routing_key, properties["content_type"]), headers, properties


def _layout(example: bytes, spans: Sequence[tuple[int, int]]) -> str:
    """Of a head: what stays and what varies, by turns."""
    parts, pos = [">"], 0
    tag = _TAG_LENGTH + 1 + example[_TAG_LENGTH]
    size = _START + _unpack_start(example)[2] + 1 + _BODY_SIZE
    for start, stop, code in ((tag, tag + 8, "Q"), (size, size + 8, "Q"), *((*span, None) for span in spans)):
        parts += (f"{start - pos}s", code or f"{stop - start}s")
        pos = stop
    return "".join(parts) + f"{len(example) - 4 - pos}sI"


_LABEL, _FACTS = frozenset(Label.__struct_fields__), frozenset(Facts.__struct_fields__) - {"reply_to"}
#: For texts of this process, wherever they came from.
_headers, _heads = Shapes(), Heads()
FORMAT = sealed.Format(open_text, _heads.plain)
sealed.formats[bytes((METHOD,))] = FORMAT
