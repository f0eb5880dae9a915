"""What every broker driver promises (architecture: drivers know their store).

Vocabulary
    *Publish*: an envelope with an address. *Delivery*: an envelope with a receipt, in our hands and still
    in the broker's care. *Settlement*: what becomes of a delivery. *Lease*: the broker's care for a delivery
    ends when we settle it, or when we are dead; a living Receiver keeps it alive by itself.

A driver has two halves over one pure protocol part:

`Sender` is blocking and belongs to one thread at a time; `celery.brokers.pool.SenderPool` lends senders to
threads, throws them away after a fork, and gives coroutines their twin. So no driver writes locks or async
publishing of its own.

`Receiver` is async only and lives in a worker's main process. It owns its background duties (leases, due
messages, dead peers, heartbeats), starts them in `open` and ends them in `close`. When its connection is
lost, every waiting call raises OperationalError; the worker then closes it and opens another.

Rules
    1. A message is at any time in a queue, in a delivery, waiting for its time, or in the dead queue: never
       nowhere. Taking it out of a queue and recording the delivery is one step.
    2. Messages of one queue and one priority are delivered in the order they were sent. What is returned is
       delivered next, what is requeued last.
    3. Only the holder of a lease settles: a settlement that comes too late changes nothing and is reported.
    4. Nothing here decodes a body, and no message that a peer can write makes a driver fail: what cannot be
       read as an envelope goes to the dead queue.
    5. Every wait has a bound, or is ended by `close`. Errors are `celery.exceptions.OperationalError` with the
       URL (password masked) for what a new connection may mend, `ImproperlyConfigured` for what it will not.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import msgspec

from celery.brokers.topology import Queue
from celery.wire.envelope import Envelope
from celery.wire.label import Label

if TYPE_CHECKING:
    from celery.wire.forms import Message
else:
    #: What travels, and is read again, is an envelope (`celery.wire.forms.plain`).
    Message = Envelope


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker can do. Callers ask this, never which broker it is."""

    #: For messages to people: "redis".
    name: str
    #: Highest useful priority number; 0 when there are none.
    max_priority: int = 9
    #: True when the greater number is served first (RabbitMQ), False when the smaller one is (Redis).
    high_priority_first: bool = False
    #: Settlement.until is kept by the store, not by this process.
    delay: bool = True
    #: Queue bindings of type fanout reach all consumers, so remote control and Broadcast work.
    fanout: bool = True
    #: Verdict.START leaves a record from which another worker can report the loss of ours.
    started_records: bool = False
    #: `Receiver.settle` applies `follow` in the same transaction as the verdict, and `results` too once
    #: `Receiver.share` has agreed to.
    transactional: bool = False
    #: Sender.publish(confirm=True) waits for the broker's word (elsewhere a write is its own confirmation).
    confirms: bool = False
    #: A queue may have an x-dead-letter-exchange, which then gets what is refused in place of `<queue>.dead`.
    dead_letter_exchanges: bool = False


class Publish(msgspec.Struct, frozen=True, array_like=True):
    """A message and where it goes. Array-like: it travels inside Outcomes."""

    envelope: Message
    #: "" is the default exchange: the routing key is the name of the queue.
    exchange: str
    routing_key: str
    #: Declared before the first publish to it on a connection; None: the target is known to exist. A queue without a
    #: name stands for its exchange alone.
    queue: Queue | None = None
    mandatory: bool = False
    #: Not before this moment (unix seconds), for a broker that can hold a message back when sending.
    #: The envelope's eta header says the same to workers, which check it on receipt.
    until: float | None = None


