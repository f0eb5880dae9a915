"""Workers on Redis that keep what follows their tasks: nothing is lost with them, and others get their part."""

from __future__ import annotations

import random
import time

import pytest
from harness import size, wait_until

from celery import chain, group, signature

pytestmark = pytest.mark.needs("redis")

#: What a dead worker held is back within 15 s; the rest is for a busy machine.
TAKEOVER = 40.0


@pytest.fixture
def stage(make_stage):
    return make_stage("redis")


def immutable(stage, task, *args):
    return signature(f"project.{task}", args, app=stage.app, immutable=True)


@pytest.mark.timeout(240)
def test_a_chain_survives_workers_that_are_killed_at_any_moment(stage):
    keys, kills = [stage.key() for _ in range(300)], size(2, 10)
    stage.worker("-c", "2")
    result = chain(immutable(stage, "record_late", key) for key in keys).apply_async()
    ran = 0
    for kill in range(1, kills + 1):
        wait_until(lambda n=ran: len(stage.ledger.entries("ran")) > n + 20, "that it goes on", TAKEOVER)
        time.sleep(random.random() / 50)
        stage.workers[-1].kill()
        assert not result.ready(), f"over before kill {kill}"
        ran = len(stage.ledger.entries("ran"))
        stage.start("-c", "2")
    result.get(timeout=TAKEOVER)
    counts = stage.ledger.counts("ran")
    assert [key for key in keys if not counts[key]] == []
    # Again ran only the one step that was running, at each kill.
    assert sum(counts.values()) - len(keys) <= kills
    first = [entry.key for entry in stage.ledger.entries("ran")]
    assert list(dict.fromkeys(first)) == keys


@pytest.mark.timeout(90)
def test_a_group_that_a_worker_sends_is_shared_with_an_idle_one(stage):
    for _ in range(2):
        stage.worker("-c", "1", worker_prefetch_multiplier=1)
    members = [immutable(stage, "nap", stage.key(), 0.1) for _ in range(30)]
    chain(immutable(stage, "record", stage.key()), group(members)).apply_async().get(timeout=40)
    shares = {}
    for entry in stage.ledger.entries("end"):
        shares[entry.pid] = shares.get(entry.pid, 0) + 1
    assert len(shares) == 2
    assert min(shares.values()) >= 8


@pytest.mark.timeout(90)
def test_chains_that_one_worker_has_begun_are_shared_with_an_idle_one(stage):
    """More of them than it has children, and their steps are as long as a hand-out."""
    stage.worker("-c", "1")
    chains = [chain(immutable(stage, "nap", stage.key(), 0.05) for _ in range(12)) for _ in range(6)]
    results = [each.apply_async() for each in chains]
    wait_until(lambda: len(stage.ledger.entries("end")) >= 6, "that they are under way")
    stage.worker("-c", "1")
    begun = len(stage.ledger.entries("end"))
    for result in results:
        result.get(timeout=40)
    pids = [entry.pid for entry in stage.ledger.entries("end")[begun:]]
    shares = {pid: pids.count(pid) for pid in pids}
    assert len(shares) == 2
    assert min(shares.values()) >= 0.2 * len(pids)
