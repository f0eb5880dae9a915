"""`Settings`: layers, states, names, environment, what is shown (CONF-001..022)."""

import re
import threading
import types
import warnings
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.app.config import Settings
from celery.app.defaults import OLD_NAMES, OPTIONS
from celery.exceptions import CDeprecationWarning, CeleryWarning, ImproperlyConfigured
from celery.utils.collections import ConfigurationView, DictAttribute

ENVIRONMENT = {
    "broker_url": "CELERY_BROKER_URL",
    "broker_read_url": "CELERY_BROKER_READ_URL",
    "broker_write_url": "CELERY_BROKER_WRITE_URL",
    "result_backend": "CELERY_RESULT_BACKEND",
}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in ENVIRONMENT.values():
        monkeypatch.delenv(name, raising=False)


def configured(source=None, changes=None, **kwargs):
    settings = Settings(changes, load=lambda: source, **kwargs)
    settings.finalize()
    return settings


class TestLayers:
    """CONF-001, CONF-014."""

    def test_the_first_layer_that_has_a_setting_wins(self):
        conf = configured({"task_serializer": "source", "result_serializer": "source", "event_serializer": "source"})
        conf.add_defaults({"event_serializer": "default", "task_default_queue": "default", "worker_pool": "older"})
        conf.add_defaults({"worker_pool": "newer"})
        conf.task_serializer = "change"
        assert conf.task_serializer == "change"
        assert conf.result_serializer == "source"
        assert conf.event_serializer == "source"
        assert conf.task_default_queue == "default"
        assert conf.worker_pool == "newer"
        assert conf.task_protocol == 2

    def test_defaults_added_early_are_evaluated_when_the_configuration_loads(self):
        asked = []
        conf = Settings(load=dict)
        conf.add_defaults(lambda: asked.append(1) or {"worker_pool": "solo", "mine": 1})
        assert not asked
        assert (conf.worker_pool, conf.mine, asked) == ("solo", 1, [1])

    def test_added_defaults_are_not_copied(self):
        extra = {}
        conf = configured()
        conf.add_defaults(extra)
        extra["mine"] = 1
        assert conf["mine"] == 1

    def test_undoing_a_change_uncovers_the_layer_below(self):
        conf = configured({"worker_pool": "source"})
        conf.worker_pool = "change"
        assert conf.worker_pool == "change"
        del conf["worker_pool"]
        assert conf.worker_pool == "source"
        conf.update(worker_pool="again")
        assert conf.pop("worker_pool") == "again"
        assert conf.worker_pool == "source"
        conf.worker_pool = "once more"
        conf.clear()
        assert conf.worker_pool == "source"

    def test_an_entry_put_into_a_default_dict_stays_with_its_application(self):
        one, other = configured(), configured()
        one.beat_schedule["tick"] = {"task": "t"}
        assert one.beat_schedule == {"tick": {"task": "t"}}
        assert other.beat_schedule == {}

    def test_it_lists_every_setting_and_the_users_own(self):
        conf = configured({"mine": 1})
        assert set(conf) == {*OPTIONS, "mine"}
        assert len(conf) == len(OPTIONS) + 1
        assert dict(conf.without_defaults()) == {"mine": 1}

    def test_an_unknown_name_is_an_error(self):
        conf = configured()
        with pytest.raises(KeyError, match="zz"):
            conf["zz"]
        with pytest.raises(AttributeError, match="zz"):
            _ = conf.zz
        assert conf.get("zz", 3) == 3
        assert "zz" not in conf
        assert 3 not in conf

    def test_it_is_the_documented_kind_of_mapping(self):
        """MOD-0298."""
        assert isinstance(configured(), ConfigurationView)

    def test_no_setting_is_hidden_by_a_method(self):
        derived = {*ENVIRONMENT, "task_default_exchange", "task_default_routing_key", "timezone"}
        assert {name for name in OPTIONS if hasattr(Settings, name)} == derived

    def test_a_copy_has_changes_of_its_own(self):
        conf = configured({"worker_pool": "solo"}, {"task_serializer": "yaml"})
        twin = conf.copy()
        twin.task_serializer = "pickle"
        assert (twin.worker_pool, conf.task_serializer) == ("solo", "yaml")


