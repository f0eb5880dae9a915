"""An asyncio connection to Redis: commands are written at once and answered in order; pushes go to a callback.

It speaks RESP3 (Redis 6.0), so that messages of channels, notices about changed keys and replies share one socket.
It lives once: when it is lost, every waiting and every later call raises, and its owner makes another.

Replies are read into a buffer of the connection's own, which grows with what is read at once: the loop would make an
object of each read, and copy it, before the parser copies it once more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, cast

from celery.brokers.redis import resp
from celery.brokers.redis.address import tls_context
from celery.brokers.redis.blocking import located, tune

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Sequence

    from celery.brokers.redis.address import Address
    from celery.brokers.redis.resp import Command
    from celery.brokers.redis.scripts import Script


#: Bytes of the buffer: at first, and at most.
_LEAST, _MOST = 1 << 13, 1 << 20


class _Answer(Protocol):
    """What a reply is handed to: a future, or a part of what `Stream.ask` asked."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: Exception, /) -> None: ...
    def exception(self) -> Any: ...


class _Question:
    """Several commands whose replies are told together, at once."""

    def __init__(self, missing: int, answered: Callable[[list[Any]], None]) -> None:
        self._missing = missing
        self._answered = answered
        self._replies: list[Any] = []

    def done(self) -> bool:
        return False

    def set_result(self, result: Any) -> None:
        self._replies.append(result)
        if len(self._replies) == self._missing:
            self._answered(self._replies)

    def set_exception(self, exception: Exception) -> None:
        """Nothing: the end of the connection is told to its owner."""

    def exception(self) -> None:
        """Nothing."""


