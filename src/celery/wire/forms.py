"""Messages that are alike: what they have in common is written once.

Vocabulary
    *Form*: headers and properties with holes. *Filled*: a form, and what one message has in the holes. *Cut*: a form as
    a driver writes it, in pieces between the holes.

Rules
    1. A cut is made of what the driver's own encoder writes of a message with marks in the holes, so that it is the
       same text; the driver's own encoder writes what goes into the holes, too.
    2. A form that is used once only is never cut: that takes as long as writing ten messages.
    3. A `Filled` has what an `Envelope` has; headers and properties are made for whoever asks. Where a real envelope is
       needed, to travel between processes or to be kept, `plain` makes it.
"""

from __future__ import annotations

import os
import re
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, final

import msgspec

from celery.wire.envelope import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from celery.wire.envelope import Headers

#: Headers that messages have of their own, and the fields of `Filled` that say what.
_OWN_HEADERS = (
    ("id", "id"),
    ("root_id", "id"),
    ("group_index", "group_index"),
    ("argsrepr", "argsrepr"),
    ("kwargsrepr", "kwargsrepr"),
)


class Form:
    """What messages of one kind have in common.

    Args:
        headers: of all; None is a hole where `_OWN_HEADERS` have something to put.
        own: the caller's own headers, which win over the others, and fill holes.
        properties: of all; they win over correlation_id and reply_to.
        content_type: of the body.
        content_encoding: of the body.
        tail: what the bodies of all end with. The workflow around a call may be long, and its group large.
    """

    __slots__ = ("_holes", "content_encoding", "content_type", "cuts", "headers", "origin", "properties", "tail")

    def __init__(
        self,
        headers: Headers,
        own: Mapping[str, Any] | None,
        properties: dict[str, Any],
        content_type: str,
        content_encoding: str,
        tail: bytes = b"",
    ) -> None:
        self._holes = [
            hole
            for hole in _OWN_HEADERS
            if not (own and hole[0] in own) and (headers[hole[0]] is None or hole[0] == "group_index")
        ]
        self.headers = {**headers, **own} if own else headers
        self.origin: str | None = headers["origin"]
        self.properties = properties
        self.content_type = content_type
        self.content_encoding = content_encoding
        self.tail = tail
        #: By driver and address. None: written once, so the next time is worth a cut.
        self.cuts: dict[Hashable, Any] = {}

    def headers_of(self, filled: Filled) -> Headers:
        """The headers of a message."""
        headers = self.headers.copy()
        for name, field in self._holes:
            value = getattr(filled, field)
            if value is not None:
                headers[name] = value
        return headers


@final
class Filled(msgspec.Struct, gc=False):
    """A message of a form. Only `plain` may cross to another process."""

    form: Form
    id: str
    #: Of the body: what comes before the form's tail.
    start: bytes
    reply_to: str
    argsrepr: str
    kwargsrepr: str
    group_index: int | None = None

    @property
    def body(self) -> bytes:
        """As of `Envelope`."""
        return self.start + self.form.tail

    @property
    def headers(self) -> Headers:
        """As of `Envelope`."""
        return self.form.headers_of(self)

    @property
    def properties(self) -> dict[str, Any]:
        """As of `Envelope`."""
        return {"correlation_id": self.id, "reply_to": self.reply_to, **self.form.properties}

    @property
    def content_type(self) -> str:
        """As of `Envelope`."""
        return self.form.content_type

    @property
    def content_encoding(self) -> str:
        """As of `Envelope`."""
        return self.form.content_encoding


#: A message that is ready to be sent.
Message = Envelope | Filled


def plain(envelope: Message) -> Envelope:
    """An envelope that can travel, and be kept."""
    if type(envelope) is Filled:
        form = envelope.form
        return Envelope(envelope.headers, envelope.body, form.content_type, form.content_encoding, envelope.properties)
    return envelope


def shared_properties(envelope: Message) -> dict[str, Any]:
    """The properties, perhaps without those that are the message's own."""
    return envelope.form.properties if type(envelope) is Filled else envelope.properties


# --- cuts -------------------------------------------------------------------------------------------------------------

#: What nobody else writes into a message.
_MARK = os.urandom(12).hex()
#: A number is written by itself: nothing that holds this one gives a cut.
_FIELDS = ("id", "body", "reply_to", "argsrepr", "kwargsrepr", "group_index", "tag")
#: What a driver puts in for a message: a tag of its own.
TAG_MARK = f"{_MARK}-tag"


class Cut(NamedTuple):
    """A form as bytes. `text` is a format, `pick` takes what goes into it, in order, from what a message has."""

    text: bytes
    pick: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]
    write: Callable[[Any], bytes]

    def fill(self, filled: Filled, tag: bytes = b"") -> bytes:
        """The message as bytes; `tag` as it is to be written. Raises what `write` does."""
        text, pick, write = self
        return text % pick((
            write(filled.id),
            write(filled.start + filled.form.tail),
            write(filled.reply_to),
            write(filled.argsrepr),
            write(filled.kwargsrepr),
            write(filled.group_index),
            tag,
        ))  # fmt: skip


def cut(form: Form, key: Hashable, encode: Callable[[Envelope], bytes], write: Callable[[Any], bytes]) -> Cut | None:
    """Cut a form; None the first time that it is asked for (rule 2).

    Args:
        form: the form, which keeps its cuts.
        key: of driver and address.
        encode: writes an envelope, with `TAG_MARK` for a tag.
        write: writes a value inside it.
    """
    if key not in form.cuts:
        form.cuts[key] = None
        return None
    marks = {field: f"{_MARK}-{field}" for field in _FIELDS}
    body, tag = marks.pop("body").encode(), marks.pop("tag")
    message = plain(Filled(form, start=b"", **marks))  # type: ignore[arg-type]  # the place in a group is a mark too
    marked = encode(msgspec.structs.replace(message, body=body))
    values = {**marks, "body": body, "tag": tag}
    written = {write(values[field]): number for number, field in enumerate(_FIELDS)}
    pieces = re.split(b"(" + b"|".join(map(re.escape, written)) + b")", marked)
    text = b"%b".join(piece.replace(b"%", b"%%") for piece in pieces[::2])
    made = form.cuts[key] = Cut(text, itemgetter(*(written[mark] for mark in pieces[1::2])), write)
    return made
