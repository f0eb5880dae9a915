"""Messages between envelopes and AMQP, and the keys of the delay ladder (wire.md 2.5)."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from celery.brokers.amqp import messages
from celery.brokers.base import Publish
from celery.brokers.topology import Exchange, Queue, topic_pattern
from celery.wire.envelope import Envelope

VECTORS = Path(__file__).parents[3] / "data" / "wire_vectors"
DELIVERED = json.loads((VECTORS / "delayed_delivery_delivered_amqp.json").read_text())["vectors"][0]


def test_an_envelope_is_its_properties_and_back():
    envelope = Envelope({"task": "w.add"}, b"[]", properties={"correlation_id": "1", "priority": 3})
    properties = messages.properties_of(envelope)
    assert properties["content_type"] == "application/json"
    assert messages.envelope_of(dict(properties), b"[]") == envelope
    assert messages.envelope_of({}, b"").content_type is None


def test_priorities_out_of_range_become_the_nearest():
    found = [messages.properties_of(Envelope({}, b"", properties={"priority": p}))["priority"] for p in (-1, 12, 300)]
    assert found == [0, 12, 255]


def test_a_message_from_the_ladder_of_a_peer_has_its_own_key_again():
    exchange, key = messages.origin_of(DELIVERED["args"]["exchange"], DELIVERED["args"]["routing_key"])
    assert (exchange, key) == ("celery_delayed_delivery", "qq.key")
    assert messages.origin_of("celery_delayed_1", messages.delay_key(4, "qq.key")) == (
        "celery_delayed_delivery",
        "qq.key",
    )
    assert messages.delay_key(3.9, "qq.key") == DELIVERED["args"]["routing_key"]


def test_a_message_sent_again_loses_the_traces_of_the_ladder():
    envelope = Envelope(DELIVERED["headers"], b"", properties={"expiration": "100"})
    again = messages.again(envelope, **messages.Counts(2).headers())
    assert not [name for name in again.headers if name.startswith(("x-death", "x-first", "x-last"))]
    assert messages.take_counts(again.headers, False) == messages.Counts(2)
    assert messages.take_due_time(again.headers) is None
    assert again.properties == {"expiration": "100"}
    delayed = messages.delayed(envelope, 5.5, **messages.Counts(0, 3).headers())
    assert messages.take_due_time(delayed.headers) == 5.5
    assert messages.take_counts(delayed.headers, False) == messages.Counts(0, 3)
    assert not [name for name in delayed.headers if name.startswith("x-celery")]
    assert delayed.properties == {}


@given(st.floats(0, 2**28), st.from_regex(r"[a-z]{1,8}(\.[a-z01]{1,8}){0,3}", fullmatch=True))
def test_every_delay_leads_back_to_its_queue(delay, queue):
    key = messages.delay_key(delay, messages.own_key(queue))
    digits = key.split(".")[: messages.LEVELS]
    assert int("".join(digits), 2) == min(int(delay), messages.LONGEST_DELAY)
    assert topic_pattern("#." + messages.own_key(queue)).fullmatch(key)
    for level in ("celery_delayed_0", messages.LADDER_EXIT):
        assert messages.origin_of(level, key) == ("", queue)
    assert messages.origin_of(queue, key) == (queue, key)


def test_producers_use_the_ladder_as_peers_do():
    quorum = {"x-queue-type": "quorum"}
    cases = [
        (Queue("q", Exchange("x", "topic"), "k", queue_arguments=quorum), "x", 5, True),
        (Queue("q", Exchange("x", "topic"), "k", queue_arguments=quorum), "x", 0.9, False),
        (Queue("q", Exchange("x", "direct"), "k", queue_arguments=quorum), "x", 5, False),
        (Queue("q", Exchange("x", "topic"), "k"), "x", 5, False),
        (Queue("q", Exchange("x", "topic"), "k", queue_arguments=quorum), "", 5, False),
        (None, "x", 5, False),
    ]
    for queue, exchange, delay, expected in cases:
        publish = Publish(Envelope({}, b""), exchange, "k", queue)
        assert messages.takes_ladder(publish, delay) is expected


def test_a_return_weighs_a_quarter_of_a_loss():
    weighed = [messages.Counts(*counts).failures for counts in [(0, 0), (0, 3), (0, 4), (2, 7), (5, 0), (0, 20)]]
    assert weighed == [0, 0, 1, 3, 5, 5]


def test_a_message_that_came_back_is_counted_by_its_header_and_not_by_the_server():
    headers = {messages.LOSSES: 1, messages.RETURNS: 2, messages.SERVER_COUNT: 7, "mine": 1}
    assert messages.take_counts(dict(headers), False) == (1, 2)
    assert messages.take_counts(headers, True) == (1, 3)
    assert headers == {"mine": 1}


def test_a_count_that_a_stranger_wrote_is_harmless():
    for odd in ("x", None, -3, 1.5):
        headers = {messages.LOSSES: odd, messages.RETURNS: odd, messages.SERVER_COUNT: odd}
        assert messages.take_counts(headers, False) == messages.NOTHING
    assert messages.take_due_time({messages.UNTIL: "soon"}) is None
