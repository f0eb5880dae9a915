"""Where messages arrive: the same table on every broker, with two workers that share its queues (ROUTE-014..023)."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from contextlib import ExitStack

import pytest
from harness import SOON, wait_until
from kombu import Exchange, Queue, binding
from kombu.common import Broadcast

from celery import Celery
from celery.app.brokers import driver
from celery.contrib.testing.worker import start_worker
from celery.exceptions import ImproperlyConfigured
from celery.utils import worker_direct

BROKERS = [
    pytest.param("memory"),
    pytest.param("sqlite"),
    pytest.param("redis", marks=pytest.mark.needs("redis")),
    pytest.param("rabbitmq", marks=pytest.mark.needs("rabbitmq")),
]

#: Queues that the first worker consumes (-Q); the second consumes all but these (-X).
FIRST = ("direct1", "topic1", "fanout1", "headers1", "several", "alone")
SECOND = ("direct2", "topic2", "fanout2", "headers2", "made")

#: Options of a call -> the workers that it reaches, each as often as it is named.
CASES = {
    "a queue by name": ({"queue": "direct1"}, [1]),
    "a direct exchange": ({"exchange": "direct", "routing_key": "b", "exchange_type": "direct"}, [2]),
    "a key that nobody has": ({"exchange": "direct", "routing_key": "c", "exchange_type": "direct"}, []),
    "a topic of one": ({"exchange": "topic", "routing_key": "video.avi"}, [1]),
    "a topic of the other": ({"exchange": "topic", "routing_key": "audio.best.mp4"}, [2]),
    "a topic of both": ({"exchange": "topic", "routing_key": "video.mp4"}, [1, 2]),
    "a topic of none": ({"exchange": "topic", "routing_key": "audio.wav"}, []),
    "the key of a topic queue": ({"queue": "topic2", "routing_key": "video.mp4"}, [1, 2]),
    "a fanout exchange": ({"queue": "fanout1"}, [1, 2]),
    "all headers": ({"queue": "headers1", "headers": {"kind": "pdf", "size": 3}}, [1, 2]),
    "one header": ({"queue": "headers1", "headers": {"kind": "pdf"}}, [2]),
    "no header": ({"exchange": "headers", "exchange_type": "headers"}, []),
    "one of several bindings": ({"exchange": "topic", "routing_key": "second.binding"}, [1]),
    "another binding": ({"exchange": "direct", "routing_key": "third", "exchange_type": "direct"}, [1]),
    "a queue that nobody declared": ({"queue": "made"}, [2]),
    "a Broadcast": ({"queue": "everybody"}, [1, 2]),
    "a queue of one worker": ({"queue": "of the second worker"}, [2]),
    "a route": ({"route_name": "routed"}, [1]),
}


class World:
    """A broker, names that nobody else uses there, and a record of what ran."""

    def __init__(self, name, url):
        self.name = name
        self.url = url
        self.mark = uuid.uuid4().hex[:8]
        self.ran = []
        self.changed = threading.Condition()
        self.apps = []

    def named(self, name):
        return f"{name}-{self.mark}" if name else name

    def app(self, **settings):
        app = Celery("w", broker=self.url, backend="disabled", set_as_current=False)
        app.conf.update(worker_hijack_root_logger=False, task_default_queue=self.named("default"), **settings)
        world = self

        @app.task(name="note", bind=True, shared=False)
        def note(self, label):
            world.record(label, self.request)

        @app.task(name="outer", bind=True, shared=False)
        def outer(self, label):
            note.delay(f"{label} inner")
            world.record(label, self.request)

        self.apps.append(app)
        return app

    def record(self, label, request):
        with self.changed:
            self.ran.append((label, request.hostname, (request.delivery_info or {}).get("priority")))
            self.changed.notify_all()

    def wait(self, condition):
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self.ran), SOON), sorted(self.ran, key=str)
            return list(self.ran)

    def close(self):
        for app in self.apps:
            app.close()


@pytest.fixture(params=BROKERS)
def world(request, tmp_path):
    if request.param == "memory":
        url = f"memory://{uuid.uuid4()}"
    elif request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'celery.sqlite'}"
    else:
        url = request.getfixturevalue("redis_database" if request.param == "redis" else "rabbitmq_url")
    world = World(request.param, url)
    yield world
    world.close()


def queues_of_the_table(world):
    """Kombu's own objects, as users write them."""
    direct, topic, fanout, headers = (
        Exchange(world.named(kind), kind) for kind in ("direct", "topic", "fanout", "headers")
    )
    return [
        Queue(world.named("default")),
        Queue(world.named("direct1"), direct, routing_key="a"),
        Queue(world.named("direct2"), direct, routing_key="b"),
        Queue(world.named("topic1"), topic, routing_key="video.*"),
        Queue(world.named("topic2"), topic, routing_key="#.mp4"),
        Queue(world.named("fanout1"), fanout),
        Queue(world.named("fanout2"), fanout),
        Queue(world.named("headers1"), headers, binding_arguments={"x-match": "all", "kind": "pdf", "size": 3}),
        Queue(world.named("headers2"), headers, binding_arguments={"x-match": "any", "kind": "pdf", "size": 3}),
        Queue(
            world.named("several"),
            [binding(topic, routing_key="second.*"), binding(direct, routing_key="third")],
        ),
        Queue(world.named("alone"), direct, routing_key="routed"),
        Broadcast(world.named("everybody")),
    ]


