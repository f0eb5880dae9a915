"""What a worker that has nothing to do holds: counted in threads, loops and modules, which do not depend on the
machine.
"""

import os
import signal
from pathlib import Path

import pytest
from harness import SOON, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")

on_any_broker = pytest.mark.parametrize("stage", ["sqlite"], indirect=True)


def value_of(result):
    return result.get(timeout=SOON, interval=0.01)


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def loops(pid):
    """How many selectors of event loops the process has open."""
    opened = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
    return opened.count("anon_inode:[eventpoll]")


@on_any_broker
def test_a_child_has_one_thread_until_its_first_task_and_a_loop_from_its_first_coroutine_on(stage):
    (child,) = stage.worker("-c", "1").children()
    assert (threads(child), loops(child)) == (1, 0)
    assert value_of(stage.send("pid")) == child
    assert (threads(child), loops(child)) == (2, 0)
    assert value_of(stage.send("anap", 0)) == 0
    assert loops(child) == 1


@on_any_broker
def test_the_first_coroutine_of_a_child_does_not_wait_for_the_task_that_runs_there(stage):
    (child,) = stage.worker("-c", "1").children()
    key = stage.key()
    blocked = stage.send("block", key)
    stage.ledger.wait("start", key)
    assert value_of(stage.send("anap", 0.01)) == 0.01
    assert (threads(child), loops(child)) == (2, 1)
    stage.open_gate(key)
    assert value_of(blocked) == child


@on_any_broker
def test_a_coroutine_whose_child_dies_before_its_loop_has_begun_runs_in_the_next(stage):
    worker, key = stage.worker("-c", "1"), stage.key()
    (child,) = worker.children()
    os.kill(child, signal.SIGSTOP)
    result = stage.send("ablock", key)
    worker.wait_said(f"[{result.id}] received")
    os.kill(child, signal.SIGKILL)
    stage.open_gate(key)
    assert value_of(result) == key
    (start,) = stage.ledger.entries("start", key)
    assert start.pid != child


@on_any_broker
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_worker_that_never_had_a_task_ends_in_good_order(stage, pool):
    worker = stage.worker("-c", "1", "-P", pool)
    if pool == "solo":
        assert loops(worker.pid) == 1  # the worker's own
    assert worker.stop() == 0


@on_any_broker
def test_a_child_that_retires_takes_the_thread_of_its_coroutines_along(stage):
    worker = stage.worker("-c", "1", "--max-tasks-per-child", "1")
    (first,) = worker.children()
    assert value_of(stage.send("pid")) == first
    wait_until(lambda: worker.children() not in ([], [first]), worker.children)
    assert value_of(stage.send("anap", 0)) == 0
    assert "did not end" not in worker.said()


def test_nothing_is_imported_once_the_nursery_is_there(stage, monkeypatch):
    """Who imports after a fork writes to memory that all processes shared. Python says what it imports, and when."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    worker = stage.worker("-c", "1")
    assert value_of(stage.send("add", 1, 2)) == 3
    said = worker.said().splitlines()
    imported = [line.rpartition("|")[2].strip() for line in said if line.startswith("import time:")]
    # By which the processes that it forks learn of its death.
    assert imported[imported.index("ctypes") + 1 :] == []
