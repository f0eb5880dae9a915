"""Finding, naming, pickling and reporting on an application."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from celery import _state
from celery.app.config import Settings
from celery.app.utils import AppPickler, appstr, bugreport, detect_settings, find_app
from celery.exceptions import ImproperlyConfigured
from celery.loaders.app import AppLoader


class StandInApp:
    """As much of an application as these functions look at."""

    def __init__(self, main=None, **settings):
        self.main = main
        self.conf = Settings(settings)
        self.loader = AppLoader(self)


@pytest.fixture
def modules(monkeypatch):
    def make(name, **attributes):
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return make


class TestFindApp:
    """CONF-030."""

    def test_an_application_passes_unchanged(self):
        app = StandInApp()
        assert find_app(app) is app

    @pytest.mark.parametrize("path", ["find_mod_b:mine", "find_mod_b.mine"])
    def test_an_attribute_is_taken_as_named(self, path, modules):
        app = StandInApp()
        modules("find_mod_b", mine=app, app=StandInApp())
        assert find_app(path) is app

    def test_a_module_gives_its_app_before_its_celery(self, modules):
        app, other = StandInApp(), StandInApp()
        modules("find_mod_b", app=app, celery=other)
        assert find_app("find_mod_b") is app
        modules("find_mod_b", app=sys, celery=other)
        assert find_app("find_mod_b") is other

    def test_a_package_is_searched_for_its_celery_module(self, modules):
        app = StandInApp()
        modules("find_pkg_b", __path__=[], celery=modules("find_pkg_b.celery", app=app))
        assert find_app("find_pkg_b") is app
        modules("find_pkg_b", __path__=[])
        assert find_app("find_pkg_b") is app
        assert find_app("find_pkg_b.celery") is app

    def test_any_application_in_the_module_will_do(self, modules):
        app = StandInApp()
        _state.register_app(app)
        try:
            modules("find_mod_b", other=3, queue_app=app)
            assert find_app("find_mod_b") is app
        finally:
            _state.deregister_app(app)

    def test_a_module_without_one_is_an_error_that_says_what_to_do(self, modules):
        modules("find_pkg_b", __path__=[])
        with pytest.raises(AttributeError, match="-A find_pkg_b:name"):
            find_app("find_pkg_b")

    def test_a_missing_module_or_attribute_is_an_error(self):
        with pytest.raises(ModuleNotFoundError):
            find_app("no_such_app_module_b")
        with pytest.raises(AttributeError):
            find_app("os:nope")


class TestDetectSettings:
    def test_it_makes_settings_of_a_mapping(self):
        conf = detect_settings({"CELERY_WORKER_POOL": "solo"}, {"task_protocol": 1}, prefix="CELERY")
        assert (conf.worker_pool, conf.task_protocol, conf.configured) == ("solo", 1, True)

    def test_it_refuses_mixed_styles_except_for_ignored_names(self):
        source = {"CELERY_ALWAYS_EAGER": True, "task_serializer": "json"}
        with pytest.raises(ImproperlyConfigured):
            detect_settings(source)
        assert detect_settings(source, ignore_keys={"CELERY_ALWAYS_EAGER"}).task_always_eager is False


def test_an_application_is_named_after_its_main_module():
    app = StandInApp("proj")
    assert appstr(app) == f"proj at {id(app):#x}"
    assert appstr(StandInApp()).startswith("__main__ at 0x")


def test_a_pickled_application_gets_its_changes_and_does_not_become_current():
    """CONF-015."""
    made = []

    def construct(**kwargs):
        made.append(kwargs)
        return StandInApp(kwargs["main"])

    app = AppPickler()(construct, "proj", {"worker_pool": "solo"}, "app", *[None] * 5, False, "celeryconfig")
    assert (app.main, app.conf.worker_pool) == ("proj", "solo")
    assert (made[0]["set_as_current"], made[0]["config_source"]) == (False, "celeryconfig")


def test_a_bug_report_names_versions_and_hides_passwords():
    """CLI-097."""
    report = bugreport(StandInApp(broker_url="redis://:pw@h/0", result_backend="db+postgresql://u:pw@h/db"))
    for part in ("software -> celery:5.7.0", "platform -> system:", "loader   -> celery.loaders.app.AppLoader"):
        assert part in report
    assert "settings -> transport:redis results:db+postgresql://u:********@h/db" in report
    assert "pw" not in report


def test_a_bug_report_of_an_application_without_settings_says_so():
    assert "settings -> transport:embedded results:disabled" in bugreport(SimpleNamespace(
        conf=Settings(), loader=AppLoader(None)
    ))  # fmt: skip
