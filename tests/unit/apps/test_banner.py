"""What a worker shows when it starts (CLI-045, CLI-046)."""

import logging
import re

import pytest

from celery import Celery
from celery.apps.banner import Facts, banner, tasklist

FACTS = Facts("w1@example.com", concurrency=3, pool="prefork", task_events=False, loglevel=logging.WARNING)


@pytest.fixture
def app():
    with Celery(
        "proj", set_as_current=False, broker="redis://user:secret@127.0.0.1:6379/3", task_default_queue="high"
    ) as app:
        app.task(name="proj.add", shared=False)(lambda x, y: x + y)
        yield app


def row(text, name):
    (line,) = (line for line in text.splitlines() if line.startswith(f".> {name}:"))
    return line.partition(":")[2].strip()


def test_it_names_node_version_platform_and_time(app):
    first, _, third, *_ = banner(app, FACTS).splitlines()
    assert first == "w1@example.com v5.7.0 (collider)"
    assert re.search(r" \d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", third)


def test_it_shows_the_configuration_without_the_password(app):
    text = banner(app, FACTS)
    assert row(text, "app") == f"proj:{id(app):#x}"
    assert row(text, "transport") == "redis://user:**@127.0.0.1:6379/3"
    assert row(text, "results") == "disabled://"
    assert row(text, "concurrency") == "3 (prefork)"
    assert row(text, "task events") == "OFF (enable -E to monitor tasks in this worker)"
    assert "secret" not in text


def test_it_lists_the_queues(app):
    assert ".> high             exchange=high(direct) key=high" in banner(app, FACTS)


def test_it_says_when_events_are_on(app):
    assert row(banner(app, FACTS._replace(task_events=True)), "task events") == "ON"


@pytest.mark.parametrize(
    ("loglevel", "own", "built_in"),
    [(logging.WARNING, False, False), (logging.INFO, True, False), (logging.DEBUG, True, True)],
)
def test_tasks_are_listed_from_info_down_and_built_in_ones_at_debug(app, loglevel, own, built_in):
    text = banner(app, FACTS._replace(loglevel=loglevel))
    assert ("  . proj.add" in text) is own
    assert ("  . celery." in text) is built_in


def test_tasks_are_sorted():
    assert tasklist(["b", "celery.x", "a"], include_builtins=False) == "  . a\n  . b"


def test_it_says_where_the_embedded_store_is(tmp_path, monkeypatch):
    monkeypatch.setenv("CELERY_HOME", str(tmp_path))
    with Celery("proj", set_as_current=False) as app:
        transport = row(banner(app, FACTS), "transport")
    assert transport.startswith(f"sqlite:///{tmp_path}/celery.sqlite")
    assert "no broker is configured" in transport


def test_it_names_a_loader_of_ones_own():
    with Celery("proj", set_as_current=False, broker="memory://", loader="default") as app:
        assert row(banner(app, FACTS), "app").endswith("(celery.loaders.default.Loader)")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://", "amqp://guest:**@localhost:5672//"),
        ("amqp://u:secret@h:5673/v?heartbeat=3", "amqp://u:**@h:5673/v"),
        ("amqps://h", "amqps://guest:**@h:5671//"),
        ("amqp://;amqp://b", "amqp://guest:**@localhost:5672//;amqp://guest:**@b:5672//"),
    ],
)
def test_what_an_address_of_rabbitmq_leaves_out_is_shown(url, shown):
    with Celery(set_as_current=False, broker=url) as app:
        assert row(banner(app, FACTS), "transport") == shown
