"""A task message, opened as far as running its task takes. The rest waits until somebody asks for the request.

Rules
    1. `open_plain` reads what nearly every message is: of protocol 2, in JSON without extension types, not compressed.
       Of anything else, and of whatever is wrong, it gives None: `celery.wire.protocol.read_task` reads all there is,
       and says what is wrong.
    2. What it reads means what `read_task` says it means, and has the kinds that it demands.
    3. One pass over the text makes no header that nobody asks for: a third of the instructions of a whole reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from celery.wire.closed import read_body
from celery.wire.label import Facts
from celery.wire.protocol import LARGE_BODY
from celery.wire.sealed import read_plain
from celery.wire.serializers import is_plain_json
from celery.wire.times import parse_time

if TYPE_CHECKING:
    from celery.wire.envelope import Envelope


class Embed(msgspec.Struct):
    """The third element of a body: the workflow around the task."""

    callbacks: Any = None
    errbacks: Any = None
    chain: Any = None
    chord: Any = None


#: Facts, arguments, keyword arguments, what is around the task.
Opened = tuple[Facts, list[Any], dict[str, Any], Embed]

_read_small = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], Embed]).decode


def open_plain(message: Envelope | bytes, accept: frozenset[str]) -> Opened | None:
    """Open a message, or the text of a closed one, as far as running its task takes; None: that takes `read_task`.

    Args:
        message: the message.
        accept: content types, from `serializers.resolve_accept`.
    """
    try:
        if isinstance(message, bytes):
            read = read_plain(message)
            if read is None:
                return None
            facts, payload, kind, encoding = read.headers, read.body, read.content_type, read.content_encoding
            facts.reply_to = read.properties.reply_to
        else:
            facts, payload = msgspec.convert(message.headers, Facts), message.body
            kind, encoding = message.content_type, message.content_encoding
            facts.reply_to = message.properties.get("reply_to")
        if not facts.task or not facts.id or facts.compression or not is_plain_json(payload, kind, encoding, accept):
            return None
        if facts.eta is not None or facts.expires is not None:
            for moment in filter(None, (facts.eta, facts.expires)):
                parse_time(moment)
        if len(payload) <= LARGE_BODY:
            return (facts, *_read_small(payload))
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None
    large = read_body(payload)
    return None if large is None else (facts, large[0], large[1], Embed(**large[2]))
