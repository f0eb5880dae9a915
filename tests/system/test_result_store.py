"""Stores that go away, stores of third parties, and what RabbitMQ cannot tell (see `docs/guarantees.md`)."""

from __future__ import annotations

import time

import pytest
from harness import SOON, Stage, wait_until

from celery import states


def test_a_worker_waits_for_a_store_that_is_away(tmp_path, private_redis):
    store = private_redis()
    stage = Stage("sqlite", f"sqlite:///{tmp_path / 'broker.sqlite'}", store.url, tmp_path)
    try:
        worker, keys = stage.worker("-c", "1"), [stage.key() for _ in range(3)]
        results = stage.send_all("block_late", [(key,) for key in keys])
        stage.ledger.wait("start", keys[0])
        store.kill()
        for key in keys:
            stage.open_gate(key)
        for key in keys:
            stage.ledger.wait("end", key)
        worker.wait_said("The result backend cannot be reached")
        store.start()
        assert [result.get(timeout=SOON) for result in results] == keys
        assert set(stage.ledger.counts("start").values()) == {1}
        assert worker.stop() == 0
    finally:
        stage.close()


@pytest.fixture
def stage_with_shelf(request, tmp_path, monkeypatch):
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("SHELF", str(folder))
    kind = getattr(request, "param", "Shelf")
    stage = Stage("sqlite", f"sqlite:///{tmp_path / 'broker.sqlite'}", f"shelf:{kind}", tmp_path)
    yield stage
    stage.close()


def test_a_blocking_backend_of_a_third_party_is_served_by_the_children(stage_with_shelf):
    stage = stage_with_shelf
    worker, key, fine = stage.worker("-c", "2"), stage.key(), stage.key()
    result = stage.send("record", key, link=stage.app.signature("project.callback", args=(fine,)))
    failing = stage.send("fail", "on purpose")
    again = stage.send("retry", stage.key(), 0)
    assert result.get(timeout=SOON, interval=0.02) == key
    stage.ledger.wait("called", f"{fine}:{key}")
    with pytest.raises(ValueError, match="on purpose"):
        failing.get(timeout=SOON, interval=0.02)
    assert again.get(timeout=SOON, interval=0.02) is not None
    assert worker.stop() == 0


@pytest.mark.parametrize("stage_with_shelf", ["LateShelf"], indirect=True)
def test_what_a_retry_comes_to_is_not_replaced_by_the_state_of_the_attempt_before(stage_with_shelf):
    """The store does not compare as it writes, and the other child runs the retry at once."""
    stage = stage_with_shelf
    worker = stage.worker("-c", "2")
    result = stage.send("retry", stage.key(), 0)
    assert result.get(timeout=SOON, interval=0.02) is not None
    assert worker.stop() == 0
    assert result.state == "SUCCESS"


def test_children_wait_for_a_store_of_a_third_party_that_is_away(stage_with_shelf):
    stage = stage_with_shelf
    worker, shelf, away = stage.worker("-c", "1"), stage.folder / "shelf", stage.folder / "away"
    shelf.rename(away)
    keys = [stage.key(), stage.key()]
    results = [stage.send("record", keys[0]), stage.send("record_late", keys[1])]
    worker.wait_said("its result cannot be settled")
    children = worker.children()
    away.rename(shelf)
    assert [result.get(timeout=SOON, interval=0.02) for result in results] == [keys[0], None]
    assert worker.children() == children
    assert stage.ledger.counts("ran") == dict.fromkeys(keys, 1)
    assert worker.stop() == 0


def test_a_record_that_the_store_refuses_costs_no_process(stage_with_shelf):
    stage = stage_with_shelf
    worker, key = stage.worker("-c", "1"), stage.key()
    children = worker.children()
    # A name that no file can have: the store can never take it.
    stage.send("record", key, task_id="x" * 300)
    worker.wait_said("its result is lost")
    assert stage.send("echo", 1).get(timeout=SOON, interval=0.02) == 1
    assert worker.children() == children
    assert worker.stop() == 0


def test_rabbitmq_forgets_what_had_begun_when_the_worker_dies(tmp_path, rabbitmq_url):
    stage = Stage("rabbitmq", rabbitmq_url, f"sqlite:///{tmp_path / 'results.sqlite'}", tmp_path)
    try:
        worker, key, later = stage.worker("-c", "1"), stage.key(), stage.key()
        result = stage.send("block_tracked", key)
        stage.ledger.wait("start", key)
        wait_until(lambda: result.state == states.STARTED, lambda: result.state)
        time.sleep(0.5)  # the acknowledgement is on its way, and nobody outside can see it arrive
        worker.kill()
        stage.worker("-c", "1")
        stage.send("record", later)
        stage.ledger.wait("ran", later)
        assert len(stage.ledger.entries("start", key)) == 1
        assert stage.waiting() == 0
        assert result.state == states.STARTED
    finally:
        stage.close()


def test_on_rabbitmq_what_follows_is_sent_then_the_result_stored_then_the_message_acknowledged(
    tmp_path, rabbitmq_url, private_redis
):
    store = private_redis()
    stage = Stage("rabbitmq", rabbitmq_url, store.url, tmp_path)
    try:
        worker, key = stage.worker("-c", "2"), stage.key()
        store.kill()
        result = stage.send("record_late", key, link=stage.app.signature("project.callback", args=(key,)))
        # It follows although the result cannot be stored ...
        stage.ledger.wait("called", f"{key}:None")
        worker.wait_said("The result backend cannot be reached")
        worker.kill()
        store.start()
        # ... and the message was not acknowledged: all of it comes again.
        stage.worker("-c", "2")
        stage.ledger.wait("called", f"{key}:None", times=2)
        assert result.get(timeout=SOON) is None
        assert len(stage.ledger.entries("ran", key)) == 2
    finally:
        stage.close()
