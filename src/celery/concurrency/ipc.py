"""Frames on the socket pair between the worker and a child. Sans-IO.

A frame is four bytes of length (of what follows them), one byte of kind, and a MessagePack payload. To the child:

    RUN       list of Job
    LARGE     one Job with a long text: four bytes of length, the Job without its text, and the text as it is
    STOP      nothing: finish what was handed out, then exit

From the child:

    READY     nothing: the first sign of life
    OUTCOMES  list of (sequence number in the lane, Outcome)
    RETURNED  list of sequence numbers of jobs that it will not begin
    EXPIRED   list of sequence numbers of jobs that nobody is to begin: their time is over
    RETIRED   why it will exit now (text); the rest of its jobs was returned before

A long text is copied by the kernel on its way, and once by who takes it: it is never made part of a greater piece.
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
_LENGTH = struct.Struct(">I")
#: Bytes of a text from which on it has a frame of its own.
_LONG = 1 << 14
#: Bytes of a buffer: at first; as it is doubled while reads fill it; and at most when nothing waits in it.
_LEAST, _READ, _KEPT = 1 << 13, 1 << 18, 1 << 20


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
    LARGE = 7
    EXPIRED = 8


def _plain(value: Any) -> Any:
    """What MessagePack cannot say (a header of a foreign type) travels as its repr."""
    return repr(value)


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_job = msgspec.msgpack.Decoder(Job)
_jobs = msgspec.msgpack.Decoder(list[Job])
_outcomes = msgspec.msgpack.Decoder(list[tuple[int, Outcome]])
_numbers = msgspec.msgpack.Decoder(list[int])
_text = msgspec.msgpack.Decoder(str)


def frame(kind: Kind, payload: Any = None) -> bytes:
    """A frame, ready to send."""
    body = b"" if payload is None else _encoder.encode(payload)
    return _HEAD.pack(len(body) + 1, kind) + body


def run_frame(jobs: Sequence[Job]) -> list[bytes]:
    """Jobs, in order, as pieces to send: RUN, and LARGE for each that has a long text."""
    pieces: list[bytes] = []
    begin = 0
    for at, job in enumerate(jobs):
        text = job.message
        if type(text) is bytes and len(text) >= _LONG:
            if begin < at:
                pieces.append(frame(Kind.RUN, jobs[begin:at]))
            begin = at + 1
            rest = _encoder.encode(msgspec.structs.replace(job, message=b""))
            size = 1 + _LENGTH.size + len(rest) + len(text)
            pieces += (_HEAD.pack(size, Kind.LARGE) + _LENGTH.pack(len(rest)) + rest, text)
    if begin < len(jobs):
        pieces.append(frame(Kind.RUN, jobs[begin:] if begin else jobs))
    return pieces


def outcomes_frame(outcomes: Sequence[tuple[int, Outcome]]) -> bytes:
    """OUTCOMES."""
    return frame(Kind.OUTCOMES, outcomes)


def _large(payload: memoryview) -> list[Job]:
    (length,) = _LENGTH.unpack_from(payload)
    end = _LENGTH.size + length
    job = _job.decode(payload[_LENGTH.size : end])
    job.message = bytes(payload[end:])
    return [job]


#: As what frames are given: to find a member of an enumeration by its number takes a tenth of what a frame takes.
_GIVEN = {int(kind): Kind.RUN if kind is Kind.LARGE else kind for kind in Kind}
#: What takes a payload apart, and leaves nothing that refers to it.
_DECODERS: dict[int, Any] = {
    Kind.RUN: _jobs.decode,
    Kind.LARGE: _large,
    Kind.OUTCOMES: _outcomes.decode,
    Kind.RETURNED: _numbers.decode,
    Kind.EXPIRED: _numbers.decode,
    Kind.RETIRED: _text.decode,
}


class Frames:
    """Bytes in, frames out: who reads a socket puts them into `space()`, and takes what `filled` gives to its end."""

    def __init__(self) -> None:
        self._buffer = bytearray(_LEAST)
        #: What is in the buffer and belongs to no frame that was given.
        self._start = self._end = 0
        #: Bytes that the frame which has begun there takes in all.
        self._needed = 0

    def space(self) -> memoryview:
        """Where the next bytes go; never empty."""
        return memoryview(self._buffer)[self._end :]

    def filled(self, count: int) -> Iterator[tuple[Kind, Any]]:
        """So many bytes were put into `space()`: the frames that are complete now, decoded: (kind, payload). LARGE is
        given as RUN.
        """
        buffer = self._buffer
        start, self._end = self._start, self._end + count
        full = self._end == len(buffer)
        self._needed = 0
        with memoryview(buffer) as view:
            while self._end - start >= _HEAD.size:
                length, kind = _HEAD.unpack_from(buffer, start)
                end = start + 4 + length
                if self._end < end:
                    self._needed = end - start
                    break
                decode = _DECODERS.get(kind)
                with view[start + _HEAD.size : end] as payload:
                    found = decode(payload) if decode else None
                start = self._start = end
                yield _GIVEN[kind], found
        self._make_room(full)

    def _make_room(self, full: bool) -> None:
        """Move what is left to the beginning, of another buffer if this one is too small, or too large by now."""
        left = self._end - self._start
        size = len(self._buffer)
        wanted = max(self._needed, min(2 * size, _READ) if full else 0)
        if not left and size > _KEPT:
            wanted = size = _LEAST
            self._buffer = bytearray(size)
        elif wanted > size:
            larger = bytearray(1 << (wanted - 1).bit_length())
            larger[:left] = memoryview(self._buffer)[self._start : self._end]
            self._buffer = larger
        elif left and self._start:
            with memoryview(self._buffer) as view:
                view[:left] = view[self._start : self._end]
        self._start, self._end = 0, left
