"""Strategies that tasks bring, in whole workers: what they are given, and what becomes of what they hold."""

import os
import queue
import signal
import uuid

import pytest

from celery.app.task import Task
from celery.contrib.testing.app import TestApp
from celery.contrib.testing.worker import start_worker
from celery.exceptions import WorkerLostError
from celery.worker.request import Request, create_request_cls
from celery.worker.strategy import default, hybrid_to_proto2

#: No test waits longer for what must come at once, in seconds.
SOON = 20


def triple(number):
    return 3 * number


def fail(text):
    raise ValueError(text)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Stage:
    """An application with one task, and what its strategy has put on record."""

    def __init__(self, url):
        name = f"handover-{uuid.uuid4()}"
        self.app = TestApp(broker=url, backend="cache+memory://", config={"task_default_queue": name})
        self.queue = name
        self.seen = queue.Queue()
        self.consumer = None

    def task(self, handle, **options):
        """A task whose strategy gives each message, as a request of the documented class, to `handle`."""
        stage = self

        class WithStrategy(Task):
            def Strategy(self, task, app, consumer):
                stage.consumer = consumer
                make = create_request_cls(Request, task, consumer.pool, consumer.hostname, None, app=app)

                def handler(message, body, ack, reject, callbacks, **_):
                    request = make(
                        message, on_ack=ack, on_reject=reject, app=app, hostname=consumer.hostname, eventer=None,
                        task=task, body=body, headers=message.headers, decoded=False, utc=True,
                        connection_errors=consumer.connection_errors,
                    )  # fmt: skip
                    handle(request)

                return handler

        @self.app.task(base=WithStrategy, name="handed", **options)
        def handed(*args, **kwargs):
            self.seen.put(("ran", args, kwargs))

        return handed

    def next(self):
        return self.seen.get(timeout=SOON)

    def length(self, queue=None):
        return self.app.publisher.run(lambda sender: sender.length(queue or self.queue))


@pytest.fixture
def stage():
    stage = Stage(f"memory://{uuid.uuid4()}")
    with stage.app:
        yield stage


@pytest.fixture
def lasting(tmp_path):
    """A stage whose workers have children of their own."""
    stage = Stage(f"sqlite:///{tmp_path}/celery.sqlite")
    with stage.app:
        yield stage


def test_a_strategy_gets_requests_with_all_that_was_sent(stage):
    def handle(request):
        request.acknowledge()
        stage.seen.put(request)

    task = stage.task(handle)
    with start_worker(stage.app, perform_ping_check=False):
        sent = task.apply_async((1,), {"b": 2}, headers={"mine": 3}, shadow="shade")
        request = stage.next()
    assert (request.id, request.name, request.type) == (sent.id, "shade", "handed")
    assert (request.args, request.kwargs, request.request_dict["mine"]) == ([1], {"b": 2}, 3)
    assert request.message.payload[:2] == [[1], {"b": 2}]
    assert request.acknowledged
    assert request.eta is None
    assert request.delivery_info["routing_key"] == stage.queue
    assert stage.length() == 0


def test_a_message_whose_time_has_not_come_is_not_handed_over(stage):
    task = stage.task(lambda request: (request.acknowledge(), stage.seen.put(request)))
    with start_worker(stage.app, perform_ping_check=False):
        task.apply_async(expires=-1)
        task.apply_async(("later",), countdown=0.3)
        task.apply_async(("now",))
        assert [stage.next().args for _ in range(2)] == [["now"], ["later"]]


def test_a_protocol_1_message_is_handed_over_as_one_of_protocol_2(stage):
    task = stage.task(lambda request: (request.acknowledge(), stage.seen.put(request)))
    stage.app.conf.task_protocol = 1
    with start_worker(stage.app, perform_ping_check=False):
        task.delay(1, b=2)
        request = stage.next()
    assert request.message.payload[:2] == [[1], {"b": 2}]
    assert request.headers["task"] == "handed"


def test_what_a_strategy_holds_goes_back_when_the_worker_stops(stage):
    task = stage.task(stage.seen.put)
    with start_worker(stage.app, perform_ping_check=False):
        task.delay()
        stage.next()
        assert stage.length() == 0
    assert stage.length() == 1


