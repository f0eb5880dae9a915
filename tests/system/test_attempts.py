"""What a task may do, and what its caller sees, on a real worker (API-023..047, ROUTE-046..051)."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from harness import SOON, wait_until

from celery.exceptions import MaxRetriesExceededError, NotRegistered, Reject, TaskRevokedError, WorkerLostError
from celery.result import AsyncResult
from celery.wire.envelope import Envelope


def value_of(result):
    return result.get(timeout=SOON, interval=0.01)


class TestEnds:
    def test_a_value_comes_back(self, shared):
        result = shared.send("add", 2, 3)
        assert value_of(result) == 5
        assert result.state == "SUCCESS"

    def test_a_failure_comes_back_with_its_traceback(self, shared):
        result = shared.send("fail", "on purpose")
        with pytest.raises(ValueError, match="on purpose"):
            value_of(result)
        assert result.state == "FAILURE"
        assert "raise ValueError(text)" in result.traceback

    def test_an_exception_that_cannot_be_pickled_comes_back_by_name(self, shared):
        result = shared.send("fail_oddly")
        with pytest.raises(Exception, match="this and that") as caught:
            value_of(result)
        assert type(caught.value).__name__ == "Odd"

    def test_a_value_that_cannot_be_serialized_fails_the_task(self, shared):
        result = shared.send("unserializable")
        with pytest.raises(Exception, match="object"):
            value_of(result)
        assert result.state == "FAILURE"
        assert value_of(shared.send("add", 1, 1)) == 2

    def test_a_task_that_calls_exit_is_told_as_lost(self, shared):
        result = shared.send("leave", 3)
        with pytest.raises(WorkerLostError, match="exit code 3"):
            value_of(result)
        assert value_of(shared.send("add", 1, 1)) == 2

    def test_an_ignored_task_leaves_no_state(self, shared):
        result = shared.send("ignore")
        assert value_of(shared.send("add", 1, 1)) == 2
        shared.workers[0].wait_said(f"[{result.id}] ignored")
        assert result.state == "PENDING"

    def test_an_unwanted_result_is_not_stored(self, shared):
        key = shared.key()
        result = shared.send("record", key, ignore_result=True)
        shared.ledger.wait("ran", key)
        value_of(shared.send("add", 1, 1))
        assert AsyncResult(result.id, app=shared.app).state == "PENDING"

    def test_five_megabytes_travel_there_and_back(self, shared):
        data = "x" * 5_000_000
        assert value_of(shared.send("echo", data)) == data

    def test_what_a_task_prints_is_logged(self, shared):
        value_of(shared.send("talk"))
        shared.workers[0].wait_said("printed by a task")

    def test_a_task_that_is_not_registered_fails_and_goes_to_the_dead_queue(self, shared):
        result = shared.send("nothing_of_this_name")
        with pytest.raises(NotRegistered):
            value_of(result)
        if shared.name != "rabbitmq":  # where the queue's own dead-letter exchange, if any, would get it
            wait_until(lambda: result.id in [dead.message.headers["id"] for dead in shared.dead()], "dead letter")


class TestRefusal:
    def test_a_rejected_message_goes_to_the_dead_queue(self, shared):
        key = shared.key()
        result = shared.send("reject", key, False)
        with pytest.raises(Reject):
            value_of(result)
        if shared.name != "rabbitmq":
            wait_until(lambda: result.id in [dead.message.headers["id"] for dead in shared.dead()], "dead letter")
        assert shared.ledger.counts("ran")[key] == 1

    def test_a_body_that_cannot_be_read_fails_and_goes_to_the_dead_queue(self, shared):
        key = shared.key()
        headers = {"lang": "py", "task": "project.record", "id": key, "retries": 0}
        shared.publish([Envelope(headers, b"[[1], {", properties={"correlation_id": key})])
        result = AsyncResult(key, app=shared.app)
        wait_until(lambda: result.state == "FAILURE", lambda: result.state)
        if shared.name != "rabbitmq":
            wait_until(lambda: key in [dead.message.headers["id"] for dead in shared.dead()], "dead letter")

    def test_a_requeued_message_is_delivered_again(self, shared):
        key = shared.key()
        assert value_of(shared.send("reject", key, True)) == "second time"
        assert shared.ledger.counts("ran")[key] == 2


class TestRetry:
    def test_a_retry_comes_after_its_countdown_and_keeps_its_id(self, shared):
        key = shared.key()
        assert value_of(shared.send("retry", key, 0.3)) == 2
        times = [entry.time for entry in shared.ledger.entries("ran", key)]
        assert len(times) == 3
        assert all(0.29 <= later - before < 3 for before, later in zip(times, times[1:], strict=False))

    def test_the_cause_is_raised_when_there_were_enough_tries(self, shared):
        with pytest.raises(KeyError, match="each time"):
            value_of(shared.send("retry_too_often"))

    def test_without_a_cause_it_says_that_there_were_enough_tries(self, shared):
        with pytest.raises(MaxRetriesExceededError, match="Can't retry"):
            value_of(shared.send("retry_never"))

    def test_a_retry_of_its_own_accord_backs_off(self, shared):
        key = shared.key()
        assert value_of(shared.send("autoretry", key)) == 1
        first, second = (entry.time for entry in shared.ledger.entries("ran", key))
        assert 0.99 <= second - first < 4


class TestStates:
    def test_a_task_that_lasts_is_started(self, shared):
        key = shared.key()
        result = shared.send("block_tracked", key)
        shared.ledger.wait("start", key)
        wait_until(lambda: result.state == "STARTED", lambda: result.state)
        assert result.info["pid"] in shared.workers[0].children()
        assert result.info["hostname"] == shared.workers[0].node
        shared.open_gate(key)
        assert value_of(result) == key
        assert result.state == "SUCCESS"

    def test_a_state_of_the_task_is_not_overtaken_by_started(self, shared):
        keys = [shared.key() for _ in range(4)]
        for key in keys:
            result = shared.send("progress", key)
            shared.ledger.wait("told", key)
            assert (result.state, result.info) == ("PROGRESS", {"done": 1})
            # By the time another has run, whatever the worker had to say about the first one is said.
            value_of(shared.send("add", 1, 1))
            assert result.state == "PROGRESS"
            shared.open_gate(key)
            assert value_of(result) == "done"


class TestRequest:
    def test_a_task_sees_its_message(self, shared):
        task_id = shared.key()
        options = {"task_id": task_id, "headers": {"tenant": "acme"}, "shadow": "alias", "priority": 3}
        seen = value_of(shared.send("describe", 1, 2, kwargs={"a": 3}, time_limit=30, soft_time_limit=20, **options))
        assert seen["id"] == seen["root_id"] == seen["correlation_id"] == task_id
        assert (seen["args"], seen["kwargs"], seen["parent_id"]) == ([1, 2], {"a": 3}, None)
        assert (seen["task"], seen["shadow"], seen["lang"], seen["retries"]) == ("project.describe", "alias", "py", 0)
        assert (seen["called_directly"], seen["is_eager"], seen["eta"], seen["expires"]) == (False, False, None, None)
        assert seen["hostname"] == shared.workers[0].node
        assert seen["headers"] == {"tenant": "acme"}
        assert seen["timelimit"] == [30, 20]
        assert (seen["time_limit"], seen["soft_time_limit"]) == (30, 20)
        assert (seen["argsrepr"], seen["kwargsrepr"]) == ("(1, 2)", "{'a': 3}")
        info = seen["delivery_info"]
        assert (info["exchange"], info["routing_key"], info["redelivered"]) == ("", shared.queue, False)
        assert info["priority"] == 3
        assert seen["properties"]["correlation_id"] == task_id

    def test_what_a_task_leads_to_has_it_as_parent(self, shared):
        key = shared.key()
        first = shared.send("echo", 1, link=shared.app.signature("project.descent", (key,)))
        shared.ledger.wait("descent", f"{key}:{first.id}:{first.id}")

    def test_a_retry_keeps_headers_limits_and_priority(self, shared):
        options = {"headers": {"tenant": "acme"}, "time_limit": 30, "soft_time_limit": 20, "priority": 5}
        headers, timelimit, priority, retries = value_of(shared.send("described_by_its_retry", **options))
        assert (headers, timelimit, priority, retries) == ({"tenant": "acme"}, [30, 20], 5, 1)


class TestCallbacks:
    def test_a_callback_gets_the_value(self, shared):
        key = shared.key()
        shared.send("add", 2, 2, link=shared.app.signature("project.callback", (key,)))
        shared.ledger.wait("called", f"{key}:4")

    def test_an_error_callback_of_one_argument_is_sent_the_id(self, shared):
        result = shared.send("fail", "x", link_error=shared.app.signature("project.old_errback"))
        shared.ledger.wait("failed", result.id)

    def test_an_error_callback_of_three_arguments_gets_request_exception_and_traceback(self, shared):
        result = shared.send("fail", "x", link_error=shared.app.signature("project.new_errback"))
        shared.ledger.wait("failed", f"{result.id}:ValueError:True")


class TestTimes:
    def test_a_countdown_is_neither_early_nor_late(self, shared):
        key = shared.key()
        due = time.time() + 1.0
        shared.send("record", key, countdown=1.0)
        (ran,) = shared.ledger.wait("ran", key)
        assert -0.002 <= ran.time - due < 2

    def test_an_eta_beyond_what_a_worker_holds_is_kept_by_the_broker(self, shared):
        key = shared.key()
        due = datetime.now(UTC) + timedelta(seconds=3.2)
        shared.send("record", key, eta=due)
        (ran,) = shared.ledger.wait("ran", key)
        assert -0.002 <= ran.time - due.timestamp() < 2.5

    def test_what_has_expired_is_revoked_and_does_not_run(self, shared):
        key = shared.key()
        result = shared.send("record", key, expires=datetime.now(UTC) - timedelta(seconds=5))
        with pytest.raises(TaskRevokedError, match="expired"):
            value_of(result)
        assert result.state == "REVOKED"
        assert not shared.ledger.entries("ran", key)

    def test_what_expires_while_it_waits_does_not_run(self, shared):
        key = shared.key()
        result = shared.send("record", key, countdown=1.5, expires=0.5)
        with pytest.raises(TaskRevokedError, match="expired"):
            value_of(result)
        assert not shared.ledger.entries("ran", key)


class TestHooks:
    """SIG-040 and SIG-041. They run before the attempt is settled: here Celery stores and publishes first."""

    def order(self, shared, result, last, times=1):
        shared.ledger.wait(last, result.id, times)
        return [entry.event for entry in shared.ledger.entries(key=result.id)]

    def test_of_a_success(self, shared):
        assert self.order(shared, shared.send("hooked", "succeed"), "task_postrun") == [
            "task_prerun", "before_start", "run", "on_success", "task_success", "after_return", "task_postrun"
        ]  # fmt: skip

    def test_of_a_failure(self, shared):
        assert self.order(shared, shared.send("hooked", "fail"), "task_postrun") == [
            "task_prerun", "before_start", "run", "on_failure", "task_failure", "after_return", "task_postrun"
        ]  # fmt: skip

    def test_of_a_retry(self, shared):
        assert self.order(shared, shared.send("hooked", "retry"), "task_postrun", 2) == [
            "task_prerun", "before_start", "run", "on_retry", "task_retry", "task_postrun",
            "task_prerun", "before_start", "run", "on_success", "task_success", "after_return", "task_postrun",
        ]  # fmt: skip

    def test_of_an_attempt_whose_process_died(self, shared):
        assert self.order(shared, shared.send("hooked", "die"), "task_postrun") == [
            "task_prerun", "before_start", "run", "on_failure", "task_failure", "after_return", "task_postrun"
        ]  # fmt: skip

    def test_of_an_attempt_that_took_too_long(self, shared):
        assert self.order(shared, shared.send("hooked", "hang", time_limit=0.3), "task_postrun") == [
            "task_prerun", "before_start", "run", "on_failure", "task_failure", "after_return", "task_postrun"
        ]  # fmt: skip
