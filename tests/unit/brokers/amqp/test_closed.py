"""Deliveries that stay closed say what the same deliveries say when they are opened."""

from __future__ import annotations

import uuid

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery.brokers.amqp import closed, frames, messages
from celery.brokers.amqp.connection import Connection
from celery.brokers.amqp.errors import ProtocolError
from celery.brokers.amqp.events import Closed, Delivered
from celery.brokers.amqp.methods import encode_method
from celery.wire.envelope import Envelope
from celery.wire.label import Facts, Label
from celery.wire.opening import open_plain
from celery.wire.protocol import Packing, Template, as_task_v1, as_task_v2
from celery.wire.sealed import Sealed, UnreadableError, open_text
from celery.wire.serializers import resolve_accept

ACCEPT = resolve_accept(["json"])
FRAME_MAX = 4096


def method(number, name, **arguments):
    return frames.encode_frame(frames.METHOD, number, encode_method(name, arguments))


def connected(*, kept=True, heads=closed.Heads):
    """A connection with an open channel, whose deliveries stay closed."""
    connection = Connection()
    connection.receive(
        method(0, "connection.start", mechanisms="PLAIN")
        + method(0, "connection.tune", channel_max=5, frame_max=FRAME_MAX)
        + method(0, "connection.open-ok")
    )
    connection.open_channel()
    connection.receive(method(1, "channel.open-ok"))
    if kept:
        connection.expect_alike(1, heads())
    return connection


def delivery(envelope, tag=1, *, redelivered=False, exchange="", routing_key="celery"):
    header = frames.encode_content_header(messages.properties_of(envelope), len(envelope.body))
    return method(
        1, "basic.deliver", consumer_tag="c1", delivery_tag=tag, redelivered=redelivered, exchange=exchange,
        routing_key=routing_key,
    ) + b"".join(frames.content_frames(1, header, envelope.body, FRAME_MAX))  # fmt: skip


def task(name="w.add", **options):
    return as_task_v2(str(uuid.uuid4()), name, (2, 3), {}, reply_to="here", **options)


def opened(event):
    """What an event says of each of its messages, whichever it is."""
    if isinstance(event, Delivered):
        envelope = event.properties and messages.envelope_of(event.properties, event.body)
        way = event.exchange, event.routing_key, event.redelivered
        return [(event.consumer_tag, event.delivery_tag, *way, envelope)]
    if not isinstance(event, Closed):
        return [event]
    found = []
    for tag, label, text in event.messages:
        message = open_text(text)
        assert (message.exchange, message.routing_key) == (event.way.exchange, event.way.routing_key)
        assert message.envelope.content_type == event.way.content_type
        assert label == msgspec.convert(message.envelope.headers, Label)
        way = message.exchange, message.routing_key, message.redelivered
        found.append((event.way.consumer_tag, tag, *way, message.envelope))
    return found


def each(events):
    """What they say."""
    return [said for event in events for said in opened(event)]


def closed_in(events):
    """(label, text) of what stayed closed."""
    return [(label, text) for event in events if type(event) is Closed for _, label, text in event.messages]


def kept(*envelopes, **arguments):
    """What becomes of these after two like each were seen."""
    connection = connected()
    for envelope in envelopes:
        # A copy of the same length: texts that differ from it vary.
        connection.receive(delivery(envelope, 1, **arguments))
        connection.receive(delivery(envelope, 2, **arguments))
    return [
        type(connection.receive(delivery(envelope, 3 + at, **arguments))[0]) for at, envelope in enumerate(envelopes)
    ]


def test_messages_of_one_kind_stay_closed_after_the_first_two():
    connection = connected()
    events = connection.receive(b"".join(delivery(task(), tag) for tag in range(1, 100)))
    assert [type(event) for event in events] == [Delivered] * 2 + [Closed]
    assert [said[1] for said in each(events)] == list(range(1, 100))


def test_kinds_that_take_turns_stay_closed_too():
    connection = connected()
    kinds = [{}, {"name": "w.mul"}, {"name": "w.much_longer"}, {"ignore_result": True}, {"group_id": "g" * 36}]
    events = connection.receive(b"".join(delivery(task(**kinds[at % 5]), at + 1) for at in range(100)))
    tasks = [label.task for label, _ in closed_in(events)]
    assert len(tasks) >= 90
    assert tasks[-5:] == ["w.add", "w.mul", "w.much_longer", "w.add", "w.add"]
    assert [said[1] for said in each(events)] == list(range(1, 101))