def test_a_rejected_message_goes_to_the_dead_queue_or_comes_again(stage):
    def handle(request):
        stage.seen.put(request.delivery_info["redelivered"])
        request.reject(requeue=not request.delivery_info["redelivered"])

    task = stage.task(handle)
    with start_worker(stage.app, perform_ping_check=False):
        task.delay()
        assert [stage.next(), stage.next()] == [False, True]
    assert (stage.length(), stage.length(f"{stage.queue}.dead")) == (0, 1)


def test_a_message_that_its_strategy_fails_on_goes_to_the_dead_queue(stage, caplog):
    def handle(request):
        stage.seen.put(request)
        raise RuntimeError("a bad strategy")

    task = stage.task(handle)
    with start_worker(stage.app, perform_ping_check=False):
        task.delay()
        stage.next()
    assert stage.length(f"{stage.queue}.dead") == 1
    assert "a bad strategy" in caplog.text


def test_a_strategy_may_only_add_to_the_default_one(stage):
    class Watched(Task):
        def Strategy(self, task, app, consumer):
            run = default(task, app, consumer)

            def handler(message, *args, **kwargs):
                stage.seen.put("seen")
                run(message, *args, **kwargs)

            return handler

    @stage.app.task(base=Watched)
    def add(x, y):
        return x + y

    with start_worker(stage.app, perform_ping_check=False):
        assert add.delay(1, 2).get(timeout=SOON) == 3
    assert stage.next() == "seen"


@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_functions_are_called_in_the_pool(lasting, pool):
    def handle(request):
        run = lasting.consumer.pool.apply_async
        run(triple, (14,), accept_callback=lambda pid, _: lasting.seen.put("accepted"), callback=lasting.seen.put)
        run(fail, ("why",), error_callback=lasting.seen.put)
        request.acknowledge()

    task = lasting.task(handle)
    with start_worker(lasting.app, pool=pool, perform_ping_check=False):
        task.delay()
        assert [lasting.next(), lasting.next()] == ["accepted", 42]
        error = lasting.next()
    assert (type(error), error.args) == (ValueError, ("why",))


def test_a_call_whose_process_died_is_told_as_lost(lasting):
    def handle(request):
        lasting.consumer.pool.apply_async(die, error_callback=lasting.seen.put)
        request.acknowledge()

    task = lasting.task(handle)
    with start_worker(lasting.app, pool="prefork", perform_ping_check=False):
        task.delay()
        error = lasting.next()
    assert isinstance(error, WorkerLostError)
    assert "SIGKILL" in str(error)


def test_a_call_that_takes_too_long_is_ended(lasting):
    def handle(request):
        lasting.consumer.pool.apply_async(signal.pause, timeout=0.1, error_callback=lasting.seen.put)
        request.acknowledge()

    task = lasting.task(handle)
    with start_worker(lasting.app, pool="prefork", perform_ping_check=False):
        task.delay()
        assert "time-limit" in str(lasting.next())


def test_a_timer_calls_once_or_again_and_again_until_cancelled(stage):
    def handle(request):
        timer = stage.consumer.timer
        timer.call_after(0.01, stage.seen.put, ("once",))
        often = timer.call_repeatedly(0.03, lambda: (stage.seen.put("again"), rounds.append(0), stop()))
        stop = lambda: len(rounds) == 3 and often.cancel()
        request.acknowledge()

    rounds = []
    task = stage.task(handle)
    with start_worker(stage.app, perform_ping_check=False):
        task.delay()
        assert [stage.next() for _ in range(4)] == ["once", "again", "again", "again"]
    assert stage.seen.empty()


def test_a_hybrid_message_is_read_into_the_parts_of_protocol_2():
    class Hybrid:
        headers = {"task": "t", "id": "1", "retries": None}

    body = {"args": [1], "kwargs": {"b": 2}, "retries": 4, "chain": ["step"], "taskset": "g", "utc": False}
    (args, kwargs, embed), headers, decoded, utc = hybrid_to_proto2(Hybrid(), body)
    assert (args, kwargs, embed["chain"], decoded, utc) == ([1], {"b": 2}, ["step"], True, False)
    assert headers == {"task": "t", "id": "1", "retries": 4, "group": "g"}
