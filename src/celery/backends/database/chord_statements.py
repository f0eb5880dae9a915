"""What the book of chords says to the database: made once, as making a statement takes longer than executing it.

All are SQL that every database knows. Parameters: `gid` of a chord, `at_home`, and those that a comment names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from celery import states
from celery.backends.database import chord_tables

if TYPE_CHECKING:
    from celery.backends.chords import Terms
    from celery.backends.database.chord_tables import ChordTables

#: Seconds from the begin of a chord to the first look at its records, and what one who looks has for it.
FIRST_LOOK, LOOKING = 2.0, 10.0
#: A chord's end is put off when it is nearer than this share of its life.
_FRESH = 0.9
#: Chords that one question of a worker gives, and ids whose records one look reads at once.
AT_ONCE, IDS_AT_ONCE = 100, 500


class Statements:
    """For one database.

    Args:
        tables: of chords.
        records: the table of results.
        dialect: SQLAlchemy's name for it.
        terms: how long things last.
    """

    def __init__(self, tables: ChordTables, records: sa.Table, dialect: str, terms: Terms) -> None:
        self.now = chord_tables.clock(dialect)
        self._life: Any = sa.null() if terms.life is None else self.now + terms.life
        self._mine = tables.chord.c.group_id == sa.bindparam("gid")
        self._open = sa.and_(self._mine, tables.chord.c.closed == 0)
        self._beginning(tables.chord)
        self._counting(tables, terms)
        self._claims(tables, terms)
        self._senders(tables.chord)
        self._watching(tables, records)

    def _beginning(self, chord: sa.Table) -> None:
        # new_size, new_body, new_members
        c = chord.c
        begun = {
            "size": sa.bindparam("new_size"),
            "begun": self.now,
            "expires": self._life,
            "members": sa.bindparam("new_members"),
        }
        # MySQL makes changes in the order of the columns: `extra` is before `closed`.
        self.begin_again = (
            sa.update(chord)
            .where(self._mine)
            .values(
                **begun,
                extra=sa.case((c.closed == 1, 0), else_=c.extra),
                due=sa.func.coalesce(c.lease_ends, self.now + FIRST_LOOK),
                body=sa.func.coalesce(sa.bindparam("new_body", type_=c.body.type), c.body),
                claim_ends=0.0,
                closed=0,
            )
        )
        self._row: dict[str, Any] = {
            "group_id": sa.bindparam("gid"),
            "home": sa.bindparam("at_home"),
            "extra": 0,
            "counted": 0,
            "closed": 0,
            "claim_ends": 0.0,
            "expires": self._life,
            "body": sa.bindparam("new_body"),
        }
        self.begin = sa.insert(chord).values(**{**self._row, **begun}, due=self.now + FIRST_LOOK)

    def _counting(self, tables: ChordTables, terms: Terms) -> None:
        chord, part = tables.chord, tables.part
        c, lease = chord.c, chord.c.lease_ends
        # new: parts; also what a transaction begins with, as it locks the row. No index changes with it.
        expires = self._life
        if terms.life is not None:
            expires = sa.case((c.expires < self.now + terms.life * _FRESH, self._life), else_=c.expires)
        self.count = sa.update(chord).where(self._open).values(counted=c.counted + sa.bindparam("new"), expires=expires)
        self.part = sa.insert(part)
        self.parts = (
            sa.select(part.c.position, part.c.task_id, part.c.payload)
            .where(part.c.group_id == sa.bindparam("gid"))
            .order_by(part.c.position, part.c.task_id)
        )
        self.places = self.parts.with_only_columns(part.c.position, part.c.task_id)
        # ids
        self.known = sa.select(part.c.position, part.c.task_id, part.c.payload.is_(None).label("adopted")).where(
            part.c.group_id == sa.bindparam("gid"), part.c.task_id.in_(sa.bindparam("ids", expanding=True))
        )
        # PostgreSQL does not know that all rows may be of one group, and would read the whole of it for some ids.
        wanted = sa.func.unnest(sa.bindparam("ids", type_=ARRAY(sa.Text))).table_valued("id").render_derived()
        one = (
            sa.select(part.c.position, part.c.task_id, part.c.payload)
            .where(part.c.group_id == sa.bindparam("gid"), part.c.task_id == wanted.c.id)
            .offset(0)
            .lateral()
        )
        self.known_one_by_one = sa.select(
            one.c.position, one.c.task_id, one.c.payload.is_(None).label("adopted")
        ).select_from(wanted.join(one, sa.true()))
        self.state = sa.select(
            c.home, c.size, (c.size + c.extra - c.counted).label("missing"), c.claim_ends, lease,
            sa.case((c.claim_ends <= self.now, 1), else_=0).label("free"),
            sa.case((lease <= self.now, 1), else_=0).label("silent"),
        ).where(self._mine)  # fmt: skip
        self.extend = sa.update(chord).where(self._open).values(extra=c.extra + 1, expires=self._life)
        # new_token, new_body
        end = self.now + terms.claim
        self.claim = (
            sa.update(chord)
            .where(self._mine)
            .values(
                token=sa.bindparam("new_token"),
                claim_ends=end,
                due=end,
                body=sa.func.coalesce(c.body, sa.bindparam("new_body", type_=c.body.type)),
            )
        )

    def _claims(self, tables: ChordTables, terms: Terms) -> None:
        # held: a token. One that has ended is its holder's until another one takes it.
        c = tables.chord.c
        token: Any = sa.bindparam("held")
        ours = sa.and_(self._open, sa.or_(c.token == token, sa.and_(c.size.is_not(None), c.claim_ends <= self.now)))
        end = self.now + terms.hold
        self.hold = sa.update(tables.chord).where(ours).values(token=token, claim_ends=end, due=end)
        empty = dict.fromkeys(("size", "token", "lease_ends", "due", "body", "members"), sa.null())
        self.close = (
            sa.update(tables.chord)
            .where(ours)
            .values(**empty, closed=1, counted=0, extra=0, expires=self.now + terms.mark)
        )
        self.forget_parts = sa.delete(tables.part).where(tables.part.c.group_id == sa.bindparam("gid"))

    def _senders(self, chord: sa.Table) -> None:
        # lease: seconds; new_body
        c, end = chord.c, self.now + sa.bindparam("lease", type_=sa.Double)
        self.open = sa.insert(chord).values(**self._row, lease_ends=end, due=end)
        self.open_again = sa.update(chord).where(self._open).values(lease_ends=end, due=end)
        self.sent = (
            sa.update(chord)
            .where(self._open, c.lease_ends.is_not(None))
            .values(lease_ends=sa.null(), due=self.now + FIRST_LOOK)
        )

    def _watching(self, tables: ChordTables, records: sa.Table) -> None:
        chord, watch, c = tables.chord, tables.watch, tables.chord.c
        here = watch.c.home == sa.bindparam("at_home")
        end = self.now + sa.bindparam("lease", type_=sa.Double)
        self.attend_again = sa.update(watch).where(here).values(attended=end)
        self.attend = sa.insert(watch).values(home=sa.bindparam("at_home"), attended=end)
        self.attended = sa.select(watch.c.attended - self.now).where(here)
        self.due = (
            sa.select(c.group_id)
            .where(c.home == sa.bindparam("at_home"), c.closed == 0, c.due <= self.now)
            .order_by(c.due)
            .limit(AT_ONCE)
        )
        self.take = sa.update(chord).where(self._open, c.due <= self.now).values(due=self.now + LOOKING)
        self.content = sa.select(c.body, c.members, (self.now - c.begun).label("age")).where(self._mine)
        # moment, or pause: seconds
        self.look_at = sa.update(chord).where(self._mine).values(due=sa.bindparam("moment"))
        self.look_in = sa.update(chord).where(self._mine).values(due=self.now + sa.bindparam("pause", type_=sa.Double))
        # ids
        self.finished = sa.select(records.c.task_id).where(
            records.c.task_id.in_(sa.bindparam("ids", expanding=True)), records.c.status.in_(states.READY_STATES)
        )
        self.expired = sa.select(c.group_id).where(c.expires <= self.now).limit(AT_ONCE)
        self.forget = sa.delete(chord).where(self._mine, c.expires <= self.now)


def as_row(group_id: str, position: int, task_id: str, payload: bytes | None) -> dict[str, Any]:
    """Of a part."""
    return {"group_id": group_id, "position": position, "task_id": task_id, "payload": payload}
