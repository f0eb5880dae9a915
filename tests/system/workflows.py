"""Random workflows, what they should come to, how to compose them, and the comparison (CANVAS).

A workflow is drawn as plain data. `expected` works out its value by rules of its own, which know nothing of signatures
or messages; `signature` composes the same workflow of real ones. Each task returns its label and what it was given, so
that a value tells the whole way that data took.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

from harness import wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery import chain, chord, group
from celery import signature as of


@dataclass(frozen=True)
class Call:
    """A task: `tag` takes what comes, `const` is immutable, `boom` raises.

    Like `tag` are `atag`, which is a coroutine, `again`, which is tried three times, and `swap`, which is replaced: its
    label says by what.
    """

    kind: str
    label: str
    callback: bool = False
    errback: bool = False


@dataclass(frozen=True)
class Chain:
    """One after the other."""

    steps: tuple


@dataclass(frozen=True)
class Group:
    """Side by side."""

    members: tuple


@dataclass(frozen=True)
class Chord:
    """Side by side, then the body."""

    header: tuple
    body: object


@dataclass(frozen=True)
class Failed:
    """What a client sees of a task that failed, or never ran: an exception of this class that tells of this label."""

    error: str
    label: str


@dataclass
class Story:
    """What a workflow comes to: its value, and which callbacks and error callbacks are called, once each."""

    value: object = None
    called: set = field(default_factory=set)


# -- drawing


def calls(labels, failing):
    """Tasks; each has a label of its own."""
    kinds = ["tag", "tag", "tag", "const", "atag", "again", "swap-task", "swap-chain", "swap-group", "swap-chord"]
    kinds += ["boom", "boom", "swap-boom"] if failing else []

    def call(kind, callback, errback):
        kind, _, by = kind.partition("-")
        return Call(kind, f"t{next(labels)}{by}", callback, errback)

    return st.builds(call, st.sampled_from(kinds), st.booleans(), st.booleans())


def workflows(labels, depth=4, failing=True):
    """Workflows of up to so many levels."""
    leaf = calls(labels, failing)
    if depth <= 1:
        return leaf
    below = workflows(labels, depth - 1, failing)
    several = st.lists(below, min_size=2, max_size=3).map(tuple)
    return st.one_of(
        leaf,
        several.map(Chain),
        several.map(Group),
        st.builds(Chord, st.lists(below, min_size=1, max_size=3).map(tuple), below),
    )


# -- what it should come to


def expected(node):
    """The story of a workflow that is called without arguments."""
    story = Story()
    story.value = _run(node, (), story)
    return story


def _run(node, given, story):
    if isinstance(node, Call):
        return _call(node, given, story)
    if isinstance(node, Group):
        return [_run(member, given, story) for member in _flat(node.members, Group)]
    return _steps(_spread(node), given, story)


def _call(call, given, story):
    if call.label.endswith("boom") or call.kind == "boom":
        if call.errback:
            story.called.add(f"errback-{call.label}")
        return Failed("Boom", call.label)
    if call.callback:
        story.called.add(f"callback-{call.label}")
    return [call.label] if call.kind == "const" else [call.label, *given]


def _spread(node):
    """The steps of a chain, those of chains inside it too; a chord is its header and then its body."""
    if isinstance(node, Chain):
        return [step for each in node.steps for step in _spread(each)]
    if isinstance(node, Chord):
        return [Header(node.header), *_spread(node.body)]
    return [node]


@dataclass(frozen=True)
class Header:
    """The first half of a chord."""

    members: tuple


def _steps(steps, given, story):
    for position, step in enumerate(steps):
        rest = steps[position + 1 :]
        if not rest:
            return _run(step, given, story)
        if isinstance(step, (Group, Header)):
            values = [_run(member, given, story) for member in _flat(step.members, Group)]
            failure = _first_failure(values)
            if failure is not None:
                return _after_failed_header(rest, failure, story)
        else:
            values = _run(step, given, story)
            if isinstance(values, Failed):
                return _never(rest, values)
        given = (values,)
    raise AssertionError("a chain has steps")


def _after_failed_header(rest, failure, story):
    """The body fails: alone or in a chain by a ChordError, as a group by the cause itself (CANVAS-059)."""
    body = rest[0]
    if isinstance(body, Group) and len(rest) == 1:
        for call in _first_calls(body):
            if call.errback:
                story.called.add(f"errback-{call.label}")
        return _never(rest, failure)
    # A group that something follows is a chord itself: its body is the one that fails.
    while isinstance(body, (Group, Header)) and len(rest) > 1:
        rest = rest[1:]
        body = rest[0]
    for call in _first_calls(body):
        if call.errback:
            story.called.add(f"errback-{call.label}")
    return _never(rest, Failed("ChordError", failure.label))


def _first_calls(node):
    if isinstance(node, Call):
        return [node]
    if isinstance(node, Group):
        return [call for member in _flat(node.members, Group) for call in _first_calls(member)]
    first = _spread(node)[0]
    return _first_calls(_spread(node)[1] if isinstance(first, Header) else first)


def _never(rest, failure):
    """What a client sees of steps that will not run: the last one's shape, with the failure everywhere."""
    return _filled(rest[-1], failure)


