"""Who holds what, and what happens when its holder is gone.

Vocabulary
    A *worker* here is one open Receiver, under an id of its own. It *holds* the tags in its held set, each with an
    entry in `unacked` and `unacked_index`. Its *lease* is its score in `celeriac.workers`, the moment when it counts
    as dead; a living one moves that moment on. What it *started* lies in its started hash.

Rules
    1. The lease is renewed by the loop that runs no user code. Every worker looks once a second, in the same script,
       for leases that are over. So what a dead worker held is back in its queues, counted as a failure, within
       LEASE + 1 s, and what it had started is delivered as lost to the one worker that took it over.
    2. A sorted set of leases does what one key with a time to live per worker would do, for one cheap command
       whatever the size of the fleet.
    3. Everything in `unacked_index` whose score is `visibility_timeout` seconds old is due, whoever wrote it: a peer's
       abandoned delivery (redelivered and counted), or one that was delayed until now (neither). Living workers
       set the scores of what they hold to now, every third of that time.
    4. An entry moves only if its removal from the index took it away, in one step with its arrival in the queue.
       So no lock is needed, and `unacked_mutex`, which a dead peer may keep for five minutes, is not taken.
    5. A Receiver that loses its connection while the process lives on leaves its id to the next one of the process
       (`abandon`, `adopt`): what it held goes back uncounted, what it had started is kept, to be settled there.
    6. Who takes no messages takes over from nobody: he would have nowhere to report a loss.
    7. A claim of large messages that was begun and not recorded (`celery.brokers.redis.moving`) goes back first.
       What came to a waiting worker, unrecorded (`celery.brokers.redis.waiting`), counts as held: it may have begun.
    8. A lease that ended while no other was running proves nothing: perhaps the server was away, or its workers were at
       another one. The first who comes then gives those that have left something started a new one (`tick`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from celery.brokers.redis import dead, envelope
from celery.brokers.redis.keys import DELAYED
from celery.brokers.redis.scripts import load
from celery.wire.sealed import UnreadableError, open_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.brokers.redis.keys import Keys
    from celery.brokers.redis.routing import Routes
    from celery.brokers.redis.streaming import Stream

logger = logging.getLogger(__name__)

#: Seconds without renewal after which a worker counts as dead.
LEASE = 9.0
#: Renew when less than this is left.
_RENEWAL = 7.0
#: Seconds between two looks; also how late a delayed message of a peer can be.
_TICK = 1.0
#: A look that gets no answer for so long means that the connection is half open. Less than any lease has left when a
#: look is due.
_ANSWER = 5.0
#: Seconds in which a command of a worker that is gone may still arrive.
_LATE = 900
#: Entries moved by one script, so that no single one holds the server up.
_AT_ONCE = 200
#: And bytes of them: see `celery.brokers.redis.receiver`.
_BYTES_AT_ONCE = 1 << 20

#: Ids of workers of this process that lost their connection, by server and node.
_abandoned: dict[tuple[Any, ...], list[str]] = {}


class Leases:
    """The background duties of one Receiver.

    Args:
        stream: its connection; failed when the server stops answering.
        keys: the names.
        routes: what is known about exchanges, for records of peers.
        worker: its id.
        visibility_timeout: seconds.
        inherit: called with (tag, record) for each started delivery of a dead worker that is ours now.
    """

    def __init__(
        self,
        stream: Stream,
        keys: Keys,
        routes: Routes,
        worker: str,
        visibility_timeout: float,
        inherit: Callable[[str, bytes], None],
    ) -> None:
        self._stream = stream
        self._keys = keys
        self._routes = routes
        self._worker = worker
        self._timeout = visibility_timeout
        self._inherit = inherit
        self._consumes = False
        self._hurry = asyncio.Event()
        self._refresh_at = time.monotonic() + visibility_timeout / 3

    async def adopt(self, place: tuple[Any, ...]) -> None:
        """Take over what earlier Receivers of this process at this place (server, node) left behind."""
        for worker in _abandoned.pop(place, []):
            await self._empty(worker, failed=False, report=False)

    async def run(self) -> None:
        """Do the duties until cancelled. A failure fails the connection."""
        try:
            while True:
                async with asyncio.timeout(_ANSWER):
                    pause = await self.tick()
                self._hurry.clear()
                try:
                    async with asyncio.timeout(min(pause, _TICK)):
                        await self._hurry.wait()
                except TimeoutError:
                    continue
        except Exception as error:  # noqa: BLE001 - whatever it was, the worker must see it and not live without leases
            self._stream.fail(error if str(error) else "the server does not answer")

    async def tick(self) -> float:
        """Look once; seconds until there is something to do that is known now."""
        if time.monotonic() >= self._refresh_at:
            self._refresh_at = time.monotonic() + self._timeout / 3
            await self._stream.run(load("refresh"), self._keys.index, self._keys.held(self._worker))
        keys = self._keys
        gone, due, next_due = await self._stream.run(
            load("tick"),
            *(keys.workers, self._worker, keys.unacked, keys.index),
            *(LEASE, _RENEWAL, self._timeout, _AT_ONCE, _BYTES_AT_ONCE, keys.started("")),
        )
        if due:
            await self._restore(due, "", failed=True)
        for worker in gone if self._consumes else ():
            name = worker.decode()
            if name != self._worker:
                logger.warning("Worker %s is gone: what it held goes back to the queues", name)
                await self._empty(name, failed=True, report=True)
        if due:
            return 0.0
        return max(float(next_due), 0.001) if next_due else _TICK

    def consume(self, consumes: bool) -> None:
        """Whether there are queues that messages are taken from (rule 6)."""
        self._consumes = consumes
        self._hurry.set()

    def delayed(self) -> None:
        """A delivery was put off: look again when its time is."""
        self._hurry.set()

    async def release(self) -> None:
        """Give up the lease. What is held goes back uncounted; what was started is left for a peer to report."""
        keys = self._keys
        while await self._held_back(self._worker, failed=False):
            pass
        started, _ = await self._stream.pipeline(
            (("HLEN", keys.started(self._worker)), ("DEL", keys.waiting(self._worker)))
        )
        command = ("ZADD", keys.workers, 0, self._worker) if started else ("ZREM", keys.workers, self._worker)
        await self._stream.call(*command)

    def abandon(self, place: tuple[Any, ...]) -> None:
        """Leave this worker's id to the next Receiver at this place."""
        _abandoned.setdefault(place, []).append(self._worker)

    async def _empty(self, worker: str, *, failed: bool, report: bool) -> None:
        """Take everything from a worker that is gone; `failed` counts it, `report` delivers what it had started."""
        while True:
            held, started = await self._look(worker, self._keys.started(self._worker), leased=failed)
            if report:
                for tag, record in zip(started[::2], started[1::2], strict=True):
                    self._inherit(tag.decode(), record)
            if not held and not started:
                return
            await self._restore(held, self._keys.held(worker), failed=failed)

    async def _held_back(self, worker: str, *, failed: bool) -> bool:
        """Return one batch of what a worker holds; False when there was nothing."""
        own = self._keys.started(worker)
        held, _ = await self._look(worker, own, leased=False)
        await self._restore(held, self._keys.held(worker), failed=failed)
        return bool(held)

    async def _look(self, worker: str, heir: str, *, leased: bool) -> tuple[list[bytes], list[bytes]]:
        keys = self._keys
        held, started = await self._stream.run(
            load("inherit"),
            *(keys.workers, worker, keys.held(worker), keys.started(worker), heir),
            *(keys.unacked, keys.index, _AT_ONCE, _BYTES_AT_ONCE, int(leased), keys.claim(worker)),
            *(keys.waiting(worker), _LATE),
        )
        return held, started

    async def _restore(self, entries: list[bytes], holder: str, *, failed: bool) -> None:
        """Put entries (tag, record, tag, record...) back into their queues."""
        moves: list[str | bytes | int] = []
        for tag, record in zip(entries[::2], entries[1::2], strict=True):
            text, lists = await self._back(tag, record, failed=failed, timed_out=not holder)
            moves += (tag, text, len(lists), *lists)
        if moves:
            await self._stream.run(load("restore"), self._keys.unacked, self._keys.index, holder, *moves)

    async def _back(self, tag: bytes, record: bytes, *, failed: bool, timed_out: bool) -> tuple[bytes, list[str]]:
        """The text as it shall lie in the queues again, and their lists."""
        keys = self._keys
        if not record:
            return b"", []  # an index entry without its record: nothing to restore
        try:
            text, exchange, routing_key = envelope.read_record(record)
            message = open_text(text)
        except UnreadableError as error:
            return dead.write(record, str(error)), [keys.dead("unacked")]
        step = keys.step(message.envelope.properties.get("priority"))
        queues = [routing_key] if not exchange else await self._recipients(exchange, routing_key)
        if not queues:
            return dead.write(text, f"no queue is bound to {exchange!r} for {routing_key!r}"), [keys.dead("unacked")]
        if not tag.startswith(DELAYED.encode()):
            # A peer holds a task with an eta in its hands until then; that this outlasts the timeout is no failure.
            waited = timed_out and message.envelope.headers.get("eta")
            text = envelope.marked(text, failed=failed and not waited)
        return text, [keys.lane(queue, step) for queue in queues]

    async def _recipients(self, exchange: str, routing_key: str) -> list[str]:
        """The queues that a peer's record goes back to (wire.md 3.6)."""
        members = await self._stream.call("SMEMBERS", self._keys.bindings(exchange))
        return self._routes.recipients(exchange, routing_key, members)
