"""Loaders: configuration sources, task modules, hooks (CONF-023..029)."""

import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest

from celery import signals
from celery.app.config import Settings
from celery.exceptions import NotConfigured
from celery.loaders import get_loader_cls
from celery.loaders.app import AppLoader
from celery.loaders.base import BaseLoader, autodiscover_tasks, find_related_module
from celery.loaders.default import Loader
from celery.utils.imports import NotAPackage


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write modules into a fresh working directory and forget them after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CELERY_CONFIG_MODULE", raising=False)
    monkeypatch.delenv("C_WNOCONF", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)

    def write(name, text=""):
        path = tmp_path.joinpath(*name.split("."))
        path = path if path.suffix else path.with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        for package in path.relative_to(tmp_path).parents:
            if str(package) != ".":
                (tmp_path / package / "__init__.py").touch()
        path.write_text(text)

    yield write
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def app_with(**settings):
    app = SimpleNamespace(conf=Settings(settings))
    app.loader = AppLoader(app)
    return app


@pytest.fixture
def loader():
    return app_with().loader


class TestChoice:
    """CONF-023."""

    @pytest.mark.parametrize(
        ("name", "cls"),
        [
            ("app", AppLoader),
            ("default", Loader),
            ("celery.loaders.app:AppLoader", AppLoader),
            ("celery.loaders.app.AppLoader", AppLoader),
            (Loader, Loader),
        ],
    )
    def test_a_loader_is_named_by_alias_path_or_class(self, name, cls):
        assert get_loader_cls(name) is cls

    def test_a_loader_may_live_in_the_working_directory(self, module):
        module("own_loader_b", "from celery.loaders.base import BaseLoader\nclass Own(BaseLoader): pass")
        assert issubclass(get_loader_cls("own_loader_b:Own"), BaseLoader)

    def test_a_path_that_leads_nowhere_is_an_error(self):
        with pytest.raises(ImportError):
            get_loader_cls("zzz_no_loader")


class TestConfigurationSource:
    """CONF-007, CONF-025, CONF-026, CONF-027."""

    @pytest.mark.parametrize(
        "path", ["cfg_source_b", "cfg_source_b:Config", "cfg_source_b.Config", "cfg_source_b:mapping"]
    )
    def test_a_string_names_a_module_or_an_object_in_one(self, path, module, loader):
        module("cfg_source_b", "worker_pool='solo'\nclass Config: worker_pool='solo'\nmapping={'worker_pool': 'solo'}")
        assert loader.config_from_object(path) is True
        assert loader.conf["worker_pool"] == "solo"

    def test_a_dict_class_or_instance_is_taken_as_it_is(self, loader):
        class Config:
            worker_pool = "solo"

        for source in (Config, Config(), {"worker_pool": "solo"}):
            loader.config_from_object(source)
            assert loader.conf["worker_pool"] == "solo"
            assert Settings(load=lambda: loader.conf).worker_pool == "solo"

    def test_an_instance_is_read_each_time(self, loader):
        source = SimpleNamespace(worker_pool="solo")
        loader.config_from_object(source)
        conf = Settings(load=lambda: loader.conf)
        assert conf.worker_pool == "solo"
        source.worker_pool = "threads"
        assert conf.worker_pool == "threads"

    def test_a_missing_source_is_an_error_unless_silent(self, module, loader):
        for path, error in (("no_cfg_b", ImportError), ("no_cfg_b:x", ImportError), ("os:nope", AttributeError)):
            with pytest.raises(error):
                loader.config_from_object(path)
            assert loader.config_from_object(path, silent=True) is False
        assert loader.conf is None

    def test_a_failing_import_inside_the_source_is_reported_as_such(self, module, loader):
        module("cfg_broken_b", "import nothing_of_that_name_b")
        with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name_b"):
            loader.config_from_object("cfg_broken_b")

    def test_a_file_name_is_refused_with_the_name_of_its_module(self, module, loader, monkeypatch):
        module("cfg_file_b")
        with pytest.raises(NotAPackage, match=r"'cfg_file_b.py'.*'cfg_file_b'"):
            loader.config_from_object("cfg_file_b.py")
        monkeypatch.setenv("CELERY_CONFIG_MODULE", "cfg_file_b.py")
        with pytest.raises(NotAPackage, match=r"'cfg_file_b.py'.*'cfg_file_b'"):
            _ = loader.conf

    def test_the_environment_counts_only_where_no_source_was_given(self, module, monkeypatch):
        module("cfg_env_b", "worker_pool = 'solo'")
        monkeypatch.setenv("CELERY_CONFIG_MODULE", "cfg_env_b")
        assert app_with().loader.conf["worker_pool"] == "solo"
        given = app_with().loader
        given.config_from_object({"worker_pool": "threads"})
        assert given.conf["worker_pool"] == "threads"

    def test_backend_aliases_are_read_from_the_source(self, loader):
        """SET-149."""
        loader.config_from_object({"override_backends": {"mine": "proj.backend:Mine"}})
        assert loader.override_backends == {"mine": "proj.backend:Mine"}

    def test_settings_are_parsed_from_the_command_line(self, loader):
        assert loader.cmdline_config_parser([".prefetch_multiplier=3"], namespace="worker") == {
            "worker_prefetch_multiplier": 3
        }