def test_the_members_of_a_group_stay_closed_with_the_place_of_each():
    connection = connected()
    members = [task(group_id="g", group_index=place, retries=place % 2) for place in range(50)]
    read = closed_in(connection.receive(b"".join(delivery(one, tag) for tag, one in enumerate(members, 1))))
    assert len(read) > 40
    for place, (label, text) in enumerate(read, 50 - len(read)):
        facts = open_plain(text, ACCEPT)[0]
        assert (facts.group, facts.group_index, facts.retries) == ("g", place, place % 2)
        assert label.retries == place % 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"redelivered": True},
        {"exchange": "celery_delayed_1", "routing_key": messages.delay_key(5, messages.own_key("celery"))},
    ],
    ids=["came back", "from the ladder"],
)
def test_what_came_in_another_way_is_opened(arguments):
    assert kept(task()) == [Closed]
    assert kept(task(), **arguments) == [Delivered]


@pytest.mark.parametrize(
    "headers",
    [
        {messages.LOSSES: 1},
        {messages.RETURNS: 1},
        {messages.SERVER_COUNT: 1},
        {messages.UNTIL: 1.5},
        {messages.REDELIVERED: True},
        {"id": None},
        {"task": None},
        {"retries": "three"},
    ],
)
def test_what_has_something_to_be_taken_off_or_no_label_is_opened(headers):
    envelope = task()
    assert kept(msgspec.structs.replace(envelope, headers={**envelope.headers, **headers})) == [Delivered]


def test_what_does_not_say_what_it_is_or_says_so_inside_is_opened():
    assert kept(msgspec.structs.replace(task(), content_type=None)) == [Delivered]
    assert kept(msgspec.structs.replace(task(), content_encoding=None)) == [Delivered]
    assert kept(as_task_v1("i", "w.add", (2, 3), {}, reply_to="here")) == [Delivered]


def test_a_body_without_a_frame_and_one_of_several_are_opened():
    envelope = task()
    for body in (b"", b"x" * (FRAME_MAX + 1)):
        assert kept(envelope, msgspec.structs.replace(envelope, body=body)) == [Closed, Delivered]


def test_nothing_comes_of_a_channel_that_is_closed():
    connection = connected()
    connection.receive(b"".join(delivery(task(), tag) for tag in range(1, 9)))
    assert type(connection.receive(delivery(task()))[0]) is Closed
    connection.close_channel(1)
    assert connection.receive(delivery(task())) == []


def test_a_delivery_amid_another_is_an_error():
    connection = connected()
    connection.receive(b"".join(delivery(task(), tag) for tag in range(1, 9)))
    connection.receive(method(1, "basic.deliver", consumer_tag="c1"))
    with pytest.raises(ProtocolError):
        connection.receive(delivery(task()))


