"""Requests that take themselves to the pool, or settle themselves (API-042), in workers of every broker."""

import signal
import sys
from pathlib import Path

import pytest
from harness import Stage, wait_until

from celery.exceptions import TaskError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from private_servers import PrivateRabbitMQ, PrivateRedis  # noqa: E402  found through the line above

WORKER = ("-c", "2", "--include", "own_requests")
#: Processes that are forked, or begin anew; and the worker's own thread.
POOLS = {"prefork": (), "spawn": ("--pool-start-method", "spawn"), "solo": ("-P", "solo")}
#: When a message is acknowledged, and what its task is.
KINDS = ["early", "late", "async-early", "async-late"]
#: Where it makes a difference what has to end: a process, or one of many tasks in it.
WAYS = pytest.mark.parametrize(
    ("pool", "kind"), [("prefork", "late"), ("prefork", "async-late"), ("spawn", "late"), ("spawn", "async-late")]
)


def send(stage, what, kind="early", **options):
    """The key and the result of a call."""
    key = stage.key()
    return key, stage.app.send_task(f"own.gated.{kind}", (key, what), **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pool", POOLS)
def test_they_run_their_tasks_at_once_later_or_here(stage, pool, kind):
    worker = stage.worker(*WORKER, *POOLS[pool])
    sent = [send(stage, what, kind) for what in ("at_once", "elsewhere", "here", "at_once")]
    stage.open_gate(sent[1][0])
    for key, result in sent:
        assert result.get(timeout=20) == key
        assert len(stage.ledger.entries("ran", key)) == 1
    main = stage.ledger.entries("called", sent[2][0])[0].pid
    assert stage.ledger.entries("ran", sent[2][0])[0].pid == main
    assert worker.stop() == 0
    assert stage.waiting() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_they_may_settle_their_messages_or_fail(stage, kind):
    worker = stage.worker(*WORKER)
    refused, forgotten, failing = (send(stage, what, kind) for what in ("refuse", "forget", "fail"))
    with pytest.raises(TaskError, match="a mistake"):
        failing[1].get(timeout=20)
    last = send(stage, "at_once", kind)
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


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_killed_worker_held_comes_to_the_next_one(stage, kind):
    worker = stage.worker(*WORKER)
    key, result = send(stage, "elsewhere", kind)
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
            held, held_result = send(stage, "elsewhere", "late")
            stage.ledger.wait("returned", held)
            blocked, blocked_result = send(stage, "when_open", "late")
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


@pytest.mark.parametrize("kind", KINDS)
def test_what_acknowledges_itself_later_is_gone_then(stage, kind):
    worker = stage.worker(*WORKER)
    sent = [stage.key() for _ in range(20)]
    for key in sent:
        stage.app.send_task(f"own.settling.{kind}", (key,))
    for key in sent:
        stage.ledger.wait("ran", key)
        stage.open_gate(key)
    for key in sent:
        stage.ledger.wait("acknowledged", key)
    assert worker.stop() == 0
    assert stage.waiting() == 0
    assert len(stage.ledger.entries("ran")) == len(sent)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["early", "late"])
@pytest.mark.parametrize("end", ["stop", "stop at once", "kill"])
def test_what_nobody_acknowledges_comes_to_the_next_worker_with_its_result_stored(stage, kind, end):
    worker, key = stage.worker(*WORKER), stage.key()
    result = stage.app.send_task(f"own.settling.{kind}", (key,))
    assert result.get(timeout=20) == key
    stage.ledger.wait("acknowledge", key)
    if end == "kill":
        worker.kill()
    elif end == "stop":
        assert worker.stop() == 0
        assert stage.waiting() == 1
    else:
        worker.stop(signal.SIGQUIT)
    stage.worker(*WORKER)
    stage.ledger.wait("ran", key, times=2, seconds=40)


@WAYS
def test_a_cold_stop_asks_requests_to_cancel(stage, pool, kind):
    worker, key = stage.worker(*WORKER, *POOLS[pool]), stage.key()
    stage.app.send_task(f"own.settling.{kind}", (key, 30))
    (entry,) = stage.ledger.wait("ran", key)
    worker.wait_said("received")
    stage.ledger.wait("ran", key)
    wait_until(lambda: stage.app.control.inspect(timeout=5).active()[worker.node], "its start")
    assert worker.stop(signal.SIGQUIT) != 0
    assert stage.ledger.entries("cancel", key)
    assert stage.waiting() == 1
    assert not Path(f"/proc/{entry.pid}").exists()


@WAYS
def test_a_remote_revocation_asks_the_request_to_terminate(stage, pool, kind):
    worker, key = stage.worker(*WORKER, *POOLS[pool]), stage.key()
    result = stage.app.send_task(f"own.settling.{kind}", (key, 30))
    stage.ledger.wait("ran", key)
    stage.app.control.revoke(result.id, terminate=True, reply=True, timeout=20, limit=1)
    stage.ledger.wait("terminate", key)
    wait_until(lambda: result.state == "REVOKED", lambda: result.state)
    stage.open_gate(key)
    stage.ledger.wait("acknowledged", key)
    assert worker.stop() == 0
    assert stage.waiting() == 0


@pytest.mark.parametrize(("pool", "kind"), [*(("prefork", kind) for kind in KINDS), ("spawn", "late")])
def test_requests_that_can_do_nothing_end_neither_worker_nor_task(stage, pool, kind):
    worker, key, other = stage.worker(*WORKER, *POOLS[pool]), stage.key(), stage.key()
    broken = stage.app.send_task(f"own.broken.{kind}", (key,))
    assert broken.get(timeout=20) == key
    revoked = stage.app.send_task(f"own.broken.{kind}", (stage.key(),), expires=-5)
    wait_until(lambda: revoked.state == "REVOKED", lambda: revoked.state)
    running = stage.app.send_task(f"own.broken.{kind}", (other, 1))
    stage.ledger.wait("ran", other)
    stage.app.control.revoke(running.id, terminate=True, reply=True, timeout=20, limit=1)
    assert running.get(timeout=20) == other
    assert worker.said().count("LookupError: a mistake") >= 3
    assert worker.stop() == 0
    assert stage.waiting() == 3


@pytest.mark.timeout(150)
@pytest.mark.parametrize("kind", ["early", "late"])
@pytest.mark.parametrize(
    "server",
    [
        pytest.param(PrivateRedis, marks=pytest.mark.needs("redis"), id="redis"),
        pytest.param(PrivateRabbitMQ, marks=pytest.mark.needs("rabbitmq"), id="rabbitmq"),
    ],
)
def test_what_is_not_acknowledged_when_the_server_restarts_runs_again(server, kind, tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    with server(folder) as private:
        backend = private.url if private.service == "redis" else f"sqlite:///{tmp_path / 'celery.sqlite'}"
        stage = Stage(private.service, private.url, backend, tmp_path)
        try:
            worker, key = stage.worker(*WORKER), stage.key()
            assert stage.app.send_task(f"own.settling.{kind}", (key,)).get(timeout=20) == key
            stage.ledger.wait("acknowledge", key)
            private.restart()
            stage.ledger.wait("ran", key, times=2, seconds=60)
            stage.open_gate(key)
            stage.ledger.wait("acknowledged", key, times=2)
            assert worker.stop() == 0
            assert stage.waiting() == 0
            assert len(stage.ledger.entries("ran", key)) == 2
        finally:
            stage.close()
