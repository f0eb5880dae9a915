"""A task that kills its whole worker each time, on RabbitMQ, where nothing but its coming back tells of it."""

import contextlib
import signal
import time

import pytest
from harness import Census, Stage, wait_until

pytestmark = pytest.mark.needs("rabbitmq")


@pytest.fixture
def make_stage(rabbitmq_url, tmp_path):
    with contextlib.ExitStack() as stages:

        def make(**settings):
            stage = Stage("rabbitmq", rabbitmq_url, f"sqlite:///{tmp_path / 'celery.sqlite'}", tmp_path, **settings)
            stages.callback(stage.close)
            return stage

        yield make


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_task_that_kills_its_worker_each_time_is_bounded_and_those_beside_it_run(make_stage, kind):
    # A delivery that came back weighs a quarter of one that was seen to kill a process.
    stage = make_stage(task_default_queue_type=kind, task_delivery_limit=3)
    killer = stage.send("die_together", "killer")
    census = Census(stage)
    census.send("record_late", 20)
    worker = None
    while killer.state == "PENDING":
        worker = stage.start("-c", "1", "--prefetch-multiplier", "30")
        wait_until(lambda worker=worker: worker.process.poll() or killer.state == "FAILURE", worker.said, 60)
    assert type(killer.result).__name__ == "WorkerLostError"
    # A quorum queue may hand a message to a consumer that is dead already: that counts, and is no start.
    assert 8 <= len(stage.ledger.entries("start", "killer")) <= 12
    census.wait_none_lost(20, "ran")
    (letter,) = wait_until(stage.dead, "the letter")
    assert letter.message.headers["id"] == killer.id
    assert "task_delivery_limit" in letter.reason
    assert abs(letter.time - time.time()) < 60
    assert worker.stop() == 0


def test_what_is_given_back_is_not_held_against_it_for_long_and_keeps_what_it_is(make_stage):
    """Three restarts, where four returns are one too many."""
    stage = make_stage(task_acks_late=True, task_delivery_limit=1)
    gate = stage.key()
    stage.send("block_late", gate)
    results = stage.send_all("describe", [()] * 3, priority=3, headers={"mine": 1})
    for times in range(1, 4):
        worker = stage.worker("-c", "1", "--prefetch-multiplier", "10")
        stage.ledger.wait("start", gate, times=times)
        assert worker.stop(signal.SIGQUIT) == 1
    stage.open_gate(gate)
    stage.worker("-c", "1")
    for described in [result.get(timeout=20) for result in results]:
        info = described["delivery_info"]
        assert (info["priority"], info["redelivered"], described["headers"]) == (3, True, {"mine": 1})
    assert stage.dead() == []
