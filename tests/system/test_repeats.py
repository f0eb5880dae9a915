"""A message that comes again though its task has ended well: `worker_deduplicate_successful_tasks` (ROUTE-052)."""

import os
import signal

import pytest
from harness import Stage, wait_until

from celery import chord
from celery.app.context import Context

DEDUPLICATE = {"worker_deduplicate_successful_tasks": True}
DONE = "Task already completed successfully."


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis"))])
def stage_with_books(request, make_stage):
    return make_stage(request.param)


@pytest.fixture
def stage_with_shelf(tmp_path, monkeypatch):
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("SHELF", str(folder))
    stage = Stage("sqlite", f"sqlite:///{tmp_path / 'broker.sqlite'}", "shelf:Shelf", tmp_path)
    yield stage
    stage.close()


def interrupted(stage, task, between, **options):
    """The worker and the result of a task whose process was killed; `between` was done while it ran."""
    worker, key = stage.worker("-c", "1", **DEDUPLICATE), stage.key()
    result = stage.send(task, key, **options)
    stage.ledger.wait("start", key)
    between(result)
    for child in worker.children():
        os.kill(child, signal.SIGKILL)
    return worker, key, result


def stored(stage, value, state="SUCCESS"):
    """Store what another worker would have, had it died before it acknowledged."""
    return lambda result: stage.app.backend.store_result(result.id, value, state)


@pytest.mark.parametrize("task", ["block_late", "ablock_late"])
def test_a_stored_success_stands_in_for_a_redelivered_attempt_and_what_it_had_not_sent_follows(stage, task):
    follower = stage.app.signature("project.record")
    worker, key, result = interrupted(stage, task, stored(stage, "by-another"), link=follower)
    stage.ledger.wait("ran", "by-another")
    worker.wait_said(DONE)
    assert worker.stop() == 0
    assert len(stage.ledger.entries("start", key)) == 1
    assert (result.state, result.result) == ("SUCCESS", "by-another")
    assert stage.waiting() == 0
    assert not stage.dead()


def test_a_store_that_only_blocks_is_asked_too(stage_with_shelf):
    stage = stage_with_shelf
    follower = stage.app.signature("project.record")
    worker, key, result = interrupted(stage, "block_late", stored(stage, "by-another"), link=follower)
    stage.ledger.wait("ran", "by-another")
    assert worker.stop() == 0
    assert len(stage.ledger.entries("start", key)) == 1
    assert result.get(timeout=5) == "by-another"


def test_what_has_not_succeeded_runs_again(stage):
    worker, key, result = interrupted(stage, "block_late", stored(stage, ValueError("not yet"), "FAILURE"))
    stage.ledger.wait("start", key, times=2)
    stage.open_gate(key)
    # A result that was seen as ready is not looked at again.
    wait_until(lambda: stage.app.AsyncResult(result.id).state == "SUCCESS", "its value")
    assert worker.stop() == 0


def test_a_worker_records_what_it_sent_before(stage):
    stage.worker("-c", "1")
    follower = stage.key()
    result = stage.send("record", stage.key(), link=stage.app.signature("project.record", (follower,), immutable=True))
    stage.ledger.wait("ran", follower)
    wait_until(lambda: stage.app.AsyncResult(result.id).state == "SUCCESS", "its value")
    assert len(stage.app.AsyncResult(result.id).children) == 1


def test_what_a_record_names_among_its_children_is_not_sent_again(stage):
    def store(result):
        sent = Context(id=result.id)
        sent.children = [stage.app.AsyncResult("what followed")]
        stage.app.backend.store_result(result.id, "by-another", "SUCCESS", request=sent)

    follower = stage.app.signature("project.record")
    worker, key, _ = interrupted(stage, "block_late", store, link=follower)
    worker.wait_said(DONE)
    other = stage.key()
    stage.send("record", other)
    stage.ledger.wait("ran", other)
    assert worker.stop() == 0
    assert len(stage.ledger.entries("start", key)) == 1
    assert not stage.ledger.entries("ran", "by-another")


def test_its_chord_counts_it(stage_with_books):
    stage = stage_with_books
    worker = stage.worker("-c", "1", **DEDUPLICATE)
    key, body = stage.key(), stage.app.signature("project.echo")
    sign = stage.app.signature
    result = chord([sign("project.block_late", (key,)), sign("project.add", (1, 1))], body).apply_async()
    stage.ledger.wait("start", key)
    stored(stage, "by-another")(result.parent[0])
    (child,) = worker.children()
    os.kill(child, signal.SIGKILL)
    assert result.get(timeout=20) == ["by-another", 2]
    assert worker.stop() == 0
    assert len(stage.ledger.entries("start", key)) == 1
