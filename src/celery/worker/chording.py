"""Chords in a worker: from a claim to a closed chord (`celery.backends.chords`, `celery.app.chords`).

Rules
    1. A settlement whose part gave a claim is not over: its delivery stays in the broker's care. What comes of the
       chord is worked out on a thread, as it reads the store, and is settled as a second settlement of the same
       delivery, in one step with closing the chord where broker and store can (`Receiver.counts_chords`).
    2. Elsewhere the order is: hold the claim, send, store, close, acknowledge. A void claim leaves only the verdict.
       Where sending and the verdict are one step, closing comes after it, and what else goes with it waits for it.
    3. A claim that another holds is asked for again every second, until that one has closed the chord or is gone.
    4. When the connection is lost, what is not over is given up as it was after the first step: when the message comes
       again, its part is added again, which is harmless, and gives the claim again.
    5. Every few seconds each worker asks for chords that nobody looks after. One whose producer died while it was
       sending the header can never be complete: the worker that gets the claim fails it. One that is complete is
       finished. Where the backend stores blockingly all of that happens on the thread.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from celery import exceptions
from celery.app import chords
from celery.app.following import Losses, Place, losses_of, part_of
from celery.backends.chords import body_from_json
from celery.brokers.base import ChordClaim, Delivery, Settlement, Verdict
from celery.utils.callthread import CallThread
from celery.utils.log import get_logger
from celery.wire.envelope import Envelope
from celery.wire.protocol import read_task
from celery.wire.serializers import resolve_accept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.app.base import Celery
    from celery.backends.chords import ChordBook

T = TypeVar("T")

logger = get_logger(__name__)

#: Seconds between two questions for a claim that another holds.
_ASK_AGAIN = 1.0
#: Seconds between two questions for chords whose producers have died.
_LOOK_EVERY = 5.0
#: Seconds between two tries to reach a store that is away, at first and at most.
_PAUSES = (0.1, 5.0)


def concerned(batch: Sequence[Settlement]) -> bool:
    """Whether any of these has to do with a chord: most have not."""
    return any(settlement.parts or settlement.begins or settlement.closes is not None for settlement in batch)


class Chording:
    """Counts and finishes chords, for a Settler."""

    def __init__(self, app: Celery, settle: Callable[[Sequence[Settlement]], None]) -> None:
        """Nothing is connected yet.

        Args:
            app: its backend counts.
            settle: takes second settlements.
        """
        self.app = app
        #: Calls a function with a tuple of arguments in a process that runs tasks, some time.
        self.call: Callable[[Callable[..., Any], tuple[Any, ...]], Any] | None = None
        #: The store that cannot be reached, and why; empty while it can.
        self.away = ""
        self._settle = settle
        self._thread: CallThread | None = None
        self._unfinished: dict[asyncio.Task[None], Settlement] = {}

    def __len__(self) -> int:
        return len(self._unfinished)

    @property
    def _book(self) -> ChordBook | None:
        return self.app.backend.chords

    # -- where the receiver does not count

    async def before_sending(self, batch: Sequence[Settlement]) -> None:
        """Hold claims, and let chords begin."""
        book = self._book
        if book is None:
            return
        for settlement in batch:
            if settlement.closes is not None and not await self._insist(book.hold, settlement.closes):
                _empty(settlement)
                settlement.closes = None
        begins = [start for settlement in batch for start in settlement.begins]
        if begins:
            await self._insist(book.begin, begins)
            for settlement in batch:
                settlement.begins = ()

    async def count(self, batch: Sequence[Settlement]) -> None:
        """Add parts; sets the claims of their settlements."""
        book = self._book
        counted = [settlement for settlement in batch if settlement.parts]
        if book is None or not counted:
            return
        claims = await self._insist(book.add, [part for settlement in counted for part in settlement.parts])
        for settlement in counted:
            settlement.claims = [claim for claim in claims if claim.part in settlement.parts]
            settlement.parts = ()

    async def close(self, batch: Sequence[Settlement]) -> None:
        """Close chords whose end is settled."""
        book = self._book
        for settlement in batch:
            if book is not None and settlement.closes is not None:
                await self._insist(book.close, settlement.closes)
                settlement.closes = None

    # -- from a claim to the second settlement

    def take(self, settlement: Settlement, *, applied: bool) -> None:
        """Finish the chords that this has claims for.

        Args:
            settlement: the first one.
            applied: all of it but the verdict; else what it still has goes with that.
        """
        if applied:
            _empty(settlement)
        settlement.parts = tuple(claim.part for claim in settlement.claims)
        task = asyncio.ensure_future(self._finish(settlement))
        self._unfinished[task] = settlement
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        settlement = self._unfinished.pop(task, None)
        if settlement is not None and not task.cancelled() and (error := task.exception()) is not None:
            logger.critical("A chord cannot be finished; its last member is not acknowledged", exc_info=error)

    async def _finish(self, settlement: Settlement) -> None:
        """The verdict goes with the last of the settlements that this makes."""
        claims = settlement.claims
        made = []
        if any(not claim.token for claim in claims):
            await asyncio.sleep(_ASK_AGAIN)
        for claim in claims:
            if claim.token:
                made.append(await self._second(settlement, claim))
            else:
                made.append(_beside(settlement, parts=(claim.part,)))
        if settlement.follow or settlement.results:
            if made[-1].closes is not None:  # its effects are void with the claim
                made.append(_beside(settlement))
            made[-1].follow, made[-1].results = settlement.follow, settlement.results
        made[-1].delivery, made[-1].verdict = settlement.delivery, settlement.verdict
        made[-1].until, made[-1].after_start = settlement.until, settlement.after_start
        made[-1].reason = settlement.reason
        self._settle(made)

    async def _second(self, settlement: Settlement, claim: ChordClaim) -> Settlement:
        completion = await self._insist(self._complete, settlement.delivery, claim)
        return _beside(settlement, closes=claim, **_effects(completion))

    def _complete(self, delivery: Delivery, claim: ChordClaim) -> chords.Completion:
        body, last = self._body_of(delivery, claim)
        return self._told(chords.complete(self.app, claim.part.group_id, body, last))

    async def watch(self) -> None:
        """Rule 5, until cancelled."""
        while True:
            book = self._book
            for claim in await self._insist(book.abandoned) if book is not None else ():
                try:
                    if self.app.backend.async_writer:
                        self._settle([await self._insist(self._give_up_orphan, claim)])
                    else:
                        await self._insist(self._end, claim)
                except Exception:  # it would end one worker after the other
                    logger.exception("Chord %s, whose sender has died, cannot be failed", claim.part.group_id)
            await asyncio.sleep(_LOOK_EVERY * random.uniform(0.5, 1.5))  # noqa: S311 - so that workers take turns

    def _give_up_orphan(self, claim: ChordClaim) -> Settlement:
        body, last, error = _of_nobody(claim)
        completion = self._told(chords.fail(self.app, body, error, last))
        nobody = Delivery(Envelope({}, b""), None, "", "", "")
        return Settlement(nobody, Verdict.ACK, closes=claim, **_effects(completion))

    def _end(self, claim: ChordClaim) -> None:
        body, last, error = _of_nobody(claim)
        complete = claim.part.task_id != ""
        chords.end(self.app, claim, body, last, None if complete else error, self._told)

    async def fail(self, settlement: Settlement, error: Exception) -> None:
        """What a second settlement wants to send cannot be sent: it fails its chord instead."""
        assert settlement.closes is not None
        claim = settlement.closes
        body, last = self._body_of(settlement.delivery, claim)
        failure = exceptions.ChordError(f"Callback error: {error!r}")
        completion = self._told(await self._insist(chords.fail, self.app, body, failure, last))
        for name, effects in _effects(completion).items():
            setattr(settlement, name, effects)

    def _told(self, completion: chords.Completion) -> chords.Completion:
        """Have error callbacks called that want more than to be sent."""
        for arguments in completion.calls:
            if self.call is not None:
                self.call(chords.call_errback, arguments)
        return completion._replace(calls=())

    def _body_of(self, delivery: Delivery, claim: ChordClaim) -> tuple[Any, chords.Finisher]:
        headers = delivery.envelope.headers
        last = chords.Finisher(claim.part.task_id, headers.get("root_id"), delivery.envelope.properties.get("reply_to"))
        if claim.part.body is not None:
            return msgspec.json.decode(claim.part.body), last
        message = read_task(delivery.envelope, resolve_accept(self.app.conf.accept_content))
        return message.embed["chord"], last

    def losses(self, delivery: Delivery, error: Exception, state: str) -> Losses:
        """What it means for others that a message is dropped or refused: the steps after it, the chord that counts it.

        Nothing where the body cannot be read.
        """
        try:
            message = read_task(delivery.envelope, resolve_accept(self.app.conf.accept_content))
        except Exception:  # noqa: BLE001 - whatever is wrong with it is the reason why it is refused
            return Losses([], [])
        headers, backend = message.headers, self.app.backend
        reply_to = delivery.envelope.properties.get("reply_to")
        rest = reversed(message.embed.get("chain") or ())
        losses = losses_of(backend, rest, error, state, None, reply_to)
        if message.embed.get("chord") and headers.get("group"):
            place = Place(headers["group"], headers["id"], headers.get("group_index"))
            # It fails: arguments of kinds that JSON does not know are not needed.
            body = None if backend.async_writer else msgspec.json.encode(message.embed["chord"], enc_hook=repr)
            losses.parts.append(part_of(backend, place, state, error, body))
        return losses

    def lose(self, delivery: Delivery, error: Exception, state: str) -> None:
        """The same in place, blocking, for a backend that only stores blockingly."""
        losses = self.losses(delivery, error, state)
        chords.apply(self.app, chords.Completion(writes=losses.writes, parts=losses.parts, error=error))

    # -- the thread

    async def _insist(self, call: Callable[..., T], *args: Any) -> T:
        """Call on the thread, again and again while the store is away."""
        if self._thread is None:
            self._thread = CallThread("celery-chords", asyncio.get_running_loop())
        pause, longest = _PAUSES
        while True:
            try:
                value = await self._thread.call(call, *args)
            except exceptions.OperationalError as exc:
                self.away = f"the result store: {exc}"
                logger.error("Chords cannot be counted: %s. Trying again in %.1f seconds.", exc, pause)  # noqa: TRY400 - the reason is the text
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
            else:
                self.away = ""
                return value

    # -- connection lost, and the end

    def give_up(self, kept: Callable[[Settlement], bool]) -> list[Settlement]:
        """Rule 4: the settlements that are not over and not `kept`, as they were before their claims."""
        given_up = []
        for task, settlement in list(self._unfinished.items()):
            if not kept(settlement):
                del self._unfinished[task]
                task.cancel()
                settlement.claims = []
                given_up.append(settlement)
        return given_up

    def unfinished(self) -> list[Settlement]:
        """What waits for its second settlement."""
        return list(self._unfinished.values())

    def forget_receipts(self) -> None:
        """Their messages are at a broker that is not ours any more."""
        for settlement in self._unfinished.values():
            settlement.delivery.receipt = None

    def end(self) -> None:
        """Let the thread go, and what it has opened. No end of the process waits for a store that is away."""
        thread, self._thread = self._thread, None
        if thread is not None:
            if (book := self._book) is not None:
                thread.call(book.disconnect)
            thread.end()


def _of_nobody(claim: ChordClaim) -> tuple[Any, chords.Finisher, exceptions.ChordError]:
    """Of a claim that no message led to: the body, who sends it, and why it fails where members are missing."""
    group_id, body = claim.part.group_id, body_from_json(claim.part.body or b"{}")
    error = exceptions.ChordError(f"The sender of chord {group_id} died before all of its header was sent")
    return body, chords.Finisher(claim.part.task_id or group_id), error


def _beside(settlement: Settlement, **effects: Any) -> Settlement:
    """A settlement of effects alone, in the name of the same message."""
    of = settlement.delivery
    nobody = Delivery(of.envelope, None, of.queue, of.exchange, of.routing_key)
    return Settlement(nobody, Verdict.ACK, **effects)


def _effects(completion: chords.Completion) -> dict[str, Any]:
    return {
        "begins": completion.begins,
        "follow": completion.follow,
        "results": completion.writes,
        "parts": completion.parts,
    }


def _empty(settlement: Settlement) -> None:
    settlement.begins = settlement.follow = settlement.results = settlement.parts = ()
