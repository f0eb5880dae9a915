"""From options to an addressed message, as Celery 5.7 makes it, case by case (ROUTE-001..005, API-012..015)."""

from __future__ import annotations

import datetime
import uuid

import pytest
from kombu import Exchange, Queue, binding
from kombu.common import Broadcast

from celery import Celery, signals
from celery.brokers.topology import Queue as Record
from celery.exceptions import EncodeError, ImproperlyConfigured, QueueNotFound

MEDIA = Exchange("media", "topic")
UTC = datetime.UTC


@pytest.fixture
def make():
    """Makes applications on a memory broker of their own."""
    apps = []

    def make(**settings):
        app = Celery("w", broker=f"memory://{uuid.uuid4()}", set_as_current=False)
        app.conf.update(settings)
        app.conf.accept_content = ["json", "pickle", "yaml"]
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()


@pytest.fixture
def published():
    """What receivers of before_task_publish were given."""
    seen = []

    def keep(**given):
        seen.append(given)

    signals.before_task_publish.connect(keep)
    yield seen
    signals.before_task_publish.disconnect(keep)


def message(app, **options):
    """The message of a call, without sending it."""
    return app.amqp.message("i", "pkg.add", (1, 2), None, options)


# -- where it goes

#: settings, options -> (exchange, routing key, the queue that is declared)
ADDRESSES = {
    "nothing said": ({}, {}, ("", "celery", "celery")),
    "another default queue": ({"task_default_queue": "d"}, {}, ("", "d", "d")),
    "a default topic exchange": (
        {"task_default_queue": "d", "task_default_exchange": "x", "task_default_exchange_type": "topic"},
        {},
        ("x", "d", "d"),
    ),
    "a default key": (
        {"task_default_exchange": "x", "task_default_exchange_type": "topic", "task_default_routing_key": "k"},
        {},
        ("x", "k", "celery"),
    ),
    "a direct exchange is not asked": (
        {"task_default_exchange": "x", "task_default_routing_key": "k"},
        {},
        ("", "celery", "celery"),
    ),
    "a queue": ({}, {"queue": "q"}, ("", "q", "q")),
    "no queue": ({}, {"queue": None, "exchange": None, "routing_key": None}, ("", "celery", "celery")),
    "a queue object": ({}, {"queue": Queue("o", MEDIA, routing_key="a.b")}, ("media", "a.b", "o")),
    "a queue object without exchange": ({}, {"queue": Queue("o")}, ("", "o", "o")),
    "a queue object and a key": (
        {},
        {"queue": Queue("o", MEDIA, routing_key="a.b"), "routing_key": "c"},
        ("media", "c", "o"),
    ),
    "a key alone": ({}, {"routing_key": "k"}, ("", "celery", "celery")),
    "an exchange alone": ({}, {"exchange": "x"}, ("", "celery", "celery")),
    "an exchange and a key": ({}, {"exchange": "x", "routing_key": "k"}, ("x", "k", "celery")),
    "an exchange object and a key": ({}, {"exchange": MEDIA, "routing_key": "k"}, ("media", "k", "celery")),
    "no exchange but a key": ({}, {"exchange": "", "routing_key": "k"}, ("", "celery", "celery")),
    "queue, exchange and key": ({}, {"queue": "q", "exchange": "x", "routing_key": "k"}, ("x", "k", "q")),
    "queue and key": ({}, {"queue": "q", "routing_key": "k"}, ("", "q", "q")),
    "queue and exchange": ({}, {"queue": "q", "exchange": "x"}, ("", "q", "q")),
    "a route": ({"task_routes": {"pkg.*": "q"}}, {}, ("", "q", "q")),
    "a route of a key": ({"task_routes": {"pkg.*": {"routing_key": "k"}}}, {}, ("", "celery", "celery")),
    "a route of a priority": ({"task_routes": {"pkg.*": {"priority": 3}}}, {}, ("", "celery", "celery")),
    "a route to an exchange": (
        {"task_routes": {"pkg.*": {"exchange": "x", "exchange_type": "topic", "routing_key": "k"}}},
        {},
        ("x", "k", None),
    ),
    "a route to nothing": ({"task_routes": {"pkg.*": None}}, {}, ("", "celery", "celery")),
    "a route and a queue": ({"task_routes": {"pkg.*": "r"}}, {"queue": "q"}, ("", "q", "q")),
    "another name for routers": ({"task_routes": {"other": "r"}}, {"route_name": "other"}, ("", "r", "r")),
    "declared queues": (
        {"task_queues": [Queue("a", MEDIA, routing_key="m.#"), Queue("b")], "task_default_queue": "b"},
        {"queue": "a"},
        ("media", "m.#", "a"),
    ),
    "the default among declared queues": (
        {"task_queues": [Queue("a", MEDIA, routing_key="a.b")], "task_default_queue": "a"},
        {},
        ("media", "a.b", "a"),
    ),
    "queues as a mapping": (
        {"task_queues": {"a": {"exchange": "x", "exchange_type": "topic", "binding_key": "z.#"}}},
        {"queue": "a"},
        ("x", "z.#", "a"),
    ),
    "an alias": (
        {"task_queues": [Queue("a", MEDIA, routing_key="k", alias="al")]},
        {"queue": "al"},
        ("media", "k", "a"),
    ),
    "a fanout exchange": ({"task_queues": [Queue("a", Exchange("f", "fanout"))]}, {"queue": "a"}, ("f", "celery", "a")),
    "a Broadcast": ({"task_queues": [Broadcast("bt")]}, {"queue": "bt"}, ("bt", "celery", None)),
    "a Broadcast and its exchange": (
        {"task_queues": [Broadcast("bt")]},
        {"queue": "bt", "exchange": "bt"},
        ("bt", "celery", None),
    ),
    "several bindings": (
        {"task_queues": [Queue("a", [binding(MEDIA, routing_key="x")])]},
        {"queue": "a"},
        ("", "a", "a"),
    ),
    "missing queues on topic exchanges": (
        {"task_create_missing_queue_exchange_type": "topic"},
        {"queue": "n"},
        ("n", "n", "n"),
    ),
}


