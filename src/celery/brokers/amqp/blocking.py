"""An AMQP connection over a plain socket, for senders and inboxes.

It connects when told to, belongs to one thread at a time and to the process that opened it. Nobody looks after it
between two calls, so it negotiates no heartbeats. A server that went away is seen before the next use by the end of
file that it left in the socket; a way to it that went away without a word, by the missing answer to a question that is
asked where nothing was heard for half the heartbeat interval. Every wait has a deadline.

The socket itself never waits: `poll` does, also for a bell that another thread may ring. What interrupts a wait there
(Ctrl-C, a soft time limit) costs nothing; in the middle of reading or writing it costs the connection.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Any

from celery.brokers.amqp.address import server_name, tls_context, tune, unready
from celery.brokers.amqp.channel import State
from celery.brokers.amqp.errors import ChannelError, ProtocolError
from celery.brokers.amqp.events import Blocked, ChannelClosed, ConnectionClosed, Delivered, Opened, Reply, Unblocked
from celery.brokers.url import lookup_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery.brokers.amqp.address import Address
    from celery.brokers.amqp.connection import Connection
    from celery.brokers.amqp.declarations import Call
    from celery.brokers.amqp.events import Event

#: Bytes read at once. Much more, and the allocator maps and unmaps memory for each read.
_CHUNK = 65_536
#: The longest single wait, in seconds; the kernel's have a limit.
_STEP = 3600.0
#: Of the goodbye, in seconds: the server forgets us without it too.
_CLOSE_TIMEOUT = 1.0


class Link:
    """One socket to one server.

    Args:
        address: the server.
        on_event: called with whatever is no answer to a call, from inside the methods below.
        bell: a socket; bytes in it end a wait, which then looks again whether it is done. They are taken out.
    """

    def __init__(self, address: Address, on_event: Callable[[Event], None], bell: socket.socket | None = None) -> None:
        self.address = address
        self.connection: Connection = address.connection()
        self._on_event = on_event
        self._bell = bell
        self._socket: socket.socket | None = None
        self._poll = select.poll()
        #: What the socket raises where it would have to wait.
        self._unready: tuple[type[OSError], ...] = ()
        self._pid = 0
        self._replies: list[Reply] = []
        self._refusals: dict[int, ChannelClosed] = {}
        self._blocked = ""
        #: When the server was heard last, on the monotonic clock.
        self._heard = 0.0

    @property
    def connected(self) -> bool:
        """Whether a socket is open."""
        return self._socket is not None

    def deadline(self, timeout: float | None) -> float:
        """When a wait of `timeout` seconds (None: the address's) is over, on the monotonic clock."""
        return time.monotonic() + (self.address.timeout if timeout is None else timeout)

    def ready(self, deadline: float) -> bool:
        """Connect unless connected, and handle what came meanwhile. True: the connection is new.

        Raises:
            OperationalError: the server cannot be reached.
            ImproperlyConfigured: it refuses us.
        """
        if self.lives() and not self._poll.poll(0):
            return False
        if self._pid != os.getpid():
            self._drop()
        with contextlib.suppress(Exception):  # whatever it was, a new connection will tell
            self.poll()
            self._ask_if_quiet(deadline)
        if self._socket is not None:
            return False
        self._connect(min(deadline, time.monotonic() + self.address.connect_timeout))
        return True

    def lives(self) -> bool:
        """Whether there is a connection, of this process, whose server was heard of late."""
        quiet = self.address.heartbeat / 2
        return (
            self._socket is not None
            and self._pid == os.getpid()
            and not (quiet and time.monotonic() - self._heard >= quiet)
        )

    def await_unblocked(self, deadline: float) -> None:
        """Wait until the server reads from publishers. What it was sent before is in the socket, and stays.

        Raises:
            OperationalError: it blocked them until the deadline.
        """
        if self._blocked and not self.wait(lambda: not self._blocked, deadline, keep=True):
            raise self.address.lost(self._too_late())

    def open_channel(self, deadline: float) -> int:
        """Open a channel."""
        number = self.connection.open_channel()
        self._answers(number, 1, deadline)
        return number

    def calls(self, number: int, calls: Iterable[Call], deadline: float) -> list[Reply]:
        """Call methods on a channel, all in one go; their answers in order.

        Raises:
            ChannelError: the server refused one of them and closed the channel.
            OperationalError: the connection failed, or the time was up.
        """
        awaited = sum(self.connection.call(number, method, **arguments) for method, arguments in calls)
        return self._answers(number, awaited, deadline)

    def confirmed(self, number: int, deadline: float) -> None:
        """Wait for the server's word on every publish of a channel in confirm mode.

        Raises:
            ChannelError: it closed the channel instead.
            OperationalError: the connection failed, or the time was up.
        """
        self._refusals.clear()
        self.wait(lambda: number in self._refusals or not self.connection.unconfirmed(number), deadline)
        if number in self._refusals:
            raise ChannelError(self._refusals[number])

    def close_channel(self, number: int, deadline: float) -> None:
        """Close a channel."""
        self.connection.close_channel(number)
        self._answers(number, 1, deadline)

    def flush(self, deadline: float) -> None:
        """Write what is due."""
        data = self.connection.data_to_send()
        if not data:
            return
        try:
            sent = self._write(data, deadline)
        except OSError as error:
            self._fail(error)
        except BaseException:
            self._drop()
            raise
        if not sent:
            with contextlib.suppress(Exception):  # it may have said why
                self.poll()
            self._fail(self._too_late())

    def poll(self) -> None:
        """Handle what has come, without waiting."""
        while self._socket is not None and self._read(0.0):
            pass

    def wait(self, done: Callable[[], bool], deadline: float, *, keep: bool = False) -> bool:
        """Write and read until `done()`; False when the time was up and the connection was to be kept.

        Raises:
            OperationalError: the connection failed, or the time was up.
        """
        self.flush(deadline)
        while not done():
            if not self._read(deadline) and time.monotonic() >= deadline:
                if keep:
                    return False
                self._fail(self._too_late())
        return True

    def close(self) -> None:
        """Say goodbye and disconnect. Idempotent; in a forked child it only lets go of its copy."""
        if self._socket is None:
            return
        if self._pid == os.getpid():
            with contextlib.suppress(Exception):  # nothing can be done about a goodbye that fails
                self.connection.close()
                self.wait(lambda: self._socket is None, time.monotonic() + _CLOSE_TIMEOUT, keep=True)
        self._drop()

    # -- inner ----------------------------------------------------------------

    def _connect(self, deadline: float) -> None:
        self.connection = self.address.connection()
        self._blocked = ""
        try:
            self._socket = _open_socket(self.address, max(deadline - time.monotonic(), 0.001))
        except OSError as error:
            raise self.address.lost(error) from error
        self._pid = os.getpid()
        self._unready = unready(self.address)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        if self._bell is not None:
            self._poll.register(self._bell, select.POLLIN)
        self.wait(lambda: self.connection.state is State.OPEN, deadline)

    def _ask_if_quiet(self, deadline: float) -> None:
        """Have a sign of life, or drop the connection. A server that blocks us answers nothing, but has said so."""
        quiet, now = self.address.heartbeat / 2, time.monotonic()
        if self._socket is None or self._blocked or not quiet or now - self._heard < quiet:
            return
        bound = min(deadline, now + self.address.connect_timeout)
        self.close_channel(self.open_channel(bound), bound)

    def _answers(self, number: int, count: int, deadline: float) -> list[Reply]:
        self._replies.clear()
        self._refusals.clear()
        self.wait(lambda: len(self._replies) >= count or number in self._refusals, deadline)
        if number in self._refusals:
            raise ChannelError(self._refusals[number])
        return list(self._replies)

    def _read(self, deadline: float) -> bool:
        """Wait for bytes, read once and handle them; False when nothing came in time, or the bell rang."""
        connected = self._connected()
        pending = getattr(connected, "pending", None)  # what TLS has decrypted and nobody has asked for
        if not (pending and pending()) and not self._readable(connected, deadline):
            return False
        try:
            try:
                data = connected.recv(_CHUNK)
            except self._unready:
                return True  # a part of what TLS takes as one
            self._heard = time.monotonic()
            self._handle(self.connection.receive(data), deadline)
        except (OSError, ProtocolError) as error:
            self._fail(error)
        except BaseException:
            self._drop()  # what was read is in pieces
            raise
        return True

    def _readable(self, connected: socket.socket, deadline: float) -> bool:
        """Wait until there is something to read, or an end of file."""
        left = deadline - time.monotonic() if deadline else 0.0
        for number, _ in self._poll.poll(math.ceil(min(left, _STEP) * 1000) if left > 0 else 0):
            if number == connected.fileno():
                return True
            if self._bell is not None:
                self._bell.recv(_CHUNK)
        return False

    def _write(self, data: bytes | memoryview, deadline: float) -> bool:
        """Write all; False when the time was up."""
        connected = self._connected()
        while True:
            try:
                sent = connected.send(data)
            except self._unready:
                writable = select.poll()
                writable.register(connected, select.POLLOUT)
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                writable.poll(math.ceil(min(left, _STEP) * 1000))
            else:
                if sent == len(data):
                    return True
                data = memoryview(data)[sent:]

    def _handle(self, events: list[Event], deadline: float) -> None:
        for event in events:
            match event:
                case Delivered():  # most of them
                    self._on_event(event)
                case Reply():
                    self._replies.append(event)
                case ConnectionClosed():
                    with contextlib.suppress(Exception):
                        self.flush(deadline)
                    self._drop()
                    if event.code != 200:
                        raise self.address.hung_up(event)
                case Blocked():
                    self._blocked = event.reason
                case Unblocked():
                    self._blocked = ""
                case Opened():
                    pass
                case _:
                    if isinstance(event, ChannelClosed):
                        self._refusals[event.channel] = event
                    self._on_event(event)
        self.flush(deadline)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise self.address.lost("the connection was closed")
        return self._socket

    def _too_late(self) -> str:
        if self._blocked:
            return f"the server blocks publishers ({self._blocked}); free memory or disk there"
        return "no answer in time"

    def _fail(self, reason: BaseException | str) -> Any:
        self._drop()
        raise self.address.lost(reason) from (reason if isinstance(reason, BaseException) else None)

    def _drop(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None


def _open_socket(address: Address, timeout: float) -> socket.socket:
    """A connected socket, TLS done, that does not wait from here on.

    Raises:
        OSError: the server cannot be reached, or its certificate is not accepted.
        ImproperlyConfigured: TLS options are wrong.
    """
    connected = socket.create_connection((lookup_name(address.host), address.port), timeout)
    try:
        tune(connected)
        if address.tls is not None:
            connected = tls_context(address).wrap_socket(connected, server_hostname=server_name(address))
        connected.setblocking(False)
    except BaseException:
        connected.close()
        raise
    return connected
