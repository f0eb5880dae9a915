"""Workflows come to what they should: same values, same order, same failures, each callback as often as it should be.

Random ones (`workflows`) on real workers; what each should come to is worked out by rules that know nothing of
signatures. `WORKFLOWS` in the environment says how many for each store; `make soak` runs a thousand.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import SOON, Stage, wait_until
from workflows import Call, Chord, Tasks, run, run_many

from celery import chord

#: Random workflows for each store.
HOW_MANY = int(os.environ.get("WORKFLOWS", "42"))
SESSION = Path(__file__).with_name("workflow_session.py")
#: Seconds for all of a store.
LIMIT = 120 + HOW_MANY

#: *split*: the broker is SQLite and results are in Redis, so that nothing is settled in one step; *database*: they are
#: in PostgreSQL, and the children settle.
STORES = [
    pytest.param("sqlite"),
    pytest.param("redis", marks=pytest.mark.needs("redis")),
    pytest.param("split", marks=pytest.mark.needs("redis")),
    pytest.param("database", marks=pytest.mark.needs("postgres")),
]


@pytest.fixture(params=STORES)
def stage(request, tmp_path):
    file = f"sqlite:///{tmp_path / 'celery.sqlite'}"
    broker = request.getfixturevalue("redis_database") if request.param == "redis" else file
    if request.param == "database":
        results = f"db+{request.getfixturevalue('postgres_url')}"
    else:
        results = file if request.param == "sqlite" else request.getfixturevalue("redis_database")
    stage = Stage(request.param, broker, results, tmp_path)
    stage.worker()
    wait_until(lambda: stage.app.backend.chords.counts({}), "a worker that looks after chords")
    yield stage
    stage.close()


@pytest.mark.timeout(LIMIT)
def test_random_workflows_come_to_what_they_should(stage):
    run_many(stage.app, stage.ledger, HOW_MANY)


def test_callbacks_of_the_member_that_completes_a_chord_are_called(stage):
    one, two, body = (Call("tag", label, callback=True) for label in ("one", "two", "body"))
    boom = Call("boom", "boom", errback=True)
    run(stage.app, stage.ledger, [Chord((one,), body), Chord((boom,), two)])


def test_members_that_ignore_their_results_give_their_values_to_the_body(stage):
    """CANVAS-050 has it otherwise; Celery 5.7 on Redis does as here."""
    tasks = Tasks(stage.app)
    result = chord([tasks.quiet.s("quiet"), tasks.tag.s("loud")], tasks.tag.s("body")).apply_async()
    assert result.get(timeout=SOON) == ["body", [["quiet"], ["loud"]]]
    assert result.parent[0].result is None


def test_options_of_members_and_body_are_theirs(stage):
    tasks = Tasks(stage.app)
    header = [tasks.describe.s().set(priority=3), tasks.describe.s().set(time_limit=50, shadow="shade")]
    body = tasks.describe.s().set(priority=5, headers={"mine": 1})
    described = chord(header, body).apply_async().get(timeout=SOON)
    (first, second), body = described["args"][0], described
    assert [each["delivery_info"]["priority"] for each in (first, second, body)] == [3, 0, 5]
    assert [each["shadow"] for each in (first, second, body)] == [None, "shade", None]
    assert [each["timelimit"] for each in (first, second)] == [[None, None], [50, None]]
    assert body["headers"]["mine"] == 1
    assert first["group"] == second["group"]
    assert body["parent_id"] in (first["id"], second["id"])


@pytest.mark.timeout(LIMIT)
@pytest.mark.parametrize("mode", ["memory", "eager"])
def test_random_workflows_in_one_process_come_to_the_same(mode):
    """CANVAS-074 to CANVAS-077 for those that run in place."""
    command = [sys.executable, str(SESSION), mode, str(4 * HOW_MANY)]
    session = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
    assert session.returncode == 0, session.stderr[-4000:]
