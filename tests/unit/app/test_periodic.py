"""`add_periodic_task` (API-017)."""

from __future__ import annotations

import logging

import pytest

from celery import Celery
from celery.exceptions import ImproperlyConfigured
from celery.schedules import crontab


@pytest.fixture
def app():
    with Celery("periodic", set_as_current=False, broker="memory://") as made:
        yield made


@pytest.fixture
def add(app):
    @app.task(name="add", shared=False)
    def add(x, y, z=0):
        return x + y + z

    return add


def test_an_entry_has_what_beat_needs(app, add):
    every_hour = crontab(minute=0)
    key = app.add_periodic_task(every_hour, add.s(1, 2).set(queue="sums"), name="hourly sum", expires=30)
    assert key == "hourly sum"
    assert app.conf.beat_schedule == {
        "hourly sum": {
            "schedule": every_hour,
            "task": "add",
            "args": (1, 2),
            "kwargs": {},
            "options": {"queue": "sums", "expires": 30},
        }
    }
    assert every_hour.app is app


def test_the_key_of_an_entry_without_a_name_is_how_the_call_is_written(app, add):
    assert app.add_periodic_task(10, add.s(1, 2)) == "add(1, 2)"
    assert app.add_periodic_task(10, add, args=(4, 5), kwargs={"z": 1}) == "add(4, 5, z=1)"
    assert list(app.conf.beat_schedule) == ["add(1, 2)", "add(4, 5, z=1)"]


def test_arguments_are_added_to_those_of_the_signature(app, add):
    app.add_periodic_task(10, add.s(2), args=(1,), kwargs={"z": 3}, name="sum")
    assert app.conf.beat_schedule["sum"]["args"] == (1, 2)
    assert app.conf.beat_schedule["sum"]["kwargs"] == {"z": 3}


def test_an_entry_waits_for_the_configuration_and_joins_it(app):
    app.add_periodic_task(10, app.signature("add", (1, 2)), name="early")
    assert not app.conf.configured
    app.config_from_object({"beat_schedule": {"configured": {"task": "add", "schedule": 5}}})
    assert not app.conf.configured
    assert set(app.conf.beat_schedule) == {"early", "configured"}


def test_handlers_of_on_after_configure_add_entries(app, add):
    @app.on_after_configure.connect
    def add_entries(sender, **_):
        sender.add_periodic_task(10, add.s(1, 2), name="from a handler")

    assert set(app.conf.beat_schedule) == {"from a handler"}


def test_configuring_anew_keeps_entries_and_is_no_repetition(app, add, caplog):
    def add_entries(sender, **_):
        sender.add_periodic_task(10, add.s(1, 2))

    app.on_after_configure.connect(add_entries)
    app.add_periodic_task(10, add.s(3, 4), name="early")
    for key in ("first", "second"):
        app.config_from_object({"beat_schedule": {key: {"task": "add", "schedule": 5}}})
        assert set(app.conf.beat_schedule) == {key, "early", "add(1, 2)"}
    assert not caplog.records


def test_an_entry_that_replaces_another_without_a_name_is_told(app, add, caplog):
    for seconds in (10, 20):
        app.add_periodic_task(seconds, add.s(1, 2))
    assert [(record.levelno, record.args) for record in caplog.records] == [(logging.WARNING, ("add(1, 2)",))]
    assert app.conf.beat_schedule["add(1, 2)"]["schedule"] == 20


def test_a_name_may_be_used_again(app, add, caplog):
    for seconds in (10, 20):
        app.add_periodic_task(seconds, add.s(1, 2), name="sum")
    assert app.conf.beat_schedule["sum"]["schedule"] == 20
    assert not caplog.records


def test_entries_stay_with_their_application(app, add):
    app.add_periodic_task(10, add.s(1, 2))
    assert app.conf.beat_schedule
    with Celery("other", set_as_current=False, broker="memory://") as other:
        assert other.conf.beat_schedule == {}


@pytest.mark.parametrize("wrong", ["hourly", None])
def test_what_is_no_schedule_is_refused(app, add, wrong):
    with pytest.raises(TypeError, match="timedelta or a schedule object"):
        app.add_periodic_task(wrong, add.s(1, 2))


@pytest.mark.parametrize("wrong", ["add", 5])
def test_what_is_no_task_is_refused(app, wrong):
    with pytest.raises(TypeError, match="must be a signature"):
        app.add_periodic_task(10, wrong)


def test_a_beat_schedule_that_is_no_dict_is_named(app, add):
    app.conf.beat_schedule = [("sum", {"task": "add", "schedule": 5})]
    with pytest.raises(ImproperlyConfigured, match="beat_schedule must be a dict"):
        app.add_periodic_task(10, add.s(1, 2))
