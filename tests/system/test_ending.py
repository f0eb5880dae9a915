"""Attempts that end before their time: by their request (API-042), with the connection (ROUTE-053), or never begun."""

import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from harness import SOON, Stage, wait_until

from celery import chord
from celery.exceptions import ChordError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from private_servers import PrivateRabbitMQ, PrivateRedis  # noqa: E402  found through the line above

WORDS = "cancelled by Celery"


def running(stage, task):
    """A worker, the key and the result of a task that runs in it."""
    worker, key = stage.worker("-c", "1", "--include", "ending_commands"), stage.key()
    result = stage.send(task, key)
    (entry,) = stage.ledger.wait("start", key)
    return worker, key, result, entry.pid


def end(stage, result, how, **options):
    arguments = {"task_id": result.id, "how": how, "options": options}
    answers = stage.app.control.broadcast("end_attempt", arguments=arguments, reply=True, timeout=20, limit=1)
    assert [list(answer.values()) for answer in answers] == [[{"ok": how}]]


def soon():
    """In two seconds: time enough to be received."""
    return datetime.now(UTC) + timedelta(seconds=2)


def wait_until_time(moment):
    time.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds() + 0.001))


def is_gone(pid):
    return not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("task", ["block", "block_late"])
def test_what_is_terminated_ends_as_revoked_and_the_worker_goes_on(stage, task):
    worker, key, result, pid = running(stage, task)
    end(stage, result, "terminate")
    wait_until(lambda: result.state == "REVOKED", lambda: result.state)
    wait_until(lambda: is_gone(pid), "the end of its process")
    other = stage.key()
    stage.send("record", other)
    stage.ledger.wait("ran", other)
    assert worker.stop() == 0
    assert len(stage.ledger.entries("start", key)) == 1
    assert stage.waiting() == 0


def test_what_is_cancelled_runs_again(stage):
    worker, key, result, pid = running(stage, "block_late")
    end(stage, result, "cancel")
    again = stage.ledger.wait("start", key, times=2)
    assert is_gone(pid)
    assert again[1].pid != pid
    assert result.state == "RETRY"
    assert str(result.result) == WORDS
    stage.open_gate(key)
    assert result.get(timeout=20) == key
    assert worker.stop() == 0
    assert len(stage.ledger.entries("end", key)) == 1


def test_what_is_cancelled_in_silence_keeps_its_state(stage):
    worker, key, result, _ = running(stage, "block_late")
    end(stage, result, "cancel", emit_retry=False)
    stage.ledger.wait("start", key, times=2)
    assert result.state == "PENDING"
    stage.open_gate(key)
    assert result.get(timeout=20) == key
    assert worker.stop() == 0


def test_what_is_cancelled_and_was_acknowledged_is_over(stage):
    worker, key, result, pid = running(stage, "block")
    inspect = stage.app.control.inspect(worker.node, timeout=20, limit=1)
    # The worker sees that it runs a tick later than the ledger does: it may not be among the active ones yet.
    wait_until(lambda: [each for each in inspect.active() if each["acknowledged"]], "the end of its acknowledgement")
    end(stage, result, "cancel")
    wait_until(lambda: result.state == "RETRY", lambda: result.state)
    wait_until(lambda: is_gone(pid), "the end of its process")
    assert worker.stop() == 0
    assert len(stage.ledger.entries("start", key)) == 1


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    "server",
    [
        pytest.param(PrivateRedis, marks=pytest.mark.needs("redis"), id="redis"),
        pytest.param(PrivateRabbitMQ, marks=pytest.mark.needs("rabbitmq"), id="rabbitmq"),
    ],
)
def test_where_the_setting_says_so_a_lost_connection_cancels_what_is_acknowledged_late(server, tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    with server(folder) as private:
        backend = private.url if private.service == "redis" else f"sqlite:///{tmp_path / 'celery.sqlite'}"
        setting = {"worker_cancel_long_running_tasks_on_connection_loss": True}
        stage = Stage(private.service, private.url, backend, tmp_path, **setting)
        try:
            worker, key, result, pid = running(stage, "block_late")
            private.restart()
            stage.ledger.wait("start", key, times=2, seconds=40)
            assert is_gone(pid)
            assert WORDS in worker.said()
            stage.open_gate(key)
            assert result.get(timeout=20) == key
            assert worker.stop() == 0
            assert len(stage.ledger.entries("end", key)) == 1
        finally:
            stage.close()


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    "server",
    [
        pytest.param(PrivateRedis, marks=pytest.mark.needs("redis"), id="redis"),
        pytest.param(PrivateRabbitMQ, marks=pytest.mark.needs("rabbitmq"), id="rabbitmq"),
    ],
)
def test_what_dies_while_the_server_is_away_runs_again_when_it_is_back(server, tmp_path):
    """Its message comes again, and must not be taken for that of an attempt that still runs."""
    folder = tmp_path / "server"
    folder.mkdir()
    with server(folder) as private:
        backend = private.url if private.service == "redis" else f"sqlite:///{tmp_path / 'celery.sqlite'}"
        stage = Stage(private.service, private.url, backend, tmp_path)
        try:
            worker, key, result, pid = running(stage, "block_late")
            private.stop()
            worker.wait_said("Connection to broker lost")
            os.kill(pid, signal.SIGKILL)
            worker.wait_said("its process died")
            private.start()
            stage.ledger.wait("start", key, times=2, seconds=60)
            stage.open_gate(key)
            assert result.get(timeout=20) == key
            assert worker.stop() == 0
            assert stage.waiting() == 0
            assert len(stage.ledger.entries("end", key)) == 1
        finally:
            stage.close()