def _filled(node, failure):
    if isinstance(node, Call):
        return failure
    if isinstance(node, (Group, Header)):
        return [_filled(member, failure) for member in _flat(node.members, Group)]
    return _filled(_spread(node)[-1], failure)


def _flat(members, kind):
    return [deep for each in members for deep in (_flat(each.members, kind) if isinstance(each, kind) else [each])]


def _first_failure(values):
    for value in values:
        if isinstance(value, Failed):
            return value
        if isinstance(value, list) and (found := _first_failure(value)) is not None:
            return found
    return None


# -- composing it


def signature(node, tasks):
    """The workflow, of signatures.

    Args:
        node: what was drawn.
        tasks: has `tag`, `const`, `boom`, `called` and `failed`.
    """
    if isinstance(node, Call):
        task = getattr(tasks, node.kind)
        made = task.si(node.label) if node.kind in ("const", "boom") else task.s(node.label)
        if node.callback:
            made.link(tasks.called.si(f"callback-{node.label}"))
        if node.errback:
            made.link_error(tasks.failed.s(f"errback-{node.label}"))
        return made
    if isinstance(node, Chain):
        return chain(*[signature(step, tasks) for step in node.steps])
    if isinstance(node, Group):
        return group([signature(member, tasks) for member in node.members])
    return chord([signature(member, tasks) for member in node.header], signature(node.body, tasks))


def same(value, wanted):
    """Whether a client's value is what it should be."""
    if isinstance(wanted, Failed):
        return type(value).__name__ == wanted.error and re.search(rf"\b{wanted.label}\b", str(value)) is not None
    if isinstance(wanted, list) and isinstance(value, (list, tuple)):
        return len(value) == len(wanted) and all(map(same, value, wanted))
    return value == wanted


# -- comparing it

#: A workflow that takes longer hangs. Seconds.
LONG = 8.0
#: Workflows that run at once.
BATCH = 7


class Tasks:
    """Signatures of the project's tasks."""

    def __init__(self, app, **options):
        self._app = app
        self._options = options

    def __getattr__(self, name):
        return _Task(f"project.{name}", {"app": self._app, **self._options})


class _Task:
    def __init__(self, name, options):
        self._name, self._options = name, options

    def s(self, *args):
        return of(self._name, args=args, **self._options)

    def si(self, *args):
        return of(self._name, args=args, immutable=True, **self._options)


def run(app, ledger, nodes):
    """Run workflows together; they come to what they should, and each callback is called as often as it should be."""
    tasks = Tasks(app)
    stories = [expected(node) for node in nodes]
    results = [signature(node, tasks).apply_async() for node in nodes]
    for node, story, result in zip(nodes, stories, results, strict=True):
        value = result.get(timeout=LONG, propagate=False)
        assert same(value, story.value), f"{node}\ngave {value}\ninstead of {story.value}"
    calls = {call for story in stories for call in story.called}
    wait_until(lambda: calls <= set(ledger.counts("called")), lambda: calls - set(ledger.counts("called")))
    counts = ledger.counts("called")
    assert {call: counts[call] for call in calls} == dict.fromkeys(calls, 1)


def run_many(app, ledger, how_many, failing=True):
    """Run so many random workflows."""
    numbers = itertools.count()
    done = 0

    @settings(
        max_examples=max(1, how_many // BATCH),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )
    @given(st.lists(workflows(numbers, failing=failing), min_size=BATCH, max_size=BATCH))
    def check(nodes):
        nonlocal done
        run(app, ledger, nodes)
        done += len(nodes)

    check()
    assert done >= how_many - BATCH