class Delivery(msgspec.Struct, eq=False, gc=False):
    """One message in our hands. Identity matters, equality does not.

    Out of the collector's sight, as are the other records of what is in flight: thousands of them cost a worker's main
    process a tenth of its time. So nothing that a receipt leads to may lead back to its delivery.
    """

    envelope: Envelope
    #: The driver's own handle; None: nothing to settle (a fan-out copy).
    receipt: Any
    #: Name of the queue that it came from.
    queue: str
    #: As published.
    exchange: str
    routing_key: str
    redelivered: bool = False
    #: How many times the message was handed to a worker that did not settle it: 0 at first; drivers count
    #: Verdict.LOST, expired leases and dead workers, and keep the number in a header or in a column.
    failures: int = 0
    #: Its worker died after Verdict.START: it must not run, the loss is to be reported and acknowledged.
    lost: bool = False
    #: It came back from a worker that did not settle it, and the broker will not know how often: unless it is
    #: acknowledged before it runs, it is to be settled with Verdict.COUNT, and will be a new delivery.
    uncounted: bool = False
    #: Of a driver that can read it without opening the message; `envelope` then opens itself when it is asked.
    label: Label | None = None
    #: The message as it came, where `celery.wire.sealed` can open it.
    text: bytes | None = None

    @property
    def info(self) -> dict[str, Any]:
        """What tasks see of it: `request.delivery_info` (API-044)."""
        return {
            "exchange": self.exchange,
            "routing_key": self.routing_key,
            "priority": self.envelope.properties.get("priority"),
            "redelivered": self.redelivered,
        }


class Verdict(enum.IntEnum):
    """What becomes of a delivery."""

    #: Done: forget it.
    ACK = 0
    #: It runs and shall not run again (early acknowledgement). A second settlement follows at its end: ACK, or DEAD
    #: when it turned out to be unreadable, which is ACK to a broker that has forgotten it by then.
    START = 1
    #: Back into its queue, to be delivered next, not counted (shutdown; never started).
    RETURN = 2
    #: As RETURN, and counted as a failure: its process died while running it.
    LOST = 3
    #: Back into its queue, to be delivered last (the task raised Reject(requeue=True)).
    REQUEUE = 4
    #: Not before `until`. The receipt is given up; it will be a new delivery.
    DELAY = 5
    #: Refused: moved to `<queue>.dead`, or what the broker has for that.
    DEAD = 6
    #: Back into its queue, to be delivered last, with its `failures` written down: for what is `uncounted`.
    COUNT = 7


