"""The database backend's tables as peers have them (wire.md 4.6), and its settings."""

import json
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from celery import Celery, states
from celery.backends.database import DatabaseBackend
from celery.backends.database.models import Task, TaskSet
from celery.backends.database.session import SessionManager
from celery.exceptions import ImproperlyConfigured, OperationalError

VECTORS = json.loads((Path(__file__).parents[2] / "data/wire_vectors/results_database.json").read_text())["vectors"]


class Request(SimpleNamespace):
    def get(self, name, default=None):
        return getattr(self, name, default)


@pytest.fixture
def make(tmp_path):
    backends = []

    def make(**settings):
        app = Celery("db", broker="memory://", backend=f"db+sqlite:///{tmp_path}/results.db", set_as_current=False)
        app.conf.update(settings)
        backends.append(app.backend)
        return app.backend

    yield make
    for backend in backends:
        backend.session_manager.close()


@pytest.fixture
def rows(tmp_path):
    """Read the file without us."""

    def rows(query):
        file = sqlite3.connect(tmp_path / "results.db")
        try:
            return file.execute(query).fetchall()
        finally:
            file.close()

    return rows


@pytest.mark.parametrize("table", ["celery_taskmeta", "celery_tasksetmeta"])
def test_the_tables_have_the_columns_that_peers_create(make, rows, table):
    make()
    expected = [tuple(column) for column in VECTORS[0]["tables"][table]["columns"]]
    assert [(name, kind) for _, name, kind, *_ in rows(f"PRAGMA table_info({table})")] == expected
    indexes = {name for (name,) in rows("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")}
    assert indexes == {"ix_celery_taskmeta_date_done", "ix_celery_tasksetmeta_date_done"}


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["config"] for vector in VECTORS])
def test_what_peers_stored_is_read(make, tmp_path, vector):
    backend = make()
    file = sqlite3.connect(tmp_path / "results.db")
    for table in vector["tables"]:
        content = vector["tables"][table]
        blobs = [number for number, (_, kind) in enumerate(content["columns"]) if kind == "BLOB"]
        for row in content["rows"]:
            values = [
                value.encode() if number in blobs and value is not None else value for number, value in enumerate(row)
            ]
            file.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(values))})", values)
    file.commit()
    file.close()
    for row in vector["tables"]["celery_taskmeta"]["rows"]:
        meta = backend.get_task_meta(row[1], cache=False)
        assert meta["status"] == row[2]
        if row[2] == states.FAILURE:
            assert isinstance(meta["result"], ValueError)
        else:
            assert meta["result"] == json.loads(row[3])
        assert meta["date_done"] == row[4].replace(" ", "T") + "+00:00"
        assert (meta.get("name"), meta.get("worker")) == (row[7], row[10])
    (group,) = vector["tables"]["celery_tasksetmeta"]["rows"]
    restored = backend.restore_group(group[1])
    assert [member.id for member in restored.results] == [member[0][0] for member in json.loads(group[2])[1]]


def test_what_we_store_is_what_peers_read(make, rows):
    request = Request(
        task="w.add",
        args=[1, 1],
        kwargs={},
        hostname="w1@host",
        retries=0,
        delivery_info={"routing_key": "celery"},
        stamped_headers=["stamp"],
        stamps={"stamp": "v1"},
        children=[],
        group=None,
        parent_id=None,
    )
    make(result_extended=True).store_result("id", 2, states.SUCCESS, request=request)
    ((done, *row),) = rows(
        "SELECT date_done, task_id, status, result, traceback, children, name, args, kwargs, worker, retries, queue, "
        "stamps FROM celery_taskmeta"
    )
    assert row == [
        "id",
        "SUCCESS",
        b"2",
        None,
        None,
        "w.add",
        b"[1, 1]",
        b"{}",
        "w1@host",
        0,
        "celery",
        b'{"stamped_headers": ["stamp"], "stamps": {"stamp": "v1"}}',
    ]
    assert "+" not in done


