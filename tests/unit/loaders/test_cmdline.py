"""Settings on the command line (CONF-009)."""

import pytest

from celery.loaders.cmdline import parse_settings


@pytest.mark.parametrize(
    ("item", "namespace", "parsed"),
    [
        ("worker.prefetch_multiplier=10", "worker", {"worker_prefetch_multiplier": 10}),
        ("WORKER_Prefetch.Multiplier=10", "celery", {"worker_prefetch_multiplier": 10}),
        (".concurrency=3", "worker", {"worker_concurrency": "3"}),
        ("_prefetch_multiplier=3", "worker", {"worker_prefetch_multiplier": 3}),
        (".max_loop_interval=1.5", "beat", {"beat_max_loop_interval": 1.5}),
        (".concurrency=(int) 3", "celery", {"worker_concurrency": 3}),
        (".task_serializer=yaml", "celery", {"task_serializer": "yaml"}),
        ("task_publish_retry=off", "celery", {"task_publish_retry": False}),
        ("task_acks_late=(bool)yes", "celery", {"task_acks_late": True}),
        ("result_expires=3", "celery", {"result_expires": 3.0}),
        ('accept_content=["json", "yaml"]', "celery", {"accept_content": ["json", "yaml"]}),
        ('broker.transport_options={"a": 1}', "celery", {"broker_transport_options": {"a": 1}}),
        ('broker_heartbeat=(json){"a": [1]}', "celery", {"broker_heartbeat": {"a": [1]}}),
        ("broker_url=redis://h/0?a=b", "celery", {"broker_url": "redis://h/0?a=b"}),
        ("task_default_queue=(string)3", "celery", {"task_default_queue": "3"}),
    ],
)
def test_an_item_is_converted_to_the_type_of_its_option(item, namespace, parsed):
    assert parse_settings([item], namespace) == parsed


def test_several_items_make_one_mapping():
    assert parse_settings(["timezone=UTC", "task.protocol=1"]) == {"timezone": "UTC", "task_protocol": 1}


@pytest.mark.parametrize("item", ["foo.bar=1", ".foo=1", "task=1", "broker_heartbeat=(complex)3"])
@pytest.mark.parametrize("namespace", ["celery", "worker"])
def test_an_unknown_setting_or_type_is_a_key_error(item, namespace):
    with pytest.raises(KeyError):
        parse_settings([item], namespace)


@pytest.mark.parametrize(
    ("item", "named"),
    [
        ("worker_concurrency=(int)abc", "worker_concurrency"),
        ("result.expires=abc", "result_expires"),
        ("task_acks_late=perhaps", "task_acks_late"),
        ("accept_content=json", "accept_content"),
        ("worker_concurrency", "setting=value"),
    ],
)
def test_a_bad_value_is_a_value_error_that_names_the_setting(item, named):
    with pytest.raises(ValueError, match=named):
        parse_settings([item])
