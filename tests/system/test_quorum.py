"""Quorum queues of RabbitMQ from call to result: they count losses themselves, limit each consumer, and delay through
the ladder (ROUTE-025..027, wire.md 2.4 and 2.5).
"""

import time

import pytest
from harness import Stage, wait_until

pytestmark = pytest.mark.needs("rabbitmq")


@pytest.fixture(scope="module")
def stage(rabbitmq_url, tmp_path_factory):
    """A quorum queue on a topic exchange, results over RPC, and a worker; the tests share them."""
    stage = Stage(
        "rabbitmq",
        rabbitmq_url,
        "rpc://",
        tmp_path_factory.mktemp("quorum"),
        task_default_queue_type="quorum",
        task_default_exchange_type="topic",
        task_delivery_limit=3,
    )
    worker = stage.worker("-c", "2")
    yield stage
    try:
        assert worker.stop() == 0
    finally:
        stage.close()


def test_calls_and_results(stage):
    results = [stage.send("add", number, 1) for number in range(50)]
    assert [result.get(timeout=10) for result in results] == list(range(1, 51))
    assert stage.send("describe").get(timeout=10)["delivery_info"]["exchange"] == stage.queue
    with pytest.raises(ValueError, match="wrong"):
        stage.send("fail", "wrong").get(timeout=10)
    wait_until(lambda: stage.waiting() == 0, stage.waiting)


def test_a_countdown_goes_through_the_ladder(stage):
    sent = time.time()
    result = stage.send("describe", countdown=1.3)
    described = result.get(timeout=15)
    assert 1.3 <= time.time() - sent < 10
    assert described["delivery_info"]["exchange"] == "celery_delayed_delivery"
    # A retry goes back to where it came from, through the ladder again.
    key = stage.key()
    assert stage.send("retry", key, 1.1, countdown=1.1).get(timeout=20) == 2
    ran = [entry.time for entry in stage.ledger.wait("ran", key, times=3)]
    assert [late >= 1.1 for late in (ran[1] - ran[0], ran[2] - ran[1])] == [True, True]


def test_a_task_that_kills_its_process_is_bounded(stage):
    key, other = stage.key(), stage.key()
    killer = stage.send("die_again", key)
    with pytest.raises(Exception, match="task_delivery_limit") as raised:
        killer.get(timeout=20)
    assert type(raised.value).__name__ == "WorkerLostError"
    assert len(stage.ledger.entries("start", key)) == 3
    stage.send("record", other)
    stage.ledger.wait("ran", other)
    wait_until(lambda: stage.waiting() == 0, stage.waiting)


def test_each_consumer_has_a_prefetch_count_of_its_own(rabbitmq_url, tmp_path):
    stage = Stage(
        "rabbitmq", rabbitmq_url, "rpc://", tmp_path, task_default_queue_type="quorum", worker_prefetch_multiplier=1
    )
    try:
        for _ in range(2):
            stage.worker("-c", "1")
        keys = [stage.key() for _ in range(4)]
        stage.send_all("block_late", [(key,) for key in keys])
        wait_until(lambda: len(stage.ledger.entries("start")) == 2, "two that run")
        wait_until(lambda: stage.waiting() == 2, stage.waiting)  # what is sent to a quorum queue takes a moment
        assert len({entry.pid for entry in stage.ledger.entries("start")}) == 2
        for key in keys:
            stage.open_gate(key)
        for key in keys:
            stage.ledger.wait("end", key)
        assert set(stage.ledger.counts("start").values()) == {1}
    finally:
        stage.close()
