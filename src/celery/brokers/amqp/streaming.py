"""An AMQP connection over asyncio: calls are written at once and answered in order; everything else goes to a callback.

It lives once: when it is lost, every waiting and every later call raises, and its owner makes another. Heartbeats run
by themselves: one is sent each half interval, and two intervals without a byte from the server end the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from celery.brokers.amqp.address import server_name, tls_context, tune
from celery.brokers.amqp.channel import State
from celery.brokers.amqp.errors import ChannelError, ProtocolError
from celery.brokers.amqp.events import (
    Blocked,
    ChannelClosed,
    Closed,
    ConnectionClosed,
    Delivered,
    Opened,
    Reply,
    Unblocked,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Sequence

    from celery.brokers.amqp.address import Address
    from celery.brokers.amqp.declarations import Call
    from celery.brokers.amqp.events import Event

_CLOSE_TIMEOUT = 1.0
_MESSAGES = frozenset((Closed, Delivered))


class Stream(asyncio.Protocol):
    """One connection; make it with `connect`.

    Args:
        address: the server.
        on_event: called with whatever is no answer to a call.
        on_lost: called once, when the connection ends in whatever way.
    """

    def __init__(self, address: Address, on_event: Callable[[Event], None], on_lost: Callable[[], None]) -> None:
        self.address = address
        self.connection = address.connection(address.heartbeat)
        self.blocked = ""
        #: When that began, on the monotonic clock; infinite while it is not.
        self.blocked_since = math.inf
        self._on_event = on_event
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._failure: BaseException | str | ConnectionClosed | None = None
        self._waiting: dict[int, deque[asyncio.Future[Reply]]] = {}
        self._heard = self._loop.time()
        self._heart: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def lost(self) -> bool:
        """Whether it has ended."""
        return self._failure is not None

    @property
    def takes(self) -> bool:
        """Whether what is written now goes out without a wait of `drained`."""
        return self._failure is None and self.connection.state is State.OPEN and self._writable.is_set()

    @property
    def heard(self) -> float:
        """When the server was heard last, on the monotonic clock, which is the loop's."""
        return self._heard

    def error(self) -> Exception:
        """Why it has ended, a new exception each time."""
        if isinstance(self._failure, ConnectionClosed):
            return self.address.hung_up(self._failure)
        return self.address.lost(self._failure or "not connected")

    async def opened(self) -> None:
        """Wait for the end of the handshake."""
        await self._opened

    # -- calls ------------------------------------------------------------------

    async def open_channel(self) -> int:
        """Open a channel."""
        self._check()
        number = self.connection.open_channel()
        answer = self._expect(number)
        self.write()
        await self._bounded(answer)
        return number

    async def calls(self, number: int, calls: Sequence[Call]) -> list[Reply]:
        """Call methods on a channel, all in one go; their answers in order.

        Raises:
            ChannelError: the server refused one of them and closed the channel.
            OperationalError: the connection is lost, or there was no answer in time.
        """
        self._check()
        answers = [
            self._expect(number) for method, arguments in calls if self.connection.call(number, method, **arguments)
        ]
        self.write()
        return list(await self._bounded(asyncio.gather(*answers)))

    @contextlib.asynccontextmanager
    async def passing_channel(self) -> AsyncIterator[int]:
        """A channel for calls that may be refused, closed at the end (a refusal closes it by itself)."""
        number = await self.open_channel()
        yield number
        self.connection.close_channel(number)
        answer = self._expect(number)
        self.write()
        await self._bounded(answer)

    def write(self) -> None:
        """Hand what is due to the transport."""
        if self._transport is not None and self._failure is None:
            data = self.connection.data_to_send()
            if data:
                self._transport.write(data)

    async def drained(self) -> None:
        """Wait until the transport takes more. Raises OperationalError when that takes too long."""
        if not self._writable.is_set():
            await self._bounded(self._writable.wait())
        self._check()

    async def close(self) -> None:
        """Say goodbye, to who has let us in, and disconnect, within a second. Idempotent, never raises."""
        let_in = self._opened.done() and not self._opened.cancelled()
        if let_in and self._failure is None and self._transport is not None:
            self.connection.close()
            self.write()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._closed), _CLOSE_TIMEOUT)
        self._fail("the connection was closed")

    # -- asyncio.Protocol -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self.write()

    def data_received(self, data: bytes) -> None:
        """Take bytes apart and hand the events on."""
        self._heard = self._loop.time()
        try:
            events = self.connection.receive(data)
        except ProtocolError as error:
            self._fail(error)
            return
        for event in events:
            if type(event) in _MESSAGES:  # most of them
                self._on_event(event)
            elif not self._handle(event):
                return
        self.write()

    def eof_received(self) -> None:
        """The server has hung up."""
        for event in self.connection.receive(b""):
            assert isinstance(event, ConnectionClosed)
            self._end(event)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._fail(exc or "the server closed the connection")

    def pause_writing(self) -> None:
        """Too much is unsent."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The socket has taken it."""
        self._writable.set()

    # -- inner ------------------------------------------------------------------------

    def _handle(self, event: Event) -> bool:
        """False: it was the last one."""
        match event:
            case Reply():
                answer = self._waiting[event.channel].popleft()
                if not answer.done():
                    answer.set_result(event)
            case Opened():
                self._beat()
                if not self._opened.done():
                    self._opened.set_result(None)
            case ConnectionClosed():
                self._end(event)
                return False
            case Blocked():
                self.blocked = event.reason
                self.blocked_since = min(self.blocked_since, self._loop.time())
            case Unblocked():
                self.blocked, self.blocked_since = "", math.inf
            case _:
                if isinstance(event, ChannelClosed):
                    self._channel_closed(event)
                self._on_event(event)
        return True

    def _expect(self, number: int) -> asyncio.Future[Reply]:
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting.setdefault(number, deque()).append(answer)
        return answer

    async def _bounded(self, answer: Any) -> Any:
        try:
            # Not wait_for(), which may swallow a cancellation.
            async with asyncio.timeout(self.address.timeout):
                return await answer
        except TimeoutError:
            blocked = f"; the server blocks publishers: {self.blocked}" if self.blocked else ""
            self._fail(f"no answer within {self.address.timeout:g} s{blocked}")
            raise self.error() from None

    def _check(self) -> None:
        if self._failure is not None:
            raise self.error()

    def _channel_closed(self, event: ChannelClosed) -> None:
        for answer in self._waiting.pop(event.channel, ()):
            if not answer.done():
                answer.set_exception(ChannelError(event))

    def _beat(self) -> None:
        interval = self.connection.heartbeat
        if not interval or self._failure is not None or self.connection.state is State.CLOSED:
            return
        if self._loop.time() - self._heard > 2 * interval:
            self._fail(f"silent for {2 * interval} s, two heartbeats")
            return
        self.connection.send_heartbeat()
        self.write()
        self._heart = self._loop.call_later(interval / 2, self._beat)

    def _end(self, event: ConnectionClosed) -> None:
        self.write()
        self._fail(event)

    def _fail(self, reason: BaseException | str | ConnectionClosed) -> None:
        if self._failure is not None:
            return
        self._failure = reason
        if self._heart is not None:
            self._heart.cancel()
        if self._transport is not None:
            if isinstance(reason, ConnectionClosed):
                self._transport.close()
            else:
                self._transport.abort()  # a way that carries nothing would keep what is unsent, and the socket
        waiting: list[asyncio.Future[Any]] = [
            self._opened,
            *(answer for answers in self._waiting.values() for answer in answers),
        ]
        for answer in waiting:
            if not answer.done():
                answer.set_exception(self.error())
                answer.exception()  # asked for here, so that nobody is told it was never retrieved
        self._waiting.clear()
        self._writable.set()
        if not self._closed.done():
            self._closed.set_result(None)
        self._on_lost()


async def connect(address: Address, on_event: Callable[[Event], None], on_lost: Callable[[], None]) -> Stream:
    """Connect and log in.

    Raises:
        OperationalError: the server cannot be reached within the address's `connect_timeout`.
        ImproperlyConfigured: it refuses us.
    """
    loop = asyncio.get_running_loop()
    secure = tls_context(address) if address.tls is not None else None
    stream = Stream(address, on_event, on_lost)
    try:
        async with asyncio.timeout(address.connect_timeout):
            transport, _ = await loop.create_connection(
                lambda: stream,
                address.host,
                address.port,
                ssl=secure,
                server_hostname=server_name(address) if secure else None,
            )
            connected: socket.socket = transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                tune(connected)
            await stream.opened()
    except OSError as error:  # TimeoutError among them
        await stream.close()
        late = f"no answer within {address.connect_timeout:g} s"
        raise address.lost(late if isinstance(error, TimeoutError) else error) from error
    except BaseException:
        await stream.close()
        raise
    return stream