@pytest.mark.parametrize("case", ADDRESSES)
def test_a_message_goes_where_celery_sends_it(make, case):
    settings, options, expected = ADDRESSES[case]
    sent = message(make(**settings), **options)
    assert (sent.exchange, sent.routing_key, sent.queue and sent.queue.name) == expected


def test_a_queue_that_a_call_brings_is_declared_as_it_is(make):
    app = make(task_queue_max_priority=5)
    assert message(app, queue=Queue("o")).queue == Record("o")
    assert message(app, queue="n").queue.declared_arguments() == {"x-max-priority": 5}


def test_queues_follow_the_settings(make):
    app = make()
    assert message(app).queue.declared_arguments() == {}
    app.conf.task_queue_max_priority = 9
    app.conf.task_default_queue_type = "quorum"
    assert message(app).queue.declared_arguments() == {"x-max-priority": 9, "x-queue-type": "quorum"}
    app.conf.task_create_missing_queue_type = "quorum"
    assert message(app, queue="n").queue.declared_arguments()["x-queue-type"] == "quorum"
    app.conf.task_routes = {"pkg.add": "routed"}
    assert message(app).routing_key == "routed"


@pytest.mark.parametrize("options", [{"queue": "new"}, {}])
def test_a_queue_that_may_not_be_created_is_named(make, options):
    app = make(task_create_missing_queues=False, task_routes={"pkg.add": "new"})
    with pytest.raises(QueueNotFound, match="Queue 'new' missing from task_queues"):
        message(app, **options)


def test_an_application_may_make_exchanges_its_own_way(make):
    app = make()
    app.amqp.autoexchange = lambda name: Exchange(f"auto-{name}", "topic")
    sent = message(app, queue="q")
    assert (sent.exchange, sent.routing_key) == ("auto-q", "q")


def test_a_router_may_be_given_for_one_call(make):
    app = make(task_routes={"pkg.add": "configured"})
    other = make(task_routes={"pkg.add": "given"})
    assert message(app, router=other.amqp.Router()).routing_key == "given"


# -- how it goes

