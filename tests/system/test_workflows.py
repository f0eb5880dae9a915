"""Workflows come to what they should: same values, same order, same failures, each callback as often as it should be.

Random ones (`workflows`) on real workers; what each should come to is worked out by rules that know nothing of
signatures. `WORKFLOWS` in the environment says how many for each store; `make soak` runs a thousand.
"""

from __future__ import annotations

import itertools
import os

import pytest
from harness import wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workflows import expected, same, signature, workflows

from celery import signature as of

#: Random workflows for each store.
HOW_MANY = int(os.environ.get("WORKFLOWS", "70"))
#: Of these at once.
BATCH = 7
#: A workflow that takes longer hangs. Seconds.
LONG = 15.0

STORES = [
    pytest.param("sqlite"),
    pytest.param("redis", marks=pytest.mark.needs("redis")),
]


class Tasks:
    """Signatures of the project's tasks."""

    def __init__(self, app):
        self._app = app

    def __getattr__(self, name):
        return _Task(f"project.{name}", self._app)


class _Task:
    def __init__(self, name, app):
        self._name, self._app = name, app

    def s(self, *args):
        return of(self._name, args=args, app=self._app)

    def si(self, *args):
        return of(self._name, args=args, app=self._app, immutable=True)


@pytest.fixture(scope="module", params=STORES)
def stage(request, tmp_path_factory):
    from conftest import stage_of

    stage = stage_of(request.param, request, tmp_path_factory.mktemp("workflows"))
    stage.worker()
    yield stage
    stage.close()


def run(stage, nodes):
    """Run them together, and compare."""
    tasks = Tasks(stage.app)
    stories = [expected(node) for node in nodes]
    results = [signature(node, tasks).apply_async() for node in nodes]
    for node, story, result in zip(nodes, stories, results, strict=True):
        value = result.get(timeout=LONG, propagate=False)
        assert same(value, story.value), f"{node}\ngave {value}\ninstead of {story.value}"
    calls = {call for story in stories for call in story.called}
    wait_until(lambda: calls <= set(stage.ledger.counts("called")), lambda: calls - set(stage.ledger.counts("called")))
    counts = stage.ledger.counts("called")
    assert {call: counts[call] for call in calls} == dict.fromkeys(calls, 1)


def test_random_workflows_come_to_what_they_should(stage):
    numbers = itertools.count()
    seen = set()

    @settings(
        max_examples=max(1, HOW_MANY // BATCH),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )
    @given(st.lists(workflows(numbers), min_size=BATCH, max_size=BATCH))
    def check(nodes):
        run(stage, nodes)
        seen.update(map(type, nodes))

    check()
    assert seen, "nothing was drawn"
