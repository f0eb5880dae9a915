"""Chords on stores that are written to blockingly: counted in a database, polled for, by the hooks of third parties."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import uuid

import pytest
from harness import Stage, wait_until

from celery import chain, chord, group, signature
from celery.brokers.base import ChordPart, ChordStart
from celery.exceptions import ChordError

STORES = ["database", "shelf:Shelf", "shelf:CountingShelf"]
database_only = pytest.mark.parametrize("stage", ["database"], indirect=True)
counting_only = pytest.mark.parametrize("stage", ["shelf:CountingShelf"], indirect=True)


@pytest.fixture(params=STORES)
def stage(request, tmp_path, monkeypatch):
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("SHELF", str(folder))
    store = f"db+sqlite:///{tmp_path / 'results.sqlite'}" if request.param == "database" else request.param
    settings = {"result_chord_retry_interval": 0.2, "task_delivery_limit": 2}
    stage = Stage("sqlite", f"sqlite:///{tmp_path / 'broker.sqlite'}", store, tmp_path, **settings)
    stage.worker()
    if request.param == "database":
        wait_until(lambda: stage.app.backend.chords.counts({}), "a worker that looks after chords")
    yield stage
    stage.close()


@pytest.fixture
def task(stage):
    """Signatures of the project's tasks."""

    def sign(name, *args):
        return signature(f"project.{name}", args, app=stage.app)

    return sign


def test_a_chord_gives_the_values_of_its_header_in_order(stage, task):
    """CANVAS-046, CANVAS-051."""
    result = chord([task("add", number, 1) for number in range(20)], task("echo")).apply_async()
    assert result.get(timeout=20) == list(range(1, 21))
    assert result.parent.get(timeout=5) == list(range(1, 21))


def test_a_chord_of_groups_and_chains_counts_all_of_them(stage, task):
    """CANVAS-053."""
    header = [
        task("add", 1, 1),
        chain(task("add", 1, 2), task("add", 1)),
        group(task("add", 5, 0), task("add", 6, 0)),
        chord([task("add", 1, 1), task("add", 2, 2)], task("echo")),
    ]
    result = chord(header, task("echo")).apply_async()
    assert result.get(timeout=20) == [2, 4, 5, 6, [2, 4]]


def test_a_chord_fails_when_a_member_does(stage, task):
    """CANVAS-056, CANVAS-057: the body never runs, and what comes after it fails too."""
    key, body = stage.key(), str(uuid.uuid4())
    header = [task("add", 1, 1), task("fail", "hdr")]
    result = (chord(header, task("record", key).set(task_id=body)) | task("record", key)).apply_async()
    assert result.id != body
    for failed in (result, stage.app.AsyncResult(body)):
        error = failed.get(timeout=20, propagate=False)
        assert isinstance(error, ChordError)
        assert re.fullmatch(r"Dependency [-0-9a-f]{36} raised ValueError\('hdr'\)", str(error))
    assert stage.ledger.counts("ran")[key] == 0


def test_a_chord_whose_body_is_a_chain_goes_on(stage, task):
    result = chord([task("add", 1, 1), task("add", 2, 2)], chain(task("echo"), task("echo"))).apply_async()
    assert result.get(timeout=20) == [2, 4]


@pytest.mark.parametrize("why", ["unknown", "expired", "deadly"])
def test_a_member_that_never_ends_well_fails_the_chord(stage, task, why):
    """No worker knows it; it came too late; it killed its process as often as it may."""
    lost = {
        "unknown": task("nobody_has_this"),
        "expired": task("add", 1, 1).set(expires=-1),
        "deadly": task("die_again", stage.key()),
    }[why]
    result = chord([task("add", 1, 1), lost], task("echo")).apply_async()
    assert isinstance(result.get(timeout=20, propagate=False), ChordError)


@database_only
def test_a_database_counts_and_nobody_polls(stage, task):
    for _ in range(3):
        result = chord([task("add", number, 1) for number in range(20)], task("echo")).apply_async()
        assert result.get(timeout=20) == list(range(1, 21))
    assert "celery.chord_unlock[" not in stage.workers[0].said()
    with contextlib.closing(sqlite3.connect(stage.folder / "results.sqlite")) as file:
        assert file.execute("SELECT closed FROM celeriac_chord").fetchall() == [(1,)] * 3
        assert file.execute("SELECT * FROM celeriac_chord_part").fetchall() == []


@database_only
def test_a_worker_finishes_what_a_producer_left_complete_and_nobody_holds(stage, task):
    """As after the death of the worker that counted the last member, before it could send the body."""
    key, group_id = stage.key(), str(uuid.uuid4())
    body = json.dumps(task("record", key).set(immutable=True)).encode()
    book = stage.app.backend.chords
    book.begin([ChordStart(group_id, 1, ["only"], body)])
    [claim] = book.add([ChordPart(group_id, "only", 0, "SUCCESS", b'[1, "only", "SUCCESS", 3]', body)])
    assert claim.token
    stage.ledger.wait("ran", key, seconds=40)
    wait_until(lambda: not book.hold(claim), "the end of the chord")
    assert stage.ledger.counts("ran")[key] == 1


@counting_only
def test_a_counting_store_is_left_clean(stage, task):
    result = chord([task("add", 1, 1), task("add", 2, 2)], task("echo")).apply_async()
    assert result.get(timeout=20) == [2, 4]
    kept = stage.folder / "shelf"

    def of_chords():
        return [file.name for file in kept.iterdir() if "chord-unlock" in file.name or "taskset" in file.name]

    wait_until(lambda: not of_chords(), of_chords)
