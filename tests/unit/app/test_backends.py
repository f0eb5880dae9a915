"""Result backends by name and URL (API-065, ROUTE-040)."""

from __future__ import annotations

import sys
import uuid

import pytest

from celery import Celery
from celery.app.backends import by_name, by_url
from celery.backends.base import Backend, DisabledBackend
from celery.exceptions import ImproperlyConfigured


@pytest.mark.parametrize(
    ("configured", "name", "url"),
    [
        (None, "DisabledBackend", None),
        ("disabled", "DisabledBackend", None),
        ("rpc", "RPCBackend", None),
        ("rpc://", "RPCBackend", "rpc://"),
        ("redis", "RedisBackend", None),
        ("redis://h:1/2", "RedisBackend", "redis://h:1/2"),
        ("rediss://h?ssl_cert_reqs=none", "RedisBackend", "rediss://h?ssl_cert_reqs=none"),
        ("socket:///p", "RedisBackend", "socket:///p"),
        ("redis+socket:///p", "RedisBackend", "redis+socket:///p"),
        ("sentinel://h:1;sentinel://g:2", "SentinelBackend", "sentinel://h:1;sentinel://g:2"),
        ("sqlite:///f", "SQLiteBackend", "sqlite:///f"),
        ("cache+memory://", "MemoryBackend", "memory://"),
        ("db+sqlite:///f", "DatabaseBackend", "sqlite:///f"),
        ("db+postgresql+psycopg://u@h/d", "DatabaseBackend", "postgresql+psycopg://u@h/d"),
        ("database", "DatabaseBackend", None),
        ("celery.backends.redis:RedisBackend", "RedisBackend", None),
        ("celery.backends.redis.RedisBackend", "RedisBackend", None),
        (DisabledBackend, "DisabledBackend", None),
    ],
)
def test_a_backend_is_found(configured, name, url):
    cls, given = by_url(configured)
    assert (cls.__name__, given) == (name, url)
    assert issubclass(cls, Backend)


@pytest.mark.parametrize(
    ("configured", "complaint"),
    [
        ("nosuch", "Unknown result backend: 'nosuch'.*Known: cache, .*redis.*module:Class"),
        ("mongodb://h", "Unknown result backend: 'mongodb'.*this version does not"),
        ("cache+memcached://h:1;g:2/", r"'cache\+memcached'"),
        ("no.such.module:Class", "No module named 'no'"),
        ("celery.backends.redis:NoSuchClass", "no attribute 'NoSuchClass'"),
        ("celery.backends.redis", "no class"),
    ],
)
def test_what_there_is_not_is_named(configured, complaint):
    with pytest.raises(ImproperlyConfigured, match=complaint):
        by_url(configured)


def test_a_missing_library_names_the_extra():
    """In a process of its own, where SQLAlchemy cannot be imported."""
    import subprocess

    code = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "from celery.app.backends import by_url\n"
        "by_url('db+postgresql://h/d')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImproperlyConfigured" in ended.stderr
    assert "celeriac[sqlalchemy]" in ended.stderr


def test_a_loader_may_have_backends_of_its_own():
    class Loader:
        override_backends = {"mine": "celery.backends.base:DisabledBackend", "redis": "celery.backends.base:Backend"}

    assert by_name("mine", Loader()) is DisabledBackend
    assert by_name("redis", Loader()) is Backend


def test_backends_plug_in_as_entry_points(tmp_path, monkeypatch):
    (tmp_path / "plugin-1.dist-info").mkdir()
    (tmp_path / "plugin-1.dist-info" / "entry_points.txt").write_text(
        "[celery.result_backends]\nplugged = celery.backends.base:DisabledBackend\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert by_url("plugged://somewhere") == (DisabledBackend, "plugged://somewhere")


@pytest.mark.parametrize("settings", [{"broker": "memory://"}, {"broker_host": "h"}, {"broker_read_url": "redis://h"}])
def test_a_configured_broker_without_a_backend_keeps_results_disabled(settings):
    with Celery(set_as_current=False, **settings) as app:
        assert isinstance(app.backend, DisabledBackend)
        with pytest.raises(NotImplementedError, match="No result backend"):
            app.AsyncResult("i").state  # noqa: B018 - reading it asks the backend


def test_broker_and_backend_may_differ(tmp_path):
    with Celery(broker=f"memory://{uuid.uuid4()}", backend=f"sqlite:///{tmp_path}/r", set_as_current=False) as app:
        assert type(app.backend).__name__ == "SQLiteBackend"
        assert app.AsyncResult("i").state == "PENDING"


def test_an_unknown_backend_is_told_when_it_is_first_used():
    with Celery(broker="memory://", backend="nosuch://", set_as_current=False) as app:
        with pytest.raises(ImproperlyConfigured, match="nosuch"):
            _ = app.backend
        with pytest.raises(ImproperlyConfigured, match="nosuch"):
            app.send_task("t")
