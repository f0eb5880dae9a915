"""What every result backend does, those too that keep no records or send them as messages."""

from __future__ import annotations

import asyncio

import pytest
from stores import BATCHES, CHORDS, GROUPS, RECORDS, SOON, write

from celery import states


def test_the_url_is_shown_without_its_password(bench):
    shown = bench.backend.as_uri()
    assert shown
    assert "guest:guest" not in shown
    for password in filter(None, [part.partition("@")[0] for part in bench.url.partition("://")[2].split(":")[1:2]]):
        if "@" in bench.url:
            assert f":{password}@" not in shown


def test_a_result_that_nobody_can_read_is_stored_without_an_error(bench, task_id):
    """A worker stores without asking whether anybody wants it."""
    stored = bench.worker.store_result(task_id, 5, states.SUCCESS)
    assert stored == (5 if RECORDS in bench.can else None)
    bench.worker.store_result(task_id, KeyError("k"), states.FAILURE, traceback="tb")


@pytest.mark.only_with(BATCHES)
def test_a_batch_that_nobody_has_asked_for_is_written_without_an_error(bench, task_id):
    asyncio.run(write(bench.worker, [(task_id, 5, states.SUCCESS)]))
    asyncio.run(write(bench.worker, []))
    if RECORDS in bench.can:
        bench.asks()
        bench.store(f"{task_id}-next", 1, states.SUCCESS)
        assert bench.backend.wait_for(f"{task_id}-next", timeout=SOON)["result"] == 1


def test_a_backend_is_closed_more_than_once_and_used_again(bench, task_id):
    for _ in range(2):
        bench.backend.close()
        bench.backend.close()
        bench.asks()
        bench.store(task_id, 1, states.SUCCESS)
        if RECORDS in bench.can:
            assert bench.backend.wait_for(task_id, timeout=SOON)["result"] == 1


@pytest.mark.only_with(CHORDS)
def test_chords_are_allowed(bench):
    assert bench.backend.ensure_chords_allowed() is None


@pytest.mark.only_without(CHORDS)
def test_chords_are_refused_with_what_to_do(bench):
    with pytest.raises(NotImplementedError, match="result.backend"):
        bench.backend.ensure_chords_allowed()


@pytest.mark.only_without(GROUPS)
def test_groups_are_refused(bench, task_id):
    app = bench.backend.app
    with pytest.raises(NotImplementedError, match="group"):
        bench.backend.save_group(task_id, app.GroupResult(task_id, [app.AsyncResult("member")]))
    with pytest.raises(NotImplementedError, match="group"):
        bench.backend.restore_group(task_id)
    with pytest.raises(NotImplementedError, match="group"):
        bench.backend.delete_group(task_id)


@pytest.mark.only_without(RECORDS)
@pytest.mark.parametrize(
    "read", ["get_task_meta", "get_many_meta", "get_state", "get_result", "get_traceback", "wait_for", "wait_for_many"]
)
def test_reading_says_what_to_configure(bench, task_id, read):
    with pytest.raises(NotImplementedError, match="result_backend"):
        getattr(bench.backend, read)(task_id)
