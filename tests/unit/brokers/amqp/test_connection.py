"""The connection as a state machine: what a server says, what we answer, what comes out."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.brokers.amqp.channel import State
from celery.brokers.amqp.connection import Connection
from celery.brokers.amqp.errors import ProtocolError, StateError
from celery.brokers.amqp.events import (
    Blocked,
    Cancelled,
    ChannelClosed,
    Confirmed,
    ConnectionClosed,
    Delivered,
    Event,
    Opened,
    Returned,
    Unblocked,
)
from celery.brokers.amqp.fields import FieldError, decode_table
from celery.brokers.amqp.frames import (
    HEARTBEAT_FRAME,
    METHOD,
    PROTOCOL_HEADER,
    FrameReader,
    content_frames,
    encode_content_header,
    encode_frame,
)
from celery.brokers.amqp.methods import decode_method, encode_method


def method(number, name, **arguments):
    """A method frame of the server."""
    return encode_frame(METHOD, number, encode_method(name, arguments))


def message(number, name, properties=None, body=b"", **arguments):
    """A method of the server with a content."""
    return method(number, name, **arguments) + b"".join(
        content_frames(number, encode_content_header(properties or {}, len(body)), body, 4096)
    )


def sent(connection):
    """The methods that we sent since the last look."""
    data = connection.data_to_send()
    reader = FrameReader()
    frames = reader.feed(data.removeprefix(PROTOCOL_HEADER))
    return [(number, *decode(payload)) for kind, number, payload in frames if kind == METHOD]


def decode(payload):
    found, arguments = decode_method(payload)
    return found.name, arguments


START = method(0, "connection.start", version_minor=9, mechanisms="PLAIN AMQPLAIN EXTERNAL", locales="en_US")
TUNE = method(0, "connection.tune", channel_max=5, frame_max=4096, heartbeat=60)
OPEN_OK = method(0, "connection.open-ok")


def opened(**options):
    """A connection after its handshake."""
    connection = Connection(**options)
    events = connection.receive(START + TUNE + OPEN_OK)
    assert [type(event) for event in events] == [Opened]
    connection.data_to_send()
    return connection


def with_channel():
    """A connection with channel 1 open."""
    connection = opened()
    assert connection.open_channel() == 1
    connection.receive(method(1, "channel.open-ok"))
    connection.data_to_send()
    return connection


# -- handshake -----------------------------------------------------------------------------------------------------


def test_the_handshake_logs_in_and_negotiates():
    connection = Connection("u", "p", vhost="v", heartbeat=120, name="w1@host")
    assert connection.data_to_send() == PROTOCOL_HEADER
    assert connection.receive(START) == []
    ((_, name, arguments),) = sent(connection)
    assert (name, arguments["mechanism"], arguments["response"]) == ("connection.start-ok", "PLAIN", b"\0u\0p")
    assert arguments["client_properties"]["connection_name"] == "w1@host"
    assert arguments["client_properties"]["capabilities"]["consumer_cancel_notify"] is True
    assert connection.receive(TUNE) == []
    tuned = {"channel_max": 5, "frame_max": 4096, "heartbeat": 60}
    (_, ok, wishes), (_, opening, target) = sent(connection)
    assert (ok, wishes, opening, target["virtual_host"]) == ("connection.tune-ok", tuned, "connection.open", "v")
    assert connection.receive(OPEN_OK) == [Opened({}, 60)]


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"), [(0, 60, 0), (120, 60, 60), (30, 60, 30), (30, 0, 30), (0, 0, 0)]
)
def test_heartbeats_are_what_both_sides_can_do_and_we_want(ours, theirs, agreed):
    connection = Connection(heartbeat=ours)
    connection.receive(START + method(0, "connection.tune", heartbeat=theirs))
    assert sent(connection)[1][2]["heartbeat"] == agreed


def test_other_mechanisms_send_their_own_response():
    plain = Connection("u", "p", mechanism="AMQPLAIN")
    plain.receive(START)
    response = sent(plain)[0][2]["response"]
    assert decode_table(len(response).to_bytes(4, "big") + response, 0)[0] == {"LOGIN": "u", "PASSWORD": "p"}
    external = Connection(mechanism="EXTERNAL")
    external.receive(START)
    assert sent(external)[0][2]["response"] == b""


def test_a_mechanism_that_the_server_lacks_is_named_with_those_it_has():
    with pytest.raises(ProtocolError, match="EXTERNAL: the server offers PLAIN"):
        Connection(mechanism="EXTERNAL").receive(method(0, "connection.start", mechanisms="PLAIN"))


def test_refused_credentials_and_vhosts_say_why():
    connection = Connection()
    refusal = method(0, "connection.close", reply_code=403, reply_text="ACCESS_REFUSED", class_id=0, method_id=0)
    assert connection.receive(START + refusal) == [ConnectionClosed(403, "ACCESS_REFUSED", "")]
    assert sent(connection)[-1][1] == "connection.close-ok"
    silent = Connection("who")
    silent.receive(START)
    (closed,) = silent.receive(b"")
    assert (closed.code, "'who'" in closed.text) == (403, True)
    nowhere = Connection(vhost="void")
    nowhere.receive(START + TUNE)
    (closed,) = nowhere.receive(b"")
    assert (closed.code, "'void'" in closed.text) == (530, True)


@pytest.mark.parametrize("handshake", ["start", "start, tune"])
def test_a_server_that_would_say_why_and_hangs_up_while_one_logs_in_was_lost(handshake):
    start = method(
        0, "connection.start", version_minor=9, mechanisms="PLAIN", locales="en_US",
        server_properties={"capabilities": {"authentication_failure_close": True}},
    )  # fmt: skip
    connection = Connection()
    connection.receive(start + (TUNE if handshake == "start, tune" else b""))
    assert connection.receive(b"") == [ConnectionClosed(0, "the server closed the connection")]


def test_a_frame_size_below_the_protocols_minimum_is_refused():
    with pytest.raises(ProtocolError, match="less than 4096"):
        Connection().receive(START + method(0, "connection.tune", frame_max=100))


# -- channels ------------------------------------------------------------------------------------------------------


def test_calls_are_answered_in_order_however_many_are_under_way():
    connection = with_channel()
    assert connection.call(1, "queue.declare", queue="a")
    assert connection.call(1, "queue.bind", queue="a", exchange="x")
    assert not connection.call(1, "queue.bind", queue="a", exchange="x", nowait=True)
    answers = method(1, "queue.declare-ok", queue="a", message_count=3) + method(1, "queue.bind-ok")
    first, second = connection.receive(answers)
    assert (first.method, first.arguments["message_count"], second.method) == ("queue.declare-ok", 3, "queue.bind-ok")


def test_a_refused_method_closes_its_channel_alone():
    connection = with_channel()
    connection.open_channel()
    connection.receive(method(2, "channel.open-ok"))
    connection.call(1, "queue.declare", queue="a")
    connection.data_to_send()
    text = "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'a'"
    refusal = method(1, "channel.close", reply_code=406, reply_text=text, class_id=50, method_id=10)
    assert connection.receive(refusal) == [ChannelClosed(1, 406, text, "queue.declare")]
    assert sent(connection) == [(1, "channel.close-ok", {})]
    with pytest.raises(StateError, match="channel 1 is closed"):
        connection.publish(1, "", "q", {}, b"")
    assert connection.call(2, "queue.declare", queue="b")


def test_what_arrives_after_the_server_has_closed_a_channel_is_dropped():
    connection = with_channel()
    connection.call(1, "basic.consume", queue="q", consumer_tag="c")
    late = message(1, "basic.deliver", body=b"late", consumer_tag="c", delivery_tag=1)
    connection.receive(method(1, "basic.consume-ok", consumer_tag="c"))
    end = method(1, "channel.close", reply_code=406, reply_text="x")
    assert connection.receive(end + late + late) == [ChannelClosed(1, 406, "x", "")]
    assert connection.open_channel() == 2
    assert connection.receive(late) == []
    assert [connection.open_channel() for _ in range(4)] == [3, 4, 5, 1]


def test_a_closing_channel_hears_only_its_end():
    connection = with_channel()
    connection.call(1, "basic.consume", queue="q", consumer_tag="c")
    connection.close_channel(1)
    late = message(1, "basic.deliver", body=b"late", consumer_tag="c", delivery_tag=1)
    both = method(1, "channel.close", reply_code=404, reply_text="x")
    assert connection.receive(method(1, "basic.consume-ok", consumer_tag="c") + late + both) == []
    assert [event.method for event in connection.receive(method(1, "channel.close-ok"))] == ["channel.close-ok"]
    assert connection.open_channel() == 1


def test_channels_run_out():
    connection = opened()
    assert [connection.open_channel() for _ in range(5)] == [1, 2, 3, 4, 5]
    with pytest.raises(StateError, match="all 5 channels"):
        connection.open_channel()


def test_commands_wait_for_the_handshake():
    connection = Connection()
    with pytest.raises(StateError, match="start"):
        connection.open_channel()
    with pytest.raises(StateError, match="connection start"):
        connection.call(1, "basic.qos")


# -- contents ------------------------------------------------------------------------------------------------------


def test_deliveries_come_whole_and_channels_interleave():
    connection = with_channel()
    connection.open_channel()
    connection.receive(method(2, "channel.open-ok"))
    one = message(1, "basic.deliver", {"type": "t"}, b"x" * 9000, consumer_tag="a", delivery_tag=7, redelivered=True)
    two = message(2, "basic.deliver", {}, b"", exchange="e", routing_key="k", consumer_tag="b", delivery_tag=1)
    pieces = list(FrameReader().feed(one))
    head = b"".join(encode_frame(*piece) for piece in pieces[:3])
    tail = b"".join(encode_frame(*piece) for piece in pieces[3:])
    assert connection.receive(head + two + tail) == [
        Delivered(2, "b", 1, False, "e", "k", {}, b""),
        Delivered(1, "a", 7, True, "", "", {"type": "t"}, b"x" * 9000),
    ]


def test_a_message_with_unreadable_headers_is_still_delivered_to_be_refused():
    connection = with_channel()
    header = b"\x00\x3c\x00\x00" + (2).to_bytes(8, "big") + b"\x20\x00\x00\x00\x00\x04\x01aZZ"
    stream = method(1, "basic.deliver", delivery_tag=4) + encode_frame(2, 1, header) + encode_frame(3, 1, b"ab")
    assert connection.receive(stream) == [Delivered(1, "", 4, False, "", "", None, b"ab")]
    assert connection.receive(message(1, "basic.deliver", delivery_tag=5))[0].properties == {}


def test_a_get_is_answered_with_a_message_or_without():
    connection = with_channel()
    connection.call(1, "basic.get", queue="q")
    connection.call(1, "basic.get", queue="q")
    found = message(1, "basic.get-ok", {"type": "t"}, b"b", delivery_tag=1, message_count=4)
    answers = connection.receive(found + method(1, "basic.get-empty"))
    assert [(reply.method, reply.properties, reply.body) for reply in answers] == [
        ("basic.get-ok", {"type": "t"}, b"b"),
        ("basic.get-empty", None, b""),
    ]


def test_a_returned_message_says_where_it_could_not_go():
    connection = with_channel()
    stream = message(1, "basic.return", {}, b"b", reply_code=312, reply_text="NO_ROUTE", exchange="e", routing_key="k")
    assert connection.receive(stream) == [Returned(1, 312, "NO_ROUTE", "e", "k", {}, b"b")]


# -- publishing ----------------------------------------------------------------------------------------------------


def confirming():
    connection = with_channel()
    connection.call(1, "confirm.select")
    connection.receive(method(1, "confirm.select-ok"))
    return connection


def test_publishes_are_numbered_and_confirmed_alone_or_together():
    connection = confirming()
    assert [connection.publish(1, "", "q", {}, b"") for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    stream = (
        method(1, "basic.ack", delivery_tag=2)
        + method(1, "basic.ack", delivery_tag=4, multiple=True)
        + method(1, "basic.nack", delivery_tag=0, multiple=True)
    )
    assert connection.receive(stream) == [
        Confirmed(1, [2], True),
        Confirmed(1, [1, 3, 4], True),
        Confirmed(1, [5, 6], False),
    ]
    assert connection.unconfirmed(1) == 0


def test_a_confirmation_of_what_was_never_sent_is_an_error():
    with pytest.raises(ProtocolError, match="confirms publish 1 of 0"):
        confirming().receive(method(1, "basic.ack", delivery_tag=1))


def test_publishing_without_confirms_has_no_numbers():
    connection = with_channel()
    assert connection.publish(1, "e", "k", {"priority": 1}, b"body", mandatory=True) == 0
    assert sent(connection)[0][1:] == (
        "basic.publish",
        {"ticket": 0, "exchange": "e", "routing_key": "k", "mandatory": True, "immediate": False},
    )


def test_a_message_that_does_not_fit_leaves_nothing_behind():
    connection = with_channel()
    for properties, key in (({"headers": {"a": object()}}, "k"), ({}, "k" * 300)):
        with pytest.raises(FieldError):
            connection.publish(1, "", key, properties, b"")
    assert connection.data_to_send() == b""


def test_settling_is_one_small_frame_each():
    connection = with_channel()
    connection.ack(1, 7, multiple=True)
    connection.reject(1, 8, requeue=False)
    assert sent(connection) == [
        (1, "basic.ack", {"delivery_tag": 7, "multiple": True}),
        (1, "basic.reject", {"delivery_tag": 8, "requeue": False}),
    ]


# -- notices and the end -------------------------------------------------------------------------------------------


def test_notices_of_the_server_become_events():
    connection = with_channel()
    stream = (
        method(0, "connection.blocked", reason="low on memory")
        + method(0, "connection.unblocked")
        + method(1, "basic.cancel", consumer_tag="c", nowait=True)
        + HEARTBEAT_FRAME
        + method(1, "channel.flow", active=True)
    )
    assert connection.receive(stream) == [Blocked("low on memory"), Unblocked(), Cancelled(1, "c")]
    assert sent(connection) == [(1, "channel.flow-ok", {"active": True})]
    connection.send_heartbeat()
    assert connection.data_to_send() == HEARTBEAT_FRAME


def test_both_sides_can_say_goodbye():
    connection = with_channel()
    connection.close()
    assert sent(connection)[0][1] == "connection.close"
    late = message(1, "basic.deliver", delivery_tag=1) + method(1, "queue.declare-ok")
    assert connection.receive(late + method(0, "connection.close-ok")) == [ConnectionClosed(200, "closed")]
    assert connection.receive(b"anything") == []
    assert with_channel().receive(b"") == [ConnectionClosed(0, "the server closed the connection")]
    shutdown = method(0, "connection.close", reply_code=320, reply_text="CONNECTION_FORCED", class_id=60, method_id=40)
    assert with_channel().receive(shutdown) == [ConnectionClosed(320, "CONNECTION_FORCED", "basic.publish")]


@pytest.mark.parametrize(
    "stream",
    [
        method(0, "connection.tune"),
        method(0, "queue.declare-ok"),
        method(1, "queue.declare-ok"),
        method(2, "queue.declare-ok"),
        method(1, "basic.deliver") + method(1, "basic.deliver"),
        encode_frame(2, 1, b"\x00" * 14),
        encode_frame(3, 1, b"body"),
        method(1, "basic.deliver") + encode_frame(3, 1, b"body"),
        method(1, "basic.deliver") + encode_frame(2, 1, b"\x00\x3c"),
        method(1, "basic.deliver") + encode_frame(2, 1, b"\x00" * 11 + b"\x02\x00\x00") + encode_frame(3, 1, b"abc"),
        method(1, "basic.deliver") + 2 * encode_frame(2, 1, b"\x00" * 11 + b"\x02\x00\x00"),
        encode_frame(METHOD, 1, b"\x00\x3c\x00\x3c\xff"),
        encode_frame(METHOD, 1, b"\x00\x63\x00\x63"),
        encode_frame(METHOD, 1, b""),
        encode_frame(8, 1, b""),
    ],
)
def test_what_a_server_must_not_say_is_a_protocol_error_and_the_end(stream):
    connection = with_channel()
    with pytest.raises(ProtocolError):
        connection.receive(stream)
    assert connection.state is State.CLOSED
    assert connection.receive(stream) == []


CONVERSATION = (
    START
    + TUNE
    + OPEN_OK
    + HEARTBEAT_FRAME
    + method(0, "connection.blocked", reason="r")
    + method(0, "connection.close", reply_code=320, reply_text="t")
)


@given(st.lists(st.integers(0, len(CONVERSATION)), max_size=10))
def test_events_do_not_depend_on_how_the_stream_is_split(cuts):
    connection, events = Connection(), []
    edges = [0, *sorted(cuts), len(CONVERSATION)]
    for start, stop in zip(edges, edges[1:], strict=False):
        if start < stop:
            events += connection.receive(CONVERSATION[start:stop])
    assert [type(event) for event in events] == [Opened, Blocked, ConnectionClosed]


names = st.sampled_from(
    ["queue.declare-ok", "basic.deliver", "basic.ack", "channel.close", "basic.cancel", "channel.flow", "basic.return"]
)
snippets = st.one_of(
    st.builds(method, st.integers(0, 2), names),
    st.builds(encode_frame, st.sampled_from([1, 2, 3, 8]), st.integers(0, 2), st.binary(max_size=30)),
    st.binary(min_size=1, max_size=12),
)


@given(st.lists(snippets, max_size=8))
def test_whatever_a_server_says_gives_events_or_a_protocol_error(stream):
    connection = with_channel()
    with contextlib.suppress(ProtocolError):
        for piece in stream:
            assert all(isinstance(event, Event) for event in connection.receive(piece))