#: settings, options -> delivery mode and priority
PROPERTIES = {
    "nothing said": ({}, {}, (2, 0)),
    "a default mode": ({"task_default_delivery_mode": "transient"}, {}, (1, 0)),
    "a mode": ({}, {"delivery_mode": 1}, (1, 0)),
    "a named mode": ({"task_default_delivery_mode": 1}, {"delivery_mode": "persistent"}, (2, 0)),
    "a mode of the exchange": (
        {"task_queues": [Queue("celery", Exchange("t", delivery_mode=1), "celery")]},
        {},
        (1, 0),
    ),
    "a mode of the route": ({"task_routes": {"*": {"delivery_mode": 1}}}, {}, (1, 0)),
    "a priority": ({}, {"priority": 5}, (2, 5)),
    "a default priority": ({"task_default_priority": 6}, {}, (2, 6)),
    "priority zero": ({"task_default_priority": 6}, {"priority": 0}, (2, 0)),
    "a priority of the route": ({"task_default_priority": 6, "task_routes": {"*": {"priority": 8}}}, {}, (2, 8)),
    "priority of call and route": ({"task_routes": {"*": {"priority": 8}}}, {"priority": 1}, (2, 1)),
}


@pytest.mark.parametrize("case", PROPERTIES)
def test_a_message_has_mode_and_priority(make, case):
    settings, options, expected = PROPERTIES[case]
    properties = message(make(**settings), **options).envelope.properties
    assert (properties["delivery_mode"], properties["priority"]) == expected


def test_a_mode_that_does_not_exist_is_named(make):
    with pytest.raises(ValueError, match="'durable'"):
        message(make(), delivery_mode="durable")


def test_other_options_are_properties_of_the_message(make):
    properties = message(make(), MessageGroupId="g", app_id="me", mandatory=True, timeout=3).envelope.properties
    assert (properties["MessageGroupId"], properties["app_id"]) == ("g", "me")
    assert not properties.keys() & {"mandatory", "timeout"}
    assert message(make(), mandatory=True).mandatory


@pytest.mark.parametrize("option", ["countdown", "expires"])
def test_seconds_out_of_range_are_refused(make, option):
    with pytest.raises(ValueError, match=f"{option} of task pkg.add is out of range"):
        make().send_task("pkg.add", **{option: -(2**31) - 1})


@pytest.mark.parametrize("expires", [-30, datetime.datetime(2014, 1, 1, tzinfo=UTC), "2014-01-01T00:00:00"])
def test_what_has_expired_is_sent_with_a_warning(make, expires, caplog):
    sent = message(make(), expires=expires)
    assert sent.envelope.properties["expiration"] == "0"
    assert caplog.records[-1].name == "celery.app.base"
    assert "pkg.add[i] has expired before it was sent" in caplog.text


def test_an_expiry_is_header_and_property(make, caplog):
    sent = message(make(), expires=60).envelope
    assert 55_000 < int(sent.properties["expiration"]) <= 60_000
    left = datetime.datetime.fromisoformat(sent.headers["expires"]) - datetime.datetime.now(UTC)
    assert 55 < left.total_seconds() <= 60
    assert not caplog.records


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_a_time_is_the_same_moment_in_every_zone(make, zone):
    app = make(timezone=zone)
    before = datetime.datetime.now(UTC)
    eta = datetime.datetime.fromisoformat(message(app, countdown=10).envelope.headers["eta"])
    assert 9 < (eta - before).total_seconds() < 12
    aware = datetime.datetime(2044, 1, 1, 5, tzinfo=datetime.timezone(datetime.timedelta(hours=5)))
    sent = message(app, eta=aware)
    assert datetime.datetime.fromisoformat(sent.envelope.headers["eta"]) == aware
    assert sent.until == aware.timestamp()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"serializer": "nosuch"}, "no serializer named 'nosuch'"),
        ({"compression": "nosuch"}, "no compression named 'nosuch'"),
    ],
)
def test_unknown_ways_of_packing_are_named(make, options, complaint):
    with pytest.raises(ImproperlyConfigured, match=complaint):
        message(make(), **options)


def test_an_argument_that_does_not_serialize_is_named(make):
    with pytest.raises(EncodeError, match=r"args\[0\]"):
        make().send_task("pkg.add", (object(),))


