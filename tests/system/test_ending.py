"""Attempts that end before their time: by their request (API-042), or with the connection (ROUTE-053)."""

import os
import sys
from pathlib import Path

import pytest
from harness import Stage, wait_until

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
    worker.wait_said("received")
    wait_until(lambda: stage.app.control.inspect(timeout=5).active()[worker.node][0]["acknowledged"], "its receipt")
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
