"""Automatic retries (API-047)."""

from __future__ import annotations

import asyncio

import pytest

from celery import Celery, states
from celery.exceptions import Ignore, Retry


class Flaky(Exception):
    pass


class Fatal(Flaky):
    pass


@pytest.fixture
def app():
    with Celery("w", broker="memory://") as made:
        yield made


def attempts(task, *args):
    """How many attempts an eager call makes, and how it ends."""
    made = []
    result = task.apply((made, *args), throw=False)
    return len(made), result.state


@pytest.mark.parametrize(("max_retries", "expected"), [(0, 1), (2, 3), (5, 6)])
def test_a_listed_exception_is_retried_up_to_the_limit(app, max_retries, expected):
    @app.task(autoretry_for=(Flaky,), max_retries=max_retries)
    def work(made):
        made.append(1)
        raise Flaky("again")

    made = []
    with pytest.raises(Flaky, match="again"):
        work.apply((made,)).get()
    assert len(made) == expected


def test_other_exceptions_are_not_retried(app):
    @app.task(autoretry_for=(Flaky,), dont_autoretry_for=(Fatal,))
    def work(made, exc):
        made.append(1)
        raise exc

    assert attempts(work, ValueError()) == (1, states.FAILURE)
    assert attempts(work, Fatal()) == (1, states.FAILURE)
    assert attempts(work, Ignore()) == (1, states.IGNORED)
    assert attempts(work, Flaky()) == (4, states.FAILURE)


def test_a_coroutine_is_retried_too(app):
    @app.task(autoretry_for=(Flaky,), max_retries=2)
    async def work(made):
        made.append(1)
        await asyncio.sleep(0)
        raise Flaky

    assert attempts(work) == (3, states.FAILURE)


def test_a_task_class_can_ask_for_retries(app):
    class Work(app.Task):
        name = "work"
        autoretry_for = (Flaky,)
        max_retries = 1

        def run(self, made):
            made.append(self.request.retries)
            raise Flaky

    assert attempts(app.register_task(Work())) == (2, states.FAILURE)


def test_options_of_retry_can_be_given(app):
    @app.task(autoretry_for=(Flaky,), retry_kwargs={"max_retries": 1})
    def work(made):
        made.append(1)
        raise Flaky

    assert attempts(work) == (2, states.FAILURE)


def test_a_retry_that_the_body_asks_for_passes_through(app):
    @app.task(autoretry_for=(Flaky,), bind=True, max_retries=4)
    def work(self, made):
        made.append(1)
        raise self.retry(countdown=0, max_retries=1)

    assert attempts(work) == (2, states.FAILURE)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [180, 180, 180]),
        ({"default_retry_delay": 7}, [7, 7, 7]),
        ({"retry_kwargs": {"countdown": 3}}, [3, 3, 3]),
        ({"retry_backoff": True, "retry_jitter": False}, [1, 2, 4]),
        ({"retry_backoff": 3, "retry_jitter": False}, [3, 6, 12]),
        ({"retry_backoff": 0.5, "retry_jitter": False}, [1, 2, 4]),
        ({"retry_backoff": True, "retry_jitter": False, "retry_backoff_max": 3}, [1, 2, 3]),
    ],
)
def test_the_delay_follows_the_policy(app, options, expected):
    delays = []

    class Watched(app.Task):
        def retry(self, *args, **kwargs):
            made = super().retry(*args, **kwargs)
            if isinstance(made, Retry):
                delays.append(made.when)
            return made

    @app.task(base=Watched, autoretry_for=(Flaky,), **options)
    def work():
        raise Flaky

    work.apply()
    assert delays == expected


def test_jitter_stays_below_the_delay(app):
    delays = []

    class Watched(app.Task):
        def retry(self, *args, **kwargs):
            delays.append(kwargs["countdown"])
            return super().retry(*args, **kwargs)

    @app.task(base=Watched, autoretry_for=(Flaky,), retry_backoff=10, max_retries=20, retry_backoff_max=50)
    def work():
        raise Flaky

    work.apply()
    assert all(0 <= delay <= min(50, 10 * 2**retries) for retries, delay in enumerate(delays))
    assert len(set(delays)) > 1
