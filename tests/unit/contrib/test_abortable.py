"""Tasks that can be asked to end (API-104, MOD-0942..0950)."""

import threading
import uuid

import pytest

from celery import states
from celery.contrib.abortable import ABORTED, AbortableAsyncResult, AbortableTask
from celery.contrib.testing.app import TestApp
from celery.contrib.testing.worker import start_worker

#: In seconds.
SOON = 20


@pytest.fixture
def app():
    with TestApp(broker=f"memory://{uuid.uuid4()}", backend="cache+memory://") as app:
        yield app


def test_a_running_task_is_asked_to_end_and_ends_with_a_result(app):
    running, asked = threading.Event(), threading.Event()

    @app.task(bind=True, base=AbortableTask, shared=False)
    def wait(self):
        seen = self.is_aborted()
        running.set()
        assert asked.wait(SOON)
        return [seen, self.is_aborted(), self.is_aborted(task_id="other")]

    with start_worker(app, perform_ping_check=False):
        sent = wait.delay()
        assert running.wait(SOON)
        assert isinstance(sent, AbortableAsyncResult)
        sent.abort()
        assert (sent.state, sent.is_aborted(), sent.ready()) == (ABORTED, True, False)
        asked.set()
        assert sent.get(timeout=SOON) == [False, True, False]
        assert not sent.is_aborted()


def test_what_has_succeeded_stays_as_it_is(app):
    @app.task(base=AbortableTask, shared=False)
    def add(x, y):
        return x + y

    app.backend.store_result("i", 3, states.SUCCESS)
    result = add.AsyncResult("i")
    result.abort()
    assert (result.state, result.result, result.is_aborted()) == (states.SUCCESS, 3, False)
