"""Connections to the result database: one engine for each process and URL, and tables that exist.

Rule: an engine is used in the process that made it. After a fork the inherited one is let go without closing its
connections, which are the parent's.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool

from celery.utils.imports import symbol_by_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

__all__ = ("SessionManager",)

#: What plain names of databases mean where the driver that SQLAlchemy would take is not installed.
_DRIVERS = {"mysql": ("MySQLdb", "mysql+pymysql"), "postgresql": ("psycopg2", "postgresql+psycopg")}


class SessionManager:
    """Makes engines.

    Args:
        engine_callback: called with each engine when it is made (`database_engine_callback`); may be a dotted path.
    """

    def __init__(self, engine_callback: Callable[[sa.Engine], Any] | str | None = None) -> None:
        self._callback = engine_callback
        self._lock = threading.Lock()
        self._engines: dict[str, sa.Engine] = {}
        self._pid = os.getpid()

    def get_engine(self, dburi: str, *, short_lived_sessions: bool = False, **options: Any) -> sa.Engine:
        """This process's engine for a URL; with `short_lived_sessions` it keeps no connection open."""
        if self._pid != os.getpid():
            self._begin_anew()
        with self._lock:
            engine = self._engines.get(dburi)
            if engine is None:
                if short_lived_sessions:
                    options = {"poolclass": NullPool} | {
                        name: value for name, value in options.items() if not name.startswith("pool_")
                    }
                engine = self._engines[dburi] = sa.create_engine(_with_driver(dburi), **options)
                if self._callback is not None:
                    symbol_by_name(self._callback)(engine)
            return engine

    def create_session(
        self, dburi: str, short_lived_sessions: bool = False, **options: Any
    ) -> tuple[sa.Engine, sessionmaker[Session]]:
        """The engine, and what makes sessions on it."""
        engine = self.get_engine(dburi, short_lived_sessions=short_lived_sessions, **options)
        return engine, sessionmaker(bind=engine, expire_on_commit=False)

    def prepare(self, engine: sa.Engine, *tables: sa.Table) -> None:
        """Create what does not exist: tables, and columns that older releases did not have.

        Several processes may do so at once: who comes second finds it done.
        """
        for table in tables:
            try:
                table.create(engine, checkfirst=True)
            except sa.exc.DBAPIError:
                if not sa.inspect(engine).has_table(table.name, schema=table.schema):
                    raise
            self._add_columns(engine, table)

    def _add_columns(self, engine: sa.Engine, table: sa.Table) -> None:
        for column in _missing(engine, table):
            kind = column.type.compile(engine.dialect)
            preparer = engine.dialect.identifier_preparer
            statement = f"ALTER TABLE {preparer.format_table(table)} ADD COLUMN {preparer.format_column(column)} {kind}"
            try:
                with engine.begin() as connection:
                    connection.execute(sa.text(statement))
            except sa.exc.DBAPIError:
                if column in _missing(engine, table):
                    raise

    def close(self) -> None:
        """Close the connections that no thread is using. A later use opens others."""
        with self._lock:
            engines, self._engines = self._engines, {}
        for engine in engines.values():
            engine.dispose()

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        for engine in self._engines.values():
            engine.dispose(close=False)
        self._engines = {}
        self._pid = os.getpid()


def _missing(engine: sa.Engine, table: sa.Table) -> list[sa.Column[Any]]:
    there = {column["name"] for column in sa.inspect(engine).get_columns(table.name, schema=table.schema)}
    return [column for column in table.columns if column.name not in there and column.nullable]


def _with_driver(dburi: str) -> str:
    name, found, rest = dburi.partition("://")
    module, replacement = _DRIVERS.get(name, ("sys", name))
    try:
        __import__(module)
    except ImportError:
        name = replacement
    return name + found + rest
