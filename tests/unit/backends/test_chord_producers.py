"""Who sends a header in many steps is missed when it dies, and when it gives up half way."""

from __future__ import annotations

import uuid

import msgspec
import pytest

from celery import Celery, chord
from celery.exceptions import ChordError


@pytest.fixture
def app(tmp_path):
    app = Celery("w", broker=f"memory://{uuid.uuid4()}", backend=f"sqlite:///{tmp_path}/r.sqlite", set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def opened(app):
    """Gives the chords that are being sent."""

    def asked():
        with app.backend.store.reading() as db:
            return db.execute("SELECT group_id, body FROM chord_sender").fetchall()

    return asked


def members(app, count, then=lambda: None):
    for number in range(count):
        if number == count - 1:
            then()
        yield app.signature("w.add", (number, 1))


def test_a_generator_is_watched_for_until_its_last_member_has_left(app, opened):
    seen = []
    chord(members(app, 40, lambda: seen.extend(opened())), app.signature("w.xsum", task_id="body")).apply_async()
    [(group_id, kept)] = seen
    assert msgspec.json.decode(kept)["options"]["task_id"] == "body"
    assert opened() == []
    assert app.backend.chords.abandoned() == []
    assert group_id


def test_a_header_that_fails_half_way_is_failed_at_once(app, opened):
    def broken():
        raise RuntimeError("no more rows")

    result_id = str(uuid.uuid4())
    with pytest.raises(RuntimeError, match="no more rows"):
        chord(members(app, 40, broken), app.signature("w.xsum", task_id=result_id)).apply_async()
    [claim] = app.backend.chords.abandoned()
    assert msgspec.json.decode(claim.part.body)["options"]["task_id"] == result_id


def test_a_producer_that_was_given_up_sends_no_body(app):
    book = app.backend.chords

    def stopped():
        # What workers do when nothing has been heard of it for a while.
        with app.backend.store.writing() as db:
            db.execute("UPDATE chord_sender SET lease_ends = 0")
        [claim] = book.abandoned()
        book.close(claim)

    with pytest.raises(ChordError, match="was given up"):
        chord(members(app, 5, stopped), app.signature("w.xsum")).apply_async()
