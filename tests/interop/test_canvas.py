"""Workflows of a mixed fleet: each step on either side, sent by either side, comes to one value (CANVAS)."""

from __future__ import annotations

import itertools
import re
import uuid

import pytest

SIDES = ("ours", "theirs")

#: Workflow -> value. A(...) is a task for one side, B(...) one for the other; {key} is a word of the test's own.
WORKFLOWS = {
    "group": ("celery.group(A('a'), B('b'))", [["a"], ["b"]]),
    "chain": ("A('a') | B('b') | A('c') | B('d')", ["d", ["c", ["b", ["a"]]]]),
    "group in a chain": ("A('a') | celery.group(A('b'), B('c')) | B('d')", ["d", [["b", ["a"]], ["c", ["a"]]]]),
    "group at the end": ("A('a') | celery.group(A('b'), B('c'))", [["b", ["a"]], ["c", ["a"]]]),
    "group after a group": (
        "celery.group(A('a'), B('b')) | celery.group(A('c'), B('d'))",
        [["c", [["a"], ["b"]]], ["d", [["a"], ["b"]]]],
    ),
    "three groups": (
        "celery.group(A('a'), B('b')) | A('c') | celery.group(A('d'), B('e')) | B('f')",
        ["f", [["d", ["c", [["a"], ["b"]]]], ["e", ["c", [["a"], ["b"]]]]]],
    ),
    "chain in a header": (
        "celery.chord([A('a') | B('b'), B('c') | A('d')], A('e'))",
        ["e", [["b", ["a"]], ["d", ["c"]]]],
    ),
    "chord in a header": (
        "celery.chord([celery.chord([A('a'), B('b')], B('c')), A('d')], B('e'))",
        ["e", [["c", [["a"], ["b"]]], ["d"]]],
    ),
    "group at the end of a member": (
        "celery.chord([A('a') | celery.group(A('b'), B('c')), B('d')], A('e'))",
        ["e", [[["b", ["a"]], ["c", ["a"]]], ["d"]]],
    ),
    "body that is a chain": (
        "celery.chord([A('a'), B('b')], A('c') | B('d') | A('e'))",
        ["e", ["d", ["c", [["a"], ["b"]]]]],
    ),
    "retries in a header": (
        "celery.chord([on(X, tag_third_time.s('a')), on(Y, tag_third_time.s('b'))], A('c'))",
        ["c", [["a"], ["b"]]],
    ),
    "map": ("on(X, add.starmap([(1, 2), (3, 4)])) | B('a')", ["a", [3, 7]]),
    "chunks": ("add.chunks([(1, 2), (3, 4), (5, 6)], 2).group() | B('a')", ["a", [[3, 7], [11]]]),
}

#: A workflow with something that fails -> how the failure reads.
FAILURES = {
    "step": ("A('a') | on(Y, fail.s('bad').set(immutable=True)) | B('c') | A('d')", "Trouble", "bad"),
    "member": ("celery.chord([A('a'), on(Y, fail.si('bad')), B('b')], A('c')) | B('d')", "ChordError", "bad"),
    "step in a member": (
        "celery.chord([A('a') | on(Y, fail.si('bad')) | B('b'), A('c')], B('d'))", "ChordError", "bad",
    ),
    "member of an inner header": (
        # The inner one on our side: 5.7 does not tell the outer chord when an inner one fails, and it hangs.
        "celery.chord([celery.chord([on('ours', fail.si('bad'))], B('b')), A('c')], B('d'))", "ChordError", "bad",
    ),
    "body": ("celery.chord([A('a'), B('b')], on(Y, fail.si('bad'))) | A('c')", "Trouble", "bad"),
}  # fmt: skip


def written(expression, first):
    """The expression in the names of `project`."""
    second = SIDES[1 - SIDES.index(first)]
    for word, side in (("A", first), ("B", second)):
        expression = re.sub(rf"\b{word}\('(\w)'\)", rf"on('{side}', tag.s('\1'))", expression)
    return expression.replace("X", f"'{first}'").replace("Y", f"'{second}'")


@pytest.fixture(params=list(itertools.product(SIDES, SIDES)), ids="-first-".join)
def ask(fleet, request):
    """A function: the value of an expression in the client of the sender, with tasks on both sides."""
    sender, first = request.param
    return lambda expression: fleet.clients[sender].do(written(expression, first))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_comes_to_the_same_value_wherever_its_steps_run(ask, name):
    expression, value = WORKFLOWS[name]
    assert ask(f"settled(({expression}).apply_async())") == value


@pytest.mark.parametrize("name", FAILURES)
def test_a_workflow_fails_in_the_same_way_wherever_its_steps_run(ask, name):
    """CANVAS-031, CANVAS-056, CANVAS-057, CANVAS-061."""
    expression, error, text = FAILURES[name]
    kind, said = ask(f"settled(({expression}).apply_async())")
    assert kind == error
    assert text in said


@pytest.mark.parametrize("by", ["task", "chain", "chord"])
@pytest.mark.parametrize("where", ["chain", "header"])
def test_a_task_is_replaced_by_tasks_of_the_other_side(ask, by, where):
    """CANVAS-070."""
    if where == "chain":
        assert ask(f"settled((on(X, swap.s('{by}', Y, 'a')) | B('b')).apply_async())") == ["b", ["a"]]
    else:
        header = f"[on(X, swap.s('{by}', Y, 'a')), on(Y, swap.s('{by}', X, 'b')), A('c')]"
        assert ask(f"settled(celery.chord({header}, B('d')).apply_async())") == ["d", [["a"], ["b"], ["c"]]]


def test_stamps_reach_all_steps(ask):
    """CANVAS-081."""
    chain = "(on(X, stamps_seen.s()) | on(Y, stamps_seen.s()))"
    assert ask(f"(lambda sig: [sig.stamp(visit='me'), settled(sig.apply_async())][1])({chain})") == {"visit": "me"}
    header = "celery.group(on(X, stamps_seen.s()), on(Y, stamps_seen.s()))"
    assert ask(f"(lambda sig: [sig.stamp(visit='me'), settled(sig.apply_async())][1])({header})") == 2 * [
        {"visit": "me"}
    ]


def test_callbacks_are_called_once_and_by_their_own_side(fleet, ask):
    """CANVAS-008, CANVAS-010, CANVAS-030, CANVAS-054."""
    key = uuid.uuid4().hex[:12]
    linked = f"on(X, tag.s('a').on_error(on(Y, told.s('{key}-bad'))))"
    chord = f"celery.chord([{linked}, B('b')], on(Y, tag.s('c')))"
    follow = f"(lambda sig: [sig.link(on(X, told.s('{key}-body'))), settled(sig.apply_async())][1])({chord})"
    assert ask(follow) == ["c", [["a"], ["b"]]]
    fleet.wait_noted("told", f"{key}-body")
    body = f"on(X, tag.s('c')).on_error(on(Y, told.s('{key}-failed')))"
    failing = f"celery.chord([A('a'), on(Y, fail.si('bad'))], {body})"
    assert ask(f"settled(({failing}).apply_async())")[0] == "ChordError"
    fleet.wait_noted("told", f"{key}-failed")
    assert [len(fleet.noted("told", f"{key}-{what}")) for what in ("body", "failed", "bad")] == [1, 1, 0]