@pytest.mark.parametrize("pool", ["prefork", "solo"])
@pytest.mark.parametrize(
    ("busy", "task"),
    [("block", "record"), ("block", "record_late"), ("ablock", "ablock")],
    ids=["early", "late", "async"],
)
def test_what_expires_while_it_waits_for_a_process_does_not_run(stage, pool, busy, task):
    """As in Celery 5.7.0: nothing runs, the state is REVOKED, and who listens is told that it had expired."""
    argv = ("-c", "1", "-P", pool, "--prefetch-multiplier", "8", "--include", "ending_commands")
    worker, first = stage.worker(*argv, worker_async_concurrency=1), stage.key()
    running = stage.send(busy, first)
    stage.ledger.wait("start", first)
    expires = soon()
    keys = [stage.key() for _ in range(3)]
    late = [stage.send(task, key, expires=expires) for key in keys]
    other = stage.key()
    after = stage.send(busy, other, expires=expires + timedelta(seconds=60))
    stage.open_gate(other)
    worker.wait_said(f"[{after.id}] received")
    wait_until_time(expires)
    stage.open_gate(first)
    assert after.get(timeout=SOON) is not None
    assert running.state == "SUCCESS"
    for key, result in zip(keys, late, strict=True):
        wait_until(lambda result=result: result.state == "REVOKED", result.id)
        assert f"[{result.id}] received" in worker.said()
        stage.ledger.wait("revoked", f"{result.id}:False:None:True")
        assert not [entry for entry in stage.ledger.entries(key=key)]
    assert worker.said().count("Discarding revoked task: ") == len(keys)
    assert worker.stop() == 0
    assert stage.waiting() == 0
    assert stage.dead() == []


def test_a_chord_fails_with_a_member_that_expires_while_it_waits_and_error_callbacks_of_its_own_are_not_sent(stage):
    worker, first = stage.worker("-c", "1", "--prefetch-multiplier", "8"), stage.key()
    stage.send("block", first)
    stage.ledger.wait("start", first)

    def sign(name, *args):
        return stage.app.signature(f"project.{name}", args)

    expires = soon()
    late = sign("echo", 1).set(expires=expires, link_error=sign("old_errback"))
    body = sign("echo").set(link_error=sign("old_errback"))
    result = chord([sign("echo", 2), late])(body)
    worker.wait_said(f"[{result.parent[1].id}] received")
    wait_until_time(expires)
    stage.open_gate(first)
    # Not by `get`, which raises the error of a member that has failed by then.
    wait_until(lambda: result.state == "FAILURE", lambda: result.state)
    assert isinstance(result.result, ChordError)
    assert "expired" in str(result.result)
    assert [member.state for member in result.parent] == ["SUCCESS", "REVOKED"]
    stage.ledger.wait("failed", result.id)
    assert not stage.ledger.entries("failed", result.parent[1].id)
    assert worker.stop() == 0
    assert stage.waiting() == 0
