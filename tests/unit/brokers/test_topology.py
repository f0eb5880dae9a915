"""Matching as AMQP defines it, and reading what users configure with."""

import kombu
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.common import Broadcast

from celery.brokers.topology import Binding, Exchange, Queue, matches, topic_pattern

WORDS = st.sampled_from(["a", "b", "cc", "a-b", "d+"])


def amqp_match(pattern, words):
    """The definition, by recursion over words: `*` is one, `#` any number."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(amqp_match(pattern[1:], words[start:]) for start in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and amqp_match(pattern[1:], words[1:])


@given(
    pattern=st.lists(st.one_of(WORDS, st.sampled_from(["*", "#"])), min_size=1, max_size=5),
    words=st.lists(WORDS, min_size=1, max_size=5),
)
def test_topic_patterns_match_as_defined(pattern, words):
    assert matches("topic", ".".join(pattern), ".".join(words)) == amqp_match(pattern, words)


@pytest.mark.parametrize(
    ("pattern", "key", "taken"),
    [
        ("#", "", True),
        ("a.#", "a", True),
        ("#.a", "a", True),
        ("#.#", "a", True),
        ("*", "", False),
        ("a.b", "axb", False),
    ],
)
def test_topic_edges(pattern, key, taken):
    assert matches("topic", pattern, key) is taken


def test_a_direct_exchange_compares_and_a_fanout_takes_all():
    assert matches("direct", "a.b", "a.b")
    assert not matches("direct", "a.#", "a.b")
    assert matches("fanout", "a", "b")


@pytest.mark.parametrize(
    ("arguments", "headers", "taken"),
    [
        ({"x-match": "all", "a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}, True),
        ({"x-match": "all", "a": 1, "b": 2}, {"a": 1}, False),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"x-match": "any", "a": 1, "b": 2}, {"b": 2}, True),
        ({"x-match": "any", "a": 1}, {"a": 2}, False),
        ({"x-match": "all", "a": None}, {"a": "anything"}, True),
        ({"x-match": "all", "x-other": 1}, {}, True),
        (None, None, True),
    ],
)
def test_headers_are_compared_by_the_bindings_arguments(arguments, headers, taken):
    assert matches("headers", "", "", arguments, headers) is taken


def test_kombus_queues_are_read_by_shape():
    exchange = kombu.Exchange("media", "topic", durable=False, arguments={"alternate-exchange": "rest"})
    queue = Queue.read(
        kombu.Queue(
            "feeds",
            exchange,
            routing_key="feed.#",
            expires=60.5,
            message_ttl=3.0,
            max_length=10,
            max_priority=9,
            queue_arguments={"x-queue-type": "quorum"},
        )
    )
    assert queue.exchange == Exchange("media", "topic", durable=False, arguments={"alternate-exchange": "rest"})
    assert queue.all_bindings() == (Binding(queue.exchange, "feed.#"),)
    assert queue.declared_arguments() == {
        "x-queue-type": "quorum",
        "x-expires": 60500,
        "x-message-ttl": 3000,
        "x-max-length": 10,
        "x-max-priority": 9,
    }
    assert Queue.read(queue) is queue


def test_a_queue_may_have_several_bindings():
    """ROUTE-020."""
    exchange = kombu.Exchange("media", "topic")
    bindings = [
        kombu.binding(exchange, routing_key="video.*", arguments={"a": 1}),
        kombu.binding(exchange, routing_key="x"),
    ]
    read = Exchange("media", "topic")
    found = Queue.read(kombu.Queue("feeds", bindings)).all_bindings()  # kombu keeps a set
    assert sorted(found, key=lambda one: one.routing_key) == [Binding(read, "video.*", {"a": 1}), Binding(read, "x")]


def test_a_queue_without_an_exchange_has_no_binding():
    queue = Queue.read(kombu.Queue("plain"))
    assert queue.all_bindings() == ()
    assert queue.declared_arguments() == {}
    assert not queue.is_broadcast


def test_kombus_broadcast_is_a_fanout_queue():
    """ROUTE-017."""
    queue = Queue.read(Broadcast("news"))
    assert queue.is_broadcast
    assert queue.exchange.name == "news"
    assert queue.auto_delete


def test_an_exchange_may_be_given_by_name():
    assert Exchange.read("x") == Exchange("x")
    assert Exchange.read(None) == Exchange("")


def test_patterns_are_compiled_once():
    assert topic_pattern("a.*.#") is topic_pattern("a.*.#")
