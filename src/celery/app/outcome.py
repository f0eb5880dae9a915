"""What one attempt comes to, as data: the third record that crosses boundaries.

An attempt runs in a child and yields an `Outcome`. Nothing of it has happened yet: applying it, in this order, is
*settling*.

    1. `follow`       what follows is sent: callbacks, error callbacks, the next step of a chain, a retry; a chord
                      among them begins to count (`begins`)
    2. `writes`       records are stored: the task's own, and those of chain steps that will now never run
    3. `parts`        chords whose members these are count them; who completes one sends its body (`celery.app.chords`)
    4. `disposition`  the delivery is acknowledged, refused or given back
    5. events         monitors are told

`celery.worker.request` settles batches of outcomes, in one transaction where the stores allow;
`celery.app.apply` settles one in place (eager mode: no delivery, no events). Where the result backend can only store
blockingly the child has done 1 to 3 itself, and sends an Outcome in which they are empty (`Outcome.settled`).

Whoever dies in between, the order keeps the promise: what follows may be sent twice, it is never lost.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import msgspec

from celery.brokers.base import ChordPart, ChordStart, Publish, ResultWrite
from celery.wire.forms import plain

if TYPE_CHECKING:
    from celery.canvas.signature import Signature


class Disposition(enum.IntEnum):
    """What the attempt asks for its delivery."""

    ACK = 0
    #: Refuse: to the dead queue.
    REJECT = 1
    #: Give back, to be served last: Reject(requeue=True).
    REQUEUE = 2
    #: It could not become an attempt at all: to the dead queue, whatever the kind of acknowledgement.
    UNREADABLE = 3
    #: The worker stops, and not all of it could be settled in the child: give back what was not acknowledged.
    LEFT = 4


class Outcome(msgspec.Struct, array_like=True, gc=False):
    """One attempt, finished. Array-like: batches of it cross the socket between child and worker.

    What there is none of is the empty tuple, which nobody makes anew: lists would be four objects a task for the
    worker's collector to look at.
    """

    #: The job number that the worker gave the attempt.
    job: int
    #: SUCCESS, FAILURE, RETRY, REVOKED, IGNORED or REJECTED.
    state: str
    disposition: Disposition = Disposition.ACK
    follow: tuple[Publish, ...] = ()
    writes: tuple[ResultWrite, ...] = ()
    #: Seconds that the task ran.
    runtime: float = 0.0
    #: Wall time when it started, unix seconds.
    started: float = 0.0
    #: For events and logs: repr of the value, or of the exception.
    summary: str = ""
    traceback: str | None = None
    #: The child has applied all but the disposition already.
    settled: bool = False
    #: Of a function that was called instead of a task (`celery.concurrency.calls`): pickled.
    value: bytes | None = None
    begins: tuple[ChordStart, ...] = ()
    parts: tuple[ChordPart, ...] = ()


class Outbox:
    """Stands in for a producer while an attempt runs: what is sent through it travels in the Outcome.

    Passed as the `producer` option of `apply_async`; `Celery.send_task` hands it the finished `Publish`.
    """

    __slots__ = ("begins", "messages")

    #: Whoever publishes what is kept here tells `after_task_publish` then (`AMQP.sent`).
    tells_when_sent = False

    def __init__(self) -> None:
        self.messages: list[Publish] = []
        self.begins: list[ChordStart] = []

    def publish(self, message: Publish, **_: Any) -> None:
        """Keep a message for the Outcome, as it can travel."""
        self.messages.append(msgspec.structs.replace(message, envelope=plain(message.envelope)))

    def send(self, signature: Signature[Any], args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Make messages of a call, and keep them."""
        signature.apply_async(args, producer=self, **options)

    def begin(self, start: ChordStart) -> None:
        """Keep for the Outcome that a chord begins to count."""
        self.begins.append(start)

    def clear(self) -> None:
        """Nothing of it follows."""
        self.messages.clear()
        self.begins.clear()