class TestLoading:
    """CONF-003, CONF-004, CONF-005."""

    def test_writing_loads_nothing(self):
        conf = Settings({"mine": 1}, load=lambda: pytest.fail("loaded"))
        conf.worker_pool = "solo"
        conf.update({"task_protocol": 1})
        assert conf.setdefault("task_protocol", 2) == 1
        assert conf.setdefault("event_queue_ttl", 3) == 3
        assert "worker_pool" in conf
        assert "task_serializer" not in conf
        assert conf.changes == {"mine": 1, "worker_pool": "solo", "task_protocol": 1, "event_queue_ttl": 3}
        conf.clear()
        assert "worker_pool" not in conf
        assert not conf.configured

    def test_the_first_read_loads_once_and_keeps_the_object(self):
        loads = []
        conf = Settings({"task_protocol": 1}, load=lambda: loads.append(1) or {"worker_pool": "solo"})
        early = conf
        assert conf["worker_pool"] == "solo"
        assert (early.worker_pool, early.task_protocol, loads) == ("solo", 1, [1])
        assert early.configured

    def test_the_loaded_callback_sees_the_final_settings(self):
        seen = []
        conf = Settings(load=lambda: {"worker_pool": "solo"}, loaded=lambda conf: seen.append(conf.worker_pool))
        conf.finalize()
        assert seen == ["solo"]

    def test_the_load_callback_may_read_and_write_the_settings(self):
        def load():
            conf.task_protocol = conf.task_protocol - 1
            return {"worker_pool": "solo"}

        conf = Settings(load=load)
        assert (conf.worker_pool, conf.task_protocol) == ("solo", 1)

    def test_an_attribute_error_while_loading_is_no_missing_setting(self):
        conf = Settings(load=lambda: object().nothing)
        with pytest.raises(ModuleNotFoundError, match="nothing"):
            _ = conf.worker_pool

    def test_a_key_error_while_loading_is_no_missing_setting(self):
        conf = Settings(load=lambda: {}["HOME_OF_CONFIG"])
        with pytest.raises(KeyError, match="HOME_OF_CONFIG"):
            _ = conf.worker_pool

    def test_a_failed_load_is_tried_again(self):
        answers = [ImportError("not yet"), {"worker_pool": "solo"}]

        def load():
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        conf = Settings(load=load)
        with pytest.raises(ImportError):
            conf.finalize()
        assert conf.worker_pool == "solo"

    def test_reloading_reads_the_source_anew_and_keeps_changes(self):
        """CONF-007."""
        sources = [{"worker_pool": "solo"}, {"worker_pool": "threads"}]
        conf = Settings(load=lambda: sources.pop(0))
        conf.add_defaults({"mine": 1})
        conf.task_protocol = 1
        assert conf.worker_pool == "solo"
        conf.reload()
        assert not conf.configured
        assert (conf.worker_pool, conf.task_protocol, conf.mine) == ("threads", 1, 1)

    def test_threads_that_read_first_together_load_once(self):
        loads, values = [], []
        barrier = threading.Barrier(8)
        conf = Settings(load=lambda: loads.append(1) or {"worker_pool": "solo"})

        def read():
            barrier.wait(10)
            values.append(conf.worker_pool)

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert (loads, values) == ([1], ["solo"] * 8)