class TestDefaultLoader:
    """CONF-024."""

    def test_it_reads_celeryconfig(self, module):
        module("celeryconfig", "worker_pool = 'solo'")
        loader = Loader(app_with())
        assert (loader.conf["worker_pool"], loader.configured) == ("solo", True)

    def test_it_does_without_a_module(self, module, monkeypatch):
        loader = Loader(app_with())
        assert (dict(loader.conf), loader.configured) == ({}, False)
        with pytest.raises(ImportError):
            loader.read_configuration(fail_silently=False)
        monkeypatch.setenv("C_WNOCONF", "1")
        with pytest.warns(NotConfigured, match="celeryconfig"):
            loader.read_configuration()

    def test_a_module_that_fails_is_an_error(self, module):
        module("celeryconfig", "import nothing_of_that_name_b")
        with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name_b"):
            _ = Loader(app_with()).conf


class TestTaskModules:
    """CONF-028."""

    def test_a_worker_imports_the_modules_of_both_settings_in_order_and_once(self, module):
        calls = []
        for name in ("mod_one_b", "mod_two_b", "mod_three_b"):
            module(name)
        app = app_with(imports=["mod_one_b", "mod_two_b"], include="mod_three_b")
        app.loader.on_worker_init = lambda: calls.append(sorted(app.loader.task_modules))
        app.loader.init_worker()
        app.loader.init_worker()
        assert app.loader.default_modules == ("mod_one_b", "mod_two_b", "mod_three_b")
        assert calls == [["mod_one_b", "mod_three_b", "mod_two_b"]]
        assert {"mod_one_b", "mod_two_b", "mod_three_b"} <= set(sys.modules)

    @pytest.mark.parametrize("setting", ["imports", "include"])
    def test_a_module_that_is_missing_is_named_with_its_setting(self, setting):
        app = app_with(**{setting: ["no_such_package_b.tasks"]})
        complaint = f"no module 'no_such_package_b': the setting '{setting}' names 'no_such_package_b.tasks'"
        with pytest.raises(ModuleNotFoundError, match=complaint) as caught:
            app.loader.import_default_modules()
        assert caught.value.__suppress_context__

    def test_a_module_that_misses_another_says_that_itself(self, module):
        module("misses_another_b", "import no_such_module_b")
        with pytest.raises(ModuleNotFoundError, match="^No module named 'no_such_module_b'$"):
            app_with(imports=["misses_another_b"]).loader.import_default_modules()

    def test_a_failing_receiver_of_import_modules_stops_the_import(self, module):
        app = app_with(imports=["never_imported_b"])

        def receiver(**_):
            raise LookupError("from the receiver")

        signals.import_modules.connect(receiver, sender=app)
        try:
            with pytest.raises(LookupError, match="from the receiver"):
                app.loader.import_default_modules()
        finally:
            signals.import_modules.disconnect(receiver, sender=app)

    def test_the_hooks_of_a_worker_are_called(self):
        calls = []

        class Recording(BaseLoader):
            def on_worker_shutdown(self):
                calls.append("shutdown")

            def on_worker_process_init(self):
                calls.append("process")

        loader = Recording(app_with())
        loader.init_worker_process()
        loader.shutdown_worker()
        assert calls == ["process", "shutdown"]
        assert loader.on_task_init("id", None) is loader.on_process_cleanup() is None

    def test_now_is_aware_in_utc_and_naive_in_local_time(self, loader):
        assert loader.now().utcoffset() == timedelta(0)
        assert loader.now(utc=False).tzinfo is None

    def test_finding_a_module_does_not_import_it(self, module, loader):
        module("found_only_b")
        assert loader.find_module("found_only_b").name == "found_only_b"
        assert "found_only_b" not in sys.modules


class TestAutodiscovery:
    """CONF-029."""

    def test_the_related_module_of_each_package_is_imported(self, module, loader):
        module("pkg_one_b.tasks")
        module("pkg_two_b.other")
        loader.import_from_cwd("pkg_one_b")
        sys.path.insert(0, "")
        loader.autodiscover_tasks(["pkg_one_b", "pkg_two_b"])
        assert loader.task_modules == {"pkg_one_b.tasks"}

    @pytest.mark.parametrize(
        ("package", "related", "found"),
        [
            ("json", "decoder", "json.decoder"),
            ("json", "nope", None),
            ("json", None, "json"),
            ("json.JSONDecoder", "tool", "json.tool"),
            ("json.decoder.JSONDecoder", "tool", None),
        ],
    )
    def test_only_the_absence_of_that_very_module_is_ignored(self, package, related, found):
        module = find_related_module(package, related)
        assert (module and module.__name__) == found

    def test_errors_inside_the_related_module_are_raised(self, module):
        module("pkg_broken_b.tasks", "import nothing_of_that_name_b")
        sys.path.insert(0, "")
        with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name_b"):
            find_related_module("pkg_broken_b", "tasks")

    @pytest.mark.parametrize("package", ["no_package_b", "json.nope.Config"])
    def test_a_missing_package_is_an_error(self, package):
        with pytest.raises(ModuleNotFoundError):
            find_related_module(package, "tasks")

    def test_a_call_from_inside_returns_nothing(self, module):
        module(
            "pkg_again_b.tasks",
            "from celery.loaders.base import autodiscover_tasks\ninner = list(autodiscover_tasks(['json'], 'tool'))",
        )
        sys.path.insert(0, "")
        [outer] = autodiscover_tasks(["pkg_again_b"])
        assert outer.inner == []
        assert autodiscover_tasks(["json"], "decoder")