class BriefWrite(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A `ResultWrite` as a child makes nearly all of them: what they have in common stays there, and who reads one
    gets a `ResultWrite`.
    """

    task_id: str
    state: str
    #: The record, encoded in the result serializer.
    payload: bytes
    content_type: ClassVar[str] = "application/json"
    content_encoding: ClassVar[str] = "utf-8"
    reply_to: ClassVar[str | None] = None


class ResultWrite(BriefWrite, frozen=True, array_like=True, gc=False):
    """A result record ready to be stored (wire.md 4.1)."""

    content_type: str = BriefWrite.content_type  # type: ignore[misc]  # there it is the same for all
    content_encoding: str = BriefWrite.content_encoding  # type: ignore[misc]
    #: For the rpc backend: whom to tell.
    reply_to: str | None = None  # type: ignore[misc]


class ChordStart(msgspec.Struct, frozen=True, array_like=True):
    """A chord begins to count (wire.md 4.5, step 1). Its members may have finished before."""

    group_id: str
    #: How many members have to finish.
    size: int
    #: For a store that looks at their records too: their ids, and the body's signature as JSON.
    members: list[str] = []
    body: bytes | None = None


class ChordPart(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a finished member of a chord's header tells its chord (wire.md 4.5, step 2)."""

    group_id: str
    task_id: str
    #: Position in the header; None: wherever.
    index: int | None
    #: SUCCESS, FAILURE or REVOKED.
    state: str
    #: `[1, task id, state, value]`, encoded in the result serializer.
    payload: bytes
    #: The body's signature as JSON; None: it is the `chord` of the message whose attempt this settles.
    body: bytes | None = None


class ChordClaim(msgspec.Struct, frozen=True, array_like=True):
    """The right to finish a chord: its last member was counted (wire.md 4.5, steps 2 to 6)."""

    part: ChordPart
    #: Proves the claim; "": another one holds it and may be dying. Ask again in a second, by adding the part again.
    token: str


class Settlement(msgspec.Struct, gc=False):
    """A verdict on a delivery, with what has to happen before it takes effect.

    `begins` are recorded and `follow` is published first, then `results` are stored, then `parts` are counted, then the
    verdict is applied: all in one transaction where `Capabilities.transactional`; elsewhere the worker has done all but
    the verdict and leaves them empty.

    A part that completes its chord gives a claim, in `claims`, and then the verdict is *not* applied: another
    settlement of the same delivery follows, which finishes the chord (`closes`). It is void, but for its verdict, when
    the claim is no longer valid.
    """

    delivery: Delivery
    verdict: Verdict
    #: Unix seconds, for DELAY.
    until: float | None = None
    #: For people who look into the dead queue.
    reason: str = ""
    follow: Sequence[Publish] = ()
    results: Sequence[ResultWrite] = ()
    #: Verdict.START was settled before: the message is out of its queue.
    after_start: bool = False
    begins: Sequence[ChordStart] = ()
    parts: Sequence[ChordPart] = ()
    #: The chord that this finishes: its bookkeeping goes, in the same step.
    closes: ChordClaim | None = None
    #: Set by `settle`.
    claims: list[ChordClaim] = []


class Over(NamedTuple):
    """An attempt that is over, should its message come again."""

    task_id: Any
    retries: int
    #: To be stored again then: nobody has said that they are.
    results: Sequence[ResultWrite] = ()


class DeadLetter(msgspec.Struct, frozen=True):
    """What the dead queue holds: listed and sent again by `celery dead`."""

    #: Raw bytes when it could not be read as an envelope.
    message: Envelope | bytes
    queue: str
    reason: str
    #: Unix seconds; 0 when the broker does not say.
    time: float = 0.0


class Inbox(abc.ABC):
    """A private queue, read blockingly and without acknowledgement: control replies, rpc results, events."""

    #: Whether `wake` ends a `get` that waits. Then whoever waits for something else too may read it itself.
    wakes: ClassVar[bool] = False

    @property
    def at_hand(self) -> int:
        """How many messages `get` has here already, as far as that is known."""
        return 0

    @abc.abstractmethod
    def get(self, timeout: float | None) -> Envelope | None:
        """The next message, or None after `timeout` seconds (None: no bound). Raises OperationalError."""

    def wake(self) -> None:  # noqa: B027 - most cannot be woken
        """Make a running `get`, or the next one, return at once, perhaps with None. Any thread."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give the queue up. Idempotent."""


class Sender(abc.ABC):
    """The publishing half: blocking, one thread at a time. Connects on first use."""

    capabilities: ClassVar[Capabilities]

    @abc.abstractmethod
    def publish(self, batch: Sequence[Publish], *, confirm: bool = False, timeout: float | None = None) -> None:
        """Send all, in order, with as few round trips as the broker allows.

        Declares each message's `queue` once per connection. With `confirm` it returns when the broker has taken
        responsibility for every message. `timeout` bounds the whole call, in seconds.

        Raises:
            OperationalError: the connection failed; some of the batch may have been sent. The sender is usable
                again: the next call opens a new connection.
            Exception: any other error is about a message or its queue, and nothing of the batch was sent.
        """

    @abc.abstractmethod
    def declare(self, queues: Sequence[Queue]) -> None:
        """Create exchanges, queues and bindings that do not exist. Idempotent."""

    @abc.abstractmethod
    def purge(self, queue: str) -> int:
        """Delete what waits in the queue (not what workers hold); the number of messages deleted."""

    @abc.abstractmethod
    def length(self, queue: str) -> int:
        """How many messages wait in the queue now."""

    @abc.abstractmethod
    def inbox(self, queue: Queue) -> Inbox:
        """Declare a private queue and read it. It is bound when this returns."""

    @abc.abstractmethod
    def dead_letters(self, queue: str, limit: int = 100) -> list[DeadLetter]:
        """What was refused in this queue, the latest first; empty where the broker keeps no such list."""

    def replay(self, queue: str, limit: int) -> int:  # noqa: ARG002 - for brokers that keep no such list
        """Send to the queue again what was refused in it, the earliest first; how many messages.

        Each leaves the dead queue and enters its own in one step, with nothing counted against it any more. What
        cannot be read as an envelope stays.

        Raises:
            OperationalError: the connection failed; some may have been sent.
        """
        return 0

    def bindings(self, exchange: str) -> list[tuple[str, str]]:
        """The bindings of an exchange: pairs of queue and routing key, sorted.

        Raises:
            NotImplementedError: the broker does not tell its clients (RabbitMQ).
        """
        raise NotImplementedError(f"{self.capabilities.name} does not tell its bindings")

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connection. Idempotent; a later call opens another."""


class Receiver(abc.ABC):
    """The consuming half: asyncio, one event loop, a worker's main process."""

    capabilities: ClassVar[Capabilities]
    #: `settle` applies `begins`, `parts` and `closes` too, once `share` has agreed.
    counts_chords: ClassVar[bool] = False
    #: `settle_now` may do something.
    settles_now: ClassVar[bool] = False

    @abc.abstractmethod
    async def open(self) -> None:
        """Connect and start background duties. Raises OperationalError, ImproperlyConfigured."""

    @abc.abstractmethod
    async def consume(self, queue: Queue) -> None:
        """Declare the queue and begin to take messages from it. Raises ImproperlyConfigured naming the queue and
        the differing argument when the broker has it otherwise.
        """

    @abc.abstractmethod
    async def cancel(self, queue: str) -> None:
        """Take no more from the queue; what was received stays ours."""

    @abc.abstractmethod
    async def prefetch(self, count: int) -> None:
        """At most `count` deliveries will be unsettled at once. For brokers that push; others may ignore it."""

    @abc.abstractmethod
    async def receive(self, limit: int) -> list[Delivery]:
        """Wait until there is a message; up to `limit` of what is there now. Never waits to fill a batch.

        Safe to cancel: what was taken is returned by the next call. Raises OperationalError.
        """

    @abc.abstractmethod
    async def settle(self, batch: Sequence[Settlement]) -> list[Delivery]:
        """Apply settlements, few round trips for many. Returns the deliveries that were no longer ours: their
        follow-ups and results were not applied (where transactional).

        Raises:
            OperationalError: not known to be applied. The deliveries are lost to this receiver; the broker
                delivers again what was not applied.
        """

    def settle_now(self, batch: Sequence[Settlement]) -> bool:  # noqa: ARG002 - most brokers answer
        """Apply settlements that only store results which are shared, and let go of their messages, without waiting for
        anybody. False: that cannot be, and nothing was done. Not to be called while `settle` is at work.
        """
        return False

    def share(self, backend: object) -> bool:  # noqa: ARG002 - most brokers share with no backend
        """Whether this receiver will store the results of that backend inside `settle`: same server, same
        transaction. Asked once, before `open`; a driver that agrees knows its sister among the backends.
        """
        return False

    def keep_for(self, idle: Callable[[], int]) -> None:  # noqa: B027 - most brokers keep nothing
        """Allow `settle` to keep some of what follows for the next `receive`, as if this receiver had taken it at once
        from the queue that it goes to.

        Args:
            idle: how many messages could begin to run here now.
        """

    def unsure(self) -> list[Over]:
        """After the connection was lost: what was settled for good of late, without the broker's word that it has heard
        of it.
        """
        return []

    @abc.abstractmethod
    async def listen(self, queue: Queue, callback: Callable[[Envelope], None]) -> None:
        """Declare a private queue and call `callback` on the loop for each message, without acknowledgement
        (the control mailbox, events). It is bound when this returns.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """End background duties; what is still unsettled goes back to its queue (Verdict.RETURN), save what was
        started. Then disconnect. Idempotent, never raises OperationalError.
        """
