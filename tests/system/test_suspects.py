"""Beside a task that kills its whole worker each time wait others: only the killer is refused."""

import pytest
from harness import Census, wait_until


@pytest.mark.timeout(200)
@pytest.mark.parametrize("limit", [3, 5])
@pytest.mark.parametrize("broker", ["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis"))])
def test_those_that_wait_beside_a_task_that_kills_its_worker_are_not_refused_with_it(make_stage, broker, limit):
    stage = make_stage(broker)
    settings = {"task_delivery_limit": limit}
    killer = stage.send("die_together", "killer")
    census = Census(stage)
    census.send("record_late", 20)
    while killer.state == "PENDING":
        worker = stage.start("-c", "2", "--prefetch-multiplier", "30", **settings)
        wait_until(lambda worker=worker: worker.process.poll() or killer.state == "FAILURE", worker.said, 60)
    assert type(killer.result).__name__ == "WorkerLostError"
    assert len(stage.ledger.entries("start", "killer")) == limit
    census.wait_none_lost(20, "ran")
    assert [letter.message.headers["id"] for letter in stage.dead()] == [killer.id]
