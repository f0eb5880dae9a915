"""Workers of both Celerys come, die and stop beside each other."""

import time
import uuid

import pytest
from fleet import Fleet, wait_until

#: Seconds after which a message that a dead worker held is due on Redis; the whole fleet shares it (wire.md 7, 5).
VISIBILITY = 2
OTHER = {"ours": "theirs", "theirs": "ours"}


@pytest.fixture(params=["redis", pytest.param("rabbitmq", marks=pytest.mark.needs("rabbitmq"))])
def fleet(request, redis_url, tmp_path, celery57):
    """A fleet of the test's own, without workers."""
    if request.param == "redis":
        fleet = Fleet(redis_url, redis_url, tmp_path, celery57, visibility_timeout=VISIBILITY)
    else:
        fleet = Fleet(request.getfixturevalue("rabbitmq_url"), redis_url, tmp_path, celery57)
    yield fleet
    fleet.close()


@pytest.mark.parametrize("dies", ["ours", "theirs"])
def test_what_a_killed_worker_held_is_run_by_the_other_side(fleet, dies):
    """wire.md 3.6: unacknowledged messages, and those that wait for their time."""
    heir, key = OTHER[dies], uuid.uuid4().hex[:8]
    client = fleet.client(heir)
    client.do(f"block_late.delay({key!r}) and 0")
    worker = fleet.worker(dies, "-c", "2")
    fleet.wait_noted("start", key)
    due = time.time() + 3 + VISIBILITY
    client.do(f"record.apply_async(({key!r} + '-later',), countdown=3) and 0")
    client.do(f"until(lambda: app.control.inspect(['{dies}@host'], limit=1).scheduled()['{dies}@host'])")
    # On RabbitMQ ours sends it to wait, then acknowledges it: between the two it would come twice (docs/guarantees.md).
    # Settling keeps the order, so when a second later task has its result, both are done.
    client.do("[add.delay(1, 1).get(timeout=20) for _ in range(2)]")
    fleet.kill(worker.process)
    # Theirs looks for what is due when it starts, and then only every 100 seconds.
    if fleet.options and heir == "theirs":
        fleet.wait_until_time(due)
    fleet.open_gate(key)
    fleet.worker(heir)
    assert fleet.wait_noted("end", key) == [heir]
    assert fleet.wait_noted("ran", f"{key}-later") == [heir]


def test_each_side_stops_the_workers_of_the_other(fleet):
    workers = {side: fleet.worker(side) for side in OTHER}
    clients = {side: fleet.client(side) for side in OTHER}
    for side, worker in workers.items():
        fleet.wait_ready(worker, side)
    for side, worker in workers.items():
        clients[OTHER[side]].do(f"app.control.shutdown(destination=['{side}@host'])")
        assert worker.wait_end() == 0, worker.said()
    assert clients["ours"].do("app.control.ping(timeout=0.3)") == []


def test_chains_are_run_by_both_sides(fleet):
    """Ours keeps a step that follows while it has nothing else to do; the others are there for whoever is idle."""
    key = uuid.uuid4().hex[:8]
    for side in OTHER:
        fleet.wait_ready(fleet.worker(side), side)
    step = f"record.si({key!r})"
    fleet.client("ours").do(f"[celery.chain([{step}] * 20).apply_async() for _ in range(12)] and 0")
    wait_until(lambda: len(fleet.noted("ran", key)) >= 240, lambda: f"{len(fleet.noted('ran', key))} of 240")
    ran = fleet.noted("ran", key)
    assert len(ran) == 240
    assert min(ran.count(side) for side in OTHER) >= 5
