"""Calls become the messages that Celery 5.7 was seen to send for them (wire.md 1.1 to 1.7, API-026)."""

from __future__ import annotations

import datetime
import json
import re
from base64 import b64decode
from pathlib import Path

import pytest
import redis

from celery import Celery

VECTORS = Path(__file__).parents[2] / "data/wire_vectors/task_messages_redis.json"
CAPTURED = {vector["name"]: vector for vector in json.loads(VECTORS.read_text())["vectors"]}
#: Workflows have tests of their own, and one vector needs values that are not in its text.
CALLS = [
    name
    for name, vector in CAPTURED.items()
    if re.match(r"(add|ident|ign)\.(delay|apply_async)\(|app\.send_task\(", vector["call"])
    and not re.search(r"chord|group|rich", vector["call"])
]
#: Seconds that two clocks, and the time a call takes, may differ.
NEAR = 5.0


@pytest.fixture
def app(redis_url):
    with Celery("w", broker=redis_url, set_as_current=False) as app:
        yield app


def tasks_of(app):
    def make(name, function, **options):
        return app.task(name=f"w.{name}", shared=False, lazy=False, **options)(function)

    return {
        "app": app,
        "datetime": datetime,
        "UTC": datetime.UTC,
        "add": make("add", lambda x, y: x + y),
        "ident": make("ident", lambda x, **kw: x),
        "ign": make("ign", lambda: None, ignore_result=True),
        "errback": make("errback", lambda request, exc, traceback: None),
        "errback_old": make("errback_old", lambda uuid: None),
    }


def comparable(raw, ids, ahead):
    """A message without what differs each time. Times near the call's own become distances from it."""
    message = json.loads(raw)
    message["body"] = b64decode(message["body"]) if "compression" not in message["headers"] else "compressed"
    if message["content-type"] == "application/json" and message["body"] != "compressed":
        message["body"] = json.loads(message["body"])
    properties, headers = message["properties"], message["headers"]
    body = message["body"] if isinstance(message["body"], dict) else {}
    for place in (properties, headers, body):
        for name in ("correlation_id", "id", "root_id"):
            if place.get(name):
                place[name] = ids.setdefault(place[name], f"id {len(ids)}")
        for name in ("eta", "expires"):
            if place.get(name) and not place[name].startswith("2030"):
                place[name] = ahead(datetime.datetime.fromisoformat(place[name]))
    assert properties.pop("reply_to")
    assert properties.pop("delivery_tag")
    assert re.fullmatch(r"gen\d+@.+", headers.pop("origin", "gen1@h"))
    for text_for_people in ("argsrepr", "kwargsrepr"):
        headers.pop(text_for_people, None)
        properties.pop(text_for_people, None)  # Celery has these two here as well when they are given, to no use
    if "expiration" in properties:
        properties["expiration"] = len(properties["expiration"])
    return message


@pytest.mark.parametrize("name", CALLS)
def test_a_call_becomes_the_message_that_was_captured(app, redis_url, name):
    vector = CAPTURED[name]
    (captured,) = vector["messages"]
    app.conf.task_protocol = 1 if name.startswith("v1") else 2
    called = datetime.datetime.now(datetime.UTC)
    eval(vector["call"], tasks_of(app))  # noqa: S307 - the text of our own test data
    with redis.Redis.from_url(redis_url) as server:
        (sent,) = server.lrange(bytes.fromhex(captured["key_bytes_hex"]), 0, -1)
    expected = comparable(captured["raw"], {}, lambda _: "soon")

    def ahead(moment):
        assert moment.tzinfo is not None
        assert 0 < (moment - called).total_seconds() < 60 + NEAR
        return "soon"

    assert comparable(sent, {}, ahead) == expected
