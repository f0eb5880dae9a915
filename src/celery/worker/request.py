"""One delivery in flight, and the only code that settles.

A `Request` is made for every delivery that will run. Its life:

    reserved   received, handed to the pool
    started    a tick found it running; with early acknowledgement the message is out of the queue from now on
    finished   its Outcome is here, waiting to be settled
    settled    the broker has let go of it

What the broker is told at the end (ROUTE-046, ROUTE-047), with late acknowledgement; with early acknowledgement it is
always ACK, but for the first row:

    | the attempt ended with              | verdict                                                       |
    |-------------------------------------|---------------------------------------------------------------|
    | nothing: the body cannot be read    | DEAD                                                          |
    | success, retry, ignore              | ACK                                                           |
    | failure                             | ACK; DEAD where `acks_on_failure` is off                      |
    | hard time limit                     | ACK; LOST where `acks_on_timeout` is off                      |
    | death of its process                | ACK; LOST where `reject_on_worker_lost` and not               |
    |                                     | `retry_on_worker_lost`, which sends a retry                   |
    | Reject(requeue=False)               | DEAD                                                          |
    | Reject(requeue=True)                | REQUEUE                                                       |
    | success, and its store stays away   | RETURN, when the worker stops (`celery.worker.leaving`)       |

A request of a class that the task brings may ask for another one (`Request.acknowledge`, `Request.reject`), take itself
to the pool (`celery.worker.gate`), and decide whether its message is acknowledged at all (`celery.worker.verbs`).

`Settler` applies outcomes in batches: what follows is sent, results are stored, chords are told, then the verdict
(decision 2 of the architecture); in one transaction where the broker and the store can. What completes a chord takes a
second settlement (`celery.worker.chording`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

from celery import exceptions, states
from celery.app.context import Context
from celery.app.following import Place, part_of
from celery.app.outcome import Disposition, Outcome
from celery.brokers.base import Delivery, ResultWrite, Settlement, Verdict
from celery.concurrency.base import Handling, Job, job_of
from celery.utils.log import get_logger
from celery.worker.acts import RequestActs
from celery.worker.chording import Chording, concerned
from celery.worker.facts import RequestFacts
from celery.worker.leaving import Remains, part_with
from celery.worker.passing import Passing, bare, settle_now, weight_of
from celery.worker.strategy import headers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.app.base import Celery
    from celery.app.task import Task
    from celery.brokers.base import Receiver
    from celery.worker.gate import Turn
    from celery.worker.handover import Message
    from celery.worker.strategy import Source

logger = get_logger(__name__)

#: Settlements in one batch at most, and bytes of them after which it takes no more.
BATCH, _BATCH_BYTES = 256, 4 << 20
#: Outcomes that may wait to be settled before the worker takes no more messages, and bytes of them.
BACKLOG, BACKLOG_BYTES = 4096, 16 << 20
#: Seconds between two tries to reach a result store that is away, at first and at most.
_STORE_PAUSES = (0.1, 5.0)
#: Of nearly every outcome: Python 3.11 takes 0.1 us to find a member of an enumeration.
_ACK, _UNREADABLE = Verdict.ACK, Disposition.UNREADABLE


class Request(RequestActs, RequestFacts):
    """A delivery that runs here (API-042). Tasks may bring a subclass (`celery.worker.watching`)."""

    __slots__ = (
        "_source", "acks_late", "app", "asked", "delivery", "handling", "hostname", "job", "keeper", "pid",
        "settled_start", "started_at", "task",
    )  # fmt: skip

    def __init__(
        self,
        app: Celery,
        hostname: str,
        delivery: Delivery,
        source: Source,
        task: Task[..., Any],
        handling: Handling,
        job: Job,
    ) -> None:
        self.app = app
        self.hostname = hostname
        self.delivery = delivery
        self._source = source
        self.task = task
        self.handling = handling
        self.job = job
        self.acks_late = bool(task.acks_late)
        #: Unix seconds; None until a tick has seen it run.
        self.started_at: float | None = None
        self.pid: int | None = None
        #: Verdict.START was given.
        self.settled_start = False
        #: Of a class that its task brings: does what the request is asked to do.
        self.keeper: Turn | None = None
        #: What `acknowledge` or `reject` asked for.
        self.asked: Verdict | None = None

    @property
    def headers(self) -> dict[str, Any]:
        """Of the message, complete. Read when first asked for: to run a task the worker need not know them."""
        if not isinstance(self._source, dict):
            self._source = dict(headers_of(self._source))
        return self._source

    @property
    def acknowledged(self) -> bool:
        """Whether the broker has let go of the message."""
        turn = self.keeper
        if turn is not None and turn.unasked:
            return self.asked is not None
        return self.settled_start or (turn is not None and turn.settled)

    def context(self) -> Context:
        """A request as the task would see it, without arguments: for results and signals of the main process."""
        return Context(
            self.headers,
            delivery_info=self.delivery_info,
            hostname=self.hostname,
            reply_to=self.reply_to,
            called_directly=False,
        )

    def humaninfo(self) -> str:
        """Name and id, for people."""
        return f"{self.name}[{self.id}]"

    def info(self, safe: bool = False) -> dict[str, Any]:
        """For remote control (CTL-027). Arguments are as sent where they are JSON; else, and if `safe`, as reprs."""
        args, kwargs = self.argsrepr, self.kwargsrepr
        if not safe and self.content_type == "application/json":
            with contextlib.suppress(Exception):  # a body that cannot be read is told of when it should run
                args, kwargs, _ = self.read()
        return {
            "id": self.id,
            "name": self.name,
            "args": args,
            "kwargs": kwargs,
            "type": self.type,
            "hostname": self.hostname,
            "time_start": self.started_at,
            "acknowledged": self.acknowledged,
            "delivery_info": self.delivery_info,
            "worker_pid": self.pid,
        }

    # -- what the table says

    def verdict(self, outcome: Outcome) -> Verdict:
        """What the broker is told at the end; see the table above."""
        if outcome.disposition is _UNREADABLE:
            return Verdict.DEAD
        if self.asked is not None and not self.settled_start:
            return self.asked
        if not self.acks_late:
            return _ACK
        if outcome.disposition is Disposition.REJECT:
            return Verdict.DEAD
        if outcome.disposition is Disposition.LEFT:
            return Verdict.RETURN
        if outcome.disposition is Disposition.REQUEUE:
            return Verdict.REQUEUE
        return Verdict.DEAD if outcome.state == states.FAILURE and self.refuses_failure else _ACK

    @property
    def refuses_failure(self) -> bool:
        """Whether a failure refuses the message, where it is acknowledged late."""
        return not _chosen(self.task.acks_on_failure, self.task.acks_on_failure_or_timeout)

    @property
    def requeues_timeout(self) -> bool:
        """Whether a hard time limit gives the message back."""
        return self.acks_late and not _chosen(self.task.acks_on_timeout, self.task.acks_on_failure_or_timeout)

    @property
    def requeues_loss(self) -> bool:
        """Whether the death of its process gives the message back. `retry_on_worker_lost` sends a retry instead."""
        return self.acks_late and bool(self.task.reject_on_worker_lost) and not self.task.retry_on_worker_lost


def _chosen(own: bool | None, umbrella: bool | None) -> bool:
    return bool(umbrella if own is None else own)


class MessageRequest(Request):
    """A request that a strategy of a task makes of a message (`celery.worker.handover`), which then answers for it."""

    def __init__(
        self,
        message: Message,
        on_ack: Callable[..., Any] | None = None,
        on_reject: Callable[..., Any] | None = None,
        *,
        app: Celery,
        task: Task[..., Any],
        hostname: str = "",
        connection_errors: Any = (),
        **_: Any,
    ) -> None:
        job = job_of(0, message.delivery)
        handling = Handling(task.name, task.is_async)
        super().__init__(app, hostname, message.delivery, dict(message.headers), task, handling, job)
        self._message = message
        self._on_ack = on_ack or message.ack_log_error
        self._on_reject = on_reject or message.reject_log_error
        self._errors = connection_errors

    @property
    def acknowledged(self) -> bool:
        return self._message.acknowledged

    @property
    def message(self) -> Message:
        return self._message

    def read(self) -> Sequence[Any]:
        return self._message.payload

    #: Where packages of others look for arguments and what follows (celery-batches).
    _payload = property(read)

    def acknowledge(self) -> None:
        """Tell the broker that the message is done with."""
        self._answer(self._on_ack)

    def reject(self, requeue: bool = False) -> None:
        """Refuse the message, or give it back."""
        if self._answer(self._on_reject, requeue):
            self.send_event("task-rejected", requeue=requeue)

    def _answer(self, tell: Callable[..., Any], *more: Any) -> bool:
        """Whether the broker had not been told before."""
        first = not self.acknowledged
        if first:
            tell(logger, self._errors, *more)
        return first


def create_request_cls(base: type[Request], *_task_pool_hostname_eventer: Any, **_: Any) -> Any:
    """The class that a strategy of a task makes requests with.

    Args:
        base: the task's `Request`.
        _task_pool_hostname_eventer: of the worker; requests are told them when they are made.
    """
    return MessageRequest if base is Request else type(base.__name__, (MessageRequest, base), {})


def _outlives_connection(settlement: Settlement) -> bool:
    """Its message is out of the queue, or there is none."""
    return settlement.delivery.receipt is None or settlement.after_start


class Settler:
    """Applies outcomes, in batches, in the order of the effects; `celery.worker.passing` has the exception."""

    def __init__(self, app: Celery, on_room: Callable[[], None]) -> None:
        """Take nothing yet.

        Args:
            app: the application.
            on_room: called when the backlog has shrunk.
        """
        self.app = app
        self.receiver: Receiver | None = None
        #: The receiver stores the results of the application's backend itself.
        self.shared = False
        self.chords = Chording(app, self.add)
        self._on_room = on_room
        self._queue: deque[Settlement] = deque()
        self._bytes = 0
        self._store_open = False
        self._store_away = ""
        #: Batches that got through.
        self.applied = 0
        #: Children have given up what they were to settle.
        self.left = False
        #: That applies; who waits for it to part with what is away. Else a cancellation is the end.
        self._task: asyncio.Task[None] | None = None
        self._parting: asyncio.Future[Remains] | None = None
        self._announcements: list[tuple[Sequence[ResultWrite], Callable[[], None]]] = []
        self._wakeup = asyncio.Event()
        #: Nothing is being applied, nothing waits for that.
        self._resting = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether the worker should take no more messages for now."""
        return len(self._queue) >= BACKLOG or self._bytes >= BACKLOG_BYTES

    def add(self, settlements: Sequence[Settlement]) -> None:
        """To be applied as soon as can be."""
        nothing_waits = self._resting and not self._queue and not self._announcements
        if nothing_waits and settle_now(self.receiver, settlements, shared=self.shared):
            self.applied += 1
            return
        self._queue.extend(settlements)
        self._bytes += sum(map(weight_of, settlements))
        self._idle.clear()
        self._wakeup.set()

    def _take_batch(self) -> list[Settlement]:
        batch: list[Settlement] = []
        weight = 0
        while self._queue and len(batch) < BATCH and weight < _BATCH_BYTES:
            settlement = self._queue.popleft()
            weight += weight_of(settlement)
            batch.append(settlement)
        self._bytes -= weight
        return batch

    def announce(self, writes: Sequence[ResultWrite], told: Callable[[], None]) -> None:
        """Store that an attempt has started, before anything that is settled later; then call `told`.

        Without a connection this is left out: later it might overtake what the task itself has to say.
        """
        if self.receiver is None:
            told()
            return
        self._announcements.append((writes, told))
        self._idle.clear()
        self._wakeup.set()

    def take_unsettled(self) -> list[Settlement]:
        """The connection is lost: give up what depends on it. Settlements that follow a START stay: their message is
        out of the queue already, only their effects are to be applied.
        """
        self._tell(self._take_announcements())
        given_up = self.chords.give_up(_outlives_connection)
        given_up += [settlement for settlement in self._queue if not _outlives_connection(settlement)]
        self._queue = deque(filter(_outlives_connection, self._queue))
        self._bytes = sum(map(weight_of, self._queue))
        return given_up

    def started(self) -> list[Delivery]:
        """Of what is not settled yet: whose message is out of its queue."""
        return [each.delivery for each in (*self._queue, *self.chords.unfinished()) if each.after_start]

    def forget_receipts(self) -> None:
        """Their messages are at a broker that is not ours any more: only effects are left to apply."""
        for settlement in self._queue:
            settlement.delivery.receipt = None
        self.chords.forget_receipts()

    async def drained(self) -> None:
        """Return when everything was applied."""
        await self._idle.wait()

    @property
    def away(self) -> str:
        """The store that cannot be reached, and why; empty while none is known to be away."""
        return self._store_away or self.chords.away

    def part(self) -> asyncio.Future[Remains]:
        """Wait no longer for what is away (`celery.worker.leaving`)."""
        parting = asyncio.get_running_loop().create_future()
        if self._task is None:
            parting.set_result(self._part())
        else:
            self._parting = parting
            self._task.cancel()
        return parting

    def _part(self) -> Remains:
        self._tell(self._take_announcements())
        keeps = self.receiver is not None and self.receiver.capabilities.started_records
        waiting = [*self._queue, *self.chords.give_up(lambda _: False)]
        remains = part_with(waiting, store_away=bool(self.away), shared=self.shared, started_records=keeps)
        self._queue = deque(remains.kept)
        self._bytes = sum(map(weight_of, self._queue))
        return remains

    async def run(self) -> None:
        """Apply until cancelled. Raises OperationalError when the broker is lost; what was not applied stays here.

        A settlement that nothing can apply (a follow-up to a queue that the broker has otherwise, a record that the
        store refuses) does not end the worker: the attempt fails with that error instead, and its message is refused.
        """
        self._task = asyncio.current_task()
        try:
            while True:
                try:
                    await self._run()
                except asyncio.CancelledError:
                    if self._parting is None or self._task is None or self._task.uncancel():
                        raise
                finally:
                    parting, self._parting = self._parting, None
                    if parting is not None and not parting.done():
                        parting.set_result(self._part())
        finally:
            self._task = None

    async def _run(self) -> None:
        while True:
            while not self._queue and not self._announcements:
                if not self.chords:
                    self._idle.set()
                self._wakeup.clear()
                self._resting = True
                await self._wakeup.wait()
            self._resting = False
            await self._announce()
            was_full = self.full
            batch = self._take_batch()
            try:
                async with self._passing():
                    await self._apply_all(batch)
            except BaseException:
                self._queue.extendleft(reversed(batch))
                self._bytes += sum(map(weight_of, batch))
                raise
            self.applied += 1
            if was_full and not self.full:
                self._on_room()

    def _passing(self) -> contextlib.AbstractAsyncContextManager[Any]:
        if self.receiver is None or self.receiver.capabilities.transactional:
            return contextlib.nullcontext()
        return Passing(self._take_bare, self._settle_bare, self._wakeup)

    def _take_bare(self) -> list[Settlement]:
        passing = [settlement for settlement in self._queue if bare(settlement)]
        if passing:
            self._queue = deque(settlement for settlement in self._queue if not bare(settlement))
        return passing

    async def _settle_bare(self, passing: list[Settlement]) -> None:
        try:
            await self._settle(passing)
        except BaseException:
            self._queue.extendleft(reversed(passing))
            raise
        self._on_room()

    async def _announce(self) -> None:
        announcements = self._take_announcements()
        if not announcements:
            return
        try:
            await self._store([write for writes, _ in announcements for write in writes])
        finally:
            self._tell(announcements)

    def _take_announcements(self) -> list[tuple[Sequence[ResultWrite], Callable[[], None]]]:
        taken, self._announcements = self._announcements, []
        return taken

    @staticmethod
    def _tell(announcements: list[tuple[Sequence[ResultWrite], Callable[[], None]]]) -> None:
        for _, told in announcements:
            told()

    async def _apply_all(self, batch: list[Settlement]) -> None:
        """Apply, and leave in `batch` what was not when this raises."""
        if not batch:
            return
        try:
            await self._apply(batch)
        except exceptions.OperationalError:
            raise
        except Exception:  # noqa: BLE001 - one of them is at fault, and is told below
            while batch:
                await self._apply_one(batch[0])
                del batch[0]

    async def _apply_one(self, settlement: Settlement) -> None:
        try:
            await self._apply([settlement])
        except exceptions.OperationalError:
            raise
        except Exception as exc:
            headers = settlement.delivery.envelope.headers
            logger.exception("What follows from task %s[%s] cannot be applied", headers.get("task"), headers.get("id"))
            if settlement.verdict is Verdict.ACK and not settlement.after_start:
                settlement.verdict, settlement.reason = Verdict.DEAD, repr(exc)
            if settlement.closes is not None:
                await self.chords.fail(settlement, exc)
            else:
                self._fail(settlement, exc)
            await self._apply([settlement])

    def _fail(self, settlement: Settlement, exc: Exception) -> None:
        """Nothing follows; its records and parts become failures."""
        backend = self.app.backend
        settlement.begins = settlement.follow = ()
        settlement.results = tuple(
            backend.prepare_write(
                write.task_id, exc, states.FAILURE, None, Context(id=write.task_id, reply_to=write.reply_to)
            )
            for write in settlement.results
        )
        settlement.parts = tuple(
            part_of(backend, Place(part.group_id, part.task_id, part.index), states.FAILURE, exc, part.body)
            for part in settlement.parts
        )

    async def _apply(self, batch: list[Settlement]) -> None:
        receiver = self.receiver
        assert receiver is not None
        transactional = receiver.capabilities.transactional
        counts = (self.shared and receiver.counts_chords) or not concerned(batch)
        if not counts:
            await self.chords.before_sending(batch)
        if not transactional:
            follow = [message for settlement in batch for message in settlement.follow]
            if follow:
                if first := [settlement for settlement in batch if bare(settlement)]:
                    await self._settle(first)
                    batch[:] = [settlement for settlement in batch if not bare(settlement)]
                await self.app.publisher.apublish(follow, confirm=True)
                for settlement in batch:
                    settlement.follow = ()
        if not self.shared:
            writes = [write for settlement in batch for write in settlement.results]
            if writes:
                await self._store(writes)
                for settlement in batch:
                    settlement.results = ()
        if not counts:
            await self.chords.count(batch)
            if not transactional:  # what they send is out: close while the message can still bring us back
                await self.chords.close(batch)
        await self._settle([settlement for settlement in batch if not settlement.claims])
        if not counts:
            await self.chords.close(batch)
        for settlement in batch:
            if settlement.claims:
                self.chords.take(settlement, applied=counts)

    async def _settle(self, batch: Sequence[Settlement]) -> None:
        assert self.receiver is not None
        for delivery in await self.receiver.settle(batch):
            logger.warning(
                "Task %s was taken over by another worker before it was settled here; its outcome is left to that one.",
                delivery.envelope.headers.get("id"),
            )

    async def _store(self, writes: list[ResultWrite]) -> None:
        """A store that is away holds up settling, not the worker: messages stay unacknowledged until it is back."""
        pause, longest = _STORE_PAUSES
        backend = self.app.backend
        while True:
            try:
                if not self._store_open:
                    await backend.open_writer()
                    self._store_open = True
                await backend.write(writes)
            except exceptions.OperationalError as exc:
                self._store_away = f"the result store: {exc}"
                logger.error("The result backend cannot be reached: %s. Trying again in %.1f seconds.", exc, pause)  # noqa: TRY400 - the reason is the text
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
            else:
                self._store_away = ""
                return

    async def close(self) -> None:
        """Let go of the result store."""
        self.chords.end()
        if self._store_open:
            self._store_open = False
            await self.app.backend.close_writer()

    def settlement(self, delivery: Delivery, verdict: Verdict, **kwargs: Any) -> None:
        """Add one settlement."""
        self.add([Settlement(delivery, verdict, **kwargs)])


def record_of(
    app: Celery, request: Context, state: str, value: Any, traceback: str | None = None
) -> tuple[ResultWrite, ...]:
    """The record of a state that the main process sets itself (STARTED, REVOKED, refusals)."""
    return (app.backend.prepare_write(request.id, value, state, traceback, request),)


def started_value(hostname: str, pid: int) -> dict[str, Any]:
    """The value of STARTED (API-070)."""
    return {"pid": pid, "hostname": hostname}
