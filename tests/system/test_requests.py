"""Requests that take themselves to the pool (API-042), in workers of every broker."""

import signal
import sys
from pathlib import Path

import pytest
from harness import Stage, wait_until

from celery.exceptions import TaskError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from private_servers import PrivateRabbitMQ, PrivateRedis  # noqa: E402  found through the line above

WORKER = ("-c", "2", "--include", "own_requests")
#: Processes, and the worker's own thread.
POOLS = ["prefork", "solo"]


def send(stage, what, task="own.early", **options):
    """The key and the result of a call."""
    key = stage.key()
    return key, stage.app.send_task(task, (key, what), **options)


@pytest.mark.parametrize("task", ["own.early", "own.late"])
@pytest.mark.parametrize("pool", POOLS)
def test_they_run_their_tasks_at_once_later_or_here(stage, pool, task):
    worker = stage.worker(*WORKER, "-P", pool)
    sent = [send(stage, what, task) for what in ("at_once", "elsewhere", "here", "at_once")]
    stage.open_gate(sent[1][0])
    for key, result in sent:
        assert result.get(timeout=20) == key
        assert len(stage.ledger.entries("ran", key)) == 1
    main = stage.ledger.entries("called", sent[2][0])[0].pid
    assert stage.ledger.entries("ran", sent[2][0])[0].pid == main
    assert worker.stop() == 0
    assert stage.waiting() == 0


@pytest.mark.parametrize("task", ["own.early", "own.late"])
def test_they_may_settle_their_messages_or_fail(stage, task):
    worker = stage.worker(*WORKER)
    refused, forgotten, failing = (send(stage, what, task) for what in ("refuse", "forget", "fail"))
    with pytest.raises(TaskError, match="a mistake"):
        failing[1].get(timeout=20)
    last = send(stage, "at_once", task)
    assert last[1].get(timeout=20) == last[0]
    for key, result in (refused, forgotten):
        stage.ledger.wait("returned", key)
        assert result.state == "PENDING"
    wait_until(lambda: len(stage.dead()) == 1, lambda: f"{stage.dead()} dead letters")
    assert worker.stop() == 0
    assert stage.waiting() == 0
    assert len(stage.ledger.entries("ran")) == 1


def test_what_a_stopping_worker_holds_comes_to_the_next_one(stage):
    worker = stage.worker(*WORKER)
    held, _ = send(stage, "never")
    stage.ledger.wait("returned", held)
    blocked, _ = send(stage, "when_open")
    stage.ledger.wait("called", blocked)
    worker.tell(signal.SIGTERM)
    worker.wait_said("Warm shutdown")
    stage.open_gate(blocked)
    assert worker.wait_end() == 0
    # It may have begun before the stop was done.
    assert stage.waiting() + len(stage.ledger.entries("ran", blocked)) == 2
    stage.worker(*WORKER)
    stage.ledger.wait("called", held, times=2)
    stage.ledger.wait("ran", blocked)


@pytest.mark.parametrize("task", ["own.early", "own.late"])
def test_what_a_killed_worker_held_comes_to_the_next_one(stage, task):
    worker = stage.worker(*WORKER)
    key, result = send(stage, "elsewhere", task)
    stage.ledger.wait("returned", key)
    worker.kill()
    stage.open_gate(key)
    stage.worker(*WORKER)
    assert result.get(timeout=40) == key
    assert len(stage.ledger.entries("ran", key)) == 1


def test_a_cold_stop_waits_for_nobody(stage):
    worker = stage.worker(*WORKER)
    key, _ = send(stage, "elsewhere")
    stage.ledger.wait("returned", key)
    assert worker.stop(signal.SIGQUIT) != 0
    assert stage.waiting() == 1


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    "server",
    [
        pytest.param(PrivateRedis, marks=pytest.mark.needs("redis"), id="redis"),
        pytest.param(PrivateRabbitMQ, marks=pytest.mark.needs("rabbitmq"), id="rabbitmq"),
    ],
)
def test_a_server_that_restarts_meanwhile_makes_nothing_run_twice(server, tmp_path):
    """What is being called goes on, and its message finds it again; of what is held a new request is made."""
    folder = tmp_path / "server"
    folder.mkdir()
    with server(folder) as private:
        backend = private.url if private.service == "redis" else f"sqlite:///{tmp_path / 'celery.sqlite'}"
        stage = Stage(private.service, private.url, backend, tmp_path)
        try:
            worker = stage.worker(*WORKER)
            held, held_result = send(stage, "elsewhere", "own.late")
            stage.ledger.wait("returned", held)
            blocked, blocked_result = send(stage, "when_open", "own.late")
            stage.ledger.wait("called", blocked)
            private.restart()
            worker.wait_said("Connection to broker lost")
            wait_until(lambda: worker.said().count("Connected to") >= 2, worker.said, 60)
            stage.open_gate(blocked)
            assert blocked_result.get(timeout=40) == blocked
            stage.ledger.wait("returned", held, times=2, seconds=40)
            stage.open_gate(held)
            assert held_result.get(timeout=40) == held
            assert worker.stop() == 0
            for key in (held, blocked):
                assert len(stage.ledger.entries("ran", key)) == 1
            assert len(stage.ledger.entries("called", blocked)) == 1
            assert "it is not run here" in worker.said()
            assert stage.waiting() == 0
        finally:
            stage.close()