def test_every_broker_brings_tasks_to_the_same_workers(world):
    def application():
        return world.app(task_queues=queues_of_the_table(world), worker_direct=True)

    nodes = {f"w{number}@{world.mark}": number for number in (1, 2)}
    first, second = nodes
    mine, others = [world.named(name) for name in FIRST], [world.named(name) for name in SECOND]
    sender = application()
    sender.conf.task_routes = {"routed": {"queue": world.named("alone")}}
    one, two = application(), application()
    everybody = [next(iter(app.amqp.queues.aliases)) for app in (one, two)]
    two.amqp.queues.add(world.named("made"))
    with ExitStack() as stack:
        for app, node, chosen in (
            (one, first, {"queues": [*mine, everybody[0]]}),
            (two, second, {"exclude_queues": [*mine, world.named("default")]}),
        ):
            stack.enter_context(start_worker(app, hostname=node, perform_ping_check=False, **chosen))
        for label, (options, _) in CASES.items():
            given = {
                name: world.named(value) if name in ("queue", "exchange") else value for name, value in options.items()
            }
            if options.get("queue") == "of the second worker":
                given["queue"] = worker_direct(second)
            sender.send_task("note", (label,), **given)
        # One more into every queue: what comes before it in the same queue was all there was.
        for name in (*mine, *others):
            sender.send_task("note", ("end",), queue=Queue(name))
        expected = Counter((label, node) for label, (_, reached) in CASES.items() for node in reached)
        ends = Counter(("end", 1 + (name in others)) for name in (*mine, *others))
        ran = world.wait(lambda ran: not (expected + ends) - Counter((label, nodes[node]) for label, node, _ in ran))
    assert Counter((label, nodes[node]) for label, node, _ in ran) == expected + ends


def test_priorities_order_what_waits(world):
    high_first = driver(world.url).Sender.capabilities.high_priority_first
    app = world.app(task_queue_max_priority=10, worker_prefetch_multiplier=1)
    app.conf.task_default_priority = 3
    for priority in (6, 0, 9, None):
        options = {} if priority is None else {"priority": priority}
        app.send_task("note", (priority,), **options)
    with start_worker(app, perform_ping_check=False):
        ran = world.wait(lambda ran: len(ran) == 4)
    order = [label for label, *_ in ran]
    assert order == ([9, 6, None, 0] if high_first else [0, None, 6, 9])
    assert {label: priority for label, _, priority in ran} == {0: 0, None: 3, 6: 6, 9: 9}


def test_children_inherit_the_priority_of_their_parent(world):
    app = world.app(task_inherit_parent_priority=True, task_queue_max_priority=10)
    app.send_task("outer", ("a",), priority=6)
    with start_worker(app, perform_ping_check=False):
        ran = world.wait(lambda ran: len(ran) == 2)
    assert {(label, priority) for label, _, priority in ran} == {("a", 6), ("a inner", 6)}


def test_a_worker_does_not_consume_a_queue_that_may_not_be_created(world):
    app = world.app(task_create_missing_queues=False)
    with (
        pytest.raises(ImproperlyConfigured, match="'nowhere'"),
        start_worker(app, perform_ping_check=False, queues="nowhere"),
    ):
        pass


def test_a_queue_with_arguments_is_made_with_them(world):
    name = world.named("limited")
    app = world.app(task_queues=[Queue(name, queue_arguments={"x-max-length": 1000}, max_priority=5, message_ttl=60)])
    app.conf.task_default_queue = name
    app.send_task("note", ("a",))
    with start_worker(app, perform_ping_check=False):
        world.wait(lambda ran: len(ran) == 1)
    wait_until(lambda: app.publisher.run(lambda sender: sender.length(name)) == 0, "an empty queue")
