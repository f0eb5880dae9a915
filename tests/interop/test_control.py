"""Remote control in mixed fleets: Celery 5.7 asks our workers, and we ask workers of Celery 5.7 (wire.md 5)."""

import json
import os
import subprocess
import sys
import time
import uuid

import pytest

from celery import Celery

#: No test waits longer for what must come at once, in seconds.
SOON = 30

TASKS = """
import json, sys
from celery import Celery
app = Celery("mixed", broker=sys.argv[1], control_exchange=sys.argv[2], task_default_queue=sys.argv[2])

@app.task(name="w.add")
def add(x, y):
    return x + y
"""
OUR_WORKER = """
from celery.worker.worker import WorkController
WorkController(app, "ours@host", pool="prefork", concurrency=1).start()
"""
THEIR_WORKER = """
app.worker_main(["worker", "-n", "theirs@host", "-P", "solo", "-l", "ERROR"])
"""
THEIR_QUESTIONS = """
inspect = app.control.inspect(timeout=10, limit=2)
answers = {name: getattr(inspect, name)() for name in sys.argv[3].split()}
answers["query_task"] = inspect.query_task("nobody")
answers["revoke"] = app.control.revoke("r-1", reply=True, timeout=10, limit=2)
answers["pattern"] = app.control.broadcast("ping", reply=True, pattern="ours*", matcher="glob", timeout=10, limit=1)
answers["unknown"] = app.control.broadcast("no_such_thing", reply=True, timeout=10, limit=2)
print(json.dumps(answers))
"""
COMMANDS = "ping active reserved scheduled revoked registered stats conf clock report active_queues"


class Fleet:
    """A worker of ours and one of Celery 5.7 that share a control exchange."""

    nodes = ("ours@host", "theirs@host")

    def __init__(self, broker, celery57):
        self.name = f"mixed-{uuid.uuid4()}"
        self.broker = broker
        self.celery57 = celery57
        self.app = Celery(broker=broker, control_exchange=self.name, task_default_queue=self.name, set_as_current=False)
        self.processes = []

    def run(self, python, code):
        # Theirs must not find our package through the environment of the test.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("CELERY", "PYTHONPATH"))
        }
        command = [python, "-c", TASKS + code, self.broker, self.name]
        self.processes.append(subprocess.Popen(command, env=environment, cwd="/", stderr=subprocess.DEVNULL))

    def start(self):
        self.run(sys.executable, OUR_WORKER)
        self.run(self.celery57, THEIR_WORKER)
        deadline = time.monotonic() + SOON
        while len(self.app.control.ping(limit=2, timeout=0.5)) < 2:
            assert all(process.poll() is None for process in self.processes)
            assert time.monotonic() < deadline

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.app.close()


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("redis_database", marks=pytest.mark.needs("redis")),
        pytest.param("rabbitmq_url", marks=pytest.mark.needs("rabbitmq")),
    ],
)
def fleet(request, celery57):
    fleet = Fleet(request.getfixturevalue(request.param), celery57)
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.stop()


@pytest.fixture(scope="module")
def their_answers(fleet):
    """What Celery 5.7 is told by both workers."""
    command = [fleet.celery57, "-c", TASKS + THEIR_QUESTIONS, fleet.broker, fleet.name, COMMANDS]
    asked = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", timeout=50)
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout)


def shape(value):
    """Names and types, without what varies."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value)


@pytest.mark.parametrize("command", COMMANDS.split())
def test_both_workers_answer_both_clients_in_the_same_form(fleet, their_answers, command):
    inspect = fleet.app.control.inspect(timeout=SOON, limit=2)
    for answers in (getattr(inspect, command)(), their_answers[command]):
        assert set(answers) == set(fleet.nodes)
        ours, theirs = (answers[node] for node in fleet.nodes)
        if command in {"conf", "stats", "revoked"}:
            continue
        assert shape(ours) == shape(theirs)


def test_stats_have_the_same_names(their_answers):
    ours, theirs = (their_answers["stats"][node] for node in Fleet.nodes)
    assert ours.keys() >= theirs.keys() - {"autoscaler"}
    assert ours["rusage"].keys() == theirs["rusage"].keys()
    missing = theirs["broker"].keys() - ours["broker"].keys()
    assert missing <= {"credential_provider"}


def test_replies_to_commands_are_the_same(their_answers):
    for name in ("revoke", "unknown"):
        assert {json.dumps(list(reply.values())) for reply in their_answers[name]} == {
            {
                "revoke": '[{"ok": "tasks {\'r-1\'} flagged as revoked"}]',
                "unknown": '[{"error": "KeyError(\'no_such_thing\')"}]',
            }[name]
        }
        assert len(their_answers[name]) == 2
    assert their_answers["query_task"] == {"ours@host": {}, "theirs@host": {}}
    assert their_answers["pattern"] == [{"ours@host": {"ok": "pong"}}]


def test_a_worker_of_theirs_learns_what_ours_has_revoked(fleet):
    """CTL-026: the same command between workers."""
    fleet.app.control.revoke("r-2", destination=["ours@host"], reply=True, timeout=SOON)
    known = fleet.app.control.inspect("ours@host", timeout=SOON).hello("theirs@host", ["r-3"])
    assert {"r-2", "r-3"} <= set(known["revoked"])