class Stream(asyncio.BufferedProtocol):
    """One connection; make it with `connect`."""

    def __init__(self, address: Address, pushed: Callable[[list[Any]], None], ended: Callable[[], None]) -> None:
        self._address = address
        self._pushed = pushed
        self._ended = ended
        self._reader = resp.reader()
        self._buffer = bytearray(_LEAST)
        self._waiting: deque[_Answer] = deque()
        self._transport: asyncio.Transport | None = None
        #: Written with what is written next, and when that must be.
        self._held: list[bytes] = []
        self._flushing: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        #: Why it was lost; None while it works.
        self.failure: Exception | None = None

    def send(self, *command: str | bytes | float) -> asyncio.Future[Any]:
        """Write a command; the future gives its reply, errors as values. Raises OperationalError when it was lost."""
        return self.send_many((command,))[0]

    def send_many(self, commands: Iterable[Command]) -> list[asyncio.Future[Any]]:
        """Write commands in one piece; futures for their replies."""
        packed: list[bytes] = []
        futures: list[asyncio.Future[Any]] = []
        for command in commands:
            packed += command if isinstance(command, list) else (resp.pack(command),)
            futures.append(self._loop.create_future())
        self._write(packed, futures)
        return futures

    def ask(self, commands: Sequence[Command], answered: Callable[[list[Any]], None], *, within: float = 0.0) -> object:
        """Write commands in one piece. `answered` is called with all replies, errors as values, by the callback that
        reads the last one: whoever waits is spared a turn of the loop. Never, when the connection is lost before.

        Args:
            commands: what to write.
            answered: told the replies.
            within: seconds for which it may wait for something else to be written, which goes behind it.

        Returns:
            What `withdraw` takes.

        Raises:
            OperationalError: the connection is lost.
        """
        question = _Question(len(commands), answered)
        packed = b"".join(map(resp.pack, commands))
        if not within:
            self._write([packed], [question] * len(commands))
            return question
        if self.failure is not None:
            raise self.failure
        self._waiting.extend([question] * len(commands))
        self._held.append(packed)
        if self._flushing is None:
            self._flushing = self._loop.call_later(within, self._flush)
        return question

    def withdraw(self, question: object) -> bool:
        """Take back what was asked last and is not written yet; whether it was that."""
        if not self._held or self._waiting[-1] is not question:
            return False
        self._held.pop()
        while self._waiting and self._waiting[-1] is question:
            self._waiting.pop()
        if not self._held and self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        return True

    @property
    def asked(self) -> bool:
        """Whether replies are missing."""
        return bool(self._waiting)

    def _flush(self) -> None:
        if self._held and self.failure is None:
            self._write([], ())

    def _write(self, packed: list[bytes], answers: Sequence[_Answer]) -> None:
        if self.failure is not None:
            raise self.failure
        assert self._transport is not None
        self._waiting.extend(answers)
        if self._flushing is not None:
            packed = self._held + packed
            self._held = []
            self._flushing.cancel()
            self._flushing = None
        self._transport.writelines(packed)

    def write(self, *command: str | bytes | float) -> None:
        """Write a command that is answered by pushes only."""
        self._write([resp.pack(command)], ())

    def check(self, reply: Any) -> Any:
        """The reply, if it is no error; raises as `call` does."""
        return resp.check(self._address, reply)

    async def call(self, *command: str | bytes | float) -> Any:
        """The reply to a command.

        Raises:
            OperationalError: the connection is lost, or the server refused.
            ImproperlyConfigured: the server always will.
        """
        return resp.check(self._address, await self.send(*command))

    async def pipeline(self, commands: Iterable[Command]) -> list[Any]:
        """The replies to many commands, each checked."""
        futures = self.send_many(commands)
        return [resp.check(self._address, await future) for future in futures]

    async def transaction(self, commands: Iterable[Command]) -> list[Any]:
        """The replies to commands that take effect together, each checked."""
        replies = (await self.pipeline((("MULTI",), *commands, ("EXEC",))))[-1]
        return [resp.check(self._address, reply) for reply in replies]

    async def run(self, script: Script, *arguments: str | bytes | float) -> Any:
        """Run a script, which takes no KEYS, and give its reply."""
        reply = await self.send("EVALSHA", script.sha, 0, *arguments)
        if isinstance(reply, resp.ReplyError) and str(reply).startswith("NOSCRIPT"):
            reply = await self.send("EVAL", script.text, 0, *arguments)
        return resp.check(self._address, reply)

    def close(self) -> None:
        """Disconnect at once."""
        self.fail("the connection was closed")

    def fail(self, error: BaseException | str) -> None:
        """Treat the connection as lost: everybody who waits is told."""
        if self.failure is not None:
            return
        self.failure = resp.lost(self._address, error)
        if self._transport is not None:
            self._transport.abort()
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_exception(self.failure)
                future.exception()  # a caller that has gone away is no error
        self._ended()

    # -- asyncio.BufferedProtocol --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - in asyncio's signature
        """Where to put what is read; what slices it, as TLS does, must not get a copy."""
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        """Hand replies to those who wait, in order, and pushes to the callback."""
        reader, waiting, buffer = self._reader, self._waiting, self._buffer
        if nbytes == len(buffer) < _MOST:
            self._buffer = bytearray(2 * nbytes)
        try:
            reader.feed(buffer, 0, nbytes)
            while (reply := reader.gets()) is not resp.NOTHING:
                if isinstance(reply, resp.PushNotification):
                    self._pushed(reply)
                    continue
                if resp.displaced(reply):
                    self.fail(reply)
                    return
                future = waiting.popleft()
                if not future.done():
                    future.set_result(reply)
        except (resp.ProtocolError, IndexError) as error:
            self.fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell those who wait."""
        self.fail(exc or "the server closed the connection")


async def connect(address: Address, pushed: Callable[[list[Any]], None], ended: Callable[[], None]) -> Stream:
    """Open a connection and log in.

    Args:
        address: where.
        pushed: called with every push message.
        ended: called once, when the connection is lost or closed.

    Raises:
        OperationalError: the server cannot be reached within `connect_timeout` seconds.
        ImproperlyConfigured: it refuses, or is too old.
    """
    loop = asyncio.get_running_loop()
    late = f"no answer within {address.connect_timeout:g} s"
    try:
        if address.sentinels:
            address = await asyncio.to_thread(located, address)
        async with asyncio.timeout(address.connect_timeout):
            stream = await _open(loop, address, pushed, ended)
    except OSError as error:  # TimeoutError is one
        raise resp.lost(address, late if isinstance(error, TimeoutError) else error) from error
    try:
        async with asyncio.timeout(address.connect_timeout):
            await stream.pipeline(resp.handshake(address, pushes=True))
    except BaseException as error:
        stream.fail(error)
        if isinstance(error, TimeoutError):
            raise resp.lost(address, late) from error
        raise
    return stream


async def _open(
    loop: asyncio.AbstractEventLoop, address: Address, pushed: Callable[[list[Any]], None], ended: Callable[[], None]
) -> Stream:
    def protocol() -> Stream:
        return Stream(address, pushed, ended)

    if address.path is not None:
        return (await loop.create_unix_connection(protocol, address.path))[1]
    tls = None if address.tls is None else tls_context(address)
    transport, stream = await loop.create_connection(protocol, address.host, address.port, ssl=tls)
    raw: socket.socket | None = transport.get_extra_info("socket")
    if raw is not None:
        tune(raw, address)
    return stream
