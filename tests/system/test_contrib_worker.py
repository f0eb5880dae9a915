"""Workers inside the process of a test: `celery.contrib.testing.worker` over every broker (API-108, SIG-039)."""

import gc
import logging
import os
import threading
import time
import uuid

import pytest

from celery import current_app
from celery.contrib.testing import worker as testing
from celery.contrib.testing.app import TestApp, setup_default_app
from celery.contrib.testing.worker import start_worker
from celery.exceptions import ImproperlyConfigured, WorkerLostError

#: No test waits longer for what must come at once, in seconds.
SOON = 20

BROKERS = [
    pytest.param("memory"),
    pytest.param("sqlite"),
    pytest.param("redis", marks=pytest.mark.needs("redis")),
    pytest.param("amqp", marks=pytest.mark.needs("rabbitmq")),
]


@pytest.fixture(params=BROKERS)
def urls(request, tmp_path):
    """(broker URL, result backend URL)"""
    if request.param == "memory":
        return f"memory://{uuid.uuid4()}", "cache+memory://"
    if request.param == "sqlite":
        return (f"sqlite:///{tmp_path}/celery.sqlite",) * 2
    if request.param == "redis":
        return (request.getfixturevalue("redis_url"),) * 2
    return request.getfixturevalue("rabbitmq_url"), "rpc://"


@pytest.fixture
def make_app():
    """Make applications with a queue and tasks of their own; the process is restored after the test."""
    apps = []

    def make(broker=None, backend=None, **config):
        name = f"contrib-{uuid.uuid4()}"
        app = TestApp(
            broker=broker or f"memory://{name}",
            backend=backend or "cache+memory://",
            config={"task_default_queue": name, **config},
        )
        apps.append(app)

        @app.task(name="contrib.add")
        def add(x, y):
            return x + y

        @app.task(name="contrib.later")
        async def later(x):
            return x

        @app.task(name="contrib.who")
        def who():
            return os.getpid(), current_app.main

        return app

    with setup_default_app(None):
        yield make
    for app in apps:
        app.close()


def call(app, name, *args):
    return app.tasks[name].delay(*args).get(timeout=SOON)


