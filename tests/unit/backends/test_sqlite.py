"""The result store in a SQLite file: finality, expiry, waiting across threads and processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest

from celery import Celery, exceptions, states
from celery.backends.sqlite import SQLiteBackend

SOON = 10.0

STORING_PROCESS = """
import sys
from celery import Celery
backend = Celery("w", backend=sys.argv[1]).backend
for task_id in sys.argv[2:]:
    backend.store_result(task_id, task_id.upper(), "SUCCESS")
"""


@pytest.fixture
def url(sqlite_path):
    return f"sqlite:///{sqlite_path}"


@pytest.fixture
def app(url):
    return Celery("w", set_as_current=False, backend=url)


@pytest.fixture
def backend(app):
    return app.backend


@pytest.fixture
def watcher(backend):
    made = backend.make_watcher()
    yield made
    made.close()


def test_the_url_chooses_the_backend(backend, sqlite_path):
    assert isinstance(backend, SQLiteBackend)
    assert backend.path == str(sqlite_path)


def test_a_stored_success_is_final(backend):
    backend.store_result("t", {"pid": 1}, states.STARTED)
    backend.store_result("t", 5, states.SUCCESS)
    backend.store_result("t", ValueError("late"), states.FAILURE)
    assert backend.get_result("t") == 5
    backend._write([(backend.get_key_for_task("t"), states.FAILURE, b"{}")])
    assert backend.get_task_meta("t", cache=False)["result"] == 5


def test_an_expired_record_is_invisible_and_its_id_can_be_used_again(backend):
    backend.expires = 0.05
    backend.store_result("t", 5, states.SUCCESS)
    time.sleep(0.06)
    assert backend.get_state("t") == states.PENDING
    backend.expires = 60
    backend.store_result("t", 6, states.SUCCESS)
    assert backend.get_result("t") == 6


def test_cleanup_deletes_what_has_expired_and_nothing_else(backend):
    backend.expires = 0.01
    backend.store_result("old", 1, states.SUCCESS)
    backend.expires = None
    backend.store_result("kept", 2, states.SUCCESS)
    time.sleep(0.02)
    backend.cleanup()
    with backend.store.reading() as db:
        assert [key for (key,) in db.execute("SELECT key FROM result")] == [backend.get_key_for_task("kept")]


def test_many_records_come_in_the_order_asked_for(backend):
    for number in range(3):
        backend.store_result(f"t{number}", number, states.SUCCESS)
    metas = backend.get_many_meta(["t2", "unknown", "t0"])
    assert [(meta["status"], meta["result"]) for meta in metas] == [
        (states.SUCCESS, 2),
        (states.PENDING, None),
        (states.SUCCESS, 0),
    ]


def test_a_group_can_be_saved_again_restored_and_deleted(app, backend):
    for ids in (["a"], ["a", "b"]):
        app.GroupResult("g", [app.AsyncResult(id) for id in ids]).save()
    assert [result.id for result in backend.restore_group("g", cache=False)] == ["a", "b"]
    backend.delete_group("g")
    assert backend.restore_group("g") is None


def test_a_forgotten_result_is_gone(backend):
    backend.store_result("t", 5, states.SUCCESS)
    backend.forget("t")
    assert backend.get_state("t") == states.PENDING


def test_a_watcher_reports_what_was_stored_before_it_was_told(backend, watcher):
    backend.store_result("t", 5, states.SUCCESS)
    watcher.add(["t"])
    assert [meta["result"] for meta in watcher.drain(SOON)] == [5]


def test_a_watcher_is_woken_by_another_process(url, backend, watcher):
    ids = [f"t{number}" for number in range(5)]
    watcher.add(ids)
    assert watcher.drain(0) == []
    process = subprocess.Popen([sys.executable, "-c", STORING_PROCESS, url, "unwatched", *ids])
    found = {}
    deadline = time.monotonic() + SOON
    while len(found) < 5:
        assert time.monotonic() < deadline
        found |= {meta["task_id"]: meta["result"] for meta in watcher.drain(1)}
    assert found == {id: id.upper() for id in ids}
    assert process.wait(SOON) == 0


def test_a_watcher_of_many_reads_only_what_is_new_and_watched(backend, watcher):
    watcher.add(f"t{number}" for number in range(500))
    assert watcher.drain(0) == []
    backend.store_result("other", 1, states.SUCCESS)
    backend.store_result("t77", 2, states.SUCCESS)
    assert [meta["task_id"] for meta in watcher.drain(SOON)] == ["t77"]
    assert watcher.drain(0) == []
    watcher.discard(["t78"])
    backend.store_result("t78", 3, states.SUCCESS)
    assert watcher.drain(0) == []


def test_a_watcher_reports_each_state_of_a_task(backend, watcher):
    watcher.add(["t"])
    seen = []
    for state in (states.STARTED, states.RETRY, states.SUCCESS):
        backend.store_result("t", ValueError("x") if state == states.RETRY else 1, state)
        seen += [meta["status"] for meta in watcher.drain(SOON)]
    assert seen == [states.STARTED, states.RETRY, states.SUCCESS]


def test_wake_ends_a_drain_of_another_thread(watcher):
    drained = threading.Event()

    def drain():
        watcher.drain(SOON * 10)
        drained.set()

    thread = threading.Thread(target=drain)
    thread.start()
    watcher.wake()
    assert drained.wait(SOON)
    thread.join(SOON)


def test_a_result_is_awaited_by_get_with_a_bound(app, backend):
    result = app.AsyncResult("t")
    with pytest.raises(exceptions.TimeoutError):
        result.get(timeout=0.05)
    timer = threading.Timer(0.05, backend.store_result, ("t", 5, states.SUCCESS))
    timer.start()
    assert result.get(timeout=SOON) == 5
    timer.join(SOON)


async def write(backend, batch):
    await backend.open_writer()
    await backend.write(batch)
    await backend.close_writer()
    await backend.close_writer()


def test_a_worker_with_another_broker_writes_in_batches(backend):
    batch = [backend.prepare_write(f"t{number}", number, states.SUCCESS) for number in range(100)]
    asyncio.run(write(backend, batch))
    assert [meta["result"] for meta in backend.get_many_meta([f"t{number}" for number in range(100)])] == [*range(100)]


def test_a_forked_process_stores_and_its_parent_reads(backend):
    backend.store_result("parent", 1, states.SUCCESS)
    child = os.fork()
    if not child:
        status = 1
        try:
            backend.store_result("child", 2, states.SUCCESS)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (backend.get_result("parent"), backend.get_result("child")) == (1, 2)


def test_a_backend_without_a_file_is_refused(app):
    with pytest.raises(exceptions.ImproperlyConfigured, match="sqlite:///"):
        SQLiteBackend(app=app)
