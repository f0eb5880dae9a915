"""Many rows with few statements: all of them, in order, and the count of those that were new."""

from __future__ import annotations

import sqlite3

import pytest

from celery.brokers.sqlite.rows import CHUNK, insert


@pytest.fixture
def db():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (place INTEGER PRIMARY KEY, key INTEGER UNIQUE)")
    yield connection
    connection.close()


@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5])
def test_all_rows_are_written_in_their_order(db, count):
    rows = [(number,) for number in range(count)]
    assert insert(db, "INSERT INTO t (key) VALUES", rows) == count
    assert db.execute("SELECT key FROM t ORDER BY place").fetchall() == rows


def test_rows_that_are_there_are_not_counted(db):
    insert(db, "INSERT INTO t (key) VALUES", [(CHUNK,), (2 * CHUNK,), (2 * CHUNK + 1,)])
    rows = [(number,) for number in range(2 * CHUNK + 3)]
    assert insert(db, "INSERT OR IGNORE INTO t (key) VALUES", rows) == len(rows) - 3


def test_a_few_rows_take_one_statement_each_and_many_one_for_a_chunk(db):
    said = []
    db.set_trace_callback(said.append)
    insert(db, "INSERT INTO t (key) VALUES", [(number,) for number in range(2 * CHUNK + 3)])
    assert len(said) == 2 + 3
