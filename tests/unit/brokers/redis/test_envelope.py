"""Envelopes as text: what peers write is read, what we write is what they read (wire.md 3.1)."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.brokers.redis import dead
from celery.brokers.redis.envelope import encode, marked, read_record, record_pieces, record_suffix
from celery.wire.envelope import Envelope
from celery.wire.sealed import COUNT_HEADER, UnreadableError
from celery.wire.sealed import open_text as decode

plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text()
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
tables = st.dictionaries(st.text(max_size=8), values, max_size=4)
CAPTURED = {
    "body": "W1syLCAzXSwge30sIHt9XQ==",
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": {"task": "w.add", "id": "1", "big": 12345678901234567890123, "ratio": 1e-7},
    "properties": {
        "correlation_id": "1",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "x", "routing_key": "k"},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": "tag",
    },
}


def finite(value):
    if isinstance(value, float):
        return value - value == 0
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    return all(map(finite, value)) if isinstance(value, list) else True


@given(headers=tables.filter(finite), body=st.binary(), exchange=st.text(), key=st.text())
def test_what_is_written_is_read_back(headers, body, exchange, key):
    message = decode(encode(Envelope(headers, body, properties={"priority": 3}), exchange, key))
    assert message.envelope == Envelope(headers, body, properties={"priority": 3})
    assert (message.exchange, message.routing_key) == (exchange, key)


def test_the_text_has_what_peers_require():
    wire = json.loads(encode(Envelope({"id": "1"}, b"\x00\xff", "application/x-msgpack", "binary"), "", "celery"))
    assert base64.b64decode(wire["body"]) == b"\x00\xff"
    assert (wire["content-type"], wire["content-encoding"]) == ("application/x-msgpack", "binary")
    assert wire["properties"]["delivery_info"] == {"exchange": "", "routing_key": "celery"}
    assert wire["properties"]["body_encoding"] == "base64"
    assert len(wire["properties"]["delivery_tag"]) == 36


def test_a_captured_message_is_read():
    message = decode(json.dumps(CAPTURED).encode())
    assert message.envelope.body == b"[[2, 3], {}, {}]"
    assert message.envelope.properties == {"correlation_id": "1", "delivery_mode": 2, "priority": 0}
    assert message[1:] == ("x", "k", False, 0)


@pytest.mark.parametrize("encoding", [None, "utf-8"])
def test_a_body_may_be_plain_text(encoding):
    properties = {"body_encoding": encoding} if encoding else {}
    assert decode(json.dumps({"body": "[é]", "properties": properties}).encode()).envelope.body == "[é]".encode()


def test_what_only_the_standard_library_writes_is_read():
    text = json.dumps({"body": "", "headers": {"nan": float("nan"), "lone": "\ud800"}}).encode()
    headers = decode(text).envelope.headers
    assert headers["nan"] != headers["nan"]
    assert headers["lone"] == "\ud800"


def test_a_lone_surrogate_can_be_sent():
    assert decode(encode(Envelope({"lone": "\ud800"}, b""), "", "q")).envelope.headers == {"lone": "\ud800"}


@given(st.binary() | st.recursive(plain, lambda inner: st.lists(inner)).map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_unreadable_and_nothing_worse(text):
    with pytest.raises(UnreadableError):
        decode(text)


@given(st.dictionaries(st.sampled_from(["body", "content-type", "headers", "properties"]), values))
def test_no_object_makes_reading_fail_in_another_way(wire):
    try:
        read = decode(json.dumps(wire).encode())
    except UnreadableError:
        return
    assert isinstance(read.envelope, Envelope)


@given(queue=st.text(), text=st.just(json.dumps(CAPTURED, indent=1).encode()))
def test_a_record_is_cut_apart_as_text(queue, text):
    assert read_record(b"".join(record_pieces(text, record_suffix(queue)))) == (text, "", queue)


@pytest.mark.parametrize("value", [b"", b"{}", b"[1]", b"[" * 9999, b"\xff", b'[{}, "x"]'])
def test_what_is_no_record_is_unreadable(value):
    with pytest.raises(UnreadableError):
        read_record(value)


def test_marking_changes_the_marks_and_nothing_else():
    text = json.dumps(CAPTURED).encode()
    for count in (1, 2):
        text = marked(text, failed=True)
        wire = json.loads(text)
        assert wire["headers"].pop(COUNT_HEADER) == count
        assert wire["headers"].pop("redelivered") is True
        assert wire["properties"]["delivery_info"].pop("redelivered") is True
        assert wire == CAPTURED
    assert decode(marked(text, failed=False)).failures == 2


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b'{"headers": 3}'])
def test_marking_leaves_alone_what_it_cannot_read(text):
    assert marked(text, failed=True) == text


@given(text=st.binary(), reason=st.text())
def test_a_dead_letter_keeps_the_bytes(text, reason):
    letter = dead.read(dead.write(text, reason), "q")
    assert (letter.message, letter.queue, letter.reason) == (text, "q", reason)
    assert letter.time > 0


@given(st.binary())
def test_a_foreign_entry_of_a_dead_queue_is_shown_as_it_is(value):
    assert dead.read(value, "q").message == value


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 100_000])
def test_a_body_of_any_size_is_written_as_the_base64_of_the_standard_library(size):
    body = bytes(number % 251 for number in range(size))
    message = Envelope({"task": "t", "id": "1"}, body, "application/json", "utf-8", {"priority": 3})
    written = json.loads(encode(message, "", "q"))
    assert next(iter(written)) == "body"
    assert base64.b64decode(written.pop("body"), validate=True) == body
    again = json.loads(encode(msgspec.structs.replace(message, body=b""), "", "q"))
    del again["body"], again["properties"]["delivery_tag"], written["properties"]["delivery_tag"]
    assert written == again


def test_a_header_that_does_not_serialize_is_named():
    envelope = Envelope({"even": 2, "odd": object()}, b"[]")
    with pytest.raises(TypeError, match="The header 'odd' has no form in JSON: <object object"):
        encode(envelope, "", "celery")
