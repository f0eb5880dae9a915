"""Results in a relational database: `db+postgresql://`, `db+mysql://`, `db+sqlite:///` (wire.md 4.6).

Storing is one statement (`upsert`); the condition that keeps a SUCCESS final is part of it, so that no two writers can
pass it at once. The database has no way to tell of new rows: waiting polls. Chords are counted in
tables of their own (`celery.backends.database.chords`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from celery import exceptions, states
from celery.backends.base import BaseBackend, require
from celery.brokers.url import mask
from celery.wire import serializers

try:
    import sqlalchemy as sa

    from celery.backends.database import models, upsert
    from celery.backends.database.chords import DatabaseBook
    from celery.backends.database.session import SessionManager
except ImportError as error:
    raise require("SQLAlchemy", "sqlalchemy", "the database result backend") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.backends.asynchronous import Meta

__all__ = ("DatabaseBackend",)

T = TypeVar("T")

#: How often a statement is tried when the database breaks the connection or refuses for the moment.
ATTEMPTS = 3

#: How many ids one SELECT asks for.
IDS_AT_ONCE = 500

_EXTENDED = ("name", "worker", "retries", "queue")
_EXTENDED_BLOBS = ("args", "kwargs")


class DatabaseBackend(BaseBackend):
    """Stores results in two tables.

    Args:
        dburi: SQLAlchemy URL; takes precedence.
        engine_options: for `create_engine`, over `database_engine_options`.
        url: the same as the result_backend setting gives it.
        **kwargs: for the base class.

    Raises:
        ImproperlyConfigured: there is no URL.
    """

    supports_native_join = True
    subpolling_interval = 0.5

    def __init__(
        self,
        dburi: str | None = None,
        engine_options: dict[str, Any] | None = None,
        url: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(url=url, **kwargs)
        conf = self.app.conf
        self.dburi: str = dburi or url or conf.database_url or ""
        if not self.dburi:
            raise exceptions.ImproperlyConfigured(
                "result_backend: the database backend needs a URL such as db+postgresql://user:password@host/name"
            )
        self.url = self.dburi
        self.engine_options = {**(conf.database_engine_options or {}), **(engine_options or {})}
        self.short_lived_sessions = bool(kwargs.get("short_lived_sessions", conf.database_short_lived_sessions))
        self.task_table, self.group_table = models.tables(
            conf.database_table_names or {}, conf.database_table_schemas or {}
        )
        self.session_manager = SessionManager(conf.database_engine_callback)
        self._prepared: set[sa.Table] = set()
        #: Statements by table and columns, made once: making one takes longer than the database does to execute it.
        self._upserts: dict[tuple[Any, ...], Any] = {}
        if conf.database_create_tables_at_setup:
            self._run(lambda _: None)

    @cached_property
    def chords(self) -> DatabaseBook:
        """What counts chords here."""
        return DatabaseBook(self)

    # -- storing

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **_: Any
    ) -> Any:
        row = self._row(self.make_record(task_id, result, state, traceback, request))
        self._upsert(self.task_table, "task_id", task_id, row)
        return result

    def _row(self, record: Meta) -> dict[str, Any]:
        """A record as columns."""
        row: dict[str, Any] = {
            "status": record["status"],
            "result": self._dump(record["result"]),
            "traceback": record["traceback"],
            "children": self._dump(record["children"]) if record["children"] else None,
            "date_done": _utcnow(),
        }
        if "name" in record:
            row.update({field: record[field] for field in _EXTENDED})
            row.update({field: self._dump(record[field]) for field in _EXTENDED_BLOBS})
            stamped = record.get("stamped_headers")
            if stamped:
                stamps = {name: record.get(name) for name in stamped}
                row["stamps"] = self._dump({"stamped_headers": list(stamped), "stamps": stamps})
        return row

    def _upsert(self, table: sa.Table, key: str, value: str, row: dict[str, Any]) -> None:
        """Write the row unless it holds a SUCCESS."""
        columns = (table, *row)
        if columns not in self._upserts:
            dialect = self._run(lambda connection: connection.dialect.name)
            self._upserts[columns] = upsert.statement(dialect, table, key, row.keys())
        at_once = self._upserts[columns]
        if at_once is not None:
            self._run(lambda connection: connection.execute(at_once, {key: value, **row}))
        else:
            self._update_or_insert(table, key, value, row)

    def _update_or_insert(self, table: sa.Table, key: str, value: str, row: dict[str, Any]) -> None:
        change = sa.update(table).where(table.c[key] == value).values(**row)
        if "status" in table.c:
            change = change.where(table.c.status != states.SUCCESS)
        insert = sa.insert(table).values(**{key: value}, **row)
        if self._change(change):
            return
        try:
            self._change(insert)
        except sa.exc.IntegrityError:
            # It is there by now: stored a moment ago by another, or final. The condition knows.
            self._change(change)

    # -- reading

    def _get_task_meta_for(self, task_id: str) -> Meta:
        return self.get_many_meta([task_id])[0]

    def get_many_meta(self, task_ids: Sequence[str]) -> list[Meta]:
        table = self.task_table
        found: dict[str, Meta] = {}
        for start in range(0, len(task_ids), IDS_AT_ONCE):
            query = sa.select(table).where(table.c.task_id.in_(task_ids[start : start + IDS_AT_ONCE]))
            for row in self._rows(query):
                found[row["task_id"]] = self._record(row)
        return [found.get(id) or {"status": states.PENDING, "result": None, "task_id": id} for id in task_ids]

    def _record(self, row: Any) -> Meta:
        """Columns as a record; exceptions are restored."""
        done = row["date_done"]
        finished = row["status"] in states.READY_STATES and done is not None
        record: Meta = {
            "status": row["status"],
            "result": self._load(row["result"]),
            "traceback": row["traceback"],
            "children": self._load(row["children"]),
            "date_done": done.replace(tzinfo=UTC).isoformat() if finished else None,
            "task_id": row["task_id"],
        }
        if row["name"] is not None:
            record.update({field: row[field] for field in _EXTENDED})
            record.update({field: self._load(row[field]) for field in _EXTENDED_BLOBS})
            stamps = self._load(row["stamps"])
            if stamps:
                record["stamped_headers"] = stamps["stamped_headers"]
                record.update(stamps["stamps"])
        return self.meta_from_decoded(record)

    def _forget(self, task_id: str) -> None:
        table = self.task_table
        self._change(sa.delete(table).where(table.c.task_id == task_id))

    # -- groups

    def _save_group(self, group_id: str, result: Any) -> Any:
        row = {"result": self._dump(result.as_tuple()), "date_done": _utcnow()}
        self._upsert(self.group_table, "taskset_id", group_id, row)
        return result

    def _restore_group(self, group_id: str) -> Meta | None:
        table = self.group_table
        for row in self._rows(sa.select(table).where(table.c.taskset_id == group_id)):
            result = self.app.result_from_tuple(self._load(row["result"]))
            return {"task_id": group_id, "result": result, "date_done": row["date_done"]}
        return None

    def _delete_group(self, group_id: str) -> None:
        table = self.group_table
        self._change(sa.delete(table).where(table.c.taskset_id == group_id))

    # -- upkeep

    def cleanup(self) -> None:
        """Delete rows older than `result_expires`, and chords whose time is out."""
        self.chords.delete_expired()
        if not self.expires:
            return
        limit = _utcnow() - timedelta(seconds=self.expires)
        for table in (self.task_table, self.group_table):
            self._change(sa.delete(table).where(table.c.date_done < limit))

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Whether the database was away rather than the statement wrong."""
        return isinstance(exc, exceptions.OperationalError)

    def close(self) -> None:
        """Close the connections that no thread is using."""
        super().close()
        self.session_manager.close()

    # -- the database

    def _rows(self, query: sa.Select[Any]) -> Sequence[sa.RowMapping]:
        return self._run(lambda connection: connection.execute(query).mappings().all())

    def _change(self, statement: sa.Update | sa.Insert | sa.Delete) -> int:
        """Execute in a transaction of its own; how many rows it concerned."""
        return self._run(lambda connection: connection.execute(statement).rowcount)

    def _run(self, work: Callable[[sa.Connection], T], *others: sa.Table) -> T:
        """Call `work` in a transaction of its own, again when the database was away for a moment.

        Args:
            work: gets the connection.
            others: what it needs instead of the tables of results; these are locked too, also where the engine's
                transactions would be one statement long.

        Raises:
            OperationalError: it stayed away.
        """
        tables = others or (self.task_table, self.group_table)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                engine = self.session_manager.get_engine(
                    self.dburi, short_lived_sessions=self.short_lived_sessions, **self.engine_options
                )
                if not self._prepared.issuperset(tables):
                    self.session_manager.prepare(engine, *tables)
                    self._prepared.update(tables)
                if others and self.engine_options.get("isolation_level") == "AUTOCOMMIT":
                    engine = engine.execution_options(isolation_level=engine.dialect.default_isolation_level)
                with engine.begin() as connection:
                    return work(connection)
            except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
                if attempt == ATTEMPTS:
                    raise exceptions.OperationalError(
                        f"result database {mask(self.dburi)}: {error.orig or error}"
                    ) from error
        raise AssertionError("every attempt returns or raises")

    def _dump(self, value: Any) -> bytes:
        return serializers.dumps(value, self.serializer)[2]

    def _load(self, value: bytes | None) -> Any:
        if value is None:
            return None
        return serializers.loads(bytes(value), self.content_type, self.content_encoding, self.accept)


def _utcnow() -> datetime:
    """The moment as the tables hold it: UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)