def test_a_table_of_an_older_release_gets_the_columns_it_lacks(make, tmp_path, rows):
    file = sqlite3.connect(tmp_path / "results.db")
    file.execute(
        "CREATE TABLE celery_taskmeta (id INTEGER PRIMARY KEY, task_id VARCHAR(155) UNIQUE, status VARCHAR(50), "
        "result BLOB, date_done DATETIME, traceback TEXT)"
    )
    file.execute("INSERT INTO celery_taskmeta VALUES (1, 'old', 'SUCCESS', X'33', '2026-01-01 00:00:00', NULL)")
    file.commit()
    file.close()
    backend = make()
    assert backend.get_result("old") == 3
    backend.store_result("new", 4, states.SUCCESS)
    assert backend.get_result("new") == 4
    names = {name for _, name, *_ in rows("PRAGMA table_info(celery_taskmeta)")}
    assert {"children", "name", "args", "kwargs", "worker", "retries", "queue", "stamps"} <= names


def test_tables_are_named_as_configured(make, rows):
    backend = make(database_table_names={"task": "my_tasks", "group": "my_groups"})
    backend.store_result("id", 1, states.SUCCESS)
    assert rows("SELECT task_id FROM my_tasks") == [("id",)]
    assert rows("SELECT count(*) FROM my_groups") == [(0,)]


def test_tables_may_be_created_on_first_use(make, rows):
    backend = make(database_create_tables_at_setup=False)
    backend.app.backend
    assert rows("SELECT count(*) FROM sqlite_master") == [(0,)]
    backend.store_result("id", 1, states.SUCCESS)
    assert backend.get_result("id") == 1


def test_the_engine_is_shown_to_the_callback_and_takes_the_options(make):
    engines = []
    backend = make(database_engine_callback=engines.append, database_engine_options={"echo": False, "pool_size": 3})
    backend.get_state("id")
    (engine,) = engines
    assert engine.pool.size() == 3


def test_short_lived_sessions_keep_no_connection(make):
    backend = make(database_short_lived_sessions=True)
    backend.store_result("id", 1, states.SUCCESS)
    engine = backend.session_manager.get_engine(backend.dburi)
    assert isinstance(engine.pool, sa.pool.NullPool)


def test_programs_may_query_the_models(make):
    backend = make()
    backend.store_result("id", 1, states.SUCCESS)
    engine, sessions = SessionManager().create_session(backend.dburi)
    with sessions() as session:
        task = session.query(Task).filter(Task.task_id == "id").one()
        assert (task.status, task.result) == ("SUCCESS", b"1")
        assert "id" in repr(task)
        session.add(TaskSet("group", b"[]"))
        session.commit()
        assert session.query(TaskSet).count() == 1
    engine.dispose()


def test_without_a_url_there_is_an_error_that_shows_one():
    app = Celery("db", broker="memory://", backend="database", set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match=r"db\+postgresql://"):
        app.backend


def test_the_url_may_come_from_the_old_setting(tmp_path):
    app = Celery("db", broker="memory://", backend="database", set_as_current=False)
    app.conf.database_url = f"sqlite:///{tmp_path}/old.db"
    assert isinstance(app.backend, DatabaseBackend)
    app.backend.store_result("id", 1, states.SUCCESS)
    app.backend.session_manager.close()
    assert (tmp_path / "old.db").exists()


def test_a_database_that_is_away_is_named_without_its_password():
    app = Celery(
        "db", broker="memory://", backend="db+postgresql://user:s3cret@127.0.0.1:1/results", set_as_current=False
    )
    app.conf.database_create_tables_at_setup = False
    with pytest.raises(OperationalError, match=r"127\.0\.0\.1:1/results") as caught:
        app.backend.get_state("id")
    assert "s3cret" not in str(caught.value)
    assert app.backend.exception_safe_to_retry(caught.value)
