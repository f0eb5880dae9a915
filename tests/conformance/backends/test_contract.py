"""What `celery.backends.base` promises of records, asked of every result backend that keeps or sends them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from stores import BATCHES, CONNECTIONS, EXPIRY, GROUPS, LOOKUP, PROCESSES, RECORDS, SOON, write

from celery import states
from celery.exceptions import ChordError, OperationalError, WorkerLostError
from celery.exceptions import TimeoutError as WaitTimeout

pytestmark = pytest.mark.only_with(RECORDS)


def fresh(count):
    return [str(uuid.uuid4()) for _ in range(count)]


# -- Records -----------------------------------------------------------------------------------------------------------


def test_an_unknown_task_is_pending(bench, task_id):
    assert bench.backend.get_task_meta(task_id) == {"status": "PENDING", "result": None, "task_id": task_id}
    assert bench.backend.get_state(task_id) == states.PENDING
    assert not bench.backend.task_result_exists(task_id)


@pytest.mark.parametrize("value", [5, None, "ünïcödé ✓ 🙂", [1, [2, {"a": None}]], {"k": 1.5}, "x" * 60_000])
def test_a_result_is_read_as_it_was_stored(bench, task_id, value):
    bench.store(task_id, value, states.SUCCESS)
    reader = bench.reader()
    meta = reader.get_task_meta(task_id)
    assert (meta["status"], meta["result"], meta["task_id"]) == (states.SUCCESS, value, task_id)
    assert meta["traceback"] is None
    done = datetime.fromisoformat(meta["date_done"])
    assert abs(done.timestamp() - time.time()) < 60
    assert reader.task_result_exists(task_id)


@pytest.mark.parametrize("state", [states.RECEIVED, states.STARTED, states.REJECTED, "PROGRESS"])
def test_an_unfinished_state_is_kept_without_a_date(bench, task_id, state):
    bench.store(task_id, {"pid": 7, "hostname": "w1"}, state)
    meta = bench.reader().get_task_meta(task_id)
    assert (meta["status"], meta["result"]) == (state, {"pid": 7, "hostname": "w1"})
    assert meta["date_done"] is None


@pytest.mark.parametrize("state", [states.FAILURE, states.RETRY, states.REVOKED])
def test_an_exception_comes_back_as_itself(bench, task_id, state):
    bench.store(task_id, ValueError("boom", 3), state, traceback="Traceback:\nValueError: boom\n")
    reader = bench.reader()
    error = reader.get_result(task_id)
    assert type(error) is ValueError
    assert error.args == ("boom", 3)
    assert reader.get_state(task_id) == state
    assert reader.get_traceback(task_id) == "Traceback:\nValueError: boom\n"


def test_our_own_exceptions_come_back_too(bench, task_id):
    bench.store(task_id, WorkerLostError("gone"), states.FAILURE)
    assert isinstance(bench.reader().get_result(task_id), WorkerLostError)


def test_states_follow_each_other(bench, task_id):
    for state in (states.STARTED, states.RETRY, states.STARTED, states.FAILURE, states.SUCCESS):
        value = KeyError("k") if state in states.EXCEPTION_STATES else 1
        bench.store(task_id, value, state)
        assert bench.reader().get_state(task_id) == state


@pytest.mark.parametrize("late", [states.STARTED, states.FAILURE, states.REVOKED, states.RETRY])
def test_a_stored_success_is_final(bench, task_id, late):
    """wire.md 4.1, API-061."""
    bench.store(task_id, 42, states.SUCCESS)
    bench.store(task_id, KeyError("late") if late != states.STARTED else {}, late, by=bench.make())
    meta = bench.reader().get_task_meta(task_id)
    assert (meta["status"], meta["result"]) == (states.SUCCESS, 42)


def test_children_and_group_are_kept(bench, task_id):
    child = SimpleNamespace(as_tuple=lambda: (("child", None), None))
    bench.store(task_id, 1, states.SUCCESS, children=[child], group=None, parent_id=None)
    children = bench.reader().get_children(task_id)
    assert children == [[["child", None], None]]


def test_extended_results_say_how_the_task_was_called(bench, task_id):
    bench.store(
        task_id,
        5,
        states.SUCCESS,
        by=bench.make(result_extended=True),
        task="w.add",
        args=[2, 3],
        kwargs={"z": 1},
        hostname="w1@host",
        retries=2,
        delivery_info={"routing_key": "celery"},
        stamped_headers=["stamp"],
        stamps={"stamp": "v1"},
        children=[],
        group=None,
        parent_id=None,
    )
    meta = bench.reader().get_task_meta(task_id)
    expected = {
        "name": "w.add",
        "args": [2, 3],
        "kwargs": {"z": 1},
        "worker": "w1@host",
        "retries": 2,
        "queue": "celery",
        "stamped_headers": ["stamp"],
        "stamp": "v1",
    }
    assert {name: meta.get(name) for name in expected} == expected


def test_many_are_read_in_the_order_asked(bench):
    ids = fresh(30)
    for number, id in enumerate(ids[::2]):
        bench.store(id, number, states.SUCCESS)
    reader = bench.reader()
    metas = reader.get_many_meta(ids)
    assert [meta["task_id"] for meta in metas] == ids
    assert [meta["result"] for meta in metas[::2]] == list(range(15))
    assert {meta["status"] for meta in metas[1::2]} == {states.PENDING}
    assert reader.get_many_meta([]) == []


def test_forgetting_deletes_the_record(bench, task_id):
    bench.store(task_id, 1, states.SUCCESS)
    reader = bench.reader()
    assert reader.get_result(task_id) == 1
    reader.forget(task_id)
    assert reader.get_state(task_id) == states.PENDING
    reader.forget(task_id)


@pytest.mark.only_without(LOOKUP)
def test_a_message_is_for_the_asker_alone(bench, task_id):
    """API-067."""
    bench.store(task_id, 1, states.SUCCESS)
    stranger = bench.make()
    assert stranger.get_state(task_id) == states.PENDING
    stranger.forget(task_id)
    assert bench.reader().get_result(task_id) == 1


@pytest.mark.only_with(EXPIRY)
def test_results_expire(bench, task_id):
    writer = bench.make(result_expires=timedelta(seconds=1))
    bench.store(task_id, 1, states.SUCCESS, by=writer)
    assert writer.get_state(task_id) == states.SUCCESS
    reader = bench.make(result_expires=1)
    deadline = time.monotonic() + SOON
    while reader.get_task_meta(task_id, cache=False)["status"] != states.PENDING:
        assert time.monotonic() < deadline
        reader.cleanup()
        time.sleep(0.05)


def test_cleaning_up_spares_what_has_not_expired(bench, task_id):
    bench.store(task_id, 1, states.SUCCESS)
    bench.backend.cleanup()
    assert bench.reader().get_result(task_id) == 1


# -- Groups ------------------------------------------------------------------------------------------------------------


@pytest.mark.only_with(GROUPS)
def test_a_saved_group_is_restored_with_its_members(bench):
    app = bench.backend.app
    group_id, members = str(uuid.uuid4()), fresh(3)
    group = app.GroupResult(group_id, [app.AsyncResult(id) for id in members])
    bench.backend.save_group(group_id, group)
    bench.backend.save_group(group_id, group)
    reader = bench.make()
    restored = reader.restore_group(group_id)
    assert (restored.id, [member.id for member in restored.results]) == (group_id, members)
    reader.delete_group(group_id)
    assert reader.restore_group(group_id) is None
    assert bench.make().restore_group(group_id) is None


# -- Waiting -----------------------------------------------------------------------------------------------------------


def later(function, seconds=0.1):
    timer = threading.Timer(seconds, function)
    timer.start()
    return timer


def test_waiting_finds_what_was_stored_before(bench, task_id):
    bench.store(task_id, 5, states.SUCCESS)
    assert bench.backend.wait_for(task_id, timeout=SOON)["result"] == 5


def test_waiting_is_ended_by_the_store_of_another(bench, task_id):
    timer = later(lambda: bench.store(task_id, KeyError("k"), states.FAILURE))
    meta = bench.backend.wait_for(task_id, timeout=SOON)
    assert meta["status"] == states.FAILURE
    assert isinstance(meta["result"], KeyError)
    timer.join()


def test_waiting_tells_of_intermediate_states(bench, task_id):
    seen, told = [], threading.Event()

    def on_message(meta):
        seen.append(meta["status"])
        told.set()

    def work():
        bench.store(task_id, {"pid": 1}, states.STARTED)
        told.wait(SOON)
        bench.store(task_id, 1, states.SUCCESS)

    timer = later(work)
    bench.backend.wait_for(task_id, timeout=SOON, on_message=on_message)
    assert seen[0] == states.STARTED
    assert seen[-1] == states.SUCCESS
    timer.join()


def test_a_wait_has_its_bound(bench, task_id):
    bench.store(task_id, {}, states.STARTED)
    begun = time.monotonic()
    with pytest.raises(WaitTimeout):
        bench.backend.wait_for(task_id, timeout=0.4)
    assert 0.35 < time.monotonic() - begun < 5


def gotten(result, wait, **options):
    """By `get`, or by `aget` on a loop of its own."""
    return result.get(**options) if wait == "get" else asyncio.run(result.aget(**options))


@pytest.fixture
def once(bench):
    """For `on_message`: the first record to be told has work done on another thread, as the wait has begun. It is over
    before the backend is closed.
    """
    threads = []

    def once(work):
        def told(_):
            if not threads:
                threads.append(threading.Thread(target=work))
                threads[0].start()

        return told

    yield once
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("wait", ["get", "aget"])
def test_of_a_chord_that_fails_while_it_is_awaited_the_error_of_its_member_is_raised(bench, once, task_id, wait):
    app, members = bench.backend.app, fresh(3)
    header = app.GroupResult(str(uuid.uuid4()), [app.AsyncResult(id) for id in members])
    result = app.AsyncResult(task_id, parent=header)

    def fail():
        bench.store(members[1], KeyError("member"), states.FAILURE)
        bench.store(task_id, ChordError("chord"), states.FAILURE)

    bench.store(task_id, {}, "PROGRESS")
    with pytest.raises(KeyError, match="member"):
        gotten(result, wait, timeout=SOON, on_message=once(fail))
    assert isinstance(gotten(result, wait, timeout=SOON, propagate=False), ChordError)
    with pytest.raises(ChordError):
        gotten(result, wait, timeout=SOON, follow_parents=False)
    with pytest.raises(KeyError, match="member"):
        gotten(result, wait, timeout=SOON)


@pytest.mark.parametrize("wait", ["get", "aget"])
def test_a_parent_that_fails_ends_the_wait_for_what_never_comes(bench, once, task_id, wait):
    app, (first, *members) = bench.backend.app, fresh(3)
    header = app.GroupResult(
        str(uuid.uuid4()), [app.AsyncResult(id) for id in members], parent=app.AsyncResult(first)
    )
    result = app.AsyncResult(task_id, parent=header)

    def fail():
        bench.store(first, 1, states.SUCCESS)
        bench.store(members[0], 2, states.SUCCESS)
        bench.store(members[1], KeyError("member"), states.FAILURE)

    bench.store(task_id, {}, "PROGRESS")
    with pytest.raises(KeyError, match="member"):
        gotten(result, wait, timeout=SOON, on_message=once(fail))
    assert result.state == "PROGRESS"


def test_waiting_for_a_running_task_costs_next_to_nothing(bench, task_id):
    other = str(uuid.uuid4())
    bench.store(task_id, {"pid": 1}, states.STARTED)
    bench.store(other, KeyError("k"), states.FAILURE)
    used = time.process_time()
    with pytest.raises(WaitTimeout):
        list(bench.backend.wait_for_many([task_id, other], timeout=1.0))
    assert time.process_time() - used < 0.4


def test_a_custom_state_is_told_whenever_its_value_changes(bench, task_id):
    watcher = bench.backend.make_watcher()
    try:
        watcher.add([task_id])
        for percent in (10, 20, 30):
            bench.store(task_id, {"percent": percent}, "PROGRESS")
            told, deadline = [], time.monotonic() + SOON
            while {"percent": percent} not in told:
                told += [meta["result"] for meta in watcher.drain(1.0)]
                assert time.monotonic() < deadline
    finally:
        watcher.close()


def test_many_are_reported_as_they_arrive_each_once(bench):
    ids = fresh(40)

    def work():
        for number, id in enumerate(ids):
            bench.store(id, number, states.SUCCESS)

    timer = later(work)
    metas = list(bench.backend.wait_for_many(ids, timeout=30))
    assert sorted(meta["task_id"] for meta in metas) == sorted(ids)
    assert {meta["task_id"]: meta["result"] for meta in metas} == {id: number for number, id in enumerate(ids)}
    timer.join()


def test_a_watcher_takes_ids_from_other_threads_while_it_drains(bench, task_id):
    watcher = bench.backend.make_watcher()
    try:
        bench.store(task_id, 1, states.SUCCESS)
        timer = later(lambda: (watcher.add([task_id]), watcher.wake()))
        found, deadline = [], time.monotonic() + SOON
        while not found:
            found = watcher.drain(1.0)
            assert time.monotonic() < deadline
        assert found[0]["task_id"] == task_id
        timer.join()
    finally:
        watcher.close()
        watcher.close()


def test_a_discarded_task_is_reported_no_more(bench):
    watcher = bench.backend.make_watcher()
    try:
        quiet, loud = fresh(2)
        watcher.add([quiet, loud])
        watcher.discard([quiet, "unknown"])
        bench.store(quiet, 1, states.SUCCESS)
        bench.store(loud, 2, states.SUCCESS)
        found, deadline = set(), time.monotonic() + SOON
        while loud not in found:
            found |= {meta["task_id"] for meta in watcher.drain(1.0)}
            assert time.monotonic() < deadline
        assert quiet not in found
    finally:
        watcher.close()


def test_waking_ends_a_drain(bench):
    watcher = bench.backend.make_watcher()
    try:
        watcher.add(["never"])
        timer = later(watcher.wake)
        begun = time.monotonic()
        assert watcher.drain(30.0) == []
        assert time.monotonic() - begun < SOON
        timer.join()
    finally:
        watcher.close()


async def test_coroutines_wait_together(bench):
    ids = fresh(10)

    def work():
        for id in ids:
            bench.store(id, id, states.SUCCESS)

    timer = later(work)
    metas = await asyncio.gather(*(bench.backend.hub.wait(id, SOON) for id in ids))
    assert [meta["result"] for meta in metas] == ids
    assert await bench.backend.hub.wait("never", 0.1) is None
    await asyncio.to_thread(timer.join)


# -- The worker's way --------------------------------------------------------------------------------------------------


@pytest.mark.only_with(BATCHES)
async def test_a_batch_is_written_from_the_workers_loop(bench):
    backend, request = bench.worker, bench.request()
    assert backend.async_writer
    ids = fresh(20)
    await backend.open_writer()
    try:
        values = enumerate(ids)
        await backend.write([backend.prepare_write(id, n, states.SUCCESS, None, request) for n, id in values])
        await backend.write([backend.prepare_write(ids[0], KeyError("late"), states.FAILURE, None, request)])
        await backend.write([])
    finally:
        await backend.close_writer()
        await backend.close_writer()
    metas = await asyncio.to_thread(lambda: bench.reader().get_many_meta(ids))
    assert [meta["result"] for meta in metas] == list(range(20))


@pytest.mark.only_with(BATCHES)
async def test_a_batch_written_by_a_worker_wakes_those_who_wait(bench, task_id):
    waiting = asyncio.create_task(bench.backend.hub.wait(task_id, SOON))
    await write(bench.worker, [(task_id, 7, states.SUCCESS, None, bench.request())])
    assert (await waiting)["result"] == 7


@pytest.mark.only_without(BATCHES)
async def test_a_backend_that_blocks_takes_no_batches(bench):
    assert not bench.backend.async_writer
    with pytest.raises(NotImplementedError, match="store_result"):
        await bench.backend.write([])


def test_a_child_stores_by_itself(bench, task_id):
    bench.worker.store_result(task_id, 5, states.SUCCESS, request=bench.request())
    assert bench.backend.wait_for(task_id, timeout=SOON)["result"] == 5


# -- Threads and processes ---------------------------------------------------------------------------------------------


def test_threads_store_at_once_and_one_success_wins(bench, task_id):
    ids, errors = fresh(20), []

    def work(number):
        try:
            for id in ids:
                bench.store(id, number, states.STARTED)
            bench.store(task_id, number, states.SUCCESS)
        except Exception as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    reader = bench.reader()
    assert {meta["status"] for meta in reader.get_many_meta(ids)} == {states.STARTED}
    assert reader.get_state(task_id) == states.SUCCESS


@pytest.mark.only_with(PROCESSES)
def test_another_process_reads_and_writes_the_same_records(bench, task_id):
    bench.store("asked", "question", states.SUCCESS)
    code = (
        "import sys; from celery import Celery\n"
        "backend = Celery('other', broker='memory://', backend=sys.argv[1]).backend\n"
        "backend.store_result(sys.argv[2], backend.get_result('asked') + '!', 'SUCCESS')\n"
    )
    subprocess.run([sys.executable, "-c", code, bench.url, task_id], cwd=Path(__file__).parent, check=True, timeout=50)
    assert bench.backend.wait_for(task_id, timeout=SOON)["result"] == "question!"


@pytest.mark.only_with(PROCESSES)
def test_a_forked_process_opens_its_own_connection(bench):
    ours, theirs = fresh(2)
    bench.store(ours, 1, states.SUCCESS)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for _ in range(5):
                assert bench.backend.get_task_meta(ours, cache=False)["result"] == 1
            bench.store(theirs, 2, states.SUCCESS)
            status = 0
        finally:
            os._exit(status)
    for _ in range(20):
        assert bench.backend.get_task_meta(ours, cache=False)["result"] == 1
    assert os.waitpid(child, 0)[1] == 0
    assert bench.backend.wait_for(theirs, timeout=SOON)["result"] == 2


async def test_closing_ends_the_waits_of_coroutines(bench, task_id):
    waiting = asyncio.ensure_future(bench.backend.hub.wait(task_id, 30))
    await asyncio.sleep(0)  # it has begun
    await asyncio.to_thread(bench.backend.close)
    with pytest.raises(OperationalError, match="closed"):
        await asyncio.wait_for(waiting, SOON)


@pytest.mark.only_with(LOOKUP)
def test_a_closed_application_holds_nothing_of_its_backend_open_and_may_be_used_again(bench, task_id):
    def waits():
        return next(iter(app.backend.wait_for_many([task_id], SOON)))["result"]

    backend = bench.make()
    app = backend.app
    backend.store_result(task_id, 1, "SUCCESS")
    assert waits() == 1
    del backend
    opened = open_files()
    for _ in range(3):
        app.close()
        app.close()
        assert open_files() < opened or CONNECTIONS not in bench.can
        assert waits() == 1
    app.close()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
