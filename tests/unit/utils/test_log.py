"""Loggers and what they write with (API-095)."""

import logging

import pytest

from celery.utils.log import (
    ColorFormatter,
    LoggingProxy,
    base_logger,
    get_logger,
    get_task_logger,
    in_sighandler,
    mlevel,
    task_logger,
)


def record(level=logging.ERROR, msg="hello %s", args=("you",)):
    return logging.LogRecord("name", level, "file", 1, msg, args, None)


def test_loggers_have_the_systems_as_parents():
    assert get_logger("proj.test_log").parent is base_logger
    assert get_task_logger("proj.test_log.tasks").parent is task_logger
    assert get_task_logger("celery.task.x").parent is task_logger
    assert get_logger("celery").name == "celery"


@pytest.mark.parametrize("name", ["celery", "celery.task"])
def test_the_systems_own_names_are_reserved(name):
    with pytest.raises(RuntimeError, match="reserved"):
        get_task_logger(name)


def test_levels_have_names():
    assert (mlevel("info"), mlevel(10), mlevel(None)) == (20, 10, None)


def test_a_level_shows_in_its_color():
    assert ColorFormatter("%(message)s").format(record()) == "\x1b[1;31mhello you\x1b[0m"
    assert ColorFormatter("%(message)s").format(record(logging.INFO)) == "hello you"
    assert ColorFormatter("%(message)s", use_color=False).format(record()) == "hello you"


def test_a_record_that_cannot_be_formatted_is_not_lost():
    assert "Unrepresentable" in ColorFormatter("%(message)s").format(record(args=(1, 2)))


def test_what_is_written_to_a_proxy_is_logged(caplog):
    proxy = LoggingProxy(logging.getLogger("proj.stdout"), "WARNING")
    assert proxy.write("hello\n") == 6
    proxy.writelines(["\n", "again 100%"])
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [("WARNING", "hello"), ("WARNING", "again 100%")]
    proxy.close()
    proxy.write("unheard")
    assert len(caplog.records) == 2
    assert not proxy.isatty()


def test_nothing_is_logged_in_a_signal_handler(caplog, capfd):
    with in_sighandler():
        LoggingProxy(logging.getLogger("proj.stdout")).write("careful")
    assert not caplog.records
