"""Strategies that tasks bring, in whole workers: what they are given, and what becomes of what they hold."""

import os
import signal

import pytest

from celery.app.task import Task
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


def handed(stage, handle, **options):
    """A task whose strategy gives each message, as a request of the documented class, to `handle`; `stage.consumer` is
    the consumer that the strategy was given.
    """

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

    @stage.task(base=WithStrategy, name="handed", **options)
    def run(*args, **kwargs):
        stage.told.put(("ran", args, kwargs))

    return run


def test_a_strategy_gets_requests_with_all_that_was_sent(stage):
    def handle(request):
        request.acknowledge()
        stage.told.put(request)

    task = handed(stage, handle)
    with stage.worker():
        sent = task.apply_async((1,), {"b": 2}, headers={"mine": 3}, shadow="shade")
        request = stage.next()
    assert (request.id, request.name, request.type) == (sent.id, "shade", "handed")
    assert (request.args, request.kwargs, request.request_dict["mine"]) == ([1], {"b": 2}, 3)
    assert request.message.payload[:2] == [[1], {"b": 2}]
    assert request.acknowledged
    assert request.eta is None
    assert request.delivery_info["routing_key"] == stage.queue
    assert stage.waiting() == 0


def test_a_message_whose_time_has_not_come_is_not_handed_over(stage):
    task = handed(stage, lambda request: (request.acknowledge(), stage.told.put(request)))
    with stage.worker():
        task.apply_async(expires=-1)
        task.apply_async(("later",), countdown=0.3)
        task.apply_async(("now",))
        assert [stage.next().args for _ in range(2)] == [["now"], ["later"]]


def test_a_protocol_1_message_is_handed_over_as_one_of_protocol_2(stage):
    task = handed(stage, lambda request: (request.acknowledge(), stage.told.put(request)))
    stage.app.conf.task_protocol = 1
    with stage.worker():
        task.delay(1, b=2)
        request = stage.next()
    assert request.message.payload[:2] == [[1], {"b": 2}]
    assert request.headers["task"] == "handed"


def test_what_a_strategy_holds_goes_back_when_the_worker_stops(stage):
    task = handed(stage, stage.told.put)
    with stage.worker():
        task.delay()
        stage.next()
        assert stage.waiting() == 0
    assert stage.waiting() == 1


def test_a_rejected_message_goes_to_the_dead_queue_or_comes_again(stage):
    def handle(request):
        stage.told.put(request.delivery_info["redelivered"])
        request.reject(requeue=not request.delivery_info["redelivered"])

    task = handed(stage, handle)
    with stage.worker():
        task.delay()
        assert [stage.next(), stage.next()] == [False, True]
    assert (stage.waiting(), len(stage.letters())) == (0, 1)


def test_a_message_that_its_strategy_fails_on_goes_to_the_dead_queue(stage, caplog):
    def handle(request):
        stage.told.put(request)
        raise RuntimeError("a bad strategy")

    task = handed(stage, handle)
    with stage.worker():
        task.delay()
        stage.next()
    assert len(stage.letters()) == 1
    assert "a bad strategy" in caplog.text


def test_a_strategy_may_only_add_to_the_default_one(stage):
    class Watched(Task):
        def Strategy(self, task, app, consumer):
            run = default(task, app, consumer)

            def handler(message, *args, **kwargs):
                stage.told.put("seen")
                run(message, *args, **kwargs)

            return handler

    @stage.app.task(base=Watched)
    def add(x, y):
        return x + y

    with stage.worker():
        assert add.delay(1, 2).get(timeout=SOON) == 3
    assert stage.next() == "seen"


@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_functions_are_called_in_the_pool(lasting, pool):
    def handle(request):
        run = lasting.consumer.pool.apply_async
        run(triple, (14,), accept_callback=lambda pid, _: lasting.told.put("accepted"), callback=lasting.told.put)
        run(fail, ("why",), error_callback=lasting.told.put)
        request.acknowledge()

    task = handed(lasting, handle)
    with lasting.worker(pool=pool):
        task.delay()
        assert [lasting.next(), lasting.next()] == ["accepted", 42]
        error = lasting.next()
    assert (type(error), error.args) == (ValueError, ("why",))


def test_a_call_whose_process_died_is_told_as_lost(lasting):
    def handle(request):
        lasting.consumer.pool.apply_async(die, error_callback=lasting.told.put)
        request.acknowledge()

    task = handed(lasting, handle)
    with lasting.worker(pool="prefork"):
        task.delay()
        error = lasting.next()
    assert isinstance(error, WorkerLostError)
    assert "SIGKILL" in str(error)


def test_a_call_that_takes_too_long_is_ended(lasting):
    def handle(request):
        lasting.consumer.pool.apply_async(signal.pause, timeout=0.1, error_callback=lasting.told.put)
        request.acknowledge()

    task = handed(lasting, handle)
    with lasting.worker(pool="prefork"):
        task.delay()
        assert "time-limit" in str(lasting.next())


def test_a_timer_calls_once_or_again_and_again_until_cancelled(stage):
    def handle(request):
        timer = stage.consumer.timer
        timer.call_after(0.01, stage.told.put, ("once",))
        often = timer.call_repeatedly(0.03, lambda: (stage.told.put("again"), rounds.append(0), stop()))
        stop = lambda: len(rounds) == 3 and often.cancel()
        request.acknowledge()

    rounds = []
    task = handed(stage, handle)
    with stage.worker():
        task.delay()
        assert [stage.next() for _ in range(4)] == ["once", "again", "again", "again"]
    assert stage.told.empty()


def test_a_hybrid_message_is_read_into_the_parts_of_protocol_2():
    class Hybrid:
        headers = {"task": "t", "id": "1", "retries": None}

    body = {"args": [1], "kwargs": {"b": 2}, "retries": 4, "chain": ["step"], "taskset": "g", "utc": False}
    (args, kwargs, embed), headers, decoded, utc = hybrid_to_proto2(Hybrid(), body)
    assert (args, kwargs, embed["chain"], decoded, utc) == ([1], {"b": 2}, ["step"], True, False)
    assert headers == {"task": "t", "id": "1", "retries": 4, "group": "g"}
