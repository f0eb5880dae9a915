"""Logging of programs, tasks and children (API-096, API-097, CLI-060, CLI-064, CLI-066)."""

import io
import logging
import os
import subprocess
import sys
import warnings

import pytest

from celery import Celery, signals
from celery.app.log import TaskFormatter, set_process_name
from celery.utils.log import LoggingProxy, get_logger, get_task_logger

ENVIRONMENT = ("CELERY_LOG_LEVEL", "CELERY_LOG_FILE", "CELERY_LOG_REDIRECT", "CELERY_LOG_REDIRECT_LEVEL",
               "_MP_FORK_LOGLEVEL_", "_MP_FORK_LOGFILE_", "_MP_FORK_LOGFORMAT_")  # fmt: skip


@pytest.fixture
def app():
    with Celery("proj", set_as_current=False, broker="memory://") as app:
        yield app


@pytest.fixture(autouse=True)
def untouched_process(monkeypatch, app):
    """Give the process back as it was: loggers, streams, environment, record factory, warnings."""
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, "")
    loggers = [logging.getLogger(name) for name in (None, "celery", "celery.task", "celery.redirected")]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    factory, stdout, stderr = logging.getLogRecordFactory(), sys.stdout, sys.stderr
    app.log.already_setup = False
    with warnings.catch_warnings():
        yield
    logging.captureWarnings(False)
    logging.setLogRecordFactory(factory)
    sys.stdout, sys.stderr = stdout, stderr
    app.log.already_setup = False
    for logger, handlers, level, propagate in before:
        for handler in logger.handlers:
            if handler not in handlers:
                handler.close()
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def lines(path):
    for handler in [*logging.getLogger().handlers, *logging.getLogger("celery.task").handlers]:
        handler.flush()
    return path.read_text(encoding="utf-8").splitlines()


def test_records_go_to_the_file_in_the_format_of_the_setting(app, tmp_path):
    path = tmp_path / "worker.log"
    app.log.setup("info", str(path))
    get_logger("celery.worker").info("Grüße")
    get_logger("celery.worker").debug("too low")
    (line,) = lines(path)
    assert line.endswith(": INFO/MainProcess] Grüße")
    assert line.startswith("[")


def test_the_task_logger_names_the_running_task_and_does_not_propagate(app, tmp_path):
    path = tmp_path / "worker.log"

    @app.task(name="proj.speak", shared=False)
    def speak():
        get_task_logger("proj").warning("inside")

    app.log.setup("INFO", str(path))
    get_task_logger("proj").warning("outside")
    result = speak.apply()
    outside, inside = (line for line in lines(path) if "side" in line)
    assert outside.endswith("WARNING/MainProcess] ???[???]: outside")
    assert inside.endswith(f"proj.speak[{result.id}]: inside")


def test_logging_is_set_up_once(app, tmp_path):
    app.log.setup("INFO", str(tmp_path / "first"))
    assert app.log.already_setup
    app.log.setup("INFO", str(tmp_path / "second"))
    get_logger("celery.x").info("hello")
    assert len(lines(tmp_path / "first")) == 1
    assert not (tmp_path / "second").exists()


def test_a_file_is_opened_anew_after_rotation(app, tmp_path):
    path = tmp_path / "worker.log"
    app.log.setup("INFO", str(path))
    logger = get_logger("celery.x")
    logger.info("before")
    path.rename(tmp_path / "worker.log.1")
    logger.info("after")
    assert [line.split("] ")[1] for line in lines(path)] == ["after"]


def test_the_file_name_is_expanded_from_the_node_name(app, tmp_path):
    app.log.setup("INFO", str(tmp_path / "%n-%h%I.log"), hostname="w1@example.com")
    assert [path.name for path in tmp_path.iterdir()] == ["w1-example.com.log"]


def test_a_child_writes_a_file_of_its_own_where_the_name_has_an_index(app, tmp_path):
    app.log.setup("INFO", str(tmp_path / "%n%I.log"), hostname="w1@h")
    app.log.setup_child(2, "w1@h")
    get_logger("celery.x").info("from the child")
    assert lines(tmp_path / "w1.log") == []
    assert lines(tmp_path / "w1-2.log")[0].endswith("from the child")


def test_a_child_keeps_what_it_inherited_where_the_name_has_none(app, tmp_path):
    app.log.setup("INFO", str(tmp_path / "%n.log"), hostname="w1@h")
    handlers = logging.getLogger().handlers[:]
    app.log.setup_child(2, "w1@h")
    assert logging.getLogger().handlers == handlers


def test_a_child_that_inherited_nothing_reads_the_environment(app, tmp_path):
    app.log.setup("ERROR", str(tmp_path / "%n.log"), redirect_stdouts=True, redirect_level="ERROR", hostname="w1@h")
    app.log.already_setup = False
    sys.stdout = sys.__stdout__
    app.log.setup_child(1, "w1@h")
    print("printed")
    assert lines(tmp_path / "w1.log")[0].endswith("ERROR/MainProcess] printed")
    assert logging.getLogger().level == logging.ERROR


