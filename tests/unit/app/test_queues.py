"""The queues of an application (ROUTE-011..019)."""

from __future__ import annotations

import pytest
from kombu import Exchange, Queue
from kombu.common import Broadcast

from celery import Celery
from celery.app.queues import Queues
from celery.brokers import topology
from celery.exceptions import ImproperlyConfigured

DEFAULT = topology.Exchange("celery")


def queues_of(**settings):
    app = Celery("w", broker="memory://", set_as_current=False)
    app.conf.update(settings)
    return app.amqp.queues


def known(**arguments):
    return Queues([Queue("a"), Queue("b"), Queue("c")], DEFAULT, default_routing_key="k", **arguments)


def where(queue):
    return queue.name, queue.exchange.name, queue.exchange.type, queue.routing_key


# -- declared


def test_with_nothing_declared_there_is_the_default_queue():
    queues = queues_of()
    assert [where(queue) for queue in queues.values()] == [("celery", "celery", "direct", "celery")]
    queues = queues_of(task_default_queue="d", task_default_exchange="x", task_default_exchange_type="topic")
    assert [where(queue) for queue in queues.values()] == [("d", "x", "topic", "d")]


def test_the_default_queue_may_be_a_quorum_queue():
    (queue,) = queues_of(task_default_queue_type="quorum").values()
    assert queue.declared_arguments() == {"x-queue-type": "quorum"}


def test_what_a_declared_queue_does_not_say_is_the_default():
    queues = queues_of(
        task_queues=[Queue("a"), Queue("b", routing_key="kb"), Queue("c", Exchange("xc", "topic"), routing_key="kc")],
        task_default_exchange="x",
        task_default_routing_key="k",
    )
    assert [where(queue) for queue in queues.values()] == [
        ("a", "x", "direct", "k"),
        ("b", "x", "direct", "kb"),
        ("c", "xc", "topic", "kc"),
    ]


def test_queues_may_be_a_mapping():
    queues = queues_of(
        task_queues={
            "a": {"exchange": "xa", "exchange_type": "topic", "routing_key": "ka", "max_priority": 3},
            "b": {"binding_key": "kb"},
            "c": Queue("c", Exchange("xc"), "kc"),
        }
    )
    assert [where(queue) for queue in queues.values()] == [
        ("a", "xa", "topic", "ka"),
        ("b", "celery", "direct", "kb"),
        ("c", "xc", "direct", "kc"),
    ]
    assert queues["a"].declared_arguments() == {"x-max-priority": 3}


def test_an_unknown_option_of_a_queue_is_named():
    with pytest.raises(ImproperlyConfigured, match=r"task_queues\['a'\] has unknown options: colour"):
        queues_of(task_queues={"a": {"colour": "red"}})


def test_priorities_are_given_to_queues_that_say_nothing_of_them():
    queues = queues_of(
        task_queue_max_priority=9,
        task_queues=[Queue("a"), Queue("b", max_priority=3), Queue("c", queue_arguments={"x-max-priority": 5, "x": 1})],
    )
    assert [queues[name].declared_arguments() for name in "abc"] == [
        {"x-max-priority": 9},
        {"x-max-priority": 3},
        {"x-max-priority": 5, "x": 1},
    ]


def test_arguments_are_declared_as_rabbitmq_takes_them():
    (queue,) = queues_of(
        task_queues=[Queue("a", expires=1.5, message_ttl=60, max_length=10, queue_arguments={"x-delivery-limit": 3})]
    ).values()
    assert queue.declared_arguments() == {
        "x-delivery-limit": 3, "x-expires": 1500, "x-message-ttl": 60_000, "x-max-length": 10,
    }  # fmt: skip


def test_a_broadcast_has_a_queue_for_each_consumer():
    first, second = (queues_of(task_queues=[Broadcast("all")])["all"] for _ in range(2))
    assert first.name != second.name
    assert (first.exchange, first.is_broadcast, first.auto_delete) == (second.exchange, True, True)


# -- missing


@pytest.mark.parametrize(
    ("settings", "expected", "arguments"),
    [
        ({}, ("n", "n", "direct", "n"), {}),
        ({"task_create_missing_queue_exchange_type": "topic"}, ("n", "n", "topic", "n"), {}),
        ({"task_create_missing_queue_type": "quorum"}, ("n", "n", "direct", "n"), {"x-queue-type": "quorum"}),
        ({"task_queue_max_priority": 5}, ("n", "n", "direct", "n"), {"x-max-priority": 5}),
    ],
)
def test_a_missing_queue_is_made(settings, expected, arguments):
    queues = queues_of(**settings)
    assert where(queues["n"]) == expected
    assert queues["n"].declared_arguments() == arguments
    assert queues["n"] is queues["n"]


def test_a_missing_queue_may_be_forbidden():
    queues = queues_of(task_create_missing_queues=False)
    with pytest.raises(KeyError, match="n"):
        queues["n"]
    with pytest.raises(KeyError):
        queues.select("celery,n")


def test_an_unknown_type_of_missing_queues_is_named():
    with pytest.raises(ValueError, match="'stream' in task_create_missing_queue_type"):
        _ = queues_of(task_create_missing_queue_type="stream")["n"]


def test_an_alias_is_another_name():
    queues = Queues([Queue("a", alias="first")], DEFAULT)
    assert queues["first"] is queues["a"]
    assert set(queues) == {"a"}


# -- consumed


def test_a_worker_consumes_what_is_declared():
    assert list(known().consume_from) == ["a", "b", "c"]


def test_selected_queues_are_consumed_alone():
    queues = known()
    queues.select("a,new")
    assert list(queues.consume_from) == ["a", "new"]
    queues.select(["b"])
    assert list(queues.consume_from) == ["b"]
    queues.select(None)
    assert list(queues.consume_from) == ["b"]


def test_excluded_queues_are_not_consumed():
    queues = known()
    queues.deselect("a,never-heard-of")
    assert list(queues.consume_from) == ["b", "c"]
    queues.select("b,c")
    queues.deselect(["c"])
    assert list(queues.consume_from) == ["b"]


def test_added_queues_are_consumed_beside_selected_ones():
    queues = known()
    queues.select_add("mine", routing_key="km")
    queues.select("a")
    assert list(queues.consume_from) == ["a", "mine"]
    assert where(queues["mine"]) == ("mine", "celery", "direct", "km")


def test_the_banner_lists_what_is_consumed():
    queues = Queues([Queue("b", Exchange("x", "topic"), "k.#"), Queue("a")], DEFAULT, default_routing_key="k")
    first = ".> a                exchange=celery(direct) key=k"
    second = ".> b                exchange=x(topic) key=k.#"
    assert queues.format() == f"{first}\n{second}"
    assert queues.format(indent=2) == f"  {first}\n  {second}"
    assert queues.format(indent=2, indent_first=False) == f"{first}\n  {second}"
    queues.deselect("a,b")
    assert queues.format() == ""


def test_queues_can_be_entered_by_options():
    queues = known()
    assert where(queues.add_compat("d", exchange="x", exchange_type="fanout", binding_key="kd")) == (
        "d", "x", "fanout", "kd",
    )  # fmt: skip
    assert queues.add(topology.Queue("e")).exchange == DEFAULT
