"""Numbers that are none: refused when a worker starts, and survived where one comes later."""

import time

import pytest

from celery import Celery, signals
from celery.apps.worker import Worker
from celery.exceptions import ImproperlyConfigured, SoftTimeLimitExceeded

SOON = 20


def stay_here():
    for _ in range(100 * SOON):
        time.sleep(0.01)  # between two of these an exception can be raised in a thread


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("time_limit", "soon"),
        ("soft_time_limit", "soon"),
        ("rate_limit", "often"),
        ("max_retries", "a few"),
        ("default_retry_delay", "later"),
    ],
)
def test_a_worker_does_not_start_with_a_task_whose_number_is_none(stage, attribute, value):
    @stage.task(name="unfit", **{attribute: value})
    def unfit(): ...

    with pytest.raises(ImproperlyConfigured, match=rf"{attribute} of task unfit.*{value}"), stage.worker():
        pass


def test_a_worker_does_not_start_with_a_setting_that_is_no_number(stage):
    stage.app.conf.task_time_limit = "soon"
    with pytest.raises(ImproperlyConfigured, match="'task_time_limit' is 'soon': it must be a number"), stage.worker():
        pass


def test_a_limit_given_as_text_holds(stage):
    stage.app.conf.task_soft_time_limit = "0.2"

    @stage.task()
    def stay():
        stay_here()

    with stage.worker(), pytest.raises(SoftTimeLimitExceeded):
        stay.delay().get(timeout=SOON)


def test_a_limit_that_turned_unfit_spoils_no_other(stage, caplog):
    @stage.task(name="unfit")
    def unfit():
        time.sleep(0.1)
        return "done"

    @stage.task(soft_time_limit=0.2)
    def stay():
        stay_here()

    with stage.worker():
        unfit.soft_time_limit = "soon"  # as a program may by now
        with Celery(broker=stage.app.conf.broker_url, set_as_current=False) as stranger:  # who knows no limits
            sent = stranger.send_task("unfit", queue=stage.queue)
        assert stage.app.AsyncResult(sent.id).get(timeout=SOON) == "done"
        with pytest.raises(SoftTimeLimitExceeded):
            stay.delay().get(timeout=SOON)
    assert "cannot be looked after" in caplog.text


@pytest.mark.filterwarnings("ignore::celery.exceptions.SecurityWarning")  # where the tests run as root
def test_modules_are_asked_for_once_at_the_start_of_a_worker(stage):
    told = []

    def receiver(**_):
        told.append("import_modules")

    signals.import_modules.connect(receiver, sender=stage.app)
    Worker(stage.app)
    assert told == ["import_modules"]
