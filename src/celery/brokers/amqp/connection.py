"""An AMQP 0-9-1 connection as a state machine: bytes in, events out; commands in, bytes out.

It knows no socket, clock or thread. The owner feeds what it reads to `receive`, handles the events, and writes what
`data_to_send` gives after every call of either kind (replies that the protocol demands are put there too).

States of the connection, and the methods of the server that move it (anything else is a ProtocolError):

    start   --connection.start-->    tune     (a start-ok with the credentials goes out)
    tune    --connection.secure-->   tune
    tune    --connection.tune-->     opening  (tune-ok and open go out)
    opening --connection.open-ok-->  open
    closing --connection.close-ok--> closed
    any     --connection.close-->    closed   (close-ok goes out)

States of a channel: opening, open, closing, then it is forgotten. While one closes, all that still arrives for it is
dropped but the end; so is what arrives for one that the server has closed, as RabbitMQ may send deliveries after that.
Calls are answered in order, so that any number may be under way on a channel.

A publish in confirm mode has a number, from 1 per channel; it stays unconfirmed until the server names it, alone or as
the highest of several.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

from celery.brokers.amqp.channel import Channel, Content, State
from celery.brokers.amqp.errors import ProtocolError, StateError
from celery.brokers.amqp.events import (
    Blocked,
    Cancelled,
    ChannelClosed,
    Closed,
    Confirmed,
    ConnectionClosed,
    Delivered,
    Event,
    Opened,
    Reply,
    Returned,
    Unblocked,
)
from celery.brokers.amqp.fields import DECODE_ERRORS, encode_table
from celery.brokers.amqp.frames import (
    BODY,
    DELIVER,
    HEADER,
    HEARTBEAT,
    HEARTBEAT_FRAME,
    METHOD,
    OVERHEAD,
    PROTOCOL_HEADER,
    SMALLEST_FRAME_MAX,
    FrameReader,
    content_frames,
    decode_deliver,
    encode_content_header,
    encode_frame,
    publish_frame,
)
from celery.brokers.amqp.methods import METHODS, decode_method, encode_method, name_of
from celery.brokers.amqp.shapes import Shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery.brokers.amqp.closed import Heads, OpenHeads

_CLIENT_PROPERTIES = {
    "product": "celeriac",
    "platform": "Python",
    "capabilities": {
        "publisher_confirms": True,
        "basic.nack": True,
        "consumer_cancel_notify": True,
        "connection.blocked": True,
        "authentication_failure_close": True,
    },
}
_ADDRESSES_KEPT = 1024

#: A whole frame of basic.ack or basic.reject: delivery tag and one bit.
_pack_settlement = Struct(">BHI4sQ?B").pack
_ACK = METHODS["basic.ack"].id
_REJECT = METHODS["basic.reject"].id

#: What start-ok carries, by mechanism.
_RESPONSES: dict[str, Callable[[str, str], bytes]] = {
    "PLAIN": lambda user, password: f"\0{user}\0{password}".encode(),
    "AMQPLAIN": lambda user, password: encode_table({"LOGIN": user, "PASSWORD": password})[4:],
    "EXTERNAL": lambda _user, _password: b"",
}


class Connection:
    """One client connection.

    Args:
        user, password: credentials; unused by EXTERNAL, where the TLS certificate speaks.
        vhost: virtual host.
        mechanism: PLAIN, AMQPLAIN or EXTERNAL.
        heartbeat: seconds that we would like; 0: none (wire.md 2.1).
        name: shown by the server's tools.
    """

    def __init__(
        self,
        user: str = "guest",
        password: str = "guest",  # noqa: S107 - the well-known default account of RabbitMQ
        *,
        vhost: str = "/",
        mechanism: str = "PLAIN",
        heartbeat: int = 0,
        frame_max: int = 131_072,
        channel_max: int = 2047,
        name: str = "",
    ) -> None:
        self.state = State.START
        #: Negotiated with the server's wishes by the handshake.
        self.heartbeat = heartbeat
        self.frame_max = frame_max
        self.channel_max = channel_max
        self.server_properties: dict[str, Any] = {}
        self._user = user
        self._password = password
        self._vhost = vhost
        self._mechanism = mechanism
        self._name = name
        self._reader = FrameReader()
        self._shapes = Shapes()
        self._out: list[bytes] = [PROTOCOL_HEADER]
        self._channels: dict[int, Channel] = {}
        #: Closed by the server, which may not have noticed. Their numbers are used again when there are no others.
        self._ended: set[int] = set()
        self._addresses: dict[tuple[int, str, str, bool], bytes] = {}

    # -- commands -----------------------------------------------------------

    def data_to_send(self) -> bytes:
        """All bytes that are due to the server, once."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def open_channel(self) -> int:
        """Ask for a channel, the lowest free number; a Reply channel.open-ok follows.

        Raises:
            StateError: the connection is not open, or has no channel left.
        """
        if self.state is not State.OPEN:
            raise StateError(f"no channel can be opened on a connection in state {self.state.value}")
        free = [n for n in range(1, self.channel_max + 1) if n not in self._channels]
        number = next((n for n in free if n not in self._ended), free[0] if free else None)
        if number is None:
            raise StateError(f"all {self.channel_max} channels of this connection are in use")
        self._ended.discard(number)
        channel = self._channels[number] = Channel()
        channel.awaited.append(METHODS["channel.open"].replies)
        self._send_method(number, "channel.open")
        return number

    def call(self, number: int, method: str, **arguments: Any) -> bool:
        """Send a method on a channel; True when a Reply will follow.

        Raises:
            FieldError: an argument is unknown or does not fit.
            StateError: the channel is not open.
        """
        channel = self._open_channel(number)
        self._send_method(number, method, **arguments)
        replies = METHODS[method].replies
        if not replies or arguments.get("nowait"):
            return False
        channel.awaited.append(replies)
        if method == "confirm.select" and channel.published is None:
            channel.published = 0
        return True

    def publish(
        self,
        number: int,
        exchange: str,
        routing_key: str,
        properties: Mapping[str, Any],
        body: bytes,
        *,
        mandatory: bool = False,
    ) -> int:
        """Publish a message; returns its number on a channel in confirm mode, otherwise 0.

        Args:
            number: the channel.
            exchange: "" is the default exchange.
            routing_key: a queue's name on the default exchange.
            properties: basic properties by their names in AMQP, `headers` among them.
            body: any bytes.
            mandatory: ask for a Returned if no queue takes it.

        Raises:
            FieldError: a name, property or header does not fit; nothing was sent.
            StateError: the channel is not open.
        """
        header = encode_content_header(properties, len(body))
        return self.send_publish(number, self.encode_publish(number, exchange, routing_key, header, body, mandatory))

    def encode_publish(
        self, number: int, exchange: str, routing_key: str, header: bytes, body: bytes, mandatory: bool
    ) -> list[bytes]:
        """The first half of `publish`: the frames of a message, of its content header, and every error that they can
        cause. Changes nothing.
        """
        address = (number, exchange, routing_key, mandatory)
        frame = self._addresses.get(address)
        if frame is None:
            frame = publish_frame(number, exchange, routing_key, mandatory=mandatory)
            if len(self._addresses) >= _ADDRESSES_KEPT:
                self._addresses.clear()
            self._addresses[address] = frame
        return [frame, *content_frames(number, header, body, self.frame_max)]

    def send_publish(self, number: int, encoded: list[bytes]) -> int:
        """The second half of `publish`."""
        channel = self._open_channel(number)
        self._out += encoded
        if channel.published is None:
            return 0
        channel.published += 1
        channel.unconfirmed[channel.published] = None
        return channel.published

    def unconfirmed(self, number: int) -> int:
        """How many publishes on a channel the server has not answered for."""
        return len(self._channels[number].unconfirmed) if number in self._channels else 0

    def ack(self, number: int, delivery_tag: int, *, multiple: bool = False) -> None:
        """Settle a delivery, or with `multiple` every one up to it."""
        self._out.append(_pack_settlement(METHOD, number, 13, _ACK, delivery_tag, multiple, 0xCE))

    def reject(self, number: int, delivery_tag: int, *, requeue: bool) -> None:
        """Give a delivery back to its queue, or (not `requeue`) to the queue's dead-letter exchange."""
        self._out.append(_pack_settlement(METHOD, number, 13, _REJECT, delivery_tag, requeue, 0xCE))

    def expect_alike(self, number: int, heads: Heads | OpenHeads) -> None:
        """Read deliveries on a channel in one go, where that can be; with `Heads` report them as Closed."""
        self._open_channel(number).heads = heads

    def close_channel(self, number: int) -> None:
        """Close a channel; a Reply channel.close-ok follows."""
        channel = self._open_channel(number)
        channel.state = State.CLOSING
        self._send_method(number, "channel.close", reply_code=200, reply_text="closed")

    def send_heartbeat(self) -> None:
        """Tell the server that we live."""
        self._out.append(HEARTBEAT_FRAME)

    def close(self) -> None:
        """Say goodbye; a ConnectionClosed with code 200 follows. Nothing is sent before the handshake is over."""
        if self.state is State.OPEN:
            self._send_method(0, "connection.close", reply_code=200, reply_text="closed")
            self.state = State.CLOSING
        elif self.state is not State.CLOSING:
            self.state = State.CLOSED

    # -- bytes in -------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the server; b"" says that it closed the socket.

        Raises:
            ProtocolError: they are not what AMQP allows here. The connection is closed by that.
        """
        if self.state is State.CLOSED:
            return []
        if not data:
            return [self._end_of_stream()]
        events: list[Event] = []
        try:
            for read in self._reader.feed(data, self._alike):
                if isinstance(read, (Closed, Delivered)):
                    events.append(read)
                    continue
                kind, number, payload = read
                event = self._handlers[kind](self, number, payload)
                if event is not None:
                    events.append(event)
                    if type(event) is ConnectionClosed:
                        break
        except ProtocolError:
            self.state = State.CLOSED
            raise
        return events

    def _end_of_stream(self) -> ConnectionClosed:
        asked, stage = self.state is State.CLOSING, self.state
        self.state = State.CLOSED
        if asked:
            return ConnectionClosed(200, "closed")
        # An old server only hangs up on what it refuses. One that would say so has not: then it was the network.
        capabilities = self.server_properties.get("capabilities")
        says_why = isinstance(capabilities, dict) and capabilities.get("authentication_failure_close")
        if stage is State.TUNE and not says_why:
            return ConnectionClosed(403, f"the server hung up on the credentials of user {self._user!r}")
        if stage is State.OPENING and not says_why:
            return ConnectionClosed(530, f"the server hung up on virtual host {self._vhost!r}")
        return ConnectionClosed(0, "the server closed the connection")

    def _alike(self, data: bytes, pos: int, number: int, length: int) -> tuple[Closed | Delivered, int] | None:
        """Deliveries that are read in one go; None: what begins here is taken apart."""
        channel = self._channels.get(number)
        if channel is None or channel.heads is None or channel.content is not None:
            return None
        if channel.state is not State.OPEN or self.state is not State.OPEN:
            return None
        return channel.heads.deliveries(data, pos, length, self.frame_max - OVERHEAD)

    def _on_method(self, number: int, payload: bytes) -> Event | None:
        if self.state is State.CLOSING and number != 0:
            return None
        if payload[:4] == DELIVER:
            channel = self._channels.get(number)
            if channel is not None and channel.state is State.OPEN and channel.content is None:
                try:
                    channel.content = Content(Delivered, (number, *decode_deliver(payload)))
                except DECODE_ERRORS as exc:
                    raise _unreadable("method", payload, exc) from exc
                return None
        try:
            method, arguments = decode_method(payload)
        except DECODE_ERRORS as exc:
            raise _unreadable("method", payload, exc) from exc
        if number == 0:
            return self._on_connection_method(method.name, arguments)
        return self._on_channel_method(number, method.name, arguments)

    def _on_heartbeat(self, number: int, _payload: bytes) -> None:
        if number != 0:
            raise ProtocolError(f"a heartbeat on channel {number}")

    # -- channel 0 --------------------------------------------------------------

    def _on_connection_method(self, name: str, arguments: dict[str, Any]) -> Event | None:
        handler = self._on_channel_zero.get((self.state, name)) or self._on_channel_zero.get((None, name))
        if handler is None:
            if self.state is State.CLOSING:
                return None
            raise ProtocolError(f"{name} while the connection is in state {self.state.value}")
        return handler(self, arguments)

    def _on_start(self, arguments: dict[str, Any]) -> None:
        offered = arguments["mechanisms"].split()
        if self._mechanism not in offered or self._mechanism not in _RESPONSES:
            raise ProtocolError(
                f"cannot log in with {self._mechanism}: the server offers {', '.join(offered) or 'nothing'}, "
                f"this client knows {', '.join(_RESPONSES)}"
            )
        self.server_properties = arguments["server_properties"]
        properties = _CLIENT_PROPERTIES | ({"connection_name": self._name} if self._name else {})
        self._send_method(
            0,
            "connection.start-ok",
            client_properties=properties,
            mechanism=self._mechanism,
            response=_RESPONSES[self._mechanism](self._user, self._password),
            locale="en_US",
        )
        self.state = State.TUNE

    def _on_secure(self, _arguments: dict[str, Any]) -> None:
        self._send_method(0, "connection.secure-ok", response=_RESPONSES[self._mechanism](self._user, self._password))

    def _on_tune(self, arguments: dict[str, Any]) -> None:
        self.channel_max = _smaller(self.channel_max, arguments["channel_max"])
        self.frame_max = _smaller(self.frame_max, arguments["frame_max"])
        self.heartbeat = min(self.heartbeat, arguments["heartbeat"] or self.heartbeat)
        if self.frame_max < SMALLEST_FRAME_MAX:
            raise ProtocolError(f"a largest frame of {self.frame_max} bytes is less than {SMALLEST_FRAME_MAX}")
        self._reader.frame_max = self.frame_max
        self._send_method(
            0,
            "connection.tune-ok",
            channel_max=self.channel_max,
            frame_max=self.frame_max,
            heartbeat=self.heartbeat,
        )
        self._send_method(0, "connection.open", virtual_host=self._vhost)
        self.state = State.OPENING

    def _on_open_ok(self, _arguments: dict[str, Any]) -> Event:
        self.state = State.OPEN
        return Opened(self.server_properties, self.heartbeat)

    def _on_close(self, arguments: dict[str, Any]) -> Event:
        self._send_method(0, "connection.close-ok")
        self.state = State.CLOSED
        method = name_of(arguments["class_id"], arguments["method_id"])
        return ConnectionClosed(arguments["reply_code"], arguments["reply_text"], method)

    def _on_close_ok(self, _arguments: dict[str, Any]) -> Event:
        self.state = State.CLOSED
        return ConnectionClosed(200, "closed")

    def _on_blocked(self, arguments: dict[str, Any]) -> Event:
        return Blocked(arguments["reason"])

    def _on_unblocked(self, _arguments: dict[str, Any]) -> Event:
        return Unblocked()

    # -- other channels -----------------------------------------------------------

    def _on_channel_method(self, number: int, name: str, arguments: dict[str, Any]) -> Event | None:
        channel = self._channels.get(number)
        if channel is None:
            if number in self._ended:
                return None
            raise ProtocolError(f"{name} on channel {number}, which is not open")
        if name == "channel.close":
            return self._on_channel_close(number, channel, arguments)
        if channel.state is State.CLOSING:
            if name != "channel.close-ok":
                return None
            self._forget(number)
            return Reply(number, name, arguments)
        if channel.content is not None:
            raise ProtocolError(f"{name} on channel {number} amid a message")
        handler = self._on_channel.get(name)
        if handler is not None:
            return handler(self, number, channel, arguments)
        if not channel.awaited or name not in channel.awaited[0]:
            raise ProtocolError(f"{name} on channel {number}, where nothing asked for it")
        if name == "basic.get-ok":
            channel.content = Content(Reply, (number, name, arguments))
            return None
        channel.awaited.popleft()
        if name == "channel.open-ok":
            channel.state = State.OPEN
        return Reply(number, name, arguments)

    def _on_channel_close(self, number: int, channel: Channel, arguments: dict[str, Any]) -> Event | None:
        self._send_method(number, "channel.close-ok")
        if channel.state is State.CLOSING:
            return None  # both sides closed it; the answer to ours still comes
        self._forget(number)
        self._ended.add(number)
        method = name_of(arguments["class_id"], arguments["method_id"])
        return ChannelClosed(number, arguments["reply_code"], arguments["reply_text"], method)

    def _on_flow(self, number: int, _channel: Channel, arguments: dict[str, Any]) -> None:
        # RabbitMQ never asks for it (it holds the socket back instead), but an answer is due.
        self._send_method(number, "channel.flow-ok", active=arguments["active"])

    def _on_return(self, number: int, channel: Channel, arguments: dict[str, Any]) -> None:
        fields = (arguments[name] for name in ("reply_code", "reply_text", "exchange", "routing_key"))
        channel.content = Content(Returned, (number, *fields))

    def _on_cancel(self, number: int, _channel: Channel, arguments: dict[str, Any]) -> Event:
        if not arguments["nowait"]:
            self._send_method(number, "basic.cancel-ok", consumer_tag=arguments["consumer_tag"])
        return Cancelled(number, arguments["consumer_tag"])

    def _on_ack(self, number: int, channel: Channel, arguments: dict[str, Any]) -> Event:
        return self._confirm(number, channel, arguments, accepted=True)

    def _on_nack(self, number: int, channel: Channel, arguments: dict[str, Any]) -> Event:
        return self._confirm(number, channel, arguments, accepted=False)

    def _confirm(self, number: int, channel: Channel, arguments: dict[str, Any], *, accepted: bool) -> Event:
        tag, waiting = arguments["delivery_tag"], channel.unconfirmed
        if tag > (channel.published or 0):
            raise ProtocolError(f"channel {number} confirms publish {tag} of {channel.published or 0}")
        if not arguments["multiple"]:
            numbers = [tag] if tag in waiting else []
        elif tag in (0, channel.published):
            numbers = list(waiting)
        else:
            numbers = []
            for candidate in waiting:
                if candidate > tag:
                    break
                numbers.append(candidate)
        for confirmed in numbers:
            del waiting[confirmed]
        return Confirmed(number, numbers, accepted)

    # -- content --------------------------------------------------------------------

    def _on_header(self, number: int, payload: bytes) -> Event | None:
        content = self._content(number, "a content header")
        if content is None:
            return None
        if content.missing is not None:
            raise ProtocolError(f"a second content header for one message on channel {number}")
        try:
            content.missing, content.properties = self._shapes.read(payload)
        except DECODE_ERRORS as exc:
            raise _unreadable("content header", payload, exc) from exc
        return None if content.missing else self._finish(number, content)

    def _on_body(self, number: int, payload: bytes) -> Event | None:
        content = self._content(number, "a content body")
        if content is None:
            return None
        if content.missing is None or content.missing < len(payload):
            raise ProtocolError(f"more content on channel {number} than its header said")
        content.missing -= len(payload)
        content.chunks.append(payload)
        return None if content.missing else self._finish(number, content)

    def _content(self, number: int, what: str) -> Content | None:
        channel = self._channels.get(number)
        if channel is not None and channel.content is not None and channel.state is State.OPEN:
            return channel.content
        if self.state is State.CLOSING or (channel is not None and channel.state is State.CLOSING):
            return None
        if channel is None and number in self._ended:
            return None
        raise ProtocolError(f"{what} on channel {number} without a method in front of it")

    def _finish(self, number: int, content: Content) -> Event:
        channel = self._channels[number]
        channel.content = None
        if content.event is Reply:
            channel.awaited.popleft()
        chunks = content.chunks
        return content.event(*content.fields, content.properties, chunks[0] if len(chunks) == 1 else b"".join(chunks))

    # -- inner ------------------------------------------------------------------------

    def _open_channel(self, number: int) -> Channel:
        channel = self._channels.get(number)
        if channel is None or channel.state is not State.OPEN or self.state is not State.OPEN:
            found = State.CLOSED if channel is None else channel.state
            raise StateError(f"channel {number} is {found.value}, its connection {self.state.value}")
        return channel

    def _forget(self, number: int) -> None:
        del self._channels[number]

    def _send_method(self, number: int, name: str, **arguments: Any) -> None:
        self._out.append(encode_frame(METHOD, number, encode_method(name, arguments)))

    _handlers: dict[int, Callable[[Connection, int, bytes], Event | None]] = {
        METHOD: _on_method,
        HEADER: _on_header,
        BODY: _on_body,
        HEARTBEAT: _on_heartbeat,
    }
    #: Methods on channel 0, by the state they are allowed in (None: every state).
    _on_channel_zero: dict[tuple[State | None, str], Callable[[Connection, dict[str, Any]], Event | None]] = {
        (State.START, "connection.start"): _on_start,
        (State.TUNE, "connection.secure"): _on_secure,
        (State.TUNE, "connection.tune"): _on_tune,
        (State.OPENING, "connection.open-ok"): _on_open_ok,
        (State.OPEN, "connection.blocked"): _on_blocked,
        (State.OPEN, "connection.unblocked"): _on_unblocked,
        (State.CLOSING, "connection.close-ok"): _on_close_ok,
        (None, "connection.close"): _on_close,
    }
    #: Methods of an open channel that are no reply to a call.
    _on_channel: dict[str, Callable[[Connection, int, Channel, dict[str, Any]], Event | None]] = {
        "channel.flow": _on_flow,
        "basic.return": _on_return,
        "basic.cancel": _on_cancel,
        "basic.ack": _on_ack,
        "basic.nack": _on_nack,
    }


def _smaller(ours: int, theirs: int) -> int:
    """Negotiate a limit, where 0 means none."""
    return min(ours, theirs) if ours and theirs else ours or theirs


def _unreadable(what: str, payload: bytes, exc: Exception) -> ProtocolError:
    return ProtocolError(f"cannot read the {what} {payload[:24]!r} ({exc})")
