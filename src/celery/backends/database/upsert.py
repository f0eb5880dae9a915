"""Write a row unless it holds a SUCCESS, in one statement of the database's own dialect.

Rules
    1. The condition is part of the statement, so no two writers can pass it at once.
    2. MySQL makes its changes from left to right, and a later one sees the earlier: `status`, which all of them ask
       for, is changed last.
    3. A database with another dialect is written to by an UPDATE and, where that found no row, an INSERT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from celery import states

if TYPE_CHECKING:
    from collections.abc import Collection


def statement(dialect: str, table: sa.Table, key: str, columns: Collection[str]) -> Any:
    """An INSERT that changes the row where there is one; None for a dialect that has no such statement.

    Args:
        dialect: SQLAlchemy's name for it.
        table: with a unique column `key`. Where it has a column `status`, a row that says SUCCESS stays as it is.
        key: name of that column.
        columns: what is written besides; to be executed with values for all of them and the key.
    """
    final = table.c.status == states.SUCCESS if "status" in table.c else None
    if dialect in ("postgresql", "sqlite"):
        from sqlalchemy.dialects import postgresql, sqlite

        insert: Any = (postgresql if dialect == "postgresql" else sqlite).insert(table).inline()
        changes = {name: insert.excluded[name] for name in columns}
        return insert.on_conflict_do_update(
            index_elements=[table.c[key]], set_=changes, where=None if final is None else sa.not_(final)
        )
    if dialect in ("mysql", "mariadb"):
        from sqlalchemy.dialects import mysql

        into = mysql.insert(table).inline()
        ordered = sorted(columns, key=lambda name: name == "status")
        return into.on_duplicate_key_update(
            [(name, _unless(final, table.c[name], into.inserted[name])) for name in ordered]
        )
    return None


def _unless(final: Any, old: Any, new: Any) -> Any:
    return new if final is None else sa.case((final, old), else_=new)
