"""Content headers of messages of one form (`celery.wire.forms`), written from what they have in common.

Rules
    1. A cut is made of what `encode_content_header` writes of a message with marks in its holes. A hole has room for
       the length of a text too, and for the tag of the place in a group, which may be nothing or a number.
    2. Three numbers vary with what is in the holes: the size of the body, the length of the table of headers, and the
       lengths of the texts. All others stay.
    3. What does not fit (a text too long for a property) is left to the encoder, which says so by its name.
"""

from __future__ import annotations

import os
import re
from operator import itemgetter
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.brokers.amqp.fields import FieldError, encode_short_string, encode_table, pack_long
from celery.brokers.amqp.frames import encode_content_header
from celery.brokers.amqp.messages import properties_of
from celery.wire.forms import Filled, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.wire.forms import Form, Message

#: Whose cuts of a form are ours.
_AMQP = "amqp"
#: What nobody else writes into a message; followed by the name of the hole.
_MARK = os.urandom(12).hex()

_pack_size = Struct(">Q").pack
#: Where the size of the body is, in a content header.
_SIZE = slice(4, 12)


class _Piece(NamedTuple):
    """A part of a header: a format, and which of a message's values go into it, in order."""

    text: bytes
    pick: Callable[[tuple[bytes, ...]], Any]


class _Cut(NamedTuple):
    """A form as a content header."""

    start: bytes
    #: From the size of the body to the table of headers.
    before: bytes
    table: _Piece
    behind: _Piece

    def fill(self, filled: Filled) -> bytes:
        """The content header of a message. Raises FieldError."""
        values = (
            _long(filled.id),
            encode_short_string(filled.id),
            encode_short_string(filled.reply_to),
            _long(filled.argsrepr),
            _long(filled.kwargsrepr),
            _VOID if filled.group_index is None else _value(filled.group_index),
        )
        (inner, pick_inner), (behind, pick_behind) = self.table, self.behind
        table = inner % pick_inner(values)
        size = _pack_size(len(filled.start) + len(filled.form.tail))
        return b"".join((self.start, size, self.before, pack_long(len(table)), table, behind % pick_behind(values)))


def content_header(envelope: Message) -> bytes:
    """What says all of a message but its body.

    Raises:
        FieldError: a header or property does not fit.
    """
    if type(envelope) is Filled:
        form = envelope.form
        shape = form.cuts.get(_AMQP)
        if shape is None:
            shape = _cut(form)
        if shape is not None:
            try:
                filled: bytes = shape.fill(envelope)
            except FieldError:
                pass  # rule 3
            else:
                return filled
    return encode_content_header(properties_of(envelope), len(envelope.body))


def _cut(form: Form) -> _Cut | None:
    """Cut a form; None the first time, as one that is used once is not worth it."""
    if _AMQP not in form.cuts:
        form.cuts[_AMQP] = None
        return None
    identity, reply_to, args, kwargs, place = (f"{_MARK}-{number}" for number in range(5))
    marked = plain(Filled(form, identity, b"", reply_to, args, kwargs, place))  # type: ignore[arg-type]  # a mark too
    written = [
        _long(identity),
        encode_short_string(identity),
        encode_short_string(reply_to),
        _long(args),
        _long(kwargs),
        _value(place),
    ]
    header, table = encode_content_header(properties_of(marked), 0), encode_table(marked.headers)
    before, _, behind = header[_SIZE.stop :].partition(table)
    made = form.cuts[_AMQP] = _Cut(
        header[: _SIZE.start], before, _pieces(table[len(pack_long(0)) :], written), _pieces(behind, written)
    )
    return made


def _pieces(text: bytes, written: list[bytes]) -> _Piece:
    """Cut it where something is written."""
    parts = re.split(b"(" + b"|".join(map(re.escape, written)) + b")", text)
    numbers = [written.index(part) for part in parts[1::2]]
    pick: Callable[[tuple[bytes, ...]], Any] = itemgetter(*numbers) if numbers else lambda _: ()
    return _Piece(b"%b".join(part.replace(b"%", b"%%") for part in parts[::2]), pick)


def _long(text: str) -> bytes:
    """A text as it is in a table, without its tag."""
    raw = text.encode("utf-8", "surrogatepass")
    return pack_long(len(raw)) + raw


def _value(value: object) -> bytes:
    """A value as it is in a table, with its tag: all of one that has a nameless entry, save the two lengths."""
    return encode_table({"": value})[5:]


#: Nothing, in a table.
_VOID = _value(None)
