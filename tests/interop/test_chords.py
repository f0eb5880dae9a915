"""Chords of a mixed fleet: both sides count together, and whoever is last sends the body (wire.md 4.5)."""

from __future__ import annotations

import itertools
import re

import pytest
import redis
from fleet import wait_until

SIDES = ("ours", "theirs")


def bookkeeping(fleet):
    """Keys of chords that are not marks of closed ones."""
    with redis.Redis.from_url(fleet.backend) as store:
        names = [key.decode() for key in store.keys("celery-taskset-meta-*")]
    return {name for name in names if re.search(r"\.[jtsd]$", name)}


def header(count, task="add.s({n}, 1)"):
    """Members that run on both sides in turn."""
    members = (f"{task.format(n=n)}.set(queue=NAME + '-{SIDES[n % 2]}')" for n in range(count))
    return f"[{', '.join(members)}]"


@pytest.mark.parametrize(("sender", "runner"), list(itertools.product(SIDES, SIDES)))
def test_a_chord_of_members_on_both_sides_gives_all_values_in_order(fleet, sender, runner):
    """CANVAS-046."""
    before = bookkeeping(fleet)
    for count in (1, 2, 15):
        body = f"echo.s().set(queue=NAME + '-{runner}')"
        value = fleet.clients[sender].do(f"celery.chord({header(count)}, {body})().get(timeout=SOON)")
        assert value == [[list(range(1, count + 1))], {}]
    wait_until(lambda: bookkeeping(fleet) <= before, lambda: bookkeeping(fleet) - before)


@pytest.mark.parametrize(("first", "last"), [SIDES, SIDES[::-1]])
def test_whoever_is_last_sends_the_body(fleet, first, last):
    key = f"last-{first}-{fleet.name}"
    expression = (
        f"celery.chord([add.s(1, 1).set(queue=NAME + '-{first}'), block.s('{key}').set(queue=NAME + '-{last}')],"
        f" echo.s().set(queue=NAME + '-{first}'))().id"
    )
    result = fleet.clients[first].do(expression)
    fleet.open_gate(key)
    value = fleet.clients[last].do(f"app.AsyncResult('{result}').get(timeout=SOON)")
    assert value[0][0][0] == 2


@pytest.mark.parametrize(("sender", "failing"), list(itertools.product(SIDES, SIDES)))
def test_a_member_that_fails_on_either_side_fails_the_chord(fleet, sender, failing):
    """CANVAS-056, CANVAS-057."""
    members = f"{header(4)} + [fail.s('hdr').set(queue=NAME + '-{failing}')]"
    expression = f"celery.chord({members}, echo.s())().get(timeout=SOON, propagate=False)"
    error = fleet.clients[sender].do(f"(lambda e: [type(e).__name__, str(e)])({expression})")
    assert error[0] == "ChordError"
    assert re.fullmatch(r"Dependency [-0-9a-f]{36} raised Trouble\('hdr', 7\)", error[1])


@pytest.mark.parametrize(("sender", "failing"), list(itertools.product(SIDES, SIDES)))
def test_who_waits_for_a_failed_chord_gets_the_error_of_its_member(fleet, sender, failing):
    """Whether it has failed before the wait or fails in it, on either side; the record of the body is a ChordError."""
    ask, where = fleet.clients[sender].do, f".set(queue=NAME + '-{failing}')"
    key = f"late-{sender}-{failing}-{fleet.name}"
    kinds = "[raised(r), raised(r, follow_parents=False), type(r.get(propagate=False)).__name__]"
    expected = ["Trouble", "ChordError", "ChordError"]
    chord = f"celery.chord([add.s(1, 1){where}, fail.si('hdr'){where}], echo.s())()"
    assert ask(f"(lambda r: [r.get(timeout=SOON, propagate=False), {kinds}][1])({chord})") == expected
    late = chord.replace("fail.si", f"block.si('{key}'){where} | fail.si")
    assert ask(f"(lambda r: [open_gate_later('{key}'), {kinds}][1])({late})") == expected


@pytest.mark.parametrize("sender", SIDES)
def test_chains_and_groups_in_a_header_are_counted_by_both(fleet, sender):
    """CANVAS-053. In what order 5.7 has the members of an inner group is another matter (CANVAS-039)."""
    members = (
        "[celery.chain(add.s(1, 1).set(queue=NAME + '-ours'), add.s(1).set(queue=NAME + '-theirs')),"
        " celery.chain(add.s(1, 1).set(queue=NAME + '-theirs'), add.s(2).set(queue=NAME + '-ours')),"
        f" celery.group({header(4)})]"
    )
    value = fleet.clients[sender].do(f"celery.chord({members}, echo.s())().get(timeout=SOON)")
    assert sorted(value[0][0]) == [1, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("sender", SIDES)
def test_a_chord_between_steps_of_a_chain_begins_on_either_side(fleet, sender):
    for first in SIDES:
        steps = (
            f"add.s(1, 1).set(queue=NAME + '-{first}') | celery.group(add.s(1).set(queue=NAME + '-ours'),"
            " add.s(2).set(queue=NAME + '-theirs')) | echo.s() | kinds.s()"
        )
        assert fleet.clients[sender].do(f"({steps})().get(timeout=SOON)") == ["list"]
