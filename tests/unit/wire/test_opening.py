"""Messages, opened as far as running their task takes: what that says is what a whole reading says."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from celery.brokers.redis.envelope import encode
from celery.exceptions import CeleryError
from celery.wire.envelope import Envelope
from celery.wire.opening import open_plain
from celery.wire.protocol import as_task_v1, as_task_v2, read_task
from celery.wire.sealed import open_text
from celery.wire.serializers import resolve_accept

ACCEPT = resolve_accept(["json", "msgpack"])
STEP = {"task": "w.add", "args": [1], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
AROUND = ("callbacks", "errbacks", "chain", "chord")


def sent(**options):
    return as_task_v2("an-id", "w.add", (2, [3]), {"z": {"é": None}}, reply_to="here", **options)


def odd(body=None, **headers):
    body = [[2, 3], {}, {}] if body is None else body
    return Envelope({"task": "w.add", "id": "i", **headers}, json.dumps(body).encode())


PLAIN = {
    "a call": sent(),
    "limits": sent(time_limit=3, soft_time_limit=2.5),
    "a group": sent(group_id="g", group_index=3, parent_id="p", root_id="r"),
    "no result": sent(ignore_result=True),
    "a custom header": sent(headers={"group": "mine", "children": 3, "reply_to": "elsewhere"}),
    "stamps": sent(stamped_headers=["s"], stamps={"s": ["v"]}),
    "callbacks": sent(callbacks=[STEP], errbacks=[STEP]),
    "a chain in a chord": sent(chain=[STEP, STEP], chord=STEP),
    "a long chain": sent(chain=[STEP] * 50, chord=STEP),
    "a large argument": as_task_v2("an-id", "w.add", ("x" * 10_000,), {}, reply_to="here"),
    "not before, not after": sent(eta="2020-01-01T00:00:00", expires=9, now=datetime.now(UTC)),
    "few headers": odd(),
    "null headers": odd(retries=None, timelimit=None, stamps=None, eta=None),
    "an embed with more": odd([[2, 3], {}, {"callbacks": [], "mine": 1}]),
}
#: What takes a whole reading, and what is wrong with it, if anything.
OTHERS = {
    "msgpack": (sent(serializer="msgpack"), None),
    "compressed": (sent(compression="zlib"), None),
    "protocol 1": (as_task_v1("i", "w.add", (2, 3), reply_to="here"), None),
    "extension types": (odd([[{"__type__": "decimal", "__value__": "1"}], {}, {}]), None),
    "no embed": (odd([[2, 3], {}, None]), None),
    "no arguments": (odd([None, None, {}]), None),
    "a hybrid": (odd({"args": [2, 3], "kwargs": {}}), None),
    "another encoding": (msgspec.structs.replace(odd(), content_encoding="latin-1"), None),
    "no id": (odd(id=""), "no id"),
    "retries of a wrong type": (odd(retries="3"), "retries"),
    "three limits": (odd(timelimit=[1, 2, 3]), "timelimit"),
    "an eta that is none": (odd(eta="tomorrow"), "eta"),
    "arguments that are no list": (odd([{}, {}, {}]), "args"),
    "a broken body": (Envelope({"task": "w.add", "id": "i"}, b"[[2, 3], {}"), "body"),
    "a type that is not accepted": (msgspec.structs.replace(odd(), content_type="application/x-yaml"), "yaml"),
}


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize("case", PLAIN)
def test_what_is_opened_so_far_is_what_a_whole_reading_gives(case, closed):
    envelope = PLAIN[case]
    opened = open_plain(encode(envelope, "", "celery") if closed else envelope, ACCEPT)
    assert opened is not None
    facts, args, kwargs, embed = opened
    whole = read_task(envelope, ACCEPT)
    assert (args, kwargs) == (whole.args, whole.kwargs)
    assert {name: getattr(embed, name) or None for name in AROUND} == whole.embed
    for name in ("task", "id", "group", "parent_id", "ignore_result"):
        assert getattr(facts, name) == whole.headers[name]
    assert facts.reply_to == envelope.properties.get("reply_to")
    assert not facts.children


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize("case", OTHERS)
def test_what_is_not_plain_is_left_to_a_whole_reading(case, closed):
    envelope, wrong = OTHERS[case]
    assert open_plain(encode(envelope, "", "celery") if closed else envelope, ACCEPT) is None
    if wrong is None:
        read_task(envelope, ACCEPT)
    else:
        with pytest.raises((CeleryError, Exception), match=wrong):
            read_task(envelope, ACCEPT)


@pytest.mark.parametrize("size", [10, 10_000])
def test_a_body_that_is_not_in_base64_is_left_to_a_whole_reading(size):
    """Though it might be: letters are base64 too."""
    text = json.dumps({"body": "a" * 4 * size, "headers": {"task": "t", "id": "i"}, "properties": {}}).encode()
    assert open_plain(text, ACCEPT) is None
    assert open_text(text).envelope.body == b"a" * 4 * size


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"body": "!", "headers": {}, "properties": {}}', b"\xff" * 5000])
def test_what_is_no_message_is_left_to_a_whole_reading(text):
    assert open_plain(text, ACCEPT) is None
