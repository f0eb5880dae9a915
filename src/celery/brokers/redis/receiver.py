"""The consuming half of the Redis broker. One connection carries everything, another one waits where that can be done.
How it waits for messages, and why that is safe to cancel, is said in `celery.brokers.redis.claiming`.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celery import exceptions
from celery.brokers import base
from celery.brokers.base import Delivery, Verdict
from celery.brokers.redis import address, dead, envelope, resp, routing, settling, streaming, waiting
from celery.brokers.redis.claiming import Claims
from celery.brokers.redis.keeping import Keeper
from celery.brokers.redis.keys import Keys
from celery.brokers.redis.leases import Leases
from celery.brokers.redis.moving import Mover
from celery.brokers.redis.scripts import load
from celery.brokers.redis.sender import CAPABILITIES
from celery.brokers.redis.settling import Receipt, ResultStore
from celery.brokers.redis.subscriptions import Subscriptions
from celery.wire.sealed import UnreadableError, open_text, read_label

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celery.brokers.redis.claiming import Claimed
    from celery.brokers.redis.streaming import Stream
    from celery.brokers.topology import Queue
    from celery.wire.envelope import Envelope

logger = logging.getLogger(__name__)

#: What settles.
_SETTLE = ("chord_rules", "settle")
load(*_SETTLE)  # now, as hashlib comes with it: a worker imports all that it can before it forks
#: Fan-out copies kept for a worker that does not fetch them; the oldest are dropped.
_MOST_COPIES = 10_000
#: Seconds within which `close` must have returned what we hold.
_FAREWELL = 5.0


class Receiver(base.Receiver):
    """Claims messages in batches and settles them in batches.

    Args:
        url: one broker URL (several hosts for Sentinel).
        options: transport options and connection settings.
        node: name of the worker.
    """

    capabilities = CAPABILITIES
    counts_chords = True

    def __init__(self, url: str, options: Mapping[str, Any], *, node: str) -> None:
        self._address = address.read(url, options)
        self._keys = Keys(options, self._address.database)
        self._routes = routing.Routes(self._keys, options.get("deadletter_queue"))
        self._timeout = float(options.get("visibility_timeout") or 3600)
        self._strategy: str = options.get("queue_order_strategy") or "round_robin"
        if self._strategy not in {"round_robin", "priority", "sorted"}:
            raise exceptions.ImproperlyConfigured(
                f"queue_order_strategy is round_robin, priority or sorted, not {self._strategy!r}"
            )
        token = uuid.uuid4().hex
        self._id = f"{node}:{token}"
        self._token = token
        self._place = (*self._address.server(), self._address.database, self._keys.prefix, node)
        self._store: ResultStore | None = None
        self._stream: Stream | None = None
        self._leases: Leases | None = None
        self._claims: Claims | None = None
        self._keeper: Keeper | None = None
        self._idle: Callable[[], int] = _none
        self._duties: asyncio.Task[None] | None = None
        self._subscriptions: Subscriptions | None = None
        self._queues: dict[str, Queue] = {}
        self._ready: deque[Delivery] = deque()
        self._copies: deque[Delivery] = deque(maxlen=_MOST_COPIES)
        self._woken = asyncio.Event()

    # -- the life of a connection --

    async def open(self) -> None:
        """Connect, take over what an earlier Receiver of this node in this process left, start the duties."""
        stream = await streaming.connect(self._address, self._pushed, self._woken.set)
        self._stream = stream
        try:
            tracking = await stream.send("CLIENT", "TRACKING", "ON", "OPTIN")
            tracked = not isinstance(tracking, resp.ReplyError)
            self._subscriptions = Subscriptions(
                stream,
                lambda ended: streaming.connect(self._address, self._pushed, ended),
                self._keys,
                self._routes,
                tracked=tracked,
            )
            self._claims = Claims(
                stream, self._keys, self._id, self._token, Mover(stream, self._keys, self._id),
                strategy=self._strategy, tracked=tracked, arrived=self._woken.set,
            )  # fmt: skip
            self._keeper = Keeper(stream, self._keys, self._id, self._token)
            if tracked:
                self._claims.waiting = await waiting.connect(
                    self._address, stream, self._keys, self._id, self._token, self._claims.waited
                )
            self._leases = Leases(stream, self._keys, self._routes, self._id, self._timeout, self._inherited)
            await self._leases.tick()
            await self._leases.adopt(self._place)
        except BaseException:
            self._disconnect(stream)
            raise
        self._duties = asyncio.create_task(self._leases.run(), name=f"leases of {self._id}")

    async def close(self) -> None:
        """Return what is unsettled, save what was started, and disconnect."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        if self._duties is not None:
            self._duties.cancel()
            await asyncio.gather(self._duties, return_exceptions=True)
        if self._subscriptions is not None:
            self._subscriptions.stop()
        if self._claims is not None:
            self._claims.stop()
        try:
            async with asyncio.timeout(_FAREWELL):
                await self._part(stream)
        except (exceptions.OperationalError, exceptions.ImproperlyConfigured, TimeoutError) as error:
            # One that never opened has taken nothing: its caller says why it did not.
            level = logging.DEBUG if self._duties is None else logging.INFO
            text = "What %s holds could not be returned now (%s); it will be when its lease ends"
            logger.log(level, text, self._id, error)
            if self._leases is not None:
                self._leases.abandon(self._place)
        finally:
            self._disconnect(stream)

    def _disconnect(self, stream: Stream) -> None:
        stream.close()
        if self._claims is not None and self._claims.waiting is not None:
            self._claims.waiting.close()

    async def _part(self, stream: Stream) -> None:
        assert self._leases is not None
        assert self._subscriptions is not None
        assert self._claims is not None
        while self._claims.under_way:  # it may have more to send, which must not follow what returns it
            self._woken.clear()
            await self._woken.wait()
        await self._leases.release()
        await self._subscriptions.unbind()
        for queue in self._queues.values():
            if queue.is_broadcast:
                await stream.pipeline(self._routes.unbind(queue))

    # -- queues --

    async def consume(self, queue: Queue) -> None:
        """Bind the queue and begin to claim from it; a Broadcast queue is subscribed to as well."""
        self._connected()
        assert self._subscriptions is not None
        await self._subscriptions.bind(queue)
        if queue.is_broadcast:
            await self._subscriptions.subscribe(queue, lambda text: self._copied(queue.name, text))
        self._queues[queue.name] = queue
        assert self._leases is not None
        assert self._claims is not None
        self._leases.consume(True)
        self._claims.add(queue.name)

    async def cancel(self, queue: str) -> None:
        """Take no more from the queue."""
        stream = self._connected()
        known = self._queues.pop(queue, None)
        if known is None:
            return
        assert self._subscriptions is not None
        assert self._leases is not None
        assert self._claims is not None
        self._claims.remove(queue)
        self._leases.consume(bool(self._claims))
        while self._claims.leaves():  # what comes until then is ours
            self._woken.clear()
            await self._woken.wait()
        await self._subscriptions.forget(known)
        if known.is_broadcast:
            await stream.pipeline(self._routes.unbind(known))

    async def prefetch(self, count: int) -> None:
        """Nothing to say to the server: the worker takes what it asks `receive` for."""

    async def listen(self, queue: Queue, callback: Callable[[Envelope], None]) -> None:
        """Read a private queue, by channel or by list, on the loop."""
        self._connected()
        assert self._subscriptions is not None
        await self._subscriptions.listen(queue, callback)

    # -- receiving --

    async def receive(self, limit: int) -> list[Delivery]:
        """Wait until there is a message; up to `limit` of what is there now."""
        while True:
            self._woken.clear()
            # First, as a claim that failed says more than the connection that it took with it.
            claimed = self._claims.take_in() if self._claims is not None else []
            stream = self._connected()
            if claimed:
                assert self._claims is not None
                self._claims.go_on(limit - len(self._ready) - len(self._copies) - len(claimed))
                await self._open_all(stream, claimed)
            if found := self._taken(limit):
                return found
            assert self._claims is not None
            self._claims.want(limit)
            try:
                await self._woken.wait()
            finally:
                self._claims.want(0)

    def _taken(self, limit: int) -> list[Delivery]:
        """Deliveries that are here already."""
        found: list[Delivery] = []
        for source in (self._ready, self._copies):
            while source and len(found) < limit:
                found.append(source.popleft())
        return found

    async def _open_all(self, stream: Stream, claimed: Sequence[Claimed]) -> None:
        """Make deliveries of what was claimed; what cannot be read becomes dead letters."""
        unreadable: list[str | bytes | int | float] = []
        for queue, tag, text in claimed:
            try:
                self._ready.append(_delivery(text, tag, queue))
            except UnreadableError as error:
                logger.warning("A message in %r cannot be read and goes to %s.dead: %s", queue, queue, error)
                letter = dead.write(text, str(error))
                unreadable += (int(Verdict.DEAD), tag, 0, self._keys.dead(queue), letter, dead.KEPT)
        if unreadable:
            await stream.run(load(*_SETTLE), *self._settle_prefix, 0, 0, *unreadable)

    def _inherited(self, tag: str, record: bytes) -> None:
        """A dead worker had started this: deliver it as lost."""
        try:
            text, _, queue = envelope.read_record(record)
            delivery = _delivery(text, tag, queue)
        except UnreadableError as error:
            logger.warning("A started task of a dead worker cannot be read: %s", error)
            return
        delivery.lost = True
        self._ready.append(delivery)
        self._woken.set()

    def _copied(self, queue: str, text: bytes) -> None:
        """A message came by channel to a Broadcast queue: nothing records it, nothing is to be settled."""
        try:
            delivery = _delivery(text, None, queue)
        except UnreadableError as error:
            logger.warning("A message for %r is dropped: %s", queue, error)
            return
        if len(self._copies) == _MOST_COPIES:
            logger.warning("The oldest message for %r is dropped: this worker does not keep up", queue)
        self._copies.append(delivery)
        self._woken.set()

    def _pushed(self, push: list[Any]) -> None:
        """A push: of a subscription, or about a changed list."""
        if push[0] == b"invalidate" and self._claims is not None:
            self._claims.tell()
        if self._subscriptions is not None:
            self._subscriptions.pushed(push)

    # -- settling --

    async def settle(self, batch: Sequence[base.Settlement]) -> list[Delivery]:
        """Apply settlements in one script; gives the deliveries that were no longer ours."""
        stream = self._connected()
        if self._claims is not None and self._claims.waiting is not None:
            ours = await self._claims.waiting.settle(batch, self._store)
            if ours is not None:
                return [] if ours else [batch[0].delivery]
        postings = await self._postings(stream, batch)
        kept = self._kept(batch, postings)
        plan = settling.plan(batch, postings, self._keys, store=self._store, visibility_timeout=self._timeout)
        if not plan.settlements:
            return []
        if kept:
            reply = await self._settle_keeping(stream, plan, kept)
        else:
            reply = await stream.run(load(*_SETTLE), *self._settle_prefix, *plan.arguments)
        if self._leases is not None and any(item.verdict is Verdict.DELAY for item in batch):
            self._leases.delayed()
        return plan.told(reply)

    def _kept(self, batch: Sequence[base.Settlement], postings: list[routing.Posting | None]) -> list[Claimed]:
        """What follows these and stays with this worker, which has room for it and nothing else to take."""
        claims, keeper = self._claims, self._keeper
        if not any(postings) or claims is None or keeper is None or not claims.empty or self._ready:
            return []
        most = claims.spare(self._idle())
        return keeper.keep(batch, postings, claims.sources, most) if most > 0 else []

    async def _settle_keeping(self, stream: Stream, plan: settling.Plan, kept: Sequence[Claimed]) -> Any:
        assert self._claims is not None
        assert self._keeper is not None
        self._claims.reserved += len(kept)
        ours: Sequence[Claimed] = ()
        try:
            arguments = (*self._settle_prefix, *plan.arguments)
            reply, ours = await self._keeper.settle(load(*_SETTLE), arguments, kept)
        finally:
            self._claims.reserved -= len(kept)
            await self._open_all(stream, ours)
            self._woken.set()
        return stream.check(reply)

    def keep_for(self, idle: Callable[[], int]) -> None:
        """Messages that follow may stay here (`celery.brokers.redis.keeping`)."""
        self._idle = idle

    def share(self, backend: object) -> bool:
        """Whether the backend's records go to this server too, as JSON that the script can read."""
        store = getattr(backend, "shared_store", None)
        if isinstance(store, ResultStore) and store.address.server() == self._address.server():
            self._store = store
            return True
        return False

    async def _postings(self, stream: Stream, batch: Sequence[base.Settlement]) -> list[routing.Posting | None]:
        """What follows each settlement, its queues declared and its bindings looked up."""
        follow = [publish for item in batch for publish in item.follow]
        if not follow:
            return [None] * len(batch)
        assert self._subscriptions is not None
        for publish in follow:
            if publish.queue is not None:
                await self._subscriptions.declare(publish.queue)
        names, lookup = self._routes.lookup(follow)
        members = self._routes.found(names, await stream.pipeline(lookup))
        postings: list[routing.Posting | None] = []
        for item in batch:
            parts = [self._routes.post(publish, members) for publish in item.follow]
            postings.append(
                routing.Posting(
                    [push for part in parts for push in part.pushes],
                    [channel for part in parts for channel in part.channels],
                )
                if parts
                else None
            )
        return postings

    @cached_property
    def _settle_prefix(self) -> tuple[str | int, ...]:
        """What the script is told of all settlements; fixed once `share` was asked."""
        keys = self._keys
        database = self._address.database
        names = (keys.unacked, keys.index, keys.held(self._id), keys.started(self._id))
        if self._store is None:
            return (*names, database, database, *settling.NO_CHORDS)
        return (*names, database, self._store.address.database, *self._store.chord_terms)

    def _connected(self) -> Stream:
        if self._stream is None:
            raise exceptions.OperationalError(f"The receiver of {self._address.url} is not open")
        if self._stream.failure is not None:
            raise self._stream.failure
        return self._stream


def _none() -> int:
    return 0


def _delivery(text: bytes, tag: str | None, queue: str) -> Delivery:
    """What lay in a list, closed where it can be. Raises UnreadableError."""
    receipt = None if tag is None else Receipt(tag, text)
    closed = read_label(text)
    if closed is not None:
        return Delivery(
            closed.envelope, receipt, queue, closed.exchange, closed.routing_key, closed.redelivered, closed.failures,
            label=closed.label, text=text,
        )  # fmt: skip
    envelope, exchange, routing_key, redelivered, failures = open_text(text)
    return Delivery(envelope, receipt, queue, exchange, routing_key, redelivered, failures)
