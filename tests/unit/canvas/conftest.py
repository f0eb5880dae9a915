"""An application with a few tasks, and what it publishes."""

from __future__ import annotations

import uuid
from types import SimpleNamespace

import pytest

from celery import Celery, signals
from celery.app.trace import Tracer


@pytest.fixture
def app():
    # A broker of its own: in one that tests share, what others have sent may come due at any time.
    with Celery("w", broker=f"memory://{uuid.uuid4()}", backend="cache+memory://", task_serializer="json") as made:
        yield made


@pytest.fixture
def tasks(app):
    """Tasks, and `ran`, what they were called with."""
    ran = []

    @app.task(name="w.add")
    def add(*numbers, y=0):
        ran.append(("add", *numbers))
        return sum(numbers) + y

    @app.task(name="w.total")
    def total(values):
        ran.append(("total", values))
        return sum(values)

    @app.task(name="w.same")
    def same(value):
        return value

    @app.task(name="w.fail")
    def fail(*args):
        ran.append(("fail", *args))
        raise ValueError("failed")

    @app.task(name="w.done")
    def done(value):
        ran.append(("done", value))

    @app.task(name="w.failed")
    def failed(task_id):
        ran.append(("failed", task_id))

    return SimpleNamespace(add=add, total=total, same=same, fail=fail, done=done, failed=failed, ran=ran)


@pytest.fixture
def sent():
    """What is published: headers, with arguments and what follows as attributes."""
    messages = []

    def keep(headers, body, routing_key, **_):
        args, kwargs, embed = body
        fields = {**headers, "args": args, "kwargs": kwargs, **embed, "queue": routing_key}
        messages.append(SimpleNamespace(**fields))

    signals.before_task_publish.connect(keep)
    yield messages
    signals.before_task_publish.disconnect(keep)


@pytest.fixture
def run(app):
    """Make one attempt of a call, as a worker's child does; its outcome."""

    def attempt(task, *args, **options):
        envelope = app.amqp.message("the-id", task.name, args, {}, {"serializer": "json", **options}, task).envelope
        return Tracer(app, "node@host").run(1, envelope, {"exchange": "", "routing_key": "celery"})

    return attempt
