"""Messages as one text: their label, and what is inside (wire.md 3.1)."""

import base64
import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from celery.wire.label import label_of
from celery.wire.protocol import as_task_v2, read_headers
from celery.wire.sealed import UnreadableError, open_text, read_label

BODY = b"[[2, 3], {}, {}]"


def text(body=BODY, headers=None, encode=base64.b64encode, **properties):
    """A message as peers write it."""
    headers = {"task": "w.add", "id": "1", **(headers or {})}
    properties = {
        "body_encoding": "base64",
        "delivery_info": {"exchange": "x", "routing_key": "k"},
        "delivery_tag": "t",
        "priority": 3,
        **properties,
    }
    whole = {
        "body": encode(body).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers,
        "properties": properties,
    }
    return json.dumps(whole).encode()


def test_a_label_says_what_the_headers_say():
    options = {"countdown": 5, "expires": 9, "time_limit": 5.0, "now": datetime.now(UTC), "reply_to": "r"}
    sent = as_task_v2("1", "w.add", (2, 3), **options).headers
    closed = read_label(text(headers=sent))
    known = label_of(read_headers(open_text(text(headers=sent)).envelope))
    for name in ("task", "id", "eta", "expires", "timelimit"):
        assert getattr(closed.label, name) == getattr(known, name)


@pytest.mark.parametrize(
    ("headers", "redelivered", "failures"),
    [
        ({}, False, 0),
        ({"redelivered": True}, True, 0),
        ({"x-delivery-count": 3}, False, 3),
        ({"x-delivery-count": "3"}, False, 0),
    ],
)
def test_what_the_transport_says_is_read_with_the_label(headers, redelivered, failures):
    closed, opened = read_label(text(headers=headers)), open_text(text(headers=headers))
    assert (closed.exchange, closed.routing_key) == (opened.exchange, opened.routing_key) == ("x", "k")
    assert closed.redelivered is opened.redelivered is redelivered
    assert closed.failures == opened.failures == failures


@pytest.mark.parametrize(
    "headers",
    [{"task": None}, {"id": ""}, {"id": 7}, {"retries": "1"}, {"timelimit": [1]}, {"stamps": []}, {"expires": 3}],
    ids=repr,
)
def test_what_is_not_of_the_usual_kind_has_to_be_opened(headers):
    assert read_label(text(headers=headers)) is None
    assert open_text(text(headers=headers)).envelope.headers["task"] == {"task": "w.add", **headers}["task"]


def test_a_closed_message_opens_itself():
    envelope, opened = read_label(text()).envelope, open_text(text()).envelope
    assert envelope.headers == opened.headers == {"task": "w.add", "id": "1"}
    assert envelope.properties == opened.properties == {"priority": 3}
    assert envelope.body == opened.body == BODY
    assert (envelope.content_type, envelope.content_encoding) == ("application/json", "utf-8")


def test_only_who_asks_for_the_body_finds_that_it_is_damaged():
    envelope = read_label(text(encode=lambda _: b"!a")).envelope
    assert envelope.headers["id"] == "1"
    with pytest.raises(UnreadableError):
        assert envelope.body


@pytest.mark.parametrize("size", [256, 30_000])
@pytest.mark.parametrize("encode", [base64.encodebytes, lambda body: base64.b64encode(body) + b"\n"])
def test_base64_may_have_line_breaks(encode, size):
    body = bytes(number % 256 for number in range(size))
    assert open_text(text(body, encode=encode)).envelope.body == body


WITHOUT_PYBASE64 = """
import sys
sys.modules["pybase64"] = None
from celery.wire.sealed import open_text
print(open_text(sys.stdin.buffer.read()).envelope.body.decode())
"""


def test_a_long_body_is_the_same_where_nothing_speeds_base64_up():
    command = [sys.executable, "-c", WITHOUT_PYBASE64]
    ended = subprocess.run(command, input=text(LONG), capture_output=True, timeout=30, check=True)
    assert ended.stdout.strip() == open_text(text(LONG)).envelope.body == LONG


def test_a_body_without_encoding_is_text():
    plain = text('["\xfc", {}, {}]'.encode(), encode=lambda body: body, body_encoding=None)
    assert open_text(plain).envelope.body == '["\xfc", {}, {}]'.encode()


@pytest.mark.parametrize("broken", [b"", b"{}", b"[]", b'{"body": 5}', b'{"body": null, "headers": {"task": "t"}}'])
def test_what_is_no_message_is_refused(broken):
    assert read_label(broken) is None
    with pytest.raises(UnreadableError):
        open_text(broken)


LONG = b'["' + b"x" * 20_000 + b'"]'


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")], ids=["ours", "peers"])
@pytest.mark.parametrize("order", [1, -1], ids=["body first", "body last"])
def test_a_long_message_reads_like_a_short_one_however_it_is_written(separators, order):
    whole = json.loads(text(LONG, headers={"redelivered": True, "x-delivery-count": 2}))
    written = json.dumps(dict(list(whole.items())[::order]), separators=separators).encode()
    closed, opened = read_label(written), open_text(written)
    assert (closed.label.id, closed.exchange, closed.redelivered, closed.failures) == ("1", "x", True, 2)
    assert opened.envelope.body == closed.envelope.body == LONG
    assert opened.envelope.headers == whole["headers"] == closed.envelope.headers
    assert (opened.exchange, opened.redelivered, opened.failures) == ("x", True, 2)


@pytest.mark.parametrize("end", ['"', "\\", '\\"', '",', '","headers":{}', "\n", "ü"])
def test_a_long_body_of_text_may_hold_anything(end):
    body = "x" * 20_000 + end
    written = text(body.encode(), encode=bytes, body_encoding="utf-8")
    assert open_text(written).envelope.body == body.encode()
    assert read_label(written).envelope.headers["task"] == "w.add"
    escaped = text((end + body).encode(), encode=bytes, body_encoding="utf-8")
    assert open_text(escaped).envelope.body == (end + body).encode()


@pytest.mark.parametrize("cut", [5_000, -1, -200])
def test_a_long_message_that_was_cut_off_is_refused(cut):
    broken = text(LONG)[:cut]
    assert read_label(broken) is None
    with pytest.raises(UnreadableError):
        open_text(broken)
