"""The prefork pool: who gets which task, and what becomes of tasks whose process ends (ROUTE-047, 054, 056, 059)."""

import os
import signal
import time

import pytest
from harness import SOON, wait_until

from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError


def value_of(result, seconds=SOON):
    return result.get(timeout=seconds, interval=0.01)


class TestHandOut:
    def test_short_tasks_do_not_wait_behind_a_long_one(self, shared):
        # Learned to be short, so that many are handed out at once.
        for result in shared.send_all("echo", [(n,) for n in range(200)]):
            value_of(result)
        key = shared.key()
        longer = shared.send("block", key)
        shared.ledger.wait("start", key)
        began = time.monotonic()
        for result in shared.send_all("echo", [(n,) for n in range(100)]):
            value_of(result)
        assert time.monotonic() - began < 3
        shared.open_gate(key)
        value_of(longer)

    def test_what_was_handed_out_behind_a_task_that_turned_long_is_given_to_another_child(self, shared):
        for result in shared.send_all("record_or_block", [("warm-up",)] * 200):
            value_of(result)
        worker, gate, keys = shared.workers[0], shared.key(), [shared.key() for _ in range(60)]
        # Sent while the worker sleeps, so that it takes all of them at once.
        worker.tell(signal.SIGSTOP)
        longer = shared.send("record_or_block", gate, True)
        results = shared.send_all("record_or_block", [(key,) for key in keys])
        worker.tell(signal.SIGCONT)
        for result in results:
            value_of(result)
        (start,) = shared.ledger.entries("start", gate)
        ran = [shared.ledger.entries("ran", key) for key in keys]
        assert [len(entries) for entries in ran] == [1] * len(keys)
        assert all(entry.pid != start.pid for (entry,) in ran if entry.time > start.time)
        shared.open_gate(gate)
        value_of(longer)


class TestDeath:
    def test_a_task_that_was_acknowledged_when_its_process_died_is_lost_and_says_so(self, shared):
        key = shared.key()
        result = shared.send("die", key)
        began = time.monotonic()
        with pytest.raises(WorkerLostError, match="SIGKILL"):
            value_of(result)
        assert time.monotonic() - began < 10
        assert len(shared.ledger.entries("start", key)) == 1

    def test_a_killed_child_is_replaced_and_its_task_is_lost(self, shared):
        key = shared.key()
        result = shared.send("block", key)
        (start,) = shared.ledger.wait("start", key)
        os.kill(start.pid, signal.SIGKILL)
        with pytest.raises(WorkerLostError):
            value_of(result)
        wait_until(lambda: len(shared.workers[0].children()) == 2, "two children")
        assert start.pid not in shared.workers[0].children()

    def test_late_acknowledgement_alone_does_not_run_it_again(self, shared):
        key = shared.key()
        with pytest.raises(WorkerLostError):
            value_of(shared.send("die_late", key))
        assert len(shared.ledger.entries("start", key)) == 1

    def test_reject_on_worker_lost_runs_it_again(self, shared):
        key = shared.key()
        assert value_of(shared.send("die_once", key)) == "alive"
        assert len(shared.ledger.entries("start", key)) == 2

    def test_retry_on_worker_lost_sends_a_retry(self, shared):
        assert value_of(shared.send("die_and_retry", shared.key(), 2)) == 2

    def test_retry_on_worker_lost_ends_with_the_tries(self, shared):
        key = shared.key()
        with pytest.raises(WorkerLostError):
            value_of(shared.send("die_and_retry", key, 9))
        assert len(shared.ledger.entries("start", key)) == 3

    def test_a_task_that_kills_each_time_is_stopped_by_the_delivery_limit(self, shared):
        key = shared.key()
        result = shared.send("die_again", key)
        with pytest.raises(WorkerLostError, match="task_delivery_limit"):
            value_of(result)
        assert len(shared.ledger.entries("start", key)) == 5
        if shared.name != "rabbitmq":
            wait_until(lambda: result.id in [dead.message.headers["id"] for dead in shared.dead()], "dead letter")

    def test_those_that_had_not_begun_run_elsewhere(self, shared):
        keys = [shared.key() for _ in range(40)]
        doomed = [shared.send("die", shared.key()) for _ in range(3)]
        results = shared.send_all("record", [(key,) for key in keys])
        for result in results:
            value_of(result)
        for result in doomed:
            with pytest.raises(WorkerLostError):
                value_of(result)
        assert [shared.ledger.counts("ran")[key] for key in keys] == [1] * len(keys)


