"""What a worker keeps in memory is bounded, and no message ends it (architecture: back-pressure, poison)."""

import json
import random
import time

import pytest
from harness import Stage, measured, size, wait_until
from proxy import Proxy

from celery.wire.envelope import Envelope

MEGABYTE = 1 << 20


def envelope(task, *args, **headers):
    """A message as a client makes it."""
    task_id = f"{random.getrandbits(64):016x}"
    return Envelope(
        {"lang": "py", "task": f"project.{task}", "id": task_id, "retries": 0, **headers},
        json.dumps([args, {}, {}]).encode(),
        properties={"correlation_id": task_id, "reply_to": "", "delivery_mode": 2, "priority": 0},
    )


@pytest.mark.timeout(size(120, 900))
def test_far_etas_do_not_fill_the_memory(stage):
    worker = stage.worker("-c", "1")
    stage.send("record", "first")
    stage.ledger.wait("ran", "first")
    before = worker.memory()
    for _ in range(size(20, 100)):
        stage.publish([envelope("record", "never", eta="2099-01-01T00:00:00+00:00") for _ in range(1000)])
    wait_until(lambda: stage.waiting() == 0, stage.waiting, size(60, 600))
    stage.send("record", "last")
    stage.ledger.wait("ran", "last")
    grown = worker.memory() - before
    measured(stage, "far etas", grown_by_megabytes=round(grown / MEGABYTE, 1))
    assert grown < 50 * MEGABYTE


def test_what_a_worker_cannot_do_yet_stays_in_the_queue(stage):
    worker = stage.worker("-c", "2")
    keys = [stage.key(), stage.key()]
    stage.send_all("block", [(key,) for key in keys])
    for key in keys:
        stage.ledger.wait("start", key)
    before = worker.memory()
    stage.publish([envelope("echo", "x" * 10_000) for _ in range(2000)])
    time.sleep(0.5)  # time for it to take what it should not
    assert stage.waiting() > 1900
    assert worker.memory() - before < 10 * MEGABYTE
    for key in keys:
        stage.open_gate(key)
    wait_until(lambda: stage.waiting() == 0, stage.waiting)
    assert worker.memory() - before < 50 * MEGABYTE
    assert worker.stop() == 0


@pytest.mark.needs("redis")
@pytest.mark.timeout(120)
def test_results_that_a_slow_store_does_not_take_do_not_pile_up(redis_database, private_redis, tmp_path):
    store = private_redis()
    with Proxy(int(store.url.rpartition(":")[2].partition("/")[0])) as proxy:
        stage = Stage("redis", redis_database, f"redis://127.0.0.1:{proxy.port}/0", tmp_path)
        try:
            worker, total = stage.worker("-c", "2"), 3000
            results = [stage.send("produce", "key", 100_000) for _ in range(10)]
            for result in results:
                result.get(timeout=20)
            before = worker.memory()
            proxy.slow(MEGABYTE / 5)
            stage.publish([envelope("produce", "key", 100_000) for _ in range(total)])
            still_for(2.0, lambda: len(stage.ledger.entries("ran")))
            # 300 MB would have come of it.
            assert stage.waiting() > total / 3
            assert worker.memory() - before < 100 * MEGABYTE
            proxy.slow(None)
            stage.ledger.wait("ran", times=total + 10, seconds=60)
            assert worker.stop() == 0
        finally:
            stage.close()


def still_for(seconds, count):
    """Return when a number has not grown for so long."""
    seen, since = count(), time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(0.05)
        if (now := count()) > seen:
            seen, since = now, time.monotonic()


JUNK = [None, "", 0, -1, 1e308, True, [], {}, "x" * 5000, "\x00\ud7ff", [[[]]], {"a": {"b": []}}, 2**62]


def damaged(chance):
    """A message with something wrong."""
    whole = envelope("record", "damaged")
    headers, properties, body = dict(whole.headers), dict(whole.properties), whole.body
    content_type, encoding = whole.content_type, whole.content_encoding
    junk = chance.choice(JUNK)
    kind = chance.randrange(6)
    if kind == 0:
        headers[chance.choice([*headers, "eta", "expires", "timelimit", "group", "stamps", "root_id", "shadow"])] = junk
    elif kind == 1:
        headers.pop(chance.choice(list(headers)))
    elif kind == 2:
        body = bytes(chance.randrange(256) for _ in range(chance.randrange(60)))
    elif kind == 3:
        body = body[: chance.randrange(len(body))]
    elif kind == 4:
        content_type = chance.choice(["application/x-python-serialize", "text/plain", "", "application/x-msgpack"])
    else:
        encoding = chance.choice(["binary", "no-such", "", "utf-16"])
    return Envelope(headers, body, content_type=content_type, content_encoding=encoding, properties=properties)


@pytest.mark.timeout(size(150, 900))
def test_damaged_messages_neither_end_a_worker_nor_hinder_good_ones(stage):
    chance = random.Random(5)
    worker = stage.worker("-c", "2")
    children = set(worker.children())
    keys = [stage.key() for _ in range(size(60, 200))]
    for key in keys:
        stage.publish([damaged(chance) for _ in range(size(50, 100))])
        stage.send("record", key)
    for key in keys:
        stage.ledger.wait("ran", key, seconds=size(60, 300))
    wait_until(lambda: stage.waiting() == 0, stage.waiting, size(60, 300))
    measured(stage, "damaged messages", damaged=len(keys) * size(50, 100), good=len(keys), processes_died=0)
    assert worker.process.poll() is None
    assert set(worker.children()) == children
    assert worker.stop() == 0