class TestChanging:
    def test_a_change_is_seen_by_the_next_read(self):
        conf = configured()
        for value in ("yaml", "pickle"):
            conf.task_serializer = value
            assert conf.task_serializer == value
            conf["result_serializer"] = value
            assert conf.result_serializer == value
            conf.update({"event_serializer": value})
            assert conf.event_serializer == value

    def test_a_live_source_is_read_each_time(self):
        """An instance, such as Django's settings, may be overridden for the length of a test."""
        source = types.SimpleNamespace(worker_pool="solo")

        conf = configured(DictAttribute(source))
        assert conf.worker_pool == "solo"
        source.worker_pool = "threads"
        assert conf.worker_pool == "threads"

    def test_a_derived_value_follows_what_it_is_derived_from(self):
        conf = configured()
        for queue in ("one", "other"):
            conf.task_default_queue = queue
            assert conf.task_default_exchange == queue

    def test_watchers_are_called_with_each_change(self):
        """CONF-020."""
        seen = []
        conf = configured()
        conf.bind_to(seen.append)
        conf.update({"CELERY_ROUTES": {}}, mine=1)
        conf.worker_pool = "solo"
        assert seen == [{"task_routes": {}, "mine": 1}, {"worker_pool": "solo"}]

    @given(st.lists(st.tuples(st.sampled_from(sorted(OLD_NAMES)), st.booleans(), st.booleans()), max_size=20))
    def test_all_spellings_read_what_any_spelling_wrote(self, writes):
        conf, expected = configured(), {}
        for name, by_old_name, by_item in writes:
            spelling, value = OLD_NAMES[name] if by_old_name else name, len(expected)
            if by_item:
                conf[spelling] = value
            else:
                setattr(conf, spelling, value)
            expected[name] = value
            assert conf[name] == conf[OLD_NAMES[name]] == getattr(conf, OLD_NAMES[name]) == value
        assert conf.changes == expected


class TestEnvironment:
    """CONF-002."""

    @pytest.mark.parametrize(("name", "variable"), ENVIRONMENT.items())
    def test_a_variable_overrides_the_attribute_and_not_the_item(self, name, variable, monkeypatch):
        conf = configured({name: "redis://source"})
        assert getattr(conf, name) == "redis://source"
        monkeypatch.setenv(variable, "redis://environment")
        setattr(conf, name, "redis://change")
        assert getattr(conf, name) == "redis://environment"
        assert conf[name] == "redis://change"
        monkeypatch.delenv(variable)
        assert getattr(conf, name) == "redis://change"


class TestDerivedValues:
    """CONF-021."""

    def test_broker_addresses_fall_back(self):
        conf = configured({"broker_host": "h"})
        assert (conf.broker_url, conf.broker_read_url, conf.broker_write_url) == ("h", "h", "h")
        conf.update(broker_url="redis://", broker_read_url="redis://r")
        assert (conf.broker_url, conf.broker_read_url, conf.broker_write_url) == ("redis://", "redis://r", "redis://")

    def test_exchange_and_routing_key_follow_the_default_queue(self):
        conf = configured({"task_default_queue": "q"})
        assert (conf.task_default_exchange, conf.task_default_routing_key) == ("q", "q")
        conf.task_default_routing_key = "k"
        assert (conf.task_default_exchange, conf.task_default_routing_key) == ("q", "k")

    def test_the_time_zone_falls_back_to_djangos(self):
        assert configured().timezone is None
        assert configured({"TIME_ZONE": "Europe/Oslo"}).timezone == "Europe/Oslo"
        assert configured({"TIME_ZONE": "Europe/Oslo", "timezone": "UTC"}).timezone == "UTC"

    def test_the_result_backend_is_read_under_its_old_name(self):
        assert configured({"CELERY_RESULT_BACKEND": "rpc://"}).result_backend == "rpc://"

    @pytest.mark.parametrize(
        "name", ["broker_url", "broker_read_url", "broker_write_url", "broker_host", "broker_port", "broker_transport"]
    )
    def test_the_broker_is_embedded_only_when_nothing_names_one(self, name):
        """SET-040."""
        assert configured().embedded
        assert configured({"broker_pool_limit": 3}).embedded
        assert not configured({name: "5"}).embedded

    def test_the_environment_names_a_broker_too(self, monkeypatch):
        monkeypatch.setenv("CELERY_BROKER_URL", "redis://")
        assert not configured().embedded

    @pytest.mark.parametrize(("word", "value"), [("Yes", True), ("on", True), ("0", False), ("FALSE", False), ("", "")])
    def test_words_for_true_and_false_are_understood(self, word, value):
        """CONF-022."""
        assert configured({"task_always_eager": word}).task_always_eager == value

    def test_any_other_word_is_an_error_that_names_the_setting(self):
        with pytest.raises(ImproperlyConfigured, match=r"task_always_eager.*'perhaps'"):
            _ = configured({"task_always_eager": "perhaps"}).task_always_eager


