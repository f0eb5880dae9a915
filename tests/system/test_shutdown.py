"""How workers end, and what becomes of their tasks (CLI-050..054, ROUTE-060, ROUTE-061)."""

import signal
import time

import pytest
from harness import SOON, measured, size, wait_until


def value_of(result):
    return result.get(timeout=SOON, interval=0.01)


class TestWarm:
    def test_what_runs_is_finished_and_what_waits_goes_back_at_once(self, stage):
        worker = stage.worker("-c", "2")
        running, waiting = [stage.key(), stage.key()], [stage.key() for _ in range(10)]
        results = stage.send_all("block", [(key,) for key in running])
        for key in running:
            stage.ledger.wait("start", key)
        stage.send_all("record", [(key,) for key in waiting])
        worker.tell(signal.SIGTERM)
        # Until it has heard that, it has not stopped: the ten may not have been taken yet, and would run.
        worker.wait_said("Warm shutdown")
        wait_until(lambda: stage.waiting() == 10, stage.waiting)
        for key in running:
            stage.open_gate(key)
        assert worker.wait_end() == 0
        assert [result.state for result in results] == ["SUCCESS"] * 2
        assert not stage.ledger.entries("ran")
        second = stage.worker("-c", "2")
        for key in waiting:
            stage.ledger.wait("ran", key)
        assert second.stop() == 0

    def test_what_waits_for_its_time_waits_on_in_the_queue(self, stage):
        worker, key = stage.worker("-c", "1"), stage.key()
        due = time.time() + 1.8
        stage.send("record", key, countdown=1.8)
        assert worker.stop() == 0
        stage.worker("-c", "1")
        (ran,) = stage.ledger.wait("ran", key)
        assert ran.time >= due - 0.002

    def test_an_idle_worker_ends_at_once(self, stage):
        worker = stage.worker("-c", "1")
        began = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - began < 3

    def test_restarts_lose_nothing_and_run_nothing_twice(self, stage):
        keys, each = [stage.key() for _ in range(size(300, 400))], size(60, 40)
        stage.worker("-c", "2")
        for number, key in enumerate(keys):
            stage.send("nap_late" if number % 2 else "nap", key, 0.02)
            if (number + 1) % each == 0:
                worker = stage.workers[-1].wait_ready()
                worker.tell(signal.SIGTERM)
                stage.start("-c", "2")
                assert worker.wait_end() == 0
        wait_until(lambda: len(stage.ledger.counts("end")) == len(keys), lambda: len(stage.ledger.counts("end")))
        assert stage.workers[-1].wait_ready().stop() == 0
        starts = stage.ledger.counts("start")
        twice = sum(times > 1 for times in starts.values())
        measured(stage, "restarted by SIGTERM", sent=len(keys), restarts=len(stage.workers) - 1, started_twice=twice)
        assert set(starts.values()) == {1}


class TestSoft:
    def test_what_ends_in_time_is_finished(self, stage):
        worker, key = stage.worker("-c", "1", worker_soft_shutdown_timeout=15), stage.key()
        result = stage.send("block", key)
        stage.ledger.wait("start", key)
        worker.tell(signal.SIGQUIT)
        worker.wait_said("Initiating Soft Shutdown, terminating in 15")
        stage.open_gate(key)
        worker.wait_end()
        assert result.state == "SUCCESS"

    def test_what_does_not_is_killed(self, stage):
        worker, key = stage.worker("-c", "1", worker_soft_shutdown_timeout=0.5), stage.key()
        stage.send("block_late", key)
        stage.ledger.wait("start", key)
        began = time.monotonic()
        assert worker.stop(signal.SIGQUIT) == 1
        assert 0.5 <= time.monotonic() - began < 8
        wait_until(lambda: stage.waiting() == 1, stage.waiting)


class TestCold:
    def test_what_was_acknowledged_ends_as_retry_and_what_was_not_goes_back(self, stage):
        worker = stage.worker("-c", "2")
        early, late, third = stage.key(), stage.key(), stage.key()
        results = [stage.send("block", early), stage.send("block_late", late)]
        for key in (early, late):
            stage.ledger.wait("start", key)
        stage.send("record", third)
        assert worker.stop(signal.SIGQUIT) == 1
        assert results[0].state == "RETRY"
        assert results[1].state == "PENDING"
        wait_until(lambda: stage.waiting() == 2, stage.waiting)
        stage.worker("-c", "2")
        stage.ledger.wait("ran", third)
        stage.ledger.wait("start", late, times=2)
        stage.open_gate(late)
        assert value_of(results[1]) == late

    def test_a_second_signal_overrides_a_warm_shutdown(self, stage):
        worker, key = stage.worker("-c", "1"), stage.key()
        stage.send("block", key)
        stage.ledger.wait("start", key)
        worker.tell(signal.SIGTERM)
        worker.wait_said("Warm shutdown")
        assert worker.stop(signal.SIGQUIT) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_worker_that_is_not_up_yet_ends_too(stage, number):
    worker = stage.start("-c", "1")
    worker.wait_said("[tasks]")
    worker.tell(number)
    worker.wait_end()
