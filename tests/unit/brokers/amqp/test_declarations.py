"""Declarations equal those of Celery 5.7 to the flag (wire.md 2.2, 2.5)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from celery.brokers.amqp import declarations
from celery.brokers.amqp.methods import METHODS, decode_method, encode_method
from celery.brokers.topology import Exchange, Queue

VECTORS = Path(__file__).parents[3] / "data" / "wire_vectors"


def captured(name):
    """The declarations of a capture, as they would be sent."""
    vectors = json.loads((VECTORS / f"{name}.json").read_text())["vectors"]
    return [
        (
            vector["method"],
            {key: value for key, value in vector.items() if key not in {"connection", "channel", "method"}},
        )
        for vector in vectors
    ]


def on_the_wire(calls):
    """Every argument as a server sees it, those left out included."""
    seen = []
    for method, arguments in calls:
        read = decode_method(encode_method(method, arguments))[1]
        seen.append((method, {key: value for key, value in read.items() if key != "ticket"}))
    return seen


TASKS = Queue("celery", Exchange("celery"), "celery")
PIDBOX = Queue(
    "w1@host.example.celery.pidbox",
    Exchange("celery.pidbox", "fanout", durable=False),
    durable=False,
    exclusive=True,
    auto_delete=True,
    expires=10,
    message_ttl=300,
)


@pytest.mark.parametrize("queue", [TASKS, PIDBOX], ids=["tasks", "pidbox"])
def test_a_queue_is_declared_as_peers_do(queue):
    peers = captured("amqp_topology_worker_default")
    ours = on_the_wire(declarations.queue_calls(queue))
    for method, arguments in ours:
        same_thing = [
            theirs
            for name, theirs in peers
            if name == method and all(theirs.get(key) == arguments.get(key) for key in ("exchange", "queue"))
        ]
        # A node of another name: the captured one stands for it.
        same_thing = same_thing or [
            theirs | {"queue": arguments["queue"]}
            for name, theirs in peers
            if name == method and str(theirs.get("queue", "")).endswith("@host.example.celery.pidbox")
        ]
        assert arguments in same_thing


def test_an_rpc_queue_is_declared_as_peers_do():
    (declared,) = on_the_wire(declarations.queue_calls(Queue("oid", durable=True, auto_delete=True, expires=86400)))
    theirs = next(
        arguments | {"queue": "oid"}
        for method, arguments in captured("amqp_topology_other")
        if method == "queue.declare" and arguments["arguments"] == {"x-expires": 86_400_000}
    )
    assert declared == ("queue.declare", theirs)


def test_the_delay_ladder_is_declared_as_peers_do():
    peers = [call for call in captured("amqp_delay_ladder") if "celery_delayed" in json.dumps(call)]
    ours = on_the_wire(declarations.ladder_calls("quorum"))
    missing = [call for call in ours if call not in peers]
    assert missing == []
    assert len(ours) == 28 * 3 + 1 + 28
    longest = max(len(arguments.get("routing_key", "")) for _, arguments in ours)
    assert longest < 256


def test_peers_find_the_bindings_that_they_publish_to():
    queue = Queue("qq", Exchange("qx", "topic"), "qq.key", queue_arguments={"x-queue-type": "quorum"})
    calls = on_the_wire(declarations.ladder_queue_calls(queue))
    keys = [(method, arguments["routing_key"]) for method, arguments in calls]
    assert keys == [("queue.bind", "#.celery-queue.qq"), ("exchange.bind", "#.qq.key"), ("queue.bind", "#.qq.key")]
    assert on_the_wire(declarations.ladder_queue_calls(TASKS)) == [
        (
            "queue.bind",
            {
                "queue": "celery",
                "exchange": "celery_delayed_delivery",
                "routing_key": "#.celery-queue.celery",
                "nowait": False,
                "arguments": {},
            },
        )
    ]


def test_producers_leave_broadcast_queues_to_consumers():
    queue = Queue("bcast.1", Exchange("news", "fanout"), auto_delete=True)
    assert [method for method, _ in declarations.producer_calls(queue)] == ["exchange.declare"]
    assert [method for method, _ in declarations.queue_calls(queue)] == [
        "exchange.declare",
        "queue.declare",
        "queue.bind",
    ]


def test_what_is_not_to_be_declared_is_not():
    assert declarations.queue_calls(Queue("q", Exchange("amq.topic", "topic"), "k", no_declare=True)) == []
    assert [method for method, _ in declarations.queue_calls(Queue("q", Exchange("x", no_declare=True), "k"))] == [
        "queue.declare",
        "queue.bind",
    ]
    assert all(method in METHODS for method, _ in declarations.queue_calls(TASKS))
