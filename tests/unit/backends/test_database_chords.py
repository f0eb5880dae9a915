"""Chords counted in a database: what workers who look find there, and when chords are polled for instead."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from contextlib import closing

import pytest

from celery import Celery, chord, states
from celery.backends.chords import body_from_json
from celery.brokers.base import ChordPart, ChordStart
from celery.signals import before_task_publish

BODY = b'{"task": "w.xsum", "options": {"task_id": "body"}}'
#: Seconds for what takes a claim's time.
SOON = 20.0


@pytest.fixture
def make(tmp_path):
    """Applications whose results are in one file."""
    apps = []

    def make(url="db+sqlite:///{}/r.db", **settings):
        app = Celery("w", broker="memory://", backend=url.format(tmp_path), set_as_current=False)
        app.conf.update(task_default_queue="one", **settings)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()


@pytest.fixture
def sent():
    """Names of the tasks that have been sent."""
    names = []

    def heard(sender, **_):
        names.append(sender)

    before_task_publish.connect(heard)
    yield names
    before_task_publish.disconnect(heard)


def part(group_id, index, task_id, state=states.SUCCESS):
    payload = json.dumps([1, task_id, state, index]).encode()
    return ChordPart(group_id, task_id, index, state, payload, BODY)


def begun(book, *members):
    group_id = str(uuid.uuid4())
    book.begin([ChordStart(group_id, len(members), list(members), BODY)])
    return group_id


def looked_for(book):
    """The claims that come of looking, as soon as there are some."""
    deadline = time.monotonic() + SOON
    while not (claims := book.abandoned()):
        assert time.monotonic() < deadline, "nothing was found"
        time.sleep(0.1)
    return claims


# -- Looking -----------------------------------------------------------------------------------------------------------


def test_members_that_left_only_their_records_are_counted_by_who_looks(make):
    """Workers of Celery 5.7 do not count in a database."""
    app = make()
    backend, book = app.backend, app.backend.chords
    group_id = begun(book, "a", "b", "c")
    backend.store_result("a", {"any": "thing"}, states.SUCCESS)
    backend.store_result("c", ValueError("hdr"), states.FAILURE)
    assert book.add([part(group_id, 1, "b")]) == []
    [claim] = looked_for(book)
    assert (claim.part.group_id, claim.part.body) == (group_id, BODY)
    assert claim.part.task_id
    first, second, third = book.members(group_id)
    assert (first.state, first.value, second.value) == ("SUCCESS", {"any": "thing"}, 1)
    assert repr(backend.exception_to_python(third.value)) == "ValueError('hdr')"


def test_a_part_of_a_member_that_was_counted_by_its_record_is_not_counted_again(make):
    book = make().backend.chords
    group_id = begun(book, "a", "b", "c")
    book._backend.store_result("c", 3, states.SUCCESS)
    wait_for_parts(book, group_id, 1)
    assert book.add([part(group_id, 0, "c"), part(group_id, 0, "a")]) == [], "5.7 says another place for it"
    [claim] = book.add([part(group_id, 1, "b")])
    assert claim.token
    assert [member.task_id for member in book.members(group_id)] == ["a", "b", "c"]


def wait_for_parts(book, group_id, count):
    deadline = time.monotonic() + SOON
    while len(book.members(group_id)) < count:
        assert time.monotonic() < deadline, "not counted"
        assert book.abandoned() == []
        time.sleep(0.1)


def test_a_complete_chord_whose_holder_died_goes_to_who_looks(make):
    book, other = make().backend.chords, make().backend.chords
    group_id = begun(book, "a")
    [claim] = book.add([part(group_id, 0, "a")])
    assert other.abandoned() == []
    [taken] = looked_for(other)
    assert (taken.part.group_id, taken.part.task_id) == (group_id, "a")
    assert not book.hold(claim)
    assert other.hold(taken)


def test_a_record_that_was_deleted_fails_the_chord_that_counted_it(make):
    app = make()
    group_id = begun(app.backend.chords, "a")
    app.backend.store_result("a", 1, states.SUCCESS)
    looked_for(app.backend.chords)
    app.backend.forget("a")
    with pytest.raises(Exception, match="The record of a has been deleted"):
        app.backend.chords.members(group_id)


def test_applications_in_one_database_leave_each_others_chords_alone(make):
    one, two = make().backend.chords, make(task_default_exchange="two").backend.chords
    one.open(str(uuid.uuid4()), BODY, 0.0)
    assert two.abandoned() == []
    assert two.counts({})
    assert not one.counts({}), "whoever looks does not look for us"
    assert len(looked_for(one)) == 1


def test_a_bodys_arguments_keep_their_types(make):
    """Who takes over has no message of a member to take the body from."""
    app = make()
    app.backend.chords.abandoned()
    given = app.now()
    chord([app.signature("w.add", (1, 1), task_id="a")], app.signature("w.xsum", kwargs={"at": given})).apply_async()
    app.backend.store_result("a", 1, states.SUCCESS)
    [claim] = looked_for(app.backend.chords)
    assert body_from_json(claim.part.body)["kwargs"] == {"at": given}


# -- Counted or polled for ---------------------------------------------------------------------------------------------


def test_a_chord_is_counted_where_a_worker_looks_and_polled_for_elsewhere(make, sent):
    app = make()
    for names in (["celery.chord_unlock", "w.add"], ["w.add"]):
        chord([app.signature("w.add", (1, 1))], app.signature("w.xsum")).apply_async()
        assert sorted(sent) == names
        sent.clear()
        make().backend.chords.abandoned()


@pytest.mark.parametrize(("settings", "options"), [({"task_serializer": "pickle"}, {}), ({}, {"serializer": "pickle"})])
def test_a_chord_whose_body_is_pickled_is_polled_for(make, settings, options, sent):
    app = make(accept_content=["json", "pickle"], **settings)
    app.backend.chords.abandoned()
    chord([app.signature("w.add", (1, 1))], app.signature("w.xsum", **options)).apply_async()
    assert "celery.chord_unlock" in sent


def test_parts_of_a_chord_that_is_polled_for_are_not_kept(make, tmp_path):
    book = make().backend.chords
    assert book.add([part(str(uuid.uuid4()), 0, "a")]) == []
    with closing(sqlite3.connect(tmp_path / "r.db")) as file:
        assert file.execute("SELECT * FROM celeriac_chord_part").fetchall() == []
        assert file.execute("SELECT * FROM celeriac_chord").fetchall() == []


def test_chords_are_polled_for_where_no_tables_can_be_made(make, sent, caplog):
    make().backend.store_result("a", 1, states.SUCCESS)
    app = make("db+sqlite:///file:{}/r.db?mode=ro&uri=true")
    book = app.backend.chords
    assert app.backend.get_state("a") == states.SUCCESS
    assert book.abandoned() == []
    assert book.add([part("g", 0, "a")]) == []
    chord([app.signature("w.add", (1, 1))], app.signature("w.xsum")).apply_async()
    assert "celery.chord_unlock" in sent
    [told] = [record.message for record in caplog.records if "polled for" in record.message]
    assert "celeriac_chord" in told


def test_the_tables_have_the_names_that_are_configured(make, tmp_path):
    make(database_table_names={"chord": "c", "chord_part": "p", "chord_watch": "w"}).backend.chords.abandoned()
    with closing(sqlite3.connect(tmp_path / "r.db")) as file:
        tables = {name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"c", "p", "w"} <= tables
    assert not {name for name in tables if name.startswith("celeriac")}
