"""An AMQP connection over a plain socket, for senders and inboxes.

It connects when told to, belongs to one thread at a time and to the process that opened it. Nobody looks after it
between two calls, so it negotiates no heartbeats. A server that went away is seen before the next use by the end of
file that it left in the socket; a way to it that went away without a word, by the missing answer to a question that is
asked where nothing was heard for half the heartbeat interval. Every wait has a deadline.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Any

from celery.brokers.amqp.address import server_name, tls_context, tune
from celery.brokers.amqp.connection import State
from celery.brokers.amqp.errors import ChannelError, ProtocolError
from celery.brokers.amqp.events import Blocked, ChannelClosed, ConnectionClosed, Opened, Reply, Unblocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery.brokers.amqp.address import Address
    from celery.brokers.amqp.connection import Connection
    from celery.brokers.amqp.declarations import Call
    from celery.brokers.amqp.events import Event

_CHUNK = 262_144
#: Of the goodbye, in seconds: the server forgets us without it too.
_CLOSE_TIMEOUT = 1.0


class Link:
    """One socket to one server.

    Args:
        address: the server.
        on_event: called with whatever is no answer to a call, from inside the methods below.
    """

    def __init__(self, address: Address, on_event: Callable[[Event], None]) -> None:
        self.address = address
        self.connection: Connection = address.connection()
        self._on_event = on_event
        self._socket: socket.socket | None = None
        self._poll = select.poll()
        self._bound: float | None = None
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
        if self._socket is not None and self._pid != os.getpid():
            self._drop()
        with contextlib.suppress(Exception):  # whatever it was, a new connection will tell
            self.poll()
            self._ask_if_quiet(deadline)
        if self._socket is not None:
            return False
        self._connect(min(deadline, time.monotonic() + self.address.connect_timeout))
        return True

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
            self._limit(deadline).sendall(data)
        except TimeoutError:
            with contextlib.suppress(Exception):  # it may have said why
                self.poll()
            self._fail(self._too_late())
        except OSError as error:
            self._fail(error)

    def poll(self) -> None:
        """Handle what has come, without waiting."""
        while self._socket is not None and self._readable():
            self._read(time.monotonic())

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
        self._bound = None
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
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

    def _readable(self) -> bool:
        pending = getattr(self._socket, "pending", None)
        return bool(self._poll.poll(0)) or (pending is not None and pending() > 0)

    def _read(self, deadline: float) -> bool:
        """Read once and handle it; False when nothing came in time."""
        connected = self._limit(deadline)
        try:
            data = connected.recv(_CHUNK)
        except (TimeoutError, BlockingIOError):
            return False
        except OSError as error:
            self._fail(error)
        self._heard = time.monotonic()
        try:
            events = self.connection.receive(data)
        except ProtocolError as error:
            self._fail(error)
        self._handle(events, deadline)
        return True

    def _handle(self, events: list[Event], deadline: float) -> None:
        for event in events:
            match event:
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

    def _limit(self, deadline: float) -> socket.socket:
        if self._socket is None:
            raise self.address.lost("the connection was closed")
        # Setting a time-out costs as much as a small send: one that is right within a tenth stays.
        left = max(deadline - time.monotonic(), 0.001)
        if self._bound is None or not left <= self._bound <= left * 1.1:
            self._bound = left
            self._socket.settimeout(left)
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
    """A connected socket, TLS done.

    Raises:
        OSError: the server cannot be reached, or its certificate is not accepted.
        ImproperlyConfigured: TLS options are wrong.
    """
    connected = socket.create_connection((address.host, address.port), timeout)
    try:
        tune(connected)
        if address.tls is None:
            return connected
        return tls_context(address).wrap_socket(connected, server_hostname=server_name(address))
    except BaseException:
        connected.close()
        raise