class TestLimits:
    def test_a_soft_limit_is_raised_in_the_task(self, shared):
        assert value_of(shared.send("overstep_softly", 30)) == "noticed"

    def test_a_soft_limit_that_nobody_catches_fails_the_task(self, shared):
        with pytest.raises(SoftTimeLimitExceeded):
            value_of(shared.send("nap", shared.key(), 30, soft_time_limit=0.2))

    def test_a_hard_limit_kills(self, shared):
        key = shared.key()
        result = shared.send("overstep", key)
        with pytest.raises(TimeLimitExceeded):
            value_of(result)
        (start,) = shared.ledger.entries("start", key)
        wait_until(lambda: start.pid not in shared.workers[0].children(), "the child's end")

    def test_a_hook_that_dies_of_it_does_not_hide_the_limit(self, shared):
        with pytest.raises(TimeLimitExceeded):
            value_of(shared.send("overstep_and_die"))

    def test_a_call_may_set_the_limit(self, shared):
        with pytest.raises(TimeLimitExceeded):
            value_of(shared.send("nap", shared.key(), 30, time_limit=0.3))
        with pytest.raises(TimeLimitExceeded, match=r"TimeLimitExceeded\(1,\)"):
            value_of(shared.send("nap", shared.key(), 30, time_limit=1))

    def test_a_task_that_took_too_long_may_go_back_to_the_queue(self, shared):
        key = shared.key()
        assert value_of(shared.send("overstep_and_return", key)) == "second time"
        assert len(shared.ledger.entries("start", key)) == 2


@pytest.mark.parametrize("stage", ["sqlite"], indirect=True)
class TestChildren:
    """The broker has no part in this."""

    def test_a_child_retires_after_so_many_tasks(self, stage):
        stage.worker("-c", "1", "--max-tasks-per-child", "3")
        pids = [value_of(result) for result in stage.send_all("pid", [()] * 9)]
        assert [pids.count(pid) for pid in sorted(set(pids), key=pids.index)] == [3, 3, 3]

    def test_a_child_retires_when_it_has_grown(self, stage):
        stage.worker("-c", "1", "--max-memory-per-child", "200000")
        first = value_of(stage.send("grow", 300))
        assert value_of(stage.send("pid")) != first

    def test_a_small_child_stays(self, stage):
        stage.worker("-c", "1", "--max-memory-per-child", "500000")
        assert len({value_of(stage.send("grow", 1)) for _ in range(5)}) == 1

    def test_a_worker_survives_the_death_of_its_nursery(self, stage):
        worker = stage.worker("-c", "2")
        key = stage.key()
        result = stage.send("block_late", key)
        stage.ledger.wait("start", key)
        nursery = worker.nursery()
        os.kill(nursery, signal.SIGKILL)
        stage.ledger.wait("start", key, times=2)
        stage.open_gate(key)
        assert value_of(result) == key
        assert worker.nursery() != nursery
        assert worker.stop() == 0

    def test_sigterm_to_the_whole_group_is_a_warm_shutdown(self, stage):
        worker = stage.worker("-c", "2")
        key = stage.key()
        result = stage.send("nap", key, 0.5)
        stage.ledger.wait("start", key)
        os.killpg(worker.pid, signal.SIGTERM)
        assert worker.wait_end() == 0
        assert value_of(result) == key

    def test_a_worker_whose_children_cannot_come_up_says_so_and_ends(self, stage):
        worker = stage.start("-c", "2", "--include", "broken_child", worker_proc_alive_timeout=1)
        assert worker.wait_end(40) != 0
        assert "Could not start worker processes" in worker.said()

    def test_children_may_be_spawned(self, stage):
        worker = stage.worker("-c", "2", "--pool-start-method", "spawn")
        key = stage.key()
        blocked = stage.send("block", key)
        (start,) = stage.ledger.wait("start", key)
        assert [value_of(result) for result in stage.send_all("add", [(n, 1) for n in range(50)])] == list(range(1, 51))
        assert value_of(stage.send("anap", 0.01)) == 0.01
        os.kill(start.pid, signal.SIGKILL)
        with pytest.raises(WorkerLostError):
            value_of(blocked)
        assert value_of(stage.send("overstep_softly", 30)) == "noticed"
        wait_until(lambda: len(worker.children()) == 2, "two children")
        assert worker.stop() == 0
