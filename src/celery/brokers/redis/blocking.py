"""A blocking connection to Redis over a plain socket.

It connects on first use and after every failure, so a caller only ever sees the one call that failed. It belongs to
one thread at a time and to the process that opened it: after a fork the child must make its own.

A dead connection is noticed before it is used where possible: a server that went away leaves an end-of-file in the
socket, which costs one system call to see, and after `health_check_interval` of silence a PING goes first.

The socket itself never waits; a `poll` object does, or `usable`. A time-out of the socket's own would cost a system
call before each operation, and one whenever it changes. Before it waits for the replies to a pipeline it may ask for
them for a short while: `celery.brokers.redis.spinning` says when.
"""

from __future__ import annotations

import _socket
import contextlib
import select
import socket
import time
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

from celery.brokers.redis import resp, sentinel
from celery.brokers.redis.address import tls_context
from celery.brokers.redis.spinning import Spinning
from celery.brokers.url import lookup_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celery.brokers.redis.address import Address
    from celery.brokers.redis.resp import Command
    from celery.brokers.redis.scripts import Script

_CHUNK = 65536


class Connection:
    """One socket to one server.

    Args:
        address: the server.
        pushes: speak RESP3, in which subscriptions leave the connection free for other commands.
    """

    def __init__(self, address: Address, *, pushes: bool = False) -> None:
        self._address = address
        self._pushes = pushes
        self._encrypted = address.tls is not None
        #: What the socket raises instead of waiting.
        self._blocked: tuple[type[OSError], ...] = (BlockingIOError,)
        self._socket: socket.socket | None = None
        #: What waits for the socket; None: `usable` does.
        self._waiter: select.poll | None = None
        #: The same for it and another descriptor, from when that is first waited for.
        self._beside: select.poll | None = None
        #: None: it never spins.
        self._spinning: Spinning | None = None
        self._reader: Any = None
        self._used = 0.0

    def __del__(self) -> None:
        # A thread's own connection has nobody who could close it when the thread, or the application, is gone.
        self.close()

    @property
    def connected(self) -> bool:
        """Whether a socket is open."""
        return self._socket is not None

    def call(self, *command: str | bytes | float, timeout: float | None = None) -> Any:
        """The reply to one command, within `timeout` seconds.

        Raises:
            OperationalError: no connection, no reply in time, or the server refused.
            ImproperlyConfigured: the server always will.
        """
        return resp.check(self._address, self.pipeline((command,), timeout=timeout)[0])

    def pipeline(self, commands: Sequence[Command], *, timeout: float | None = None, check: bool = False) -> list[Any]:
        """The replies to many commands in one round trip.

        A refused one has a ReplyError as its reply; with `check` the first of these is raised.
        """
        self.send(commands, timeout=timeout)
        self.spin()
        return self._looked_at([self.read(timeout) for _ in commands], check)

    def transaction(self, writes: Iterable[Sequence[Command]], *, timeout: float | None = None) -> None:
        """Have commands take effect together, or not at all; those of a write are made when it is its turn.

        Raises:
            OperationalError: no connection, not over within `timeout` seconds (default: the address's for each wait),
                or the server refused.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        connected, count = self._ready(), 0
        try:
            for commands in chain(((("MULTI",),),), writes, ((("EXEC",),),)):
                self._write(connected, b"".join(map(resp.pack, commands)), self._bound(remaining(deadline)))
                count += len(commands)
        except OSError as error:
            self._fail(error)
        except BaseException:
            self.close()  # what is half said is not to be gone on with
            raise
        *replies, done = [self.read(remaining(deadline)) for _ in range(count)]
        self._looked_at([*replies, *(done if isinstance(done, list) else (done,))], check=True)

    def _looked_at(self, replies: list[Any], check: bool) -> list[Any]:
        for reply in replies:
            if isinstance(reply, resp.ReplyError):
                if any(map(resp.displaced, replies)):
                    self.close()
                if check:
                    raise resp.refused(self._address, reply)
                break
        return replies

    def run(self, script: Script, *arguments: str | bytes | float) -> Any:
        """Run a script, which takes no KEYS, and give its reply."""
        reply = self.pipeline((("EVALSHA", script.sha, 0, *arguments),))[0]
        if isinstance(reply, resp.ReplyError) and str(reply).startswith("NOSCRIPT"):
            reply = self.pipeline((("EVAL", script.text, 0, *arguments),))[0]
        return resp.check(self._address, reply)

    def send(self, commands: Iterable[Command], *, timeout: float | None = None) -> None:
        """Write commands and wait for nothing; `read` gives their replies."""
        connected = self._ready()
        try:
            self._write(connected, b"".join(map(resp.pack, commands)), self._bound(timeout))
        except OSError as error:
            self._fail(error)

    def read(self, timeout: float | None = None) -> Any:
        """The next reply, error or push, as a value.

        Raises:
            OperationalError: the connection failed, or `timeout` (default: the address's) went by.
        """
        reply = self._next()
        if reply is resp.NOTHING and (reply := self.poll(self._bound(timeout))) is resp.NOTHING:
            self._fail(f"no reply within {self._bound(timeout):g} s")
        return reply

    def poll(self, timeout: float) -> Any:
        """Like `read`, but gives resp.NOTHING when the time is up, and the connection stays good."""
        deadline = time.monotonic() + timeout
        # A reply is seldom here already, so it is waited for before it is asked for. TLS may have read it long ago.
        early = self._encrypted or timeout <= 0
        while (reply := self._next()) is resp.NOTHING:
            if not (early and self._feed()):
                left = deadline - time.monotonic()
                if left <= 0 or not self._arrives(left):
                    return resp.NOTHING
                early = True
        return reply

    def spin(self) -> bool:
        """Ask for a short while whether replies are here, where that pays, and read them; whether they were."""
        spinning = self._spinning
        if spinning is None or not (tries := spinning.tries()):
            return False
        found = self._spin(tries)
        spinning.ended(found)
        return found

    def arrived(self, *, read: bool = False) -> list[Any]:
        """All replies, errors and pushes that are here, without waiting; with `read`, those that `spin` has read."""
        while not read and (self._feed() == _CHUNK or (self._encrypted and self._socket.pending())):  # type: ignore[union-attr]  # of TLS
            continue
        found = []
        while (reply := self._next()) is not resp.NOTHING:
            found.append(reply)
        return found

    def ready(self, seconds: float, other: int) -> list[int]:
        """Wait for something to read, here or at `other`, always the same descriptor. Which have it, or have failed."""
        if self._waiter is None or self._socket is None:
            return usable((other,) if self._socket is None else (self._socket.fileno(), other), seconds)
        if self._beside is None:
            self._beside = select.poll()
            self._beside.register(self._socket, select.POLLIN)
            self._beside.register(other, select.POLLIN)
        return [descriptor for descriptor, _ in self._beside.poll(1000 * seconds)]

    def close(self) -> None:
        """Disconnect. Idempotent; the next call connects again."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = self._reader = None

    def _next(self) -> Any:
        """The next reply that was fed to the parser, or NOTHING."""
        if self._socket is None:
            raise resp.lost(self._address, "the connection was closed")
        try:
            return self._reader.gets()
        except resp.ProtocolError as error:
            self._fail(error)

    def _arrives(self, seconds: float) -> bool:
        """Wait for something to read, or the connection's end."""
        if self._waiter is not None:
            return bool(self._waiter.poll(1000 * seconds))
        return bool(usable((self._socket.fileno(),), seconds))  # type: ignore[union-attr]  # it is connected

    def _spin(self, tries: int) -> bool:
        assert self._socket is not None
        receive = self._socket.recv
        for _ in range(tries):
            try:
                data = receive(_CHUNK)
            except BlockingIOError:
                continue
            except OSError as error:
                self._fail(error)
            self._took(data)
            return True
        return False

    def _feed(self) -> int:
        """Give the parser what is here, a chunk at most; how many bytes."""
        if self._socket is None:
            raise resp.lost(self._address, "the connection was closed")
        try:
            data = self._socket.recv(_CHUNK)
        except self._blocked:
            return 0
        except OSError as error:
            self._fail(error)
        self._took(data)
        return len(data)

    def _took(self, data: bytes) -> None:
        if not data:
            self._fail("the server closed the connection")
        self._reader.feed(data)
        self._used = time.monotonic()

    def _write(self, connected: socket.socket, data: bytes, timeout: float) -> None:
        began = self._used = time.monotonic()
        try:
            sent = connected.send(data)
        except self._blocked:
            sent = 0
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while rest:
            left = began + timeout - time.monotonic()
            if left <= 0 or not usable((), left, (connected.fileno(),)):
                raise TimeoutError("timed out")
            with contextlib.suppress(*self._blocked):
                rest = rest[connected.send(rest) :]

    def _bound(self, timeout: float | None) -> float:
        return self._address.timeout if timeout is None else timeout

    def _ready(self) -> socket.socket:
        """The socket, connected."""
        if self._socket is not None and not self._alive():
            self.close()
        if self._socket is None:
            self._connect()
        assert self._socket is not None
        return self._socket

    def _alive(self) -> bool:
        """Whether the idle connection can be used: nothing to read, and an answer if it was silent for long."""
        assert self._socket is not None
        if self._pushes:
            return True  # what waits in the socket may be a push; its reader sees the end of the connection
        if self._arrives(0):
            return False  # the end of the connection: nobody has asked for anything else
        interval = self._address.health_check_interval
        if not interval or time.monotonic() - self._used < interval:
            return True
        try:
            self._write(self._socket, resp.pack(("PING",)), self._address.connect_timeout)
            return not isinstance(self.read(self._address.connect_timeout), resp.ReplyError)
        except Exception:  # noqa: BLE001 - whatever it was, a new connection will tell
            return False

    def _connect(self) -> None:
        try:
            connected = open_socket(self._address)
        except OSError as error:
            self._fail(error)
        if self._encrypted:
            import ssl  # loaded by now

            self._blocked = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
        connected.settimeout(0.0)
        self._socket = connected
        self._waiter = self._beside = self._spinning = None
        # gevent and eventlet put their own in place, whose waiting belongs to the hub of the thread.
        if isinstance(connected, _socket.socket):
            if hasattr(select, "poll"):
                self._waiter = select.poll()
                self._waiter.register(connected, select.POLLIN)
            if not self._encrypted:
                self._spinning = Spinning()
        self._reader = resp.reader()
        commands = resp.handshake(self._address, pushes=self._pushes)
        try:
            for reply in self.pipeline(commands) if commands else ():
                resp.check(self._address, reply)
        except BaseException:
            self.close()
            raise

    def _fail(self, error: BaseException | str) -> NoReturn:
        self.close()
        raise resp.lost(self._address, error) from (error if isinstance(error, BaseException) else None)


def usable(reading: Sequence[int], seconds: float, writing: Sequence[int] = ()) -> list[int]:
    """Which descriptors can be read from or written to, or have failed; waits up to so many seconds for the first."""
    # Asked for each time: gevent and eventlet put their own functions in place, and the latter has no poll.
    if not hasattr(select, "poll"):
        readable, writable, _ = select.select(reading, writing, (), seconds)
        return readable + writable
    poll = select.poll()
    for descriptor in reading:
        poll.register(descriptor, select.POLLIN)
    for descriptor in writing:
        poll.register(descriptor, select.POLLOUT)
    return [descriptor for descriptor, _ in poll.poll(1000 * seconds)]


def open_socket(address: Address) -> socket.socket:
    """A connected socket to the server (through Sentinel: to the master), TLS done.

    Raises:
        OSError: the server cannot be reached.
        ImproperlyConfigured: TLS options are wrong.
    """
    address = located(address)
    if address.path is not None:
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(address.connect_timeout)
        connected.connect(address.path)
        return connected
    connected = socket.create_connection((lookup_name(address.host), address.port), address.connect_timeout)
    try:
        tune(connected, address)
        if address.tls is None:
            return connected
        return tls_context(address).wrap_socket(connected, server_hostname=address.host)
    except BaseException:
        connected.close()
        raise


def located(address: Address) -> Address:
    """The address of the server itself: where Sentinels are given, of the master that they name.

    Blocks for at most one connect time-out per Sentinel.

    Raises:
        OSError: no Sentinel answered with a master.
    """
    return sentinel.master(address, _ask) if address.sentinels else address


def _ask(address: Address, name: str) -> list[Any]:
    """A Sentinel's reply to SENTINEL MASTER."""
    connection = Connection(address)
    try:
        reply: list[Any] = connection.call("SENTINEL", "MASTER", name)
    finally:
        connection.close()
    return reply


def tune(connected: socket.socket, address: Address) -> None:
    """Set the TCP options that the address asks for."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if address.keepalive:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in address.keepalive_options.items():
            connected.setsockopt(socket.IPPROTO_TCP, int(option), int(value))


def remaining(deadline: float | None) -> float | None:
    """Seconds that are left of a call; None: as many as it takes."""
    return None if deadline is None else max(deadline - time.monotonic(), 0.001)
