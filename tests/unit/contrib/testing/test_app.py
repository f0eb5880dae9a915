"""Applications for tests, and what they leave behind (API-107)."""

import logging
import threading
import warnings

import pytest

from celery import _state, current_app, shared_task
from celery.contrib.testing.app import TestApp, Trap, UnitLogging, import_task_modules, set_trap, setup_default_app


@pytest.fixture
def app():
    with TestApp() as app:
        yield app


@pytest.fixture(autouse=True)
def process_as_it_was(app):
    with setup_default_app(app):
        yield


def test_an_application_for_tests_stays_in_this_process(app):
    assert app.conf.broker_url == "memory://"
    assert app.conf.result_backend == "cache+memory://"
    assert app.conf.accept_content == {"json"}
    assert app.conf.worker_hijack_root_logger is False
    assert app.main == "celery.tests"
    assert "celery.ping" in app.tasks


def test_settings_of_the_test_win_over_those_of_every_test():
    with TestApp("mine", {"broker_url": "memory://other", "task_default_queue": "q"}, backend="rpc://") as app:
        assert app.main == "mine"
        assert app.conf.broker_url == "memory://other"
        assert app.conf.task_default_queue == "q"
        assert app.conf.result_backend == "rpc://"


def test_settings_may_have_old_names():
    with TestApp(config={"CELERY_RESULT_BACKEND": "rpc://"}) as app:
        assert app.conf.result_backend == "rpc://"


def test_it_becomes_current_only_when_asked_to(app):
    assert _state.peek_current_app() is not app
    with TestApp(set_as_current=True) as other:
        assert current_app._get_current_object() is other


def test_unit_logging_touches_nothing(app):
    before = logging.getLogger().handlers[:], logging.getLogger().level, warnings.filters[:], warnings.showwarning
    assert isinstance(app.log, UnitLogging)
    app.log.already_setup = False
    app.log.setup("DEBUG")
    assert app.log.already_setup
    after = logging.getLogger().handlers[:], logging.getLogger().level, warnings.filters[:], warnings.showwarning
    assert after == before


def test_logging_can_be_enabled():
    with TestApp(enable_logging=True) as app:
        assert not isinstance(app.log, UnitLogging)


def test_the_current_and_the_default_application_come_back(app):
    before = _state.peek_current_app(), _state.default_app
    with TestApp() as other, setup_default_app(other):
        other.set_current()
        other.set_default()
        assert current_app._get_current_object() is other
    assert (_state.peek_current_app(), _state.default_app) == before


def test_they_come_back_after_an_error_too(app):
    before = _state.peek_current_app()
    with pytest.raises(ZeroDivisionError), setup_default_app(app):  # noqa: PT012
        app.set_current()
        raise ZeroDivisionError
    assert _state.peek_current_app() is before


def test_tasks_that_a_test_shares_do_not_reach_later_applications():
    with TestApp() as one, setup_default_app(one):
        shared_task(name="only.here")(lambda: None)
        one.task(name="only.there")(lambda: None)
        assert {"only.here", "only.there"} <= set(one.tasks)
    with TestApp() as other:
        assert not {"only.here", "only.there"} & set(other.tasks)


def test_tasks_of_imported_modules_reach_later_applications(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    source = "from celery import shared_task\n@shared_task(name='of.module')\ndef task(): pass\n"
    (tmp_path / "contrib_task_module.py").write_text(source)
    with TestApp() as one, setup_default_app(one):
        import_task_modules(one, ["contrib_task_module"])
        assert "of.module" in one.tasks
    with TestApp() as other:
        assert "of.module" in other.tasks


def test_the_trap_catches_every_thread(app):
    set_trap(app)
    caught = []

    def use():
        with pytest.raises(RuntimeError, match="Test depends on current_app.*'tasks'"):
            current_app.tasks  # noqa: B018 - reading it is the test
        caught.append(threading.current_thread())

    use()
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(caught) == 2
    assert isinstance(_state.default_app, Trap)


def test_an_application_made_current_replaces_the_trap(app):
    with setup_default_app(app, use_trap=True):
        app.set_current()
        assert current_app.tasks is app.tasks
    assert not isinstance(_state.default_app, Trap)
