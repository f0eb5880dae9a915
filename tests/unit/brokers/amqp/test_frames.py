"""Frames, properties and the two hot methods."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.brokers.amqp.errors import ProtocolError
from celery.brokers.amqp.fields import FieldError
from celery.brokers.amqp.frames import (
    BODY,
    HEADER,
    HEARTBEAT_FRAME,
    METHOD,
    FrameReader,
    content_frames,
    decode_content_header,
    decode_deliver,
    encode_content_header,
    encode_frame,
    publish_frame,
)
from celery.brokers.amqp.methods import decode_method, encode_method

VECTORS = Path(__file__).parents[3] / "data" / "wire_vectors"
PUBLISHED = [
    pytest.param(vector, id=f"{name}-{number}")
    for name in ("task_messages_amqp", "results_rpc_amqp", "delayed_delivery_delivered_amqp", "events_amqp")
    for number, vector in enumerate(json.loads((VECTORS / f"{name}.json").read_text())["vectors"])
    if vector.get("method") in {"basic.publish", "basic.deliver"}
]

names = st.text(max_size=60)
properties = st.fixed_dictionaries(
    {},
    optional={
        "content_type": names,
        "content_encoding": names,
        "headers": st.dictionaries(st.text(max_size=10), st.none() | st.integers(-9, 9) | st.text(max_size=9)),
        "delivery_mode": st.integers(0, 255),
        "priority": st.integers(0, 255),
        "correlation_id": names,
        "reply_to": names,
        "expiration": names,
        "message_id": names,
        "timestamp": st.integers(0, 2**63),
        "type": names,
        "user_id": names,
        "app_id": names,
        "cluster_id": names,
    },
)
frames = st.tuples(st.sampled_from([METHOD, HEADER, BODY, 8]), st.integers(0, 65535), st.binary(max_size=300))


@given(properties, st.integers(0, 2**40))
def test_properties_read_as_they_were_written(given_properties, size):
    assert decode_content_header(encode_content_header(given_properties, size)) == (size, given_properties)


@pytest.mark.parametrize("vector", PUBLISHED)
def test_captured_messages_travel_unchanged(vector):
    wanted = {**vector["properties"], "headers": vector["headers"]}
    body = vector["body"].encode() if isinstance(vector["body"], str) else json.dumps(vector["body"]).encode()
    reader = FrameReader()
    stream = b"".join(content_frames(1, encode_content_header(wanted, len(body)), body, 4096))
    header, *bodies = reader.feed(stream)
    assert header[0] == HEADER
    assert decode_content_header(header[2]) == (len(body), wanted)
    assert b"".join(payload for _, _, payload in bodies) == body


def test_a_captured_publish_names_its_target_and_flags():
    for parameter in PUBLISHED:
        arguments = parameter.values[0]["args"]
        if "immediate" in arguments:
            frame = publish_frame(3, arguments["exchange"], arguments["routing_key"], mandatory=arguments["mandatory"])
            ((kind, channel, payload),) = FrameReader().feed(frame)
            assert (kind, channel) == (METHOD, 3)
            assert decode_method(payload)[1] == {"ticket": 0, **arguments}


def test_unset_and_foreign_properties_stay_behind():
    size, read = decode_content_header(encode_content_header({"priority": None, "made_up": 1, "type": "t"}, 0))
    assert (size, read) == (0, {"type": "t"})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"priority": 256}, "priority: 256"),
        ({"expiration": 60}, "expiration: 60"),
        ({"headers": {"a": object()}}, "headers: a: "),
        ({"correlation_id": "x" * 256}, "correlation_id: .*255"),
        ({"timestamp": "now"}, "timestamp"),
    ],
)
def test_a_property_that_does_not_fit_is_named(wrong, words):
    with pytest.raises(FieldError, match=words):
        encode_content_header(wrong, 0)


@pytest.mark.parametrize(
    "damaged", [b"\x80\x00\x05ab", b"\x20\x00\x00\x00\x00\x05\x01aZ", b"\x00\x01", b"\x00\x00left"]
)
def test_unreadable_properties_cost_only_themselves(damaged):
    assert decode_content_header(b"\x00\x3c\x00\x00" + (7).to_bytes(8, "big") + damaged) == (7, None)


def test_headers_that_exceed_a_frame_are_refused_with_their_size():
    with pytest.raises(FieldError, match="4088 at most"):
        content_frames(1, encode_content_header({"headers": {"a": "x" * 5000}}, 0), b"", 4096)


@given(st.binary(max_size=3000), st.integers(1, 500))
def test_a_body_is_cut_into_frames_of_the_negotiated_size(body, limit):
    reader = FrameReader()
    _, *bodies = reader.feed(b"".join(content_frames(9, encode_content_header({}, len(body)), body, 64 + limit)))
    assert all(kind == BODY and channel == 9 and len(payload) <= 56 + limit for kind, channel, payload in bodies)
    assert b"".join(payload for _, _, payload in bodies) == body


@given(st.lists(frames, max_size=8), st.data())
def test_frames_come_out_whole_however_the_stream_is_split(sent, data):
    stream = b"".join(encode_frame(*frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    reader, got = FrameReader(), []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += reader.feed(stream[start:stop])
    assert got == sent


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_garbage_makes_frames_or_an_error(chunks):
    reader = FrameReader()
    with contextlib.suppress(ProtocolError):
        for chunk in chunks:
            assert all(len(payload) < reader.frame_max for _, _, payload in reader.feed(chunk))


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"AMQP\x00\x00\x09\x01", "asks for version 0.9.1"),
        (b"HTTP/1.1 400", "is this an AMQP port"),
        (b"\x15\x03\x01\x00\x02\x02\x46\x00", "amqps://"),
        (b"\x01\x00\x00\x7f\xff\xff\xff\x00", "exceeds the negotiated 4096"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00", "instead of 0xce"),
    ],
)
def test_what_is_no_frame_says_what_it_may_be(stream, words):
    with pytest.raises(ProtocolError, match=words):
        list(FrameReader().feed(stream))


def test_a_heartbeat_is_a_frame():
    assert list(FrameReader().feed(HEARTBEAT_FRAME)) == [(8, 0, b"")]


@given(names, st.integers(0, 2**64 - 1), st.booleans(), names, names)
def test_a_deliver_method_reads_as_the_table_says(consumer_tag, delivery_tag, redelivered, exchange, routing_key):
    fields = {
        "consumer_tag": consumer_tag,
        "delivery_tag": delivery_tag,
        "redelivered": redelivered,
        "exchange": exchange,
        "routing_key": routing_key,
    }
    assert decode_deliver(encode_method("basic.deliver", fields)) == tuple(fields.values())