class TestNames:
    """CONF-010, CONF-011, CONF-012, CONF-013."""

    def test_old_names_are_read_under_new_ones(self):
        conf = configured({"CELERY_ALWAYS_EAGER": True, "BROKER_URL": "redis://"})
        assert (conf.task_always_eager, conf.CELERY_ALWAYS_EAGER, conf.broker_url) == (True, True, "redis://")
        assert conf.deprecated_settings == {"CELERY_ALWAYS_EAGER", "BROKER_URL"}
        with pytest.warns(CDeprecationWarning) as caught:
            assert conf.maybe_warn_deprecated_settings()
        assert ["task_always_eager" in str(caught[1].message), len(caught)] == [True, 2]

    def test_new_names_are_not_deprecated(self):
        conf = configured({"task_always_eager": True})
        assert not conf.maybe_warn_deprecated_settings()

    @pytest.mark.parametrize(
        ("source", "rename"),
        [
            ({"CELERY_ALWAYS_EAGER": 1, "task_serializer": "json"}, "CELERY_ALWAYS_EAGER -> task_always_eager"),
            (
                {"CELERY_ALWAYS_EAGER": 1, "CELERY_IGNORE_RESULT": 1, "task_serializer": "json"},
                "task_serializer -> CELERY_TASK_SERIALIZER",
            ),
        ],
    )
    def test_mixing_styles_is_an_error_that_lists_the_renames(self, source, rename):
        with pytest.raises(ImproperlyConfigured, match=rename):
            configured(source)

    def test_a_setting_in_both_spellings_is_no_mixing(self):
        conf = configured({"CELERY_ALWAYS_EAGER": True, "task_always_eager": False, "task_serializer": "yaml"})
        assert conf.task_always_eager is False

    def test_a_setting_that_never_had_an_old_name_is_no_mixing(self):
        conf = configured({"CELERY_ALWAYS_EAGER": True, "task_delivery_limit": 3})
        assert conf.task_delivery_limit == 3

    def test_changes_are_exempt_from_the_check(self):
        """CONF-006."""
        conf = configured({"CELERY_ALWAYS_EAGER": True}, {"task_serializer": "yaml"})
        assert (conf.task_always_eager, conf.task_serializer) == (True, "yaml")

    @pytest.mark.parametrize(
        "change",
        [
            lambda conf: conf.update({"CELERY_ALWAYS_EAGER": True, "task_serializer": "yaml"}),
            lambda conf: (conf.update(CELERY_ALWAYS_EAGER=True), setattr(conf, "task_serializer", "yaml")),
            lambda conf: (conf.setdefault("CELERY_ALWAYS_EAGER", True), conf.update(task_serializer="yaml")),
        ],
    )
    def test_where_nothing_is_loaded_changes_made_before_keep_to_one_style(self, change):
        conf = Settings()
        change(conf)
        with pytest.raises(ImproperlyConfigured, match="CELERY_ALWAYS_EAGER -> task_always_eager"):
            conf.finalize()
        del conf["task_always_eager"]
        conf.finalize()
        assert conf.task_serializer == "yaml"

    @pytest.mark.parametrize(
        "conf",
        [
            Settings({"task_serializer": "yaml"}),
            Settings(load=lambda: {"task_serializer": "yaml"}),
            Settings(namespace="CELERY"),
        ],
        ids=["of the constructor", "with a source", "with a namespace"],
    )
    def test_other_changes_may_be_of_either_style(self, conf):
        conf.update(CELERY_ALWAYS_EAGER=True)
        conf.finalize()
        conf.update(CELERY_IGNORE_RESULT=True, result_serializer="yaml")
        assert (conf.task_always_eager, conf.task_ignore_result) == (True, True)

    @pytest.mark.parametrize("namespace", ["CELERY", "CELERY_"])
    def test_a_namespace_is_a_prefix_of_names_in_the_source(self, namespace):
        conf = configured({"CELERY_TASK_ALWAYS_EAGER": 1, "CELERY_MINE": 2}, namespace=namespace)
        assert (conf.task_always_eager, conf.mine, conf.prefix) == (1, 2, "CELERY_")
        conf.CELERY_TASK_ALWAYS_EAGER = 9
        assert (conf.task_always_eager, conf.changes) == (9, {"task_always_eager": 9})
        conf.worker_pool = "solo"
        assert conf["CELERY_WORKER_POOL"] == "solo"
        assert not conf.deprecated_settings

    def test_a_namespace_in_lower_case_means_names_in_lower_case(self):
        conf = configured({"jobs_worker_pool": "solo", "JOBS_TASK_SERIALIZER": "yaml"}, namespace="jobs")
        assert (conf.worker_pool, conf.task_serializer) == ("solo", "json")

    def test_with_a_namespace_only_its_names_are_listed(self):
        conf = configured({"CELERY_WORKER_POOL": "solo", "DEBUG": True, "CELERY_MINE": 1}, namespace="CELERY")
        assert dict(conf.without_defaults()) == {"worker_pool": "solo", "mine": 1}

    def test_a_deprecated_setting_in_the_source_warns(self):
        with pytest.warns(CDeprecationWarning, match=r"task_acks_on_failure_or_timeout.*6\.0.*7\.0"):
            configured({"task_acks_on_failure_or_timeout": True})


