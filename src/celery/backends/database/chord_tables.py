"""The tables of chords in a relational database, and the database's own clock.

They are ours, beside those that Celery 5.7 has, and are made when the first chord or worker needs them. Names and
schemas may be configured under the keys `chord`, `chord_part` and `chord_watch`; without a schema of its own a table is
where the table of groups is.

Moments are seconds since 1970 by the clock of the database, so that workers whose clocks differ agree.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Bytes without a bound: what MySQL means by BLOB ends at 64 KB.
_Bytes = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
#: Ids are as long as those of records.
_Id = sa.String(155)


class ChordTables(NamedTuple):
    """What a book needs."""

    chord: sa.Table
    part: sa.Table
    watch: sa.Table


def tables(names: Mapping[str, str], schemas: Mapping[str, str]) -> ChordTables:
    """The tables under their configured names (`database_table_names`, `database_table_schemas`)."""
    metadata, elsewhere = sa.MetaData(), schemas.get("group")

    def table(key: str, *columns: sa.Column[Any] | sa.Index) -> sa.Table:
        name = names.get(key, f"celeriac_{key}")
        return sa.Table(name, metadata, *columns, schema=schemas.get(key, elsewhere))

    chord = table(
        "chord",
        sa.Column("group_id", _Id, primary_key=True),
        #: Of the applications that may finish it.
        sa.Column("home", sa.String(40), nullable=False),
        #: Members of the header; NULL: it has not begun.
        sa.Column("size", sa.Integer),
        sa.Column("extra", sa.Integer, nullable=False),
        sa.Column("counted", sa.Integer, nullable=False),
        sa.Column("closed", sa.SmallInteger, nullable=False),
        sa.Column("token", sa.String(40)),
        sa.Column("claim_ends", sa.Double, nullable=False),
        #: Until when its producer's word is good; NULL: all has been sent.
        sa.Column("lease_ends", sa.Double),
        sa.Column("begun", sa.Double),
        #: When a worker has to look at it.
        sa.Column("due", sa.Double),
        sa.Column("expires", sa.Double, index=True),
        #: The signature as JSON.
        sa.Column("body", _Bytes),
        #: Ids in the order of their positions, as JSON.
        sa.Column("members", _Bytes),
    )
    sa.Index(f"ix_{chord.name}_home_due", chord.c.home, chord.c.due)
    part = table(
        "chord_part",
        sa.Column("group_id", _Id, primary_key=True),
        sa.Column("task_id", _Id, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        #: `[1, task id, state, value]` in the result serializer; NULL: the member's record has it.
        sa.Column("payload", _Bytes),
    )
    watch = table(
        "chord_watch",
        sa.Column("home", sa.String(40), primary_key=True),
        #: Until when producers may count on workers who look.
        sa.Column("attended", sa.Double, nullable=False),
    )
    return ChordTables(chord, part, watch)


def clock(dialect: str) -> Any:
    """The moment, as an expression; of this machine where the database is a file, or speaks another dialect."""
    if dialect == "postgresql":
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)
    if dialect in ("mysql", "mariadb"):
        since = sa.func.timestampdiff(sa.text("MICROSECOND"), sa.text("'1970-01-01'"), sa.text("UTC_TIMESTAMP(6)"))
        return sa.type_coerce(since / 1e6, sa.Double)
    return sa.bindparam("now", type_=sa.Double, callable_=time.time)
