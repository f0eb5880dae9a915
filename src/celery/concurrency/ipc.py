"""Frames on the socket pair between the worker and a child. Sans-IO.

A frame is four bytes of length (of what follows them), one byte of kind, and a MessagePack payload. To the child:

    RUN       list of Job
    STOP      nothing: finish what was handed out, then exit

From the child:

    READY     nothing: the first sign of life
    OUTCOMES  list of (sequence number in the lane, Outcome)
    RETURNED  list of sequence numbers of jobs that it will not begin
    RETIRED   why it will exit now (text); the rest of its jobs was returned before
"""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, Any

import msgspec

from celery.app.outcome import Outcome
from celery.concurrency.base import Job

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_HEAD = struct.Struct(">IB")


def _keep_blocks() -> None:
    """Let the allocator keep blocks of up to 4 MiB for the next use. glibc maps those above a threshold one by one, at
    the price of a page fault for each 4 KiB, and raises the threshold when it frees a greater one. Taking a frame with
    100 KB messages apart becomes seven times as fast. Nothing is touched here, so no memory is used.
    """
    bytes(4 << 20)


_keep_blocks()


class Kind(enum.IntEnum):
    """What a frame is."""

    RUN = 1
    STOP = 2
    READY = 3
    OUTCOMES = 4
    RETURNED = 5
    RETIRED = 6


def _plain(value: Any) -> Any:
    """What MessagePack cannot say (a header of a foreign type) travels as its repr."""
    return repr(value)


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_jobs = msgspec.msgpack.Decoder(list[Job])
_outcomes = msgspec.msgpack.Decoder(list[tuple[int, Outcome]])
_numbers = msgspec.msgpack.Decoder(list[int])
_text = msgspec.msgpack.Decoder(str)


def frame(kind: Kind, payload: Any = None) -> bytes:
    """A frame, ready to send."""
    body = b"" if payload is None else _encoder.encode(payload)
    return _HEAD.pack(len(body) + 1, kind) + body


def run_frame(jobs: Sequence[Job]) -> bytes:
    """RUN."""
    return frame(Kind.RUN, jobs)


def outcomes_frame(outcomes: Sequence[tuple[int, Outcome]]) -> bytes:
    """OUTCOMES."""
    return frame(Kind.OUTCOMES, outcomes)


_DECODERS: dict[int, Any] = {
    Kind.RUN: _jobs.decode,
    Kind.OUTCOMES: _outcomes.decode,
    Kind.RETURNED: _numbers.decode,
    Kind.RETIRED: _text.decode,
}


class Frames:
    """Bytes in, frames out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, Any]]:
        """The frames that are complete now, decoded: (kind, payload)."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= _HEAD.size:
            length, kind = _HEAD.unpack_from(buffer, start)
            end = start + 4 + length
            if len(buffer) < end:
                break
            decode = _DECODERS.get(kind)
            with memoryview(buffer) as view:
                payload = bytes(view[start + _HEAD.size : end])
            start = end
            yield Kind(kind), decode(payload) if decode else None
        del buffer[:start]
