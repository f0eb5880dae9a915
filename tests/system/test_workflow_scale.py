"""Large workflows, at a tenth of the size that `make bench` has them in: latency, memory, order, size of messages."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
import tracemalloc
import uuid

import pytest
from harness import wait_until

from celery import Celery, chain, chord, group, signals, signature
from celery.contrib.testing.worker import start_worker

STORES = ["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis"))]
SIZE = 10_000

#: Sends a group of a generator; says when it began, and by how much its memory grew (KiB).
PRODUCER = """
import resource, sys, time
from celery import Celery, group, signature

broker, backend, queue, size = sys.argv[1:]
app = Celery(broker=broker, backend=backend)
app.conf.task_default_queue = queue

def send(size):
    return group(signature("project.record", (str(n),), app=app) for n in range(size)).apply_async()

send(100)
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.time()
result = send(int(size))
print(began, time.time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(result))
"""


@pytest.fixture(params=STORES)
def stage(request, make_stage):
    return make_stage(request.param)


@pytest.mark.timeout(90)
def test_a_group_from_a_generator_is_sent_as_it_is_drawn_in_little_memory(stage):
    stage.worker()
    command = [sys.executable, "-c", PRODUCER, stage.broker, stage.backend, stage.queue, str(SIZE)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    began, ended, kilobytes, count = map(float, said.split())
    assert count == SIZE
    assert kilobytes < 10_000
    first = min(entry.time for entry in stage.ledger.entries("ran") if entry.time > began)
    assert first < began + 1
    assert first < ended
    wait_until(lambda: len(stage.ledger.entries("ran")) == SIZE + 100, "all of them", 60)


@pytest.mark.timeout(90)
def test_groups_after_groups_are_sent_in_less_memory_than_their_messages_take(stage):
    """Fifty messages of 540 KB (on Redis 720), which have all but their arguments in common."""
    echo = signature("project.echo", (1,), app=stage.app, immutable=True)
    groups = [group([echo] * 50)] * 50
    workflow = chain(*groups, echo)
    chain(*groups[:2]).apply_async()  # what is imported for it
    tracemalloc.start()
    try:
        workflow.apply_async()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 17_000_000


@pytest.mark.timeout(120)
def test_a_large_chord_gives_its_body_all_values_in_order_once(stage):
    """And takes about as long as the group of its members: the bound is wide, for machines that are busy."""
    stage.worker()
    members = [signature("project.add", (number, 0), app=stage.app) for number in range(SIZE)]

    def seconds(workflow):
        began = time.monotonic()
        value = workflow.apply_async().get(timeout=60)
        return time.monotonic() - began, value

    alone, values = seconds(group(members))
    counted, body = seconds(chord(members, signature("project.echo", app=stage.app)))
    assert values == body == list(range(SIZE))
    print(f"{counted / alone:.2f}")
    assert counted < 2.5 * alone + 1


@pytest.fixture
def sizes():
    """Bytes of messages sent, by a function that says what to send."""
    seen = []

    def keep(body, **_):
        seen.append(len(repr(body)))

    signals.before_task_publish.connect(keep)

    def sizes(make):
        seen.clear()
        make().apply_async()
        return list(seen)

    yield sizes
    signals.before_task_publish.disconnect(keep)


@pytest.fixture
def step():
    with Celery(broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        numbers = itertools.count()
        yield lambda: signature("project.add", (next(numbers),), app=app)


def test_messages_of_a_long_chain_grow_with_its_length_and_no_faster(sizes, step):
    """CANVAS-080."""
    short, long = (sizes(lambda count=count: chain(*(step() for _ in range(count))))[0] for count in (50, 100))
    assert long < 2.2 * short


def test_messages_of_groups_after_groups_grow_with_what_is_left_and_no_faster(sizes, step):
    """CANVAS-080: no member carries more than what comes after it, once."""

    def nested(count):
        return chain(step(), *(group(*(step() for _ in range(10))) for _ in range(count)))

    few, many = (sizes(lambda count=count: nested(count))[0] for count in (5, 10))
    assert many < 2.2 * few
    of_header = sizes(lambda: chain(*(group(*(step() for _ in range(10))) for _ in range(10))))
    assert len(of_header) == 10
    assert max(of_header) < many


def test_what_a_worker_sends_of_groups_after_groups_is_what_is_left_once_for_each_member():
    """CANVAS-080: from the second group on, which has the root in it, each is shorter than the one before, evenly."""
    deep, across, seen = 20, 5, []

    def keep(body, **_):
        seen.append(len(repr(body)))

    with Celery(broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        app.conf.task_default_queue = f"scale-{uuid.uuid4()}"  # one memory is for all tests of a process

        @app.task(name="scale.nothing")
        def nothing(*_):
            return None

        groups = [group(nothing.si() for _ in range(across)) for _ in range(deep)]
        signals.before_task_publish.connect(keep)
        try:
            with start_worker(app, perform_ping_check=False):
                chain(*groups, nothing.s()).apply_async().get(timeout=30)
        finally:
            signals.before_task_publish.disconnect(keep)
    assert len(seen) == deep * across + 1
    sizes = [max(seen[first : first + across]) for first in range(0, deep * across, across)]
    assert sizes[1] < 1.2 * sizes[0]
    shorter = [before - after for before, after in itertools.pairwise(sizes[1:])]
    assert max(shorter) < 1.2 * min(shorter)
