"""Control requests and replies as data (CTL-001 to CTL-003, wire.md 5.1, 5.2)."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery import Celery
from celery.app.mailbox import Mailbox, Request, is_addressed, matches
from celery.exceptions import ContentDisallowed, ImproperlyConfigured
from celery.wire.envelope import Envelope

VECTORS = Path(__file__).parents[2] / "data" / "wire_vectors"
REDIS = json.loads((VECTORS / "control_redis.json").read_text(encoding="utf-8"))["vectors"]
AMQP = json.loads((VECTORS / "control_amqp.json").read_text(encoding="utf-8"))["vectors"]


def requests():
    for vector in REDIS:
        for request in vector["requests"]:
            raw = json.loads(request["raw"])
            yield pytest.param(base64.b64decode(raw["body"]), raw["headers"], raw["properties"], id=vector["name"])
    for number, vector in enumerate(AMQP):
        if vector["args"]["exchange"] == "celery.pidbox":
            yield pytest.param(vector["body"].encode(), vector["headers"], vector["properties"], id=f"amqp-{number}")


def replies():
    for vector in REDIS:
        for reply in vector["replies"]:
            raw = json.loads(reply["raw"])
            address = raw["properties"]["delivery_info"]
            yield pytest.param(base64.b64decode(raw["body"]), raw["headers"], address, id=vector["name"])
    yield pytest.param(AMQP[-1]["body"].encode(), AMQP[-1]["headers"], AMQP[-1]["args"], id="amqp")


@pytest.mark.parametrize(("body", "headers", "properties"), list(requests()))
def test_a_captured_request_is_read_and_written_as_it_was(body, headers, properties):
    mailbox = Mailbox()
    request = mailbox.read_request(Envelope(headers, body))
    message = mailbox.publish_request(request, clock=headers["clock"], expires=headers["expires"])
    assert (message.exchange, message.routing_key) == ("celery.pidbox", "")
    assert (message.queue.name, message.queue.exchange.type) == ("", "fanout")
    assert json.loads(message.envelope.body) == json.loads(body)
    assert message.envelope.headers == headers
    assert (message.envelope.content_type, message.envelope.content_encoding) == ("application/json", "utf-8")
    ours = message.envelope.properties
    assert (ours["delivery_mode"], ours["priority"]) == (properties["delivery_mode"], properties["priority"])


@pytest.mark.parametrize(("body", "headers", "address"), list(replies()))
def test_a_captured_reply_is_read_and_written_as_it_was(body, headers, address):
    mailbox = Mailbox()
    answer = mailbox.read_reply(Envelope(headers, body), headers["ticket"])
    ((node, value),) = answer.items()
    asked = Request(
        "x", {}, ticket=headers["ticket"],
        reply_to={"exchange": address["exchange"], "routing_key": address["routing_key"]},
    )  # fmt: skip
    message = mailbox.publish_reply(asked, node, value, clock=headers["clock"])
    assert (message.exchange, message.routing_key) == (address["exchange"], address["routing_key"])
    assert message.envelope.headers == headers
    assert message.envelope.properties == {"delivery_mode": 1, "priority": 0}
    assert json.loads(message.envelope.body) == json.loads(body)


def test_a_reply_to_another_request_is_passed_over():
    assert Mailbox().read_reply(Envelope({"ticket": "other"}, b"{}"), "mine") is None


class TestQueues:
    """wire.md 2.2."""

    @pytest.mark.parametrize("name", ["node", "reply"])
    def test_queues_vanish_with_their_connection(self, name):
        mailbox = Mailbox.of(Celery(broker="memory://", set_as_current=False).conf)
        queue = mailbox.node_queue("w1@h") if name == "node" else mailbox.reply_queue("oid")
        assert (queue.durable, queue.auto_delete, queue.exclusive, queue.no_ack) == (False, True, True, True)
        assert queue.declared_arguments() == {"x-expires": 10_000, "x-message-ttl": 300_000}
        assert not queue.exchange.durable
        assert not queue.exchange.auto_delete

    def test_names_follow_control_exchange(self):
        app = Celery(broker="memory://", set_as_current=False, control_exchange="other")
        node, reply = app.control.mailbox.node_queue("w1@h"), app.control.mailbox.reply_queue("oid")
        assert (node.name, node.exchange.name, node.exchange.type) == ("w1@h.other.pidbox", "other.pidbox", "fanout")
        assert (reply.name, reply.routing_key) == ("oid.reply.other.pidbox", "oid")
        assert (reply.exchange.name, reply.exchange.type) == ("reply.other.pidbox", "direct")

    def test_durable_queues_are_not_deleted(self):
        settings = {"control_queue_durable": True, "control_queue_exclusive": False, "control_queue_ttl": 7}
        queue = Celery(broker="memory://", set_as_current=False, **settings).control.mailbox.node_queue("w1@h")
        assert (queue.durable, queue.auto_delete, queue.exclusive, queue.message_ttl) == (True, False, False, 7)

    def test_durable_and_exclusive_queues_contradict_each_other(self):
        """CTL-048."""
        app = Celery(broker="memory://", set_as_current=False, control_queue_durable=True)
        with pytest.raises(ImproperlyConfigured, match=r"control_queue_durable.*control_queue_exclusive"):
            _ = app.control


class TestAddressing:
    """wire.md 5.1: the destination counts before the pattern, and nothing means everybody."""

    @pytest.mark.parametrize(
        ("fields", "meant"),
        [
            ({}, True),
            ({"destination": ["a@h", "w1@h"]}, True),
            ({"destination": ["a@h"]}, False),
            ({"destination": ["a@h"], "pattern": "*", "matcher": "glob"}, False),
            ({"pattern": "w*@h", "matcher": "glob"}, True),
            ({"pattern": "W*@h", "matcher": "glob"}, False),
            ({"pattern": "w", "matcher": "glob"}, False),
            ({"pattern": r"w\d", "matcher": "pcre"}, True),
            ({"pattern": "1@h", "matcher": "pcre"}, False),
            ({"pattern": "nobody"}, True),
        ],
    )
    def test_who_is_meant(self, fields, meant):
        assert is_addressed(Request("ping", {}, **fields), "w1@h") is meant

    def test_a_broken_pattern_names_itself(self):
        for pattern in ("(", "w{99999999999999999999}", "(" * 5000):
            with pytest.raises(ValueError, match="for node names is no regular expression"):
                matches("w1@h", pattern, "pcre")

    def test_an_unknown_matcher_lists_the_known_ones(self):
        with pytest.raises(ValueError, match="'fuzzy' for node names: use one of glob, pcre"):
            matches("w1@h", "w", "fuzzy")

    @pytest.mark.filterwarnings("ignore::FutureWarning")  # of [[ and the like
    @given(st.text(min_size=1), st.sampled_from(["glob", "pcre"]))
    def test_any_pattern_gives_an_answer_or_a_clear_error(self, pattern, matcher):
        try:
            answer = matches("w1@h", pattern, matcher)
        except ValueError:
            answer = None
        assert answer in ((True, False) if matcher == "glob" else (True, False, None))


class TestUnreadableRequests:
    @pytest.mark.parametrize(
        "body",
        [
            [],
            {},
            {"method": 3},
            {"method": "ping", "arguments": [1]},
            {"method": "ping", "reply_to": "x"},
            {"method": "ping", "reply_to": {"exchange": "x"}},
            {"method": "ping", "destination": "w1@h"},
        ],
    )
    def test_what_is_no_request_is_refused(self, body):
        with pytest.raises(ValueError, match="control"):
            Mailbox().read_request(Envelope({}, json.dumps(body).encode()))

    def test_a_content_type_that_is_not_accepted_is_not_opened(self):
        with pytest.raises(ContentDisallowed):
            Mailbox().read_request(Envelope({}, b"\x80\x04N.", "application/x-python-serialize", "binary"))

    def test_unknown_keys_are_ignored_and_missing_arguments_are_none(self):
        assert Mailbox().read_request(Envelope({}, b'{"method": "ping", "new": 1}')) == Request("ping", {})
