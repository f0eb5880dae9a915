"""Chords of a mixed fleet with results in a SQL database, where Celery 5.7 polls and ours count: each ends once."""

from __future__ import annotations

import itertools
import re
import sqlite3
from contextlib import closing

import pytest
from fleet import Fleet, wait_until

SIDES = ("ours", "theirs")
#: Seconds for a chord whose members 5.7 runs: a look finds their records.
LOOKED_FOR = 50

pytestmark = [pytest.mark.needs("redis"), pytest.mark.timeout(240)]


@pytest.fixture
def make_fleet(redis_database, tmp_path, celery57):
    """Clients of both sides, and workers of some."""
    fleet = Fleet(redis_database, f"db+sqlite:///{tmp_path / 'results.sqlite'}", tmp_path, celery57)

    def make(*sides):
        fleet.workers = {side: fleet.worker(side) for side in sides}
        fleet.clients = {side: fleet.client(side) for side in SIDES}
        for side, worker in fleet.workers.items():
            fleet.wait_ready(worker, side)
        if "ours" in sides:
            wait_until(lambda: counted(fleet), "a worker of ours that looks after chords")
        return fleet

    yield make
    fleet.close()


def counted(fleet):
    """Whether our client's chords are counted."""
    return fleet.clients["ours"].do("app.backend.chords.counts({})")


def kept(fleet, query="SELECT group_id FROM celeriac_chord"):
    """Of the tables that are ours."""
    with closing(sqlite3.connect(fleet.backend.removeprefix("db+sqlite:///"), timeout=20)) as file:
        return file.execute(query).fetchall()


def header(sides, count=6):
    members = (f"add.s({n}, 1).set(queue=NAME + '-{side}')" for n, side in zip(range(count), itertools.cycle(sides)))
    return f"[{', '.join(members)}]"


def test_a_chord_ends_once_whoever_sends_it_and_runs_its_members(make_fleet):
    """CANVAS-046, CANVAS-051: those of 5.7 are polled for by its task, ours are counted, without that task."""
    fleet = make_fleet(*SIDES)
    ways = list(itertools.product(SIDES, [("ours",), ("theirs",), SIDES], SIDES))
    for number, (sender, runners, last) in enumerate(ways):
        body = f"told.s('once-{number}').set(queue=NAME + '-{last}')"
        fleet.clients[sender].do(f"celery.chord({header(runners)}, {body})().id")
    for number in range(len(ways)):
        wait_until(lambda key=f"once-{number}": fleet.noted("told", key), lambda: ways, LOOKED_FOR)  # noqa: B023 - called here
    wait_until(lambda: not kept(fleet, "SELECT * FROM celeriac_chord WHERE closed = 0"), lambda: kept(fleet))
    assert len(kept(fleet)) == len(ways) / 2, "those that we sent"
    assert kept(fleet, "SELECT * FROM celeriac_chord_part") == []
    polling = [re.findall(r"celery.chord_unlock\[([-0-9a-f]+)\] received", worker.log.read_text())
               for worker in fleet.workers.values()]  # fmt: skip
    assert len(set().union(*polling)) == len(ways) / 2, "for those that they sent"
    assert [len(fleet.noted("told", f"once-{number}")) for number in range(len(ways))] == [1] * len(ways)


@pytest.mark.parametrize("runner", SIDES)
def test_values_come_in_order_and_a_failure_fails_the_chord(make_fleet, runner):
    """CANVAS-056."""
    fleet = make_fleet(*SIDES)
    ours = fleet.clients["ours"]
    value = ours.do(f"celery.chord({header(SIDES, 15)}, echo.s())().get(timeout={LOOKED_FOR})")
    assert value == [[list(range(1, 16))], {}]
    members = f"{header(SIDES, 4)} + [fail.s('hdr').set(queue=NAME + '-{runner}')]"
    expression = f"celery.chord({members}, echo.s())().get(timeout={LOOKED_FOR}, propagate=False)"
    error = ours.do(f"(lambda e: [type(e).__name__, str(e)])({expression})")
    assert error[0] == "ChordError"
    assert re.fullmatch(r"Dependency [-0-9a-f]{36} raised Trouble\('hdr', 7\)", error[1])


def test_groups_chains_and_chords_in_a_header_are_counted_by_both(make_fleet):
    """CANVAS-053: whatever counts a member, record or part, counts it at one place."""
    fleet = make_fleet(*SIDES)
    for one, two in (SIDES, SIDES[::-1]):
        members = (
            f"[on('{one}', tag.si('a')) | on('{two}', tag.s('b')),"
            f" on('{one}', tag.si('c')) | celery.group(on('{two}', tag.s('d')), on('{one}', tag.s('e'))),"
            f" celery.chord([on('{two}', tag.si('f')), on('{one}', tag.si('g'))], on('{two}', tag.s('h'))),"
            f" celery.group(on('{one}', tag.si('i')), on('{two}', tag.si('j')))]"
        )
        value = fleet.clients["ours"].do(f"celery.chord({members}, on('{one}', tag.s('end')))().get(timeout=50)")
        assert value == ["end", [["b", ["a"]], [["d", ["c"]], ["e", ["c"]]], ["h", [["f"], ["g"]]], ["i"], ["j"]]]


def test_without_a_worker_of_ours_our_chords_are_polled_for(make_fleet):
    fleet = make_fleet("theirs")
    assert not counted(fleet)
    value = fleet.clients["ours"].do(f"celery.chord({header(['theirs'])}, on('theirs', echo.s()))().get(timeout=50)")
    assert value == [[list(range(1, 7))], {}]
    assert kept(fleet) == []


def test_a_chord_that_was_being_counted_waits_for_the_next_worker_of_ours(make_fleet):
    fleet = make_fleet(*SIDES)
    key = f"gone-{fleet.name}"
    members = f"[on('theirs', add.s(1, 1)), on('theirs', block.s('{key}'))]"
    fleet.clients["ours"].do(f"celery.chord({members}, on('theirs', told.s('{key}')))().id")
    fleet.wait_noted("start", key)
    fleet.kill(fleet.workers["ours"].process)
    fleet.open_gate(key)
    fleet.wait_ready(fleet.worker("ours"), "ours", times=2)
    wait_until(lambda: fleet.noted("told", key), "the body", LOOKED_FOR)
