"""The table of `|`, and how workflows are laid out and counted (CANVAS-014..021, 032, 053)."""

from __future__ import annotations

import itertools
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery import chain, chord, group, signature
from celery.canvas.algebra import completions, laid_out, members_of


def t(name):
    return signature(f"t.{name}")


def names_of(sigs):
    """Workflows in short."""
    return [name_of(sig) for sig in sigs]


def name_of(sig):
    if sig["subtask_type"] is None:
        return sig["task"].removeprefix("t.")
    inside = names_of(members_of(sig))
    return {*inside, "->", name_of(sig.kwargs["body"])} if sig["subtask_type"] == "chord" else inside


def test_an_empty_chain_adds_nothing_to_a_group():
    both = group(t("a"), t("b"))
    assert both | chain() == both
    assert chain(both, chain(), t("c")) == both | t("c")


def test_steps_are_laid_out_flat():
    inner = chain(t("b"), chain(t("c")), group(), chain(group(t("d"))))
    assert names_of(laid_out([t("a"), inner, group(), chain(), t("e")])) == ["a", "b", "c", "d", "e"]


def test_a_group_that_something_follows_is_a_header():
    both = group(t("x"), t("y"))
    assert names_of(laid_out([t("a"), both, t("b"), t("c")])) == ["a", {"x", "y", "->", "b"}, "c"]
    assert names_of(laid_out([t("a"), both])) == ["a", ["x", "y"]]


def test_what_is_in_the_body_of_a_chord_comes_after_it():
    made = chord([t("x")], chain(t("a"), group(t("y"), t("z")), t("b")))
    assert names_of(laid_out([made, t("c")])) == [{"x", "->", "a"}, {"y", "z", "->", "b"}, "c"]
    assert made.body.tasks[0] == t("a")


def test_laying_out_again_changes_nothing():
    steps = laid_out([t("a"), group(t("x"), t("y")), chord([t("z")], group(t("u"), t("v"))), t("b")])
    assert laid_out(steps) == steps


@pytest.mark.parametrize(
    ("made", "count"),
    [
        (lambda: t("a"), 1),
        (lambda: chain(t("a"), t("b")), 1),
        (lambda: chain(t("a"), group(t("b"), t("c"))), 2),
        (lambda: chain(t("a"), group(t("b"), t("c")), group()), 2),
        (lambda: chain(t("a"), group(t("b"), t("c")), t("d")), 1),
        (lambda: group(t("a"), group(t("b"), chain(t("c"), group(t("d"), t("e"))))), 4),
        (lambda: chord([t("a"), t("b")], t("c")), 1),
        (lambda: chord([t("a"), t("b")], group(t("c"), t("d"), t("e"))), 3),
        (lambda: chain(), 0),
        (lambda: group(), 0),
    ],
)
def test_a_member_makes_as_many_parts_as_what_it_ends_in_has_values(made, count):
    """CANVAS-053."""
    assert completions(made()) == count


def calls_of(function):
    """How many functions it calls."""
    count = 0

    def profile(_, event, __):
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


def test_a_row_of_groups_is_laid_out_in_proportion_to_its_length():
    rows = [[group(t("a"), t("b")) for _ in range(length)] for length in (1, 25, 50, 100, 200)]
    _, *counts = [calls_of(lambda row=row: laid_out(row)) for row in rows]
    assert [twice / once < 2.2 for once, twice in itertools.pairwise(counts)] == [True] * 3


LETTERS = st.sampled_from("abc").map(t)
WORKFLOWS = st.recursive(
    LETTERS,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(group)
        | st.lists(inner, min_size=2, max_size=3).map(lambda steps: chain(*steps))
        | st.tuples(st.lists(inner, min_size=1, max_size=2), inner).map(lambda parts: chord(*parts))
    ),
    max_leaves=8,
)


@given(first=WORKFLOWS, second=WORKFLOWS, third=WORKFLOWS)
def test_composing_leaves_its_left_operands_alone(first, second, third):
    """CANVAS-014."""
    before = repr(first), repr(second)
    composed = first | second | third
    assert completions(composed) == completions(third)
    composed.freeze()
    assert (repr(first), repr(second)) == before


@given(made=WORKFLOWS)
def test_a_workflow_survives_its_dict_form(made):
    """CANVAS-078."""
    again = signature(dict(made))
    assert again == made
    assert repr(again) == repr(made)
    assert again.freeze().as_tuple() is not None


