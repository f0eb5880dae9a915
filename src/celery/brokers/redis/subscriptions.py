"""What a receiver hears without claiming: channels, private lists; and the bindings that this takes.

Channels have a connection of their own, made for the first of them: the server cuts off a subscriber to which it owes
more than `client-output-buffer-limit pubsub` says, by default 32 MB, and a message that is claimed may be larger.

A *listener* is a function for the text of a message. Patterns of channels have listeners, which pushes reach; private
lists have one each, and are emptied when the server says that they have changed (see `receiver`).
Bindings of queues that expire are renewed after a third of their life (wire.md 3.3).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from celery import exceptions
from celery.brokers.redis import routing
from celery.brokers.redis.scripts import load
from celery.wire.sealed import UnreadableError, open_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from celery.brokers.redis.keys import Keys
    from celery.brokers.redis.routing import Routes
    from celery.brokers.redis.streaming import Stream
    from celery.brokers.topology import Queue
    from celery.wire.envelope import Envelope

logger = logging.getLogger(__name__)

#: A private list is looked at so often even when no change was told, in seconds: servers that do not track.
_LOOK_AGAIN = 1.0
#: Seconds between two signs of life that the connection of channels is asked for, and for which it has time.
_PING, _ANSWER = 10.0, 10.0
#: Seconds in which a loop that stood still reads what is there.
_AGAIN = 0.01


class Subscriptions:
    """The listeners of a receiver.

    Args:
        stream: its connection, which fails when that of channels does.
        connect: opens that one; given what to call when it has ended.
        keys: the names.
        routes: what is bound.
        tracked: whether the server tells about changed lists.
    """

    def __init__(
        self,
        stream: Stream,
        connect: Callable[[Callable[[], None]], Awaitable[Stream]],
        keys: Keys,
        routes: Routes,
        *,
        tracked: bool,
    ) -> None:
        self._stream = stream
        self._connect = connect
        self._connecting = asyncio.Lock()
        self._channels: Stream | None = None
        self._stopped = False
        self._tracked = tracked
        self._keys = keys
        self._routes = routes
        self._listeners: dict[bytes, dict[str, Callable[[bytes], None]]] = {}
        self._confirmations: dict[bytes, asyncio.Future[None]] = {}
        self._declared: dict[str, Queue] = {}
        self._private: list[Queue] = []
        self._changed: dict[bytes, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def bind(self, queue: Queue) -> None:
        """Declare a queue that we consume; keep its bindings alive if they expire."""
        self._routes.learn(queue)
        self._declared[queue.name] = queue
        if queue.no_declare:
            return
        if routing.expiry(queue) is None:
            await self._stream.pipeline(self._routes.bind(queue))
        elif self._routes.members(queue):
            await self._bind_expiring(queue)
            self._tasks.append(asyncio.create_task(self._renew(queue), name=f"binding of {queue.name}"))

    async def declare(self, queue: Queue) -> None:
        """Declare a queue that we publish to, once."""
        known = self._declared.get(queue.name)
        if known is not None and (known is queue or known == queue):
            return
        self._routes.learn(queue)
        if queue.name and not queue.no_declare and not queue.is_broadcast:
            if routing.expiry(queue) is None:
                await self._stream.pipeline(self._routes.bind(queue))
            elif self._routes.members(queue):
                await self._bind_expiring(queue)
        self._declared[queue.name] = queue

    async def subscribe(self, queue: Queue, listener: Callable[[bytes], None]) -> None:
        """Hear the channels of a queue's fan-out bindings. They are subscribed to when this returns."""
        for pattern in self._patterns(queue):
            listeners = self._listeners.setdefault(pattern, {})
            listeners[queue.name] = listener
            if len(listeners) == 1:
                confirmation = self._confirmations[pattern] = asyncio.get_running_loop().create_future()
                channels = await self._hearing()
                # In RESP3 the answer to PSUBSCRIBE is a push; the reply that `send` waits for is PING's.
                channels.write("PSUBSCRIBE", pattern)
                await channels.call("PING")
                if not confirmation.done():
                    raise exceptions.OperationalError(f"Redis did not confirm the subscription of {queue.name!r}")

    async def forget(self, queue: Queue) -> None:
        """Hear a queue's channels no more."""
        for pattern in self._patterns(queue):
            listeners = self._listeners.get(pattern, {})
            listeners.pop(queue.name, None)
            if not listeners and self._listeners.pop(pattern, None) is not None and self._channels is not None:
                self._channels.write("PUNSUBSCRIBE", pattern)

    async def listen(self, queue: Queue, callback: Callable[[Envelope], None]) -> None:
        """Read a private queue. It is bound when this returns."""

        def listener(text: bytes) -> None:
            try:
                message = open_text(text).envelope
            except UnreadableError as error:
                logger.warning("A message for %r is dropped: %s", queue.name, error)
                return
            try:
                callback(message)
            except Exception:
                logger.exception("Handling a message for %r failed", queue.name)

        await self.bind(queue)
        self._private.append(queue)
        if self._patterns(queue):
            await self.subscribe(queue, listener)
        else:
            changed = asyncio.Event()
            self._changed.update((name.encode(), changed) for name in self._keys.lists(queue.name))
            self._tasks.append(asyncio.create_task(self._drain(queue, changed, listener), name=f"reads {queue.name}"))

    def pushed(self, push: list[Any]) -> None:
        """Hand a push to those it is for."""
        kind = push[0]
        if kind == b"pmessage":
            for listener in list(self._listeners.get(push[1], {}).values()):
                listener(push[3])
        elif kind == b"invalidate":
            # None stands for all keys: the database was flushed.
            for name in self._changed if push[1] is None else push[1]:
                if changed := self._changed.get(name):
                    changed.set()
        elif kind == b"psubscribe" and push[1] in self._confirmations:
            self._confirmations.pop(push[1]).set_result(None)

    def stop(self) -> None:
        """End the tasks, and hear no channels."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        channels, self._channels = self._channels, None
        if channels is not None:
            channels.close()

    async def unbind(self) -> None:
        """Take the private queues away."""
        for queue in self._private:
            await self._stream.pipeline(self._routes.unbind(queue))

    def _patterns(self, queue: Queue) -> list[bytes]:
        return [
            self._keys.channel_pattern(bound.exchange.name, bound.routing_key).encode()
            for bound in queue.all_bindings()
            if self._routes.kind(bound.exchange.name) == "fanout"
        ]

    async def _hearing(self) -> Stream:
        """The connection of channels."""
        async with self._connecting:
            if self._channels is None:
                channels = await self._connect(self._deaf)
                if self._stopped:  # meanwhile, and nobody else would close it
                    channels.close()
                    raise exceptions.OperationalError("the connection was closed")
                self._channels = channels
                self._tasks.append(asyncio.create_task(self._ask_for_life(self._channels), name="channels are heard"))
            return self._channels

    def _deaf(self) -> None:
        if self._channels is not None:
            self._stream.fail("the connection that hears channels was lost")

    async def _ask_for_life(self, channels: Stream) -> None:
        try:
            while True:
                await asyncio.sleep(_PING)
                answer = channels.send("PING")
                await asyncio.wait([answer], timeout=_ANSWER)
                if not answer.done():  # unless this process stood still: timers may be looked at before it reads
                    await asyncio.sleep(_AGAIN)
                if not answer.done():
                    channels.fail(f"no answer within {_ANSWER:g} s")
        except exceptions.OperationalError:
            pass  # it was lost meanwhile; to name the error any earlier would import kombu, of which that is one

    async def _bind_expiring(self, queue: Queue) -> None:
        await self._stream.pipeline(self._routes.announce(queue))
        await self._stream.run(load("bind"), *self._routes.bind_expiring(queue))

    async def _renew(self, queue: Queue) -> None:
        while True:
            await asyncio.sleep(routing.binding_life(queue) / 3000)
            try:
                await self._bind_expiring(queue)
            except exceptions.OperationalError:
                return  # the connection is lost, which its owner is told too

    async def _drain(self, queue: Queue, changed: asyncio.Event, listener: Callable[[bytes], None]) -> None:
        lists = self._keys.lists(queue.name)
        try:
            while True:
                changed.clear()
                for text in await self._stream.run(load("drain"), *lists):
                    listener(text)
                if await watch(self._stream, lists, tracked=self._tracked):
                    continue
                try:
                    async with asyncio.timeout(_LOOK_AGAIN):
                        await changed.wait()
                except TimeoutError:
                    continue
        except exceptions.OperationalError:
            return  # the connection is lost, which its owner is told too


async def watch(stream: Stream, lists: Sequence[str], *, tracked: bool) -> bool:
    """Whether any of the lists has messages. If `tracked`, their next change is told by a push."""
    exists: tuple[str, ...] = ("EXISTS", *lists)
    commands = (("CLIENT", "CACHING", "YES"), exists) if tracked else (exists,)
    return bool((await stream.pipeline(commands))[-1])
