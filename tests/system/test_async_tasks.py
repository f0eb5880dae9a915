"""Tasks that are coroutine functions: many at once in one child, under the same rules as others."""

import time

import pytest
from harness import SOON, wait_until

from celery.exceptions import TimeLimitExceeded, WorkerLostError


def value_of(result):
    return result.get(timeout=SOON, interval=0.01)


class TestAsyncTasks:
    def test_five_hundred_sleep_side_by_side(self, shared):
        value_of(shared.send("anap", 0))
        began = time.monotonic()
        results = shared.send_all("anap", [(0.02,)] * 500)
        assert [value_of(result) for result in results] == [0.02] * 500
        # One after the other, on two children, they would take 5 s and more.
        assert time.monotonic() - began < 4

    def test_they_run_beside_sync_tasks(self, shared):
        keys = [shared.key() for _ in range(4)]
        waiting = shared.send_all("ablock", [(key,) for key in keys])
        for key in keys:
            shared.ledger.wait("start", key)
        assert [value_of(result) for result in shared.send_all("add", [(n, 1) for n in range(20)])] == list(
            range(1, 21)
        )
        for key in keys:
            shared.open_gate(key)
        assert [value_of(result) for result in waiting] == keys

    def test_each_sees_its_own_request(self, shared):
        results = shared.send_all("who_am_i", [()] * 50)
        for result in results:
            assert value_of(result) == [result.id] * 3

    def test_they_retry(self, shared):
        assert value_of(shared.send("aretry")) == 2

    def test_they_fail(self, shared):
        with pytest.raises(ValueError, match="async"):
            value_of(shared.send("afail"))

    def test_one_that_calls_exit_is_told_as_lost(self, shared):
        with pytest.raises(WorkerLostError, match="exit code 3"):
            value_of(shared.send("aleave"))

    def test_one_that_cancels_itself_fails(self, shared):
        result = shared.send("acancel")
        with pytest.raises(BaseException) as caught:
            value_of(result)
        assert type(caught.value).__name__ == "CancelledError"
        assert value_of(shared.send("anap", 0)) == 0

    def test_a_soft_limit_is_raised_inside(self, shared):
        assert value_of(shared.send("aoverstep_softly")) == "noticed"

    def test_a_hard_limit_cancels(self, shared):
        before = set(shared.workers[0].children())
        key = shared.key()
        with pytest.raises(TimeLimitExceeded):
            value_of(shared.send("aoverstep", key))
        shared.ledger.wait("cancelled", key)
        assert set(shared.workers[0].children()) == before

    def test_what_does_not_let_itself_be_cancelled_is_killed_with_its_process(self, stage):
        worker = stage.worker("-c", "1")
        (child,) = worker.children()
        early, late = stage.key(), stage.key()
        neighbours = [stage.send("ablock", early), stage.send("ablock_late", late)]
        for key in (early, late):
            stage.ledger.wait("start", key)
        with pytest.raises(TimeLimitExceeded):
            value_of(stage.send("astubborn", stage.key()))
        # Its neighbours had begun: the one that was acknowledged is lost, the other runs again.
        with pytest.raises(WorkerLostError):
            value_of(neighbours[0])
        stage.ledger.wait("start", late, times=2)
        stage.open_gate(late)
        assert value_of(neighbours[1]) == late
        assert wait_until(worker.children, "a child") != [child]
