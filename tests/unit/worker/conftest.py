"""Whole workers in the test's own process, and what they are tried with (`Stage`)."""

import queue
import time
import uuid

import pytest

from celery.contrib.testing.app import TestApp
from celery.contrib.testing.worker import start_worker
from celery.worker.request import Request

#: No test waits longer for what must come at once, in seconds.
SOON = 20


class Stage:
    """An application, its workers, and what its tasks, requests and strategies put on record."""

    def __init__(self, url, backend="cache+memory://"):
        self.queue = f"unit-{uuid.uuid4()}"
        self.app = TestApp(broker=url, backend=backend, config={"task_default_queue": self.queue})
        self.told = queue.Queue()
        #: Of tasks that say nothing else.
        self.options = {}

    def task(self, members=None, **options):
        """A decorator for tasks of this application alone.

        Args:
            members: their requests are of a class with these.
            options: of the task.
        """
        own = {} if members is None else {"Request": type("Mine", (Request,), members)}
        return self.app.task(shared=False, **{**self.options, **own, **options})

    def worker(self, **options):
        return start_worker(self.app, perform_ping_check=False, **options)

    def next(self):
        return self.told.get(timeout=SOON)

    def wait_until(self, condition):
        deadline = time.monotonic() + SOON
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def letters(self):
        return self.app.publisher.run(lambda sender: sender.dead_letters(self.queue))

    def waiting(self):
        return self.app.publisher.run(lambda sender: sender.length(self.queue))


@pytest.fixture
def stage():
    stage = Stage(f"memory://{uuid.uuid4()}")
    with stage.app:
        yield stage


@pytest.fixture
def lasting(tmp_path):
    """A stage whose workers may have children of their own."""
    url = f"sqlite:///{tmp_path}/celery.sqlite"
    stage = Stage(url, url)
    with stage.app:
        yield stage
