"""Messages that are alike are the same on the wire as one that is written by itself."""

from __future__ import annotations

import datetime
import json

import msgspec
import pytest

from celery.brokers.amqp.cuts import content_header
from celery.brokers.amqp.fields import FieldError
from celery.brokers.amqp.frames import encode_content_header
from celery.brokers.amqp.messages import properties_of
from celery.brokers.redis import envelope as redis
from celery.brokers.sqlite import messages as sqlite
from celery.wire.envelope import Envelope
from celery.wire.forms import plain
from celery.wire.protocol import CallOptions, Packing, Template, read_task
from celery.wire.sealed import open_text
from celery.wire.serializers import resolve_accept

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
KINDS = {
    "plain": {},
    "a workflow": {"own": {"group_id": "g", "root_id": "r", "parent_id": "p", "callbacks": [{"task": "next"}]}},
    "a place of its own": {"own": {"group_id": "g", "group_index": 7}},
    "shown otherwise": {"own": {"argsrepr": "(secret)", "kwargsrepr": "%s %b %%"}},
    "one repr given": {"own": {"kwargsrepr": "{...}"}},
    "headers that win": {"own": {"headers": {"id": "mine", "x": "100%", "origin": "me", "group_index": 3}}},
    "properties that win": {"packing": {"properties": {"correlation_id": "c", "reply_to": "q", "user_id": "\u00fc"}}},
    "times": {"own": {"countdown": 10, "expires": 60, "now": NOW}},
    "pickled": {"packing": {"serializer": "pickle"}},
    "compressed": {"packing": {"compression": "zlib"}},
    "urgent": {"packing": {"priority": 9, "delivery_mode": 1, "time_limit": 5, "ignore_result": True}},
}
CALLS = [
    ("an-id", (), {}, None),
    ("another", (2, 3), {}, 4),
    ('with "quotes" and \\', ("%", "\u00fc\u4e16", None), {"k": [1, {"a": 2}]}, 0),
    ("", ("x" * 3000,), {"y": "z" * 2000}, 1),
    ("surrogate", ("\ud800",), {}, None),
]


def filled(kind, call):
    template = Template("t.add%s", Packing(**KINDS[kind].get("packing", {})), CallOptions(**KINDS[kind].get("own", {})))
    task_id, args, kwargs, place = call
    # Again and again: the first message of a kind is written by itself, the others by what they have in common.
    return [
        template.fill(task_id, args, kwargs, reply_to=f"r{number}", origin="o", group_index=place)
        for number in range(4)
    ]


def without_tag(text):
    message = json.loads(text)
    return message, message["properties"].pop("delivery_tag")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0][:8] or "no id")
def test_messages_of_one_kind_are_written_for_rabbitmq_as_each_by_itself(kind, call):
    for message in filled(kind, call):
        by_itself = encode_content_header(properties_of(plain(message)), len(message.body))
        assert content_header(message) == by_itself


def test_an_id_that_is_too_long_for_rabbitmq_is_refused_by_name():
    for message in filled("plain", ("x" * 256, (), {}, None)):
        with pytest.raises(FieldError, match="correlation_id"):
            content_header(message)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0][:8] or "no id")
def test_messages_of_one_kind_are_written_for_redis_as_each_by_itself(kind, call):
    tags = set()
    for message in filled(kind, call):
        # With what is written in place of another one's, too.
        alone, its_tag = without_tag(redis.encode(plain(message), 'an "exchange"', "k%s"))
        alike, tag = without_tag(redis.encode(message, 'an "exchange"', "k%s"))
        assert alike == alone
        assert list(alike["headers"]) == list(alone["headers"])
        tags |= {tag, its_tag}
    assert len(tags) == 8
    assert {len(tag) for tag in tags} == {36}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", CALLS[:-1], ids=lambda call: call[0][:8] or "no id")
def test_messages_of_one_kind_are_the_same_bytes_in_the_embedded_store_as_each_by_itself(kind, call):
    for message in filled(kind, call):
        assert sqlite.encode(message) == msgspec.msgpack.encode(plain(message))


def test_messages_of_one_kind_have_their_own_ids_arguments_and_places():
    template = Template("t.add", Packing())
    sent = [
        template.fill(f"id{number}", (number,), {"n": number}, reply_to="r", origin="o", group_index=number)
        for number in range(5)
    ]
    for number, message in enumerate(sent):
        read = open_text(redis.encode(message, "", "celery"))
        task = read_task(read.envelope, resolve_accept(["json"]))
        assert (task.id, task.args, task.kwargs) == (f"id{number}", [number], {"n": number})
        headers = task.headers
        assert headers["root_id"] == f"id{number}"
        assert headers["group_index"] == number
        assert (headers["argsrepr"], headers["kwargsrepr"]) == (f"({number},)", f"{{'n': {number}}}")
        assert read.envelope.properties["correlation_id"] == f"id{number}"


def test_a_message_says_who_sends_it_after_that_has_changed():
    template = Template("t.add", Packing())
    origins = ["before", "before", "after", "after", "before"]
    sent = [template.fill("i", (), {}, reply_to="r", origin=origin) for origin in origins]
    assert [message.headers["origin"] for message in sent] == origins
    assert [open_text(redis.encode(message, "", "q")).envelope.headers["origin"] for message in sent] == origins


def test_a_message_that_is_to_travel_is_an_envelope():
    message = Template("t.add", Packing()).fill("i", (1,), {}, reply_to="r", origin="o")
    envelope = plain(message)
    assert type(envelope) is Envelope
    assert plain(envelope) is envelope
    assert (envelope.headers, envelope.properties) == (message.headers, message.properties)
    assert (envelope.body, envelope.content_type, envelope.content_encoding) == (
        message.body, message.content_type, message.content_encoding,
    )  # fmt: skip
