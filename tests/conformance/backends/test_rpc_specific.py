"""What only the rpc backend has: reply queues of threads and processes, and messages of strangers in them."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import threading
import time
import weakref
from pathlib import Path

import pytest

from celery.app.base import Celery
from celery.app.context import Context
from celery.brokers.base import Publish
from celery.brokers.topology import Queue
from celery.wire.envelope import Envelope

VECTORS = Path(__file__).parents[2] / "data" / "wire_vectors"


@pytest.fixture(
    params=[
        pytest.param("rabbitmq", marks=pytest.mark.needs("rabbitmq")),
        pytest.param("redis", marks=pytest.mark.needs("redis")),
    ]
)
def app(request):
    app = Celery("rpc", broker=request.getfixturevalue(f"{request.param}_url"), backend="rpc://", set_as_current=False)
    yield app
    app.publisher.close()


def sent(app, task_id):
    """What `apply_async` does for the backend before it sends a task; gives the request that a worker would have."""
    app.backend.on_task_call(None, task_id)
    return Context(id=task_id, reply_to=app.thread_oid)


def test_a_result_that_came_before_anybody_asked_is_there(app):
    app.backend.store_result("1", 5, "SUCCESS", request=sent(app, "1"))
    assert app.backend.get_result("1") == 5


def test_one_thread_may_wait_for_what_another_sent(app):
    requests = []
    thread = threading.Thread(target=lambda: requests.append(sent(app, "1")))
    thread.start()
    thread.join()
    assert requests[0].reply_to != app.thread_oid
    app.backend.store_result("1", 5, "SUCCESS", request=requests[0])
    assert app.backend.wait_for("1", timeout=10)["result"] == 5


def test_threads_that_wait_for_what_each_other_sent_are_told_at_once(app):
    """One waits at its own queue, where nothing comes, for what comes to the queue of another that waits too."""
    threads, requests, values = 3, {}, {}
    all_sent, told = threading.Barrier(threads + 1), threading.Semaphore(0)

    def work(number):
        requests[number] = sent(app, str(number))
        all_sent.wait(10)
        other = str((number + 1) % threads)
        # So long an interval that a wait which nobody ends is over time.
        values[number] = app.backend.wait_for(other, timeout=10, interval=60)["result"]
        told.release()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    all_sent.wait(10)
    for number in range(threads):
        app.backend.store_result(str(number), number, "SUCCESS", request=requests[number])
        assert told.acquire(timeout=9)
    for worker in workers:
        worker.join()
    assert values == {number: (number + 1) % threads for number in range(threads)}


def test_a_state_that_is_asked_for_is_new_though_nobody_waits(app):
    app.backend.store_result("1", 5, "SUCCESS", request=sent(app, "1"))
    assert app.backend.wait_for("1", timeout=10)["result"] == 5
    app.backend.store_result("2", 6, "SUCCESS", request=sent(app, "2"))
    deadline = time.monotonic() + 3
    while app.backend.get_state("2") != "SUCCESS":
        assert time.monotonic() < deadline


def test_a_wait_that_is_interrupted_hurts_neither_the_connection_nor_the_next_wait(app):
    class InterruptedWaitError(Exception):
        pass

    def interrupt(*_):
        raise InterruptedWaitError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in map(str, range(5)):
            request = sent(app, number)
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(InterruptedWaitError):
                app.backend.wait_for(number, timeout=10)
            app.backend.store_result(number, 5, "SUCCESS", request=request)
            assert app.backend.wait_for(number, timeout=10, interval=60)["result"] == 5
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_thread_sends_again_after_another_has_closed_the_backend(app):
    sending, closed, sent_again = threading.Event(), threading.Event(), []

    def work():
        sent(app, "1")
        sending.set()
        closed.wait(10)
        sent_again.append(sent(app, "2"))

    thread = threading.Thread(target=work)
    thread.start()
    assert sending.wait(10)
    app.backend.close()
    closed.set()
    thread.join()
    app.backend.store_result("2", 5, "SUCCESS", request=sent_again[0])
    assert app.backend.wait_for("2", timeout=10)["result"] == 5


def test_a_closed_backend_reads_no_more_and_declares_its_queue_again(app):
    before = set(threading.enumerate())
    for task_id in ("1", "2"):
        app.backend.store_result(task_id, 5, "SUCCESS", request=sent(app, task_id))
        assert app.backend.wait_for(task_id, timeout=10)["result"] == 5
        app.backend.close()
        for thread in set(threading.enumerate()) - before:
            if thread.name.startswith("celery-replies"):
                thread.join(10)
                assert not thread.is_alive()


def test_a_thread_that_has_waited_leaves_nothing_behind(app):
    made = []

    def work():
        watcher = app.backend.make_watcher()
        watcher.add(["1"])
        made.append(weakref.ref(watcher))

    sent(app, "1")
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    gc.collect()
    assert made[0]() is None


def test_a_message_that_is_no_result_hurts_nobody(app, caplog):
    request = sent(app, "1")
    for body in (b"not json", b"[]", b'{"task_id": "x"}'):
        app.publisher.publish([Publish(Envelope({}, body), "", request.reply_to)])
    app.backend.store_result("1", 5, "SUCCESS", request=request)
    assert app.backend.wait_for("1", timeout=10)["result"] == 5
    assert caplog.text.count("is no result and is dropped") == 3


def test_a_record_travels_as_captured(app):
    captured = next(
        vector
        for vector in json.loads((VECTORS / "results_rpc_amqp.json").read_text())["vectors"]
        if json.loads(vector["body"])["status"] == "SUCCESS"
    )
    task_id = captured["properties"]["correlation_id"]
    listening = app.publisher.run(lambda sender: sender.inbox(Queue("replies", auto_delete=True)))
    with contextlib.closing(listening):
        app.backend.store_result(task_id, 5, "SUCCESS", request=Context(id=task_id, reply_to="replies", children=[]))
        got = listening.get(10)
    wanted = {name: captured["properties"][name] for name in ("delivery_mode", "priority", "correlation_id")}
    assert {name: got.properties[name] for name in wanted} == wanted
    assert (got.headers, got.content_type, got.content_encoding) == ({}, "application/json", "utf-8")
    assert json.loads(got.body).keys() == json.loads(captured["body"]).keys()


def test_a_forked_process_has_replies_of_its_own(app):
    app.backend.store_result("parent", 1, "SUCCESS", request=sent(app, "parent"))
    assert app.backend.wait_for("parent", timeout=10)["result"] == 1
    child = os.fork()
    if child == 0:
        status = 1
        try:
            app.backend.store_result("child", 2, "SUCCESS", request=sent(app, "child"))
            status = 0 if app.backend.wait_for("child", timeout=10)["result"] == 2 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert app.backend.get_state("child") == "PENDING"