def test_a_receiver_of_setup_logging_does_it_instead(app):
    told = []

    @signals.setup_logging.connect
    def mine(loglevel, logfile, format, colorize, **kwargs):
        told.append((loglevel, logfile, format, colorize))

    try:
        before = logging.getLogger().handlers[:]
        assert app.log.setup("DEBUG", None, redirect_stdouts=True)
        assert told == [(logging.DEBUG, None, app.conf.worker_log_format, False)]
        assert logging.getLogger().handlers == before
        assert not isinstance(sys.stdout, LoggingProxy)
    finally:
        signals.setup_logging.disconnect(mine)


def test_a_receiver_that_raises_stops_the_program(app):
    @signals.setup_logging.connect
    def broken(**kwargs):
        raise LookupError("no such handler")

    try:
        with pytest.raises(LookupError, match="no such handler"):
            app.log.setup("INFO")
    finally:
        signals.setup_logging.disconnect(broken)


def test_receivers_may_add_handlers_to_both_loggers(app, tmp_path):
    told = {}

    def after(sender, logger, loglevel, logfile, format, colorize, signal, **kwargs):
        told[signal.name] = (logger.name, loglevel, format)

    pair = (signals.after_setup_logger, signals.after_setup_task_logger)
    for signal in pair:
        signal.connect(after)
    try:
        app.log.setup("INFO", str(tmp_path / "log"))
    finally:
        for signal in pair:
            signal.disconnect(after)
    assert told == {
        "after_setup_logger": ("root", logging.INFO, app.conf.worker_log_format),
        "after_setup_task_logger": ("celery.task", logging.INFO, app.conf.worker_task_log_format),
    }


@pytest.mark.parametrize(("hijack", "stays"), [(True, False), (False, True)])
def test_handlers_on_the_root_logger_stay_unless_it_is_hijacked(app, tmp_path, hijack, stays):
    app.conf.worker_hijack_root_logger = hijack
    mine = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(mine)
    app.log.setup("INFO", str(tmp_path / "log"))
    assert (mine in logging.getLogger().handlers) is stays
    assert (tmp_path / "log").exists()


def test_what_is_printed_is_logged(app, tmp_path):
    path = tmp_path / "log"
    app.log.setup("INFO", str(path), redirect_stdouts=True, redirect_level="WARNING")
    print("printed")
    sys.stderr.write("complained\n")
    assert [line.partition(": ")[2] for line in lines(path)] == [
        "WARNING/MainProcess] printed",
        "WARNING/MainProcess] complained",
    ]
    assert os.environ["CELERY_LOG_REDIRECT"] == "1"
    assert os.environ["CELERY_LOG_REDIRECT_LEVEL"] == "WARNING"


def test_children_find_the_set_up_in_the_environment(app, tmp_path):
    app.log.setup("INFO", str(tmp_path / "%n.log"), hostname="w1@h")
    assert os.environ["CELERY_LOG_LEVEL"] == "20"
    assert os.environ["CELERY_LOG_FILE"] == str(tmp_path / "%n.log")


def test_an_open_file_serves_as_log_file(app):
    stream = io.StringIO()
    app.log.setup("INFO", stream)
    get_logger("celery.x").error("no colours")
    assert stream.getvalue().endswith("ERROR/MainProcess] no colours\n")


def test_no_colours_where_there_is_no_terminal(app):
    assert not app.log.supports_color()
    assert not app.log.supports_color(True, "a file")
    assert str(app.log.colored().red("plain")) == "plain"


def test_colours_on_a_terminal():
    code = (
        "from celery import Celery; import sys, os; app = Celery('c', broker='memory://'); log = app.log; "
        "print([log.supports_color(), log.supports_color(False), log.supports_color(None, 'file')], flush=True); "
        "app.conf.worker_log_color = False; log.colorize = False; print(log.supports_color())"
    )
    main_end, child_end = os.openpty()
    ended = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=child_end, text=True, check=True
    )
    os.close(main_end)
    os.close(child_end)
    assert ended.stdout.splitlines() == ["[True, False, False]", "False"]


def test_records_carry_the_name_of_the_process(app):
    stream = io.StringIO()
    app.log.setup("INFO", stream)
    set_process_name("ForkPoolWorker-3")
    get_logger("celery.x").info("hello")
    assert stream.getvalue().endswith("INFO/ForkPoolWorker-3] hello\n")


def test_the_task_formatter_keeps_what_a_record_brings():
    record = logging.makeLogRecord({"msg": "m", "task_id": "an-id", "task_name": "a.name"})
    assert (
        TaskFormatter("%(task_name)s[%(task_id)s]: %(message)s", use_color=False).format(record) == "a.name[an-id]: m"
    )


def test_a_logger_with_a_handler_gets_no_other(app):
    logger = logging.getLogger("celery.tests.own")
    mine = logging.StreamHandler(io.StringIO())
    logger.addHandler(mine)
    try:
        assert app.log.setup_handlers(logger, None, "%(message)s", False) is logger
        assert logger.handlers == [mine]
    finally:
        logger.removeHandler(mine)


def test_warnings_are_logged(app):
    stream = io.StringIO()
    app.log.setup("INFO", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("beware", UserWarning, stacklevel=1)
    assert "UserWarning: beware" in stream.getvalue()


def test_a_script_that_configured_no_logging_is_told_nothing_by_it():
    script = """
from celery import Celery
app = Celery("script", broker="memory://")
@app.task
def fail():
    raise ValueError("on purpose")
assert fail.apply().failed()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "")
