"""Storing in every dialect of SQL: one statement each, and a SUCCESS is final (wire.md 4.6)."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, registry, sqlite
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from celery import Celery, states
from celery.backends.database import models, upsert


class OtherDialect(SQLiteDialect_pysqlite):
    """SQLite under a name that nobody knows a statement of."""

    name = "other"
    supports_statement_cache = True


@pytest.fixture(params=["sqlite", "other"])
def backend(request, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "impls", {**registry.impls, "other": lambda: OtherDialect})
    url = f"db+{request.param}:///{tmp_path}/results"
    with Celery("db", broker="memory://", backend=url, set_as_current=False) as app:
        yield app.backend


@pytest.fixture
def statements(backend):
    """What the backend executes, once it is warm."""
    backend.store_result("warm", 1, states.SUCCESS)
    engine = backend.session_manager.get_engine(backend.dburi)
    statements = []
    sa.event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    return statements


def test_a_success_is_final_and_anything_else_is_overwritten(backend):
    for state, value in [(states.STARTED, 1), (states.RETRY, None), (states.SUCCESS, 2), (states.FAILURE, None)]:
        backend.store_result("id", ValueError("x") if value is None else value, state)
    assert (backend.get_state("id"), backend.get_result("id")) == (states.SUCCESS, 2)


def test_a_saved_group_may_be_saved_again(backend):
    app = backend.app
    for members in (["a"], ["a", "b"]):
        app.GroupResult("g", [app.AsyncResult(name) for name in members]).save(backend=backend)
    assert [member.id for member in app.GroupResult.restore("g", backend=backend).results] == ["a", "b"]


def test_a_result_is_stored_with_one_statement_where_the_database_has_one(backend, statements):
    backend.store_result("id", 1, states.SUCCESS)
    assert len(statements) == (1 if "sqlite" in backend.dburi else 2)


@pytest.mark.parametrize("dialect", [mysql, postgresql, sqlite], ids=lambda dialect: dialect.__name__)
def test_the_condition_is_part_of_the_statement(dialect):
    made = upsert.statement(dialect.dialect().name, models.Task.__table__, "task_id", ["status", "result"])
    text = str(made.compile(dialect=dialect.dialect())).lower()
    assert "conflict (task_id) do update" in text or "on duplicate key update" in text
    assert text.count("status =") + text.count("status !=") >= 2


def test_mysql_changes_the_status_last():
    columns = ["status", "result", "date_done"]
    made = upsert.statement("mysql", models.Task.__table__, "task_id", columns)
    changes = str(made.compile(dialect=mysql.dialect())).partition("ON DUPLICATE KEY UPDATE")[2]
    assert changes.index(" status = CASE") > max(changes.index("result = CASE"), changes.index("date_done = CASE"))