# -- how deep (`celery.canvas.nesting`)


def inside(tasks, levels):
    """Chords in bodies of chords."""
    step = tasks.total.s()
    for number in range(levels):
        step = chord([tasks.add.s(number)], step)
    return step


def waiting(tasks):
    app = tasks.add.app
    return app.publisher.run(lambda sender: sender.length(app.conf.task_default_queue))


def test_workflows_may_be_inside_each_other_to_some_depth(tasks):
    before = waiting(tasks)
    inside(tasks, 200).apply_async()
    assert waiting(tasks) == before + 1


@pytest.mark.parametrize(
    "send",
    [
        lambda tasks: inside(tasks, 250).apply_async(),
        lambda tasks: inside(tasks, 1000).apply_async(),
        lambda tasks: chain(tasks.add.s(1), inside(tasks, 1000)).apply_async(),
        lambda tasks: chord([tasks.add.s(1), inside(tasks, 1000)], tasks.total.s()).apply_async(),
        lambda tasks: group(tasks.add.s(1), inside(tasks, 1000)).apply_async(),
        lambda tasks: chord((tasks.add.s(n) for n in range(3)), inside(tasks, 1000)).apply_async(),
        lambda tasks: chain(group(tasks.add.s(1), tasks.add.s(2)) for _ in range(250)).apply_async(),
        lambda tasks: tasks.add.s(1) | inside(tasks, 1000) | tasks.total.s(),
    ],
    ids=["a little", "chord", "chain", "header", "group", "body", "groups after groups", "composing"],
)
def test_what_is_too_deep_says_so_and_nothing_of_it_is_sent(tasks, send):
    before = waiting(tasks)
    with pytest.raises(RecursionError, match=r"inside each other, \d+ levels of them; at most 230"):
        send(tasks)
    assert waiting(tasks) == before


def below(calls, call):
    """Call from so deep."""
    return below(calls - 1, call) if calls else call()


#: Shapes that go on inside of themselves, and how many levels each round is.
SHAPES = {
    "chain": (1, lambda step, inner: {"tasks": [step, inner]}),
    "group": (1, lambda step, inner: {"tasks": [step, inner]}),
    "body": (1, lambda step, inner: {"header": [step], "body": inner}),
    "header": (4, lambda step, inner: {"header": [step, inner], "body": step}),
    "group as header": (4, lambda step, inner: {"header": round_of("group", [step, inner]), "body": step}),
    "group in a chain": (3, lambda step, inner: {"tasks": [step, round_of("group", [step, inner]), step]}),
}


def round_of(kind, tasks=None, **kwargs):
    kwargs = {"tasks": tasks} if tasks else kwargs
    fields = {"task": f"celery.{kind}", "args": [], "kwargs": kwargs, "options": {}}
    return {**fields, "subtask_type": kind, "immutable": False}


def as_read(tasks, shape, levels):
    """Of so many levels at most, as it comes in a message."""
    each, kwargs_of = SHAPES[shape]
    kind = shape if shape in ("chain", "group") else "chain" if shape == "group in a chain" else "chord"
    step = made = json.loads(json.dumps(tasks.add.si(1, 2)))
    for _ in range(levels // each):
        made = round_of(kind, **kwargs_of(step, made))
    return made


@pytest.mark.parametrize("shape", SHAPES)
def test_what_may_be_sent_may_be_read_composed_and_sent_from_200_calls_deep(tasks, shape):
    read = below(200, lambda: signature(as_read(tasks, shape, 228)))
    followed = below(200, lambda: read | tasks.add.si(1, 2))
    before = waiting(tasks)
    below(200, read.apply_async)
    sent = waiting(tasks) - before
    assert sent > 0
    below(200, followed.apply_async)
    assert waiting(tasks) >= before + 2 * sent


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_too_deep_to_be_read_says_what_it_is_and_how_deep(tasks, shape):
    name = tasks.add.name.replace(".", r"\.")
    with pytest.raises(RecursionError, match=rf"begins with {name}, has .* other, \d+ levels of them; at most"):
        signature(as_read(tasks, shape, 2000))


def test_a_workflow_that_is_too_deep_for_where_it_is_sent_from_says_so(tasks):
    workflow = inside(tasks, 200)
    before = waiting(tasks)
    with pytest.raises(RecursionError, match="inside each other, 200 levels of them; too many for a call from so deep"):
        below(800, workflow.apply_async)
    assert waiting(tasks) == before
