"""The two tables of results in a relational database (wire.md 4.6).

The classes are for programs that query results by themselves; the backend works on the tables behind them, under
whatever names and schemas are configured (`tables`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("Task", "TaskExtended", "TaskSet")


class ResultModelBase(DeclarativeBase):
    """Base of the two."""


class Task(ResultModelBase):
    """One result record. Blobs hold values in the result serializer."""

    __tablename__ = "celery_taskmeta"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(sa.Integer, sa.Sequence("task_id_sequence"), primary_key=True, autoincrement=True)
    task_id: Mapped[str | None] = mapped_column(sa.String(155), unique=True)
    status: Mapped[str | None] = mapped_column(sa.String(50), default="PENDING")
    result: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    #: UTC, without a zone; that of the last write, whatever its state, so that cleaning up finds every row.
    date_done: Mapped[datetime | None] = mapped_column(sa.DateTime, index=True)
    traceback: Mapped[str | None] = mapped_column(sa.Text)
    children: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    name: Mapped[str | None] = mapped_column(sa.String(155))
    args: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    kwargs: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    worker: Mapped[str | None] = mapped_column(sa.String(155))
    retries: Mapped[int | None] = mapped_column(sa.Integer)
    queue: Mapped[str | None] = mapped_column(sa.String(155))
    stamps: Mapped[bytes | None] = mapped_column(sa.LargeBinary)

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id

    def __repr__(self) -> str:
        return f"<Task {self.task_id} state: {self.status}>"


class TaskExtended(Task):
    """The documented name for a record with the columns of `result_extended`, which every row has."""


class TaskSet(ResultModelBase):
    """A saved group."""

    __tablename__ = "celery_tasksetmeta"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(
        sa.Integer, sa.Sequence("taskset_id_sequence"), primary_key=True, autoincrement=True
    )
    taskset_id: Mapped[str | None] = mapped_column(sa.String(155), unique=True)
    result: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    date_done: Mapped[datetime | None] = mapped_column(sa.DateTime, index=True)

    def __init__(self, taskset_id: str, result: bytes) -> None:
        self.taskset_id = taskset_id
        self.result = result
        self.date_done = datetime.now(UTC).replace(tzinfo=None)

    def __repr__(self) -> str:
        return f"<TaskSet: {self.taskset_id}>"


def tables(names: Mapping[str, str], schemas: Mapping[str, str]) -> tuple[sa.Table, sa.Table]:
    """The task and group tables under their configured names (`database_table_names`, `database_table_schemas`)."""
    metadata = sa.MetaData()

    def configured(model: Any, key: str) -> sa.Table:
        copy: sa.Table = model.__table__.to_metadata(metadata, name=names.get(key), schema=schemas.get(key))
        return copy

    return configured(Task, "task"), configured(TaskSet, "group")