def test_an_unknown_protocol_is_named(make):
    with pytest.raises(ImproperlyConfigured, match="task_protocol is 3"):
        message(make(task_protocol=3))


# -- calls by name of tasks that are registered here


def test_a_registered_task_gives_calls_by_name_its_options(make, published):
    app = make()

    @app.task(name="here", shared=False, lazy=False, queue="q", serializer="pickle", expires=60, ignore_result=True)
    def here(): ...

    result = app.send_task("here", ({1, 2},))
    assert result.ignored
    assert (published[0]["routing_key"], published[0]["body"][0]) == ("q", ({1, 2},))
    assert published[0]["headers"]["ignore_result"]
    assert "expiration" not in (app.send_task("here", expires=None) and published[1]["properties"])


def test_a_registered_task_leaves_it_to_the_worker_whether_results_are_kept(make, published):
    app = make()

    @app.task(name="here", shared=False, lazy=False)
    def here(): ...

    app.send_task("here")
    assert published[0]["headers"]["ignore_result"] is None


# -- signals


def waiting(app, queue="celery"):
    return app.publisher.run(lambda sender: sender.length(queue))


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"serializer": "pickle"}, {"serializer": "yaml", "compression": "bzip2"}]
)
def test_a_receiver_may_change_body_headers_and_properties(make, options):
    app, after = make(), []

    def change(body, headers, properties, retry_policy, **_):
        body[1]["added"] = 1
        headers["mine"] = "h"
        properties["app_id"] = "p"
        retry_policy["max_retries"] = 0

    def keep(**given):
        after.append(given)

    signals.before_task_publish.connect(change)
    signals.after_task_publish.connect(keep)
    try:
        app.send_task("pkg.add", (1,), {"k": 2}, task_id="i", **options)
    finally:
        signals.before_task_publish.disconnect(change)
        signals.after_task_publish.disconnect(keep)
    (given,) = after
    assert tuple(given["body"][0]) == (1,)
    assert given["body"][1:] == ({"k": 2, "added": 1}, dict.fromkeys(("callbacks", "errbacks", "chain", "chord")))
    assert given["headers"]["mine"] == "h"
    assert (given["sender"], given["exchange"], given["routing_key"]) == ("pkg.add", "", "celery")
    assert waiting(app) == 1


def test_receivers_see_a_message_of_protocol_1_as_a_mapping(make, published):
    make(task_protocol=1).send_task("pkg.add", (1,), task_id="i")
    assert (published[0]["body"]["task"], published[0]["body"]["args"]) == ("pkg.add", [1])


def test_a_receiver_that_raises_does_not_stop_the_message(make):
    app = make()

    def broken(**_):
        raise RuntimeError

    signals.before_task_publish.connect(broken)
    try:
        app.send_task("pkg.add")
    finally:
        signals.before_task_publish.disconnect(broken)
    assert waiting(app) == 1


# -- what to declare beside it


def test_queues_to_declare_can_be_given(make):
    app = make()
    app.send_task("pkg.add", declare=[Queue("extra", MEDIA, routing_key="a.#")])
    app.send_task("pkg.add", exchange="media", routing_key="a.b", exchange_type="topic")
    assert waiting(app, "extra") == 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"exchange": 5}, "exchange 5 is none"),
        ({"queue": 5}, "queue 5 is none"),
        ({"priority": "high"}, "priority 'high' is none"),
        ({"priority": 2.5}, "priority 2.5 is none"),
        ({"priority": [1]}, r"priority \[1\] is none"),
    ],
)
def test_an_option_of_the_wrong_kind_is_named(make, options, complaint):
    with pytest.raises((TypeError, ValueError), match=complaint):
        message(make(), **options)


def test_a_default_priority_of_the_wrong_kind_is_named(make):
    with pytest.raises(ImproperlyConfigured, match="'task_default_priority' is 'high'"):
        message(make(task_default_priority="high"))


@pytest.mark.parametrize(("priority", "sent"), [(None, 0), (0, 0), ("3", 3), (-1, -1), (300, 300), (True, 1)])
def test_any_whole_number_is_a_priority(make, priority, sent):
    """Celery takes the text of one on Redis; each broker takes the nearest one that it has."""
    assert message(make(), priority=priority).envelope.properties["priority"] == sent
