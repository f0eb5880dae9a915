"""The solo pool: tasks own the main thread, the worker runs beside it."""

import signal
import time

import pytest
from harness import SOON


def value_of(result):
    return result.get(timeout=SOON, interval=0.01)


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis"))])
def solo(request, tmp_path, make_stage):
    stage = make_stage(request.param)
    stage.worker("-P", "solo")
    return stage


class TestSolo:
    def test_tasks_of_every_kind_run_in_the_worker_itself(self, solo):
        (worker,) = solo.workers
        assert value_of(solo.send("pid")) == worker.pid
        with pytest.raises(ValueError, match="on purpose"):
            value_of(solo.send("fail", "on purpose"))
        assert value_of(solo.send("retry", solo.key(), 0)) == 2
        assert [value_of(result) for result in solo.send_all("anap", [(0.01,)] * 20)] == [0.01] * 20
        assert worker.stop() == 0

    def test_a_soft_limit_is_raised_in_the_task(self, solo):
        assert value_of(solo.send("overstep_softly", 1)) == "noticed"

    def test_a_warm_shutdown_lets_the_task_end(self, solo):
        (worker,), key = solo.workers, solo.key()
        result = solo.send("block", key)
        solo.ledger.wait("start", key)
        worker.tell(signal.SIGTERM)
        worker.wait_said("Warm shutdown")
        solo.open_gate(key)
        assert worker.wait_end() == 0
        assert result.state == "SUCCESS"

    def test_a_cold_shutdown_does_not_wait_for_it(self, solo):
        (worker,), key = solo.workers, solo.key()
        solo.send("block_late", key)
        solo.ledger.wait("start", key)
        began = time.monotonic()
        worker.tell(signal.SIGQUIT)
        assert worker.wait_end() == 1
        assert time.monotonic() - began < 15
        assert solo.waiting() == 1