class TestMisspellings:
    @pytest.mark.parametrize(
        ("source", "namespace", "suggestion"),
        [
            ({"task_seralizer": "json"}, None, "task_serializer"),
            ({"CELERY_TASK_SERIALISER": "json"}, None, "CELERY_TASK_SERIALIZER"),
            ({"CELERY_WORKER_CONCURENCY": 3}, "CELERY", "CELERY_WORKER_CONCURRENCY"),
            ({"timezon": "UTC"}, None, "timezone"),
        ],
    )
    def test_a_misspelt_setting_warns_with_the_nearest_name(self, source, namespace, suggestion):
        with pytest.warns(CeleryWarning, match=f"did you mean '{suggestion}'"):
            configured(source, namespace=namespace)

    def test_a_name_that_begins_like_a_setting_warns_too(self):
        with pytest.warns(CeleryWarning, match="worker_flux_capacity"):
            configured({"worker_flux_capacity": 3})

    def test_a_change_warns_once(self):
        conf = configured()
        with pytest.warns(CeleryWarning, match="task_seralizer"):
            conf.task_seralizer = "json"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            conf.task_seralizer = "json"

    def test_a_change_made_while_pending_warns_at_loading(self):
        conf = Settings({"task_seralizer": "json"}, load=dict)
        with pytest.warns(CeleryWarning, match="task_seralizer"):
            conf.finalize()

    def test_names_of_others_are_left_alone(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            conf = configured({"SECRET_KEY": 1, "my_value": 2, "redbeat_redis_url": "", "_task_helper": 1, "os": types})
            assert conf["my_value"] == 2
            foreign = {"INSTALLED_APPS": [], "CELERY_EMAIL_TASK_CONFIG": {}, "task_helper": 1}
            assert configured(foreign, namespace="CELERY").unacted() == []


class TestLookups:
    """CONF-019."""

    def test_a_value_is_set_in_any_user_layer_and_any_spelling(self):
        conf = configured({"CELERY_ALWAYS_EAGER": 0}, {"worker_pool": None})
        conf.add_defaults({"task_protocol": 1})
        for key in ("task_always_eager", "CELERY_ALWAYS_EAGER", "worker_pool", "task_protocol"):
            assert conf.value_set_for(key)
        assert not conf.value_set_for("task_serializer")

    def test_finding_by_parts_and_by_option(self):
        conf = configured({"worker_concurrency": 3})
        assert conf.get_by_parts("worker", "concurrency") == 3
        assert conf.get_by_parts("", "timezone") is None
        assert conf.find_value_for_key("concurrency", "worker") == 3
        assert conf.find_value_for_key("concurrency") == 3
        assert conf.find_option("concurrency", "worker")[:2] == ("worker", "concurrency")
        assert conf.first("timezone", "zz", "worker_concurrency", "task_serializer") == 3

    def test_settings_that_this_version_does_not_act_on_are_named(self):
        conf = configured({"cassandra_servers": ["h"], "task_serializer": "json"})
        assert conf.unacted() == ["cassandra_servers"]


class TestShowing:
    """CONF-016, CONF-018."""

    def test_only_what_users_set_is_shown(self):
        conf = configured({"task_serializer": "yaml"}, {"worker_pool": "solo"})
        assert conf.table() == {"worker_pool": "solo", "task_serializer": "yaml"}
        assert conf.humanize() == "worker_pool: 'solo'\ntask_serializer: 'yaml'"

    def test_with_defaults_everything_is_shown(self):
        table = configured({"task_serializer": "yaml"}).table(with_defaults=True)
        assert set(table) == set(OPTIONS)
        assert (table["task_serializer"], table["worker_pool"]) == ("yaml", "prefork")

    def test_credentials_are_shown_only_on_request(self):
        conf = configured({"broker_url": "redis://:pw@h/0", "redis_password": "pw"})
        assert "pw" not in conf.humanize()
        assert conf.table(censored=False) == {"broker_url": "redis://:pw@h/0", "redis_password": "pw"}

    def test_imports_and_functions_of_a_configuration_module_are_not_shown(self):
        conf = configured({"os": types, "helper": lambda: None, "Base": dict, "_hidden": 1, "mine": 1})
        assert conf.table() == {"mine": 1}


class TestNumbers:
    """Counts and seconds are checked as true and false are."""

    @pytest.mark.parametrize("value", ["soon", [30], object])
    @pytest.mark.parametrize("name", ["task_time_limit", "worker_max_tasks_per_child", "result_expires"])
    def test_what_is_no_number_is_refused_by_name(self, name, value):
        conf = Settings({name: value})
        with pytest.raises(ImproperlyConfigured, match=rf"'{name}' is {re.escape(repr(value))}: it must be a number"):
            getattr(conf, name)
        with pytest.raises(ImproperlyConfigured, match=name):
            conf.check()

    @pytest.mark.parametrize(("text", "number"), [("30", 30), (" 2.5 ", 2.5), ("", ""), ("inf", float("inf"))])
    def test_text_stands_for_its_number(self, text, number):
        conf = Settings({"CELERYD_TASK_TIME_LIMIT": text, "worker_prefetch_multiplier": text})
        assert conf.task_time_limit == conf["worker_prefetch_multiplier"] == number
        conf.check()

    def test_a_duration_stands_for_its_seconds_and_stays_one_where_it_is_a_default(self):
        conf = Settings({"task_time_limit": timedelta(minutes=1), "result_expires": timedelta(days=2)})
        assert conf.task_time_limit == 60
        assert conf.result_expires == timedelta(days=2)
        conf.worker_prefetch_multiplier = timedelta(1)
        with pytest.raises(ImproperlyConfigured, match="worker_prefetch_multiplier"):
            conf.check()

    def test_all_defaults_pass(self):
        conf = Settings()
        conf.check()
        assert conf.task_delivery_limit == 5