def wait_until(condition):
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def open_files():
    """What the descriptors of this process lead to."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue  # the listing's own
    return found


@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_tasks_run_while_the_block_lasts(urls, make_app, pool):
    app = make_app(*urls)
    with start_worker(app, pool=pool) as worker:
        assert call(app, "contrib.add", 1, 2) == 3
        assert call(app, "contrib.later", 4) == 4
        pid, _ = call(app, "contrib.who")
        assert (pid == os.getpid()) is (pool == "solo")
    assert worker.stopped.is_set()
    assert worker.exitcode == 0


def test_workers_come_and_go_on_one_application(urls, make_app):
    app = make_app(*urls)
    for number in range(3):
        with start_worker(app):
            assert call(app, "contrib.add", number, 1) == number + 1


def test_workers_run_side_by_side(urls, make_app):
    one, other = make_app(*urls), make_app(*urls)
    with start_worker(one) as first, start_worker(other) as second:
        assert first.hostname != second.hostname
        results = [app.tasks["contrib.add"].delay(n, n) for n in range(5) for app in (one, other)]
        assert [result.get(timeout=SOON) for result in results] == [2 * n for n in range(5) for _ in "12"]


def test_a_worker_leaves_no_thread_and_no_descriptor(urls, make_app):
    app = make_app(*urls)
    with start_worker(app):
        assert call(app, "contrib.add", 1, 2) == 3
    gc.collect()
    threads, files = set(threading.enumerate()), len(open_files())
    for _ in range(3):
        with start_worker(app):
            assert call(app, "contrib.add", 1, 2) == 3
    gc.collect()
    wait_until(lambda: set(threading.enumerate()) <= threads)
    assert len(open_files()) <= files, open_files()


def test_an_application_that_is_gone_leaves_no_descriptor(urls):
    def come_and_go():
        with TestApp(broker=urls[0], backend=urls[1]) as app, setup_default_app(app):
            with start_worker(app):
                pass

    come_and_go()
    gc.collect()
    files = len(open_files())
    for _ in range(3):
        come_and_go()
    gc.collect()
    # The reader of replies of rpc:// notices by and by that its application is gone.
    wait_until(lambda: len(open_files()) <= files)


def test_a_started_worker_costs_less_than_a_tenth_of_a_second(make_app):
    app = make_app()
    with start_worker(app):
        pass  # imports what a worker needs
    best = min(seconds_to_start(app) for _ in range(5))
    assert best < 0.1


def seconds_to_start(app):
    began = time.perf_counter()
    with start_worker(app):
        return time.perf_counter() - began


def test_what_runs_is_waited_for_and_what_waits_is_not_lost(make_app):
    app = make_app()
    begun, go_on, ran = threading.Event(), threading.Event(), []

    @app.task(name="contrib.block")
    def block(number):
        begun.set()
        ran.append(number)
        go_on.wait(SOON)

    with start_worker(app) as worker:
        block.delay(1)
        assert begun.wait(SOON)
        block.delay(2)
        worker.stop()
        go_on.set()
    assert ran[0] == 1
    with start_worker(app):
        wait_until(lambda: ran == [1, 2])


def test_a_worker_that_does_not_end_in_time_is_an_error(make_app):
    app = make_app()
    begun, go_on = threading.Event(), threading.Event()

    @app.task(name="contrib.block")
    def block():
        begun.set()
        go_on.wait(SOON)

    with pytest.raises(RuntimeError, match=r"not ended within 0.05 seconds.*contrib.block"):  # noqa: SIM117, PT012
        with start_worker(app, shutdown_timeout=0.05) as worker:
            block.delay()
            assert begun.wait(SOON)
    go_on.set()
    assert worker.stopped.wait(SOON)


def test_a_ping_that_nobody_answers_is_an_error_that_names_the_worker(make_app):
    app = make_app(backend="disabled://")
    with pytest.raises(RuntimeError, match=r"test worker n@h has not answered the ping"):  # noqa: SIM117
        with start_worker(app, hostname="n@h", ping_task_timeout=0.05):
            pytest.fail("must not start")


def test_without_the_ping_check_no_result_backend_is_needed(make_app):
    app = make_app(backend="disabled://")
    with start_worker(app, perform_ping_check=False) as worker:
        assert worker.ready.is_set()


def test_what_ends_the_worker_is_raised_in_the_test(make_app):
    app = make_app(broker="nonsense://")
    with pytest.raises(ImproperlyConfigured, match="nonsense"):  # noqa: SIM117
        with start_worker(app):
            pytest.fail("must not start")


def test_an_error_of_the_test_goes_through(make_app):
    with pytest.raises(ZeroDivisionError):  # noqa: SIM117
        with start_worker(make_app()) as worker:
            raise ZeroDivisionError
    assert worker.stopped.is_set()


def test_the_application_is_the_current_one_in_the_test_and_in_tasks(make_app):
    app = make_app()
    with start_worker(app):
        assert current_app._get_current_object() is app
        assert call(app, "contrib.who") == [os.getpid(), "celery.tests"]


def test_signals_tell_of_the_start_and_the_end(make_app):
    app = make_app()
    told = []

    def tell(name):
        def receiver(sender, signal, **details):
            told.append((name, sender is app, sorted(details)))

        return receiver

    receivers = {name: tell(name) for name in ("test_worker_starting", "test_worker_started", "test_worker_stopped")}
    for name, receiver in receivers.items():
        getattr(testing, name).connect(receiver)
    with start_worker(app):
        told.append("block")
    assert told == [
        ("test_worker_starting", True, []),
        ("test_worker_started", True, ["consumer", "worker"]),
        "block",
        ("test_worker_stopped", True, ["worker"]),
    ]


def test_what_pool_processes_log_is_seen_by_the_test(make_app, caplog):
    app = make_app()

    @app.task(name="contrib.log")
    def log():
        logging.getLogger("contrib.child").error("said in %s", "the child")

    with start_worker(app, pool="prefork"):
        log.delay().get(timeout=SOON)
        wait_until(lambda: ("contrib.child", logging.ERROR, "said in the child") in caplog.record_tuples)


def test_a_pool_process_that_dies_does_not_take_the_test_along(make_app):
    app = make_app()

    @app.task(name="contrib.die")
    def die():
        os._exit(3)

    with start_worker(app, pool="prefork"):
        with pytest.raises(WorkerLostError):
            die.delay().get(timeout=SOON)
        assert call(app, "contrib.add", 1, 2) == 3


def test_a_hard_time_limit_does_not_end_the_process_of_the_test(make_app, caplog):
    app = make_app()
    go_on = threading.Event()

    @app.task(name="contrib.block", time_limit=0.05)
    def block():
        return go_on.wait(SOON)

    with start_worker(app):
        result = block.delay()
        wait_until(lambda: "cannot be killed" in caplog.text)
        go_on.set()
        assert result.get(timeout=SOON) is True
        assert call(app, "contrib.add", 1, 2) == 3


def test_tasks_declared_later_are_known_in_the_process_of_the_test_only(make_app):
    app = make_app()
    with start_worker(app) as here, start_worker(app, pool="prefork", perform_ping_check=False) as elsewhere:
        for worker in (here, elsewhere):
            worker.reload()
        app.task(name="contrib.new")(lambda: None)
        here.reload()
        with pytest.raises(RuntimeError, match=r"do not know contrib\.new"):
            elsewhere.reload()


def test_a_reload_imports_modules(make_app, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "contrib_reloaded.py").write_text("count = 0")
    with start_worker(make_app(), perform_ping_check=False) as worker:
        worker.reload(["contrib_reloaded"])
        import contrib_reloaded

        contrib_reloaded.count = 1
        worker.reload(["contrib_reloaded"])
        assert contrib_reloaded.count == 1
        worker.reload(["contrib_reloaded"], reload=True)
        assert contrib_reloaded.count == 0
