"""Waiting for what workers do (API-108)."""

import io
import threading
import uuid

import pytest

from celery.contrib.testing.app import TestApp, setup_default_app
from celery.contrib.testing.manager import Manager, Sentinel
from celery.contrib.testing.worker import start_worker

#: Pauses that do not slow the tests down.
QUICK = {"interval_start": 0.001, "interval_step": 0.001}


@pytest.fixture
def app():
    with TestApp(broker=f"memory://{uuid.uuid4()}") as app, setup_default_app(app):
        yield app


@pytest.fixture
def manager(app):
    return Manager(app, block_timeout=10, stdout=io.StringIO(), stderr=io.StringIO())


def fails(times, error=KeyError):
    """A function that raises so often, then returns how often it was called."""
    calls = []

    def function(*args):
        calls.append(args)
        if len(calls) <= times:
            raise error("not yet")
        return len(calls)

    return function


def test_it_waits_until_a_function_does_not_raise(manager):
    assert manager.wait_for(fails(2), KeyError, "the thing", emit_warning=True, **QUICK) == 3
    assert manager.stderr.getvalue().count("Still waiting for the thing.") == 2


def test_it_waits_a_bounded_number_of_times(manager):
    told = []
    with pytest.raises(KeyError):
        manager.wait_for(
            fails(9), KeyError, max_retries=3, errback=lambda exc, pauses, retries: told.append(retries), **QUICK
        )
    assert told == [0, 1, 2]


def test_other_errors_are_not_waited_out(manager):
    with pytest.raises(ValueError, match="not yet"):
        manager.wait_for(fails(1, ValueError), KeyError, **QUICK)


def test_what_must_not_happen_is_noticed_when_it_does(manager):
    manager.ensure_not_for_a_while(fails(99), KeyError, max_retries=3, **QUICK)
    with pytest.raises(AssertionError, match="Should not have happened: a rise"):
        manager.ensure_not_for_a_while(fails(1), KeyError, "a rise", **QUICK)


def test_what_is_not_true_raises(manager):
    assert manager.true_or_raise(lambda value: value, 7) == 7
    with pytest.raises(Sentinel):
        manager.true_or_raise(lambda: 0)


def test_it_joins_results(app, manager):
    @app.task(name="m.invert")
    def invert(x):
        return 1 / x

    with start_worker(app):
        assert manager.join(app.ResultSet([invert.delay(1), invert.delay(2)])) == [1.0, 0.5]
        assert manager.join(invert.delay(4)) == [0.25]
        with pytest.raises(ZeroDivisionError):
            manager.join(invert.delay(0), propagate=True)


def test_missing_results_are_named(app, manager):
    result = app.AsyncResult("lost-one")
    with pytest.raises(AssertionError, match="lost-one"):
        manager.join(result, timeout=0.01, max_retries=1)
    assert manager.missing_results([result]) == ["lost-one"]
    assert manager.stdout.getvalue().count("Still waiting for 1 of 1 results") == 2


def test_it_sees_what_workers_do(app, manager):
    begun, go_on = threading.Event(), threading.Event()

    @app.task(name="m.block", track_started=True)
    def block():
        begun.set()
        go_on.wait(20)

    with start_worker(app):
        result = block.delay()
        assert begun.wait(20)
        manager.assert_accepted([result.id], interval=0.2)
        manager.assert_received([result.id], interval=0.2)
        manager.assert_result_tasks_in_progress_or_completed([result], interval=0.01)
        go_on.set()
        manager.join(result)
        manager.wait_until_idle()
        with pytest.raises(Sentinel):
            manager.assert_accepted([result.id], interval=0.01, max_retries=1)