@given(st.lists(st.integers(0, 3), min_size=4, max_size=12), st.lists(st.integers(0, 10_000), max_size=6))
def test_deliveries_say_the_same_however_the_stream_is_split(kinds, cuts):
    names = ["w.add", "w.mul", "w.longer", "w.add"]
    stream = b"".join(delivery(task(names[kind], retries=kind // 3), tag) for tag, kind in enumerate(kinds, 1))
    places = sorted(cut % (len(stream) + 1) for cut in cuts)
    keeping, plain = connected(), connected(kept=False)
    found = []
    for start, stop in zip([0, *places], [*places, len(stream)], strict=True):
        found += keeping.receive(stream[start:stop]) if start < stop else []
    assert each(found) == each(plain.receive(stream))


def result(name, body=b"{}", **properties):
    """A message as the rpc backend sends it."""
    properties = {"correlation_id": name, "delivery_mode": 1, "priority": 0, **properties}
    return Envelope(properties.pop("headers", {}), body, "application/json", "utf-8", properties)


plain_results = st.builds(
    result,
    st.text("ab\u20ac", max_size=3),
    st.binary(max_size=9).map(lambda body: body * 700),
    reply_to=st.none() | st.just("r"),
    headers=st.sampled_from([{}, {}, {}, {"a": 1}]),
)


@given(st.lists(plain_results, max_size=12), st.lists(st.integers(0, 30_000), max_size=4))
def test_messages_without_headers_are_the_same_read_in_one_go_however_the_stream_is_split(results, cuts):
    stream = b"".join(delivery(each, tag, redelivered=tag % 5 == 0) for tag, each in enumerate(results * 2, 1))
    places = sorted(cut % (len(stream) + 1) for cut in cuts)
    alike, plain = connected(heads=closed.OpenHeads), connected(kept=False)
    found = []
    for start, stop in zip([0, *places], [*places, len(stream)], strict=True):
        found += alike.receive(stream[start:stop]) if start < stop else []
    assert found == (plain.receive(stream) if stream else [])


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_damaged_messages_without_headers_are_the_same_read_in_one_go(at, octet):
    alike, plain = connected(heads=closed.OpenHeads), connected(kept=False)
    for tag in (1, 2, 3):
        alike.receive(delivery(result(f"name-{tag}"), tag))
        plain.receive(delivery(result(f"name-{tag}"), tag))
    stream = bytearray(delivery(result("name-4"), 4))
    stream[at % len(stream)] = octet

    def told(connection):
        try:
            return connection.receive(bytes(stream))
        except ProtocolError as error:
            return str(error)

    assert told(alike) == told(plain)


def test_nothing_is_shared_between_messages_without_headers():
    connection = connected(heads=closed.OpenHeads)
    read = [connection.receive(delivery(result("name"), tag))[0] for tag in range(1, 9)]
    read[-1].properties["headers"]["a"] = read[-1].properties["b"] = 1
    again = connection.receive(delivery(result("name"), 9))[0]
    assert again.properties == read[0].properties


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3), st.integers(0, 1))
def test_damaged_deliveries_say_what_they_say_when_they_are_opened(damages, at):
    """Whatever bytes are changed after some were learnt from: the same deliveries, or an error as well."""
    keeping, plain = connected(), connected(kept=False)
    learnt = delivery(task(), 1) + delivery(task(), 2)
    keeping.receive(learnt)
    plain.receive(learnt)
    stream = [bytearray(delivery(task(), 3)), bytearray(delivery(task(), 4))]
    for place, value in damages:
        stream[at][place % len(stream[at])] = value
    outcomes = []
    for connection in (keeping, plain):
        try:
            events = connection.receive(b"".join(stream))
        except ProtocolError:
            outcomes.append("error")
        else:
            outcomes.append(each(events))
    assert repr(outcomes[0]) == repr(outcomes[1])


CASES = {
    "a call": {},
    "limits": {"time_limit": 3, "soft_time_limit": 2.5},
    "a group": {"group_id": "g", "group_index": 3, "parent_id": "p", "root_id": "r"},
    "no result": {"ignore_result": True},
    "stamps": {"stamped_headers": ["s"], "stamps": {"s": ["v"]}},
    "an eta": {"eta": "2020-01-01T00:00:00+00:00"},
}


@pytest.mark.parametrize("case", CASES)
def test_a_child_reads_of_a_text_what_it_reads_of_the_open_message(case):
    connection = connected()
    envelopes = [task(**CASES[case], priority=7) for _ in range(6)]
    events = connection.receive(b"".join(delivery(one, tag) for tag, one in enumerate(envelopes, 1)))
    for (_, text), envelope in zip(closed_in(events), envelopes[2:], strict=True):
        facts, args, kwargs, embed = open_plain(text, ACCEPT)
        assert (facts, args, kwargs, embed) == open_plain(envelope, ACCEPT)
        assert type(facts) is Facts
        sealed = Sealed("application/json", text)
        for name in ("headers", "properties", "body", "content_type", "content_encoding"):
            assert getattr(sealed, name) == getattr(envelope, name)
        assert sealed.info == {
            "exchange": "", "routing_key": "celery", "priority": 7, "redelivered": False,
        }  # fmt: skip


def test_messages_to_several_clients_are_read_with_the_reply_queue_of_each():
    template = Template("w.add", Packing())
    connection = connected()
    stream = b"".join(
        delivery(template.fill(f"id-{tag}", (tag,), {}, reply_to=f"queue-{tag % 3}"), tag) for tag in range(10, 30)
    )
    for tag, (label, text) in enumerate(closed_in(connection.receive(stream)), 12):
        facts, args, *_ = open_plain(text, ACCEPT)
        assert (facts.id, args, facts.reply_to) == (f"id-{tag}", [tag], f"queue-{tag % 3}")
        assert label.id == f"id-{tag}"
    assert tag == 29


@pytest.mark.parametrize("cut", [1, 8, 30, 200])
def test_half_a_text_is_no_message(cut):
    text = delivery(task())[:-1]
    assert open_text(text).envelope.headers["task"] == "w.add"
    with pytest.raises(UnreadableError):
        open_text(text[:cut])
    assert open_plain(text[:cut], ACCEPT) is None
