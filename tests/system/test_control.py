"""Remote control of real workers, over every broker (CTL-011 to CTL-030, CTL-044)."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
import warnings

import pytest

from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.worker.worker import WorkController

#: No test waits longer for what must come at once, in seconds.
SOON = 20

WORKER = """
import sys, time
from celery import Celery
from celery.worker.control import Panel, control_command, inspect_command
from celery.worker.worker import WorkController

app = Celery("controlled", broker=sys.argv[1], backend=sys.argv[2], control_exchange=sys.argv[3],
             task_default_queue=sys.argv[3], worker_prefetch_multiplier=4)

@app.task(name="w.sleep")
def sleep(seconds):
    time.sleep(seconds)

@app.task(name="w.add", rate_limit="9/m")
def add(x, y):
    return x + y

@inspect_command()
def who(state, greeting="hello", **arguments):
    "Say who answers."
    return {"ok": f"{greeting} {state.hostname} {len(state.tset())}"}

@control_command()
def break_down(state):
    raise ValueError("as asked")

@control_command()
def give_up(state):
    raise SystemExit(3)

@control_command()
def unspeakable(state):
    return object()
"""
SERVE = """
import logging
logging.basicConfig(level=logging.WARNING)  # as the command would
worker = WorkController(app, sys.argv[4], pool="prefork", concurrency=1)
worker.start()
sys.exit(worker.exitcode)
"""

BROKERS = [
    pytest.param("memory"),
    pytest.param("sqlite"),
    pytest.param("redis", marks=pytest.mark.needs("redis")),
    pytest.param("amqp", marks=pytest.mark.needs("rabbitmq")),
]


class Fleet:
    """An application, one worker of it, and how to ask that worker."""

    def __init__(self, broker, backend):
        self.name = f"control-{uuid.uuid4()}"
        self.node = "w1@host"
        self.arguments = [broker, backend, self.name, self.node]
        self.app = Celery(
            broker=broker, backend=backend, control_exchange=self.name, task_default_queue=self.name,
            set_as_current=False,
        )  # fmt: skip
        self.sleep = self.app.signature("w.sleep")
        #: Tasks can be killed here.
        self.kills = True

    def ask(self, command, **arguments):
        """The worker's reply to a command."""
        (reply,) = self.app.control.broadcast(command, arguments, reply=True, destination=[self.node], timeout=SOON)
        return reply[self.node]

    def send(self, name, *args, **options):
        return self.app.send_task(name, args, **options)

    def wait_for(self, condition, command, **arguments):
        deadline = time.monotonic() + SOON
        while not condition(value := self.ask(command, **arguments)):
            assert time.monotonic() < deadline, value
            time.sleep(0.02)
        return value

    def wait_until_ready(self, is_alive):
        deadline = time.monotonic() + SOON
        while not self.app.control.ping(limit=1, timeout=0.2):
            assert is_alive()
            assert time.monotonic() < deadline


@pytest.fixture(params=BROKERS, scope="module")
def broker(request, tmp_path_factory):
    """(broker URL, result backend URL)"""
    kind = request.param
    if kind == "memory":
        return f"memory://{uuid.uuid4()}", "cache+memory://"
    file = tmp_path_factory.mktemp("control") / "celery.sqlite"
    if kind == "redis":
        url = request.getfixturevalue("redis_database")
        return url, url
    url = f"sqlite:///{file}" if kind == "sqlite" else request.getfixturevalue("rabbitmq_url")
    return url, f"sqlite:///{file}"


def in_this_process(fleet):
    """A worker on threads, for the broker that does not reach further."""
    fleet.kills = False
    space = {"sys": sys}
    argv, sys.argv = sys.argv, ["worker", *fleet.arguments]
    try:
        exec(WORKER, space)
    finally:
        sys.argv = argv
    worker = WorkController(space["app"], fleet.node, pool="solo")
    thread = threading.Thread(target=worker.start)
    thread.start()
    return thread


def in_its_own_process(fleet):
    """A worker as users have it."""
    return subprocess.Popen([sys.executable, "-c", WORKER + SERVE, *fleet.arguments])


@pytest.fixture(scope="module")
def fleet(broker):
    with contextlib.ExitStack() as stack:
        fleet = Fleet(*broker)
        stack.callback(fleet.app.close)
        if broker[0].startswith("memory"):
            thread = in_this_process(fleet)
            fleet.wait_until_ready(thread.is_alive)
            yield fleet
            fleet.app.control.shutdown()
            thread.join(SOON)
            assert not thread.is_alive()
        else:
            process = in_its_own_process(fleet)
            stack.callback(process.wait)
            stack.callback(process.kill)
            fleet.wait_until_ready(lambda: process.poll() is None)
            yield fleet
            fleet.app.control.shutdown()
            assert process.wait(SOON) == 0


class TestAsking:
    def test_ping(self, fleet):
        assert fleet.app.control.ping(limit=1) == [{fleet.node: {"ok": "pong"}}]
        assert fleet.app.control.inspect(fleet.node).ping() == {"ok": "pong"}

    def test_only_those_addressed_reply(self, fleet):
        control = fleet.app.control
        assert control.ping(destination=["other@host"], timeout=0.2) == []
        assert control.ping(pattern="x*", matcher="glob", timeout=0.2) == []
        assert control.ping(pattern="w*", matcher="glob", limit=1, timeout=SOON)
        assert control.ping(pattern="(", matcher="pcre", timeout=0.2) == []

    def test_running_and_waiting_tasks_are_told_apart(self, fleet):
        running = fleet.send("w.sleep", 1.0)
        fleet.wait_for(bool, "active")
        waiting = fleet.send("w.add", 1, 2)
        (seen,) = fleet.wait_for(bool, "reserved")
        (active,) = fleet.ask("active", safe=True)
        assert (active["id"], active["name"], active["type"]) == (running.id, "w.sleep", "w.sleep")
        assert (active["args"], active["kwargs"], active["hostname"]) == ("(1.0,)", "{}", fleet.node)
        assert abs(active["time_start"] - time.time()) < SOON
        assert active["worker_pid"]
        assert active["acknowledged"] is True
        assert active["delivery_info"]["routing_key"] == fleet.name
        assert (seen["id"], seen["time_start"], seen["acknowledged"]) == (waiting.id, None, False)
        known = fleet.ask("query_task", ids=[running.id, waiting.id, "nobody"])
        assert {task_id: kind for task_id, (kind, _) in known.items()} == {running.id: "active", waiting.id: "reserved"}
        assert fleet.ask("query_task", ids=waiting.id)[waiting.id][1] == seen
        assert fleet.ask("dump_active") == [{**active, "args": [1.0], "kwargs": {}}]
        assert waiting.get(timeout=SOON) == 3
        assert fleet.wait_for(lambda tasks: not tasks, "active") == []

    def test_registered_tasks_and_their_attributes(self, fleet):
        def ask(**arguments):
            lines = fleet.ask("registered", **arguments)
            # A worker in this process knows the tasks that other tests have shared, too; one of its own only ours.
            beside = fleet.arguments[0].startswith("memory")
            return [line for line in lines if not beside or line.split()[0] in {"w.add", "w.sleep"}]

        assert ask() == ["w.add [rate_limit=9/m]", "w.sleep"]
        assert ask(taskinfoitems=["max_retries", "_app", "nothing"]) == [
            "w.add [max_retries=3]", "w.sleep [max_retries=3]",
        ]  # fmt: skip
        assert "celery.backend_cleanup" in str(fleet.ask("dump_tasks", builtins=True))

    def test_stats(self, fleet):
        """CTL-028."""
        fleet.send("w.add", 1, 2).get(timeout=SOON)
        stats = fleet.ask("stats")
        assert stats["total"]["w.add"] >= 1
        assert stats["clock"].isdecimal()
        assert isinstance(stats["uptime"], int)
        assert stats["pool"]["max-concurrency"] == 1
        assert stats["broker"]["transport"] in {"memory", "sqlite", "redis", "amqp"}
        assert "password" not in stats["broker"]
        assert {"prefetch_count", "pid"} < stats.keys()
        assert stats["rusage"]["maxrss"] > 1000

    def test_queues(self, fleet):
        """CTL-021."""
        (queue,) = fleet.ask("active_queues")
        assert (queue["name"], queue["routing_key"], queue["durable"]) == (fleet.name, fleet.name, True)
        assert (queue["exchange"]["name"], queue["exchange"]["type"], queue["bindings"]) == (fleet.name, "direct", [])

    def test_settings_come_without_secrets(self, fleet):
        """CTL-018."""
        conf = fleet.ask("conf")
        assert conf["control_exchange"] == fleet.name
        assert "guest@" not in conf["broker_url"]
        assert "task_acks_late" not in conf
        assert fleet.ask("dump_conf", with_defaults=True)["task_acks_late"] is False

    def test_report(self, fleet):
        assert "software -> celery:5.7.0" in fleet.ask("report")["ok"]

    def test_each_request_moves_the_clock(self, fleet):
        """CTL-006."""
        before = fleet.ask("clock")["clock"]
        assert fleet.ask("clock")["clock"] > before


class TestCommandsOfPeople:
    """CTL-005, CTL-008."""

    def test_they_get_state_and_arguments(self, fleet):
        assert fleet.ask("who", greeting="hi", more=1) == {"ok": f"hi {fleet.node} 0"}

    def test_an_error_is_the_reply(self, fleet):
        assert fleet.ask("break_down") == {"error": "ValueError('as asked')"}

    def test_wrong_arguments_are_an_error(self, fleet):
        assert "unexpected keyword argument 'x'" in fleet.ask("ping", x=1)["error"]

    def test_an_unknown_command_is_an_error(self, fleet):
        assert fleet.ask("no_such_thing") == {"error": "KeyError('no_such_thing')"}

    def test_an_exit_does_not_end_the_worker(self, fleet):
        assert fleet.ask("give_up") == {"error": "SystemExit(3)"}
        assert fleet.ask("ping") == {"ok": "pong"}

    def test_a_reply_that_cannot_be_sent_says_so(self, fleet):
        assert "cannot encode" in fleet.ask("unspeakable")["error"]

    def test_rubbish_in_the_mailbox_does_no_harm(self, fleet):
        from celery.brokers.base import Publish
        from celery.wire.envelope import Envelope

        exchange = fleet.app.control.mailbox.exchange.name
        for body in (b"\xff", b"[]", b'{"method": "ping", "destination": 3}', b'{"method": null}'):
            fleet.app.publisher.publish([Publish(Envelope({"clock": "x"}, body), exchange, "")])
        assert fleet.ask("ping") == {"ok": "pong"}


class TestRevoking:
    """CTL-029, CTL-030."""

    def test_a_task_that_waits_for_its_turn_does_not_run(self, fleet):
        running = fleet.send("w.sleep", 1.0)
        fleet.wait_for(bool, "active")
        waiting = fleet.send("w.add", 1, 2)
        fleet.wait_for(bool, "reserved")
        assert fleet.ask("revoke", task_id=waiting.id) == {"ok": f"tasks {{{waiting.id!r}}} flagged as revoked"}
        with pytest.raises(TaskRevokedError, match="revoked"):
            waiting.get(timeout=SOON)
        fleet.wait_for(lambda tasks: not tasks, "reserved")
        assert waiting.id in fleet.ask("revoked")
        assert running.get(timeout=SOON) is None
        assert waiting.state == "REVOKED"

    def test_a_task_that_was_not_sent_yet_does_not_run(self, fleet):
        task_id = str(uuid.uuid4())
        fleet.ask("revoke", task_id=[task_id, "another"])
        result = fleet.send("w.add", 1, 2, task_id=task_id)
        assert fleet.send("w.add", 1, 3).get(timeout=SOON) == 4
        assert result.state == "REVOKED"

    def test_a_task_that_waits_for_its_eta_is_marked_at_once(self, fleet):
        result = fleet.send("w.add", 1, 2, countdown=600)
        fleet.ask("revoke", task_id=result.id)
        assert result.state == "REVOKED"

    def test_a_running_task_runs_on_unless_terminated(self, fleet):
        running = fleet.send("w.sleep", 0.5)
        fleet.wait_for(bool, "active")
        fleet.ask("revoke", task_id=running.id)
        assert running.get(timeout=SOON) is None

    def test_a_running_task_is_terminated(self, fleet):
        if not fleet.kills:
            pytest.skip("the solo pool cannot end a task")
        running = fleet.send("w.sleep", 600)
        fleet.wait_for(bool, "active")
        assert fleet.ask("terminate", task_id=running.id, signal="SIGKILL") == {"ok": f"terminate: {running.id}"}
        with pytest.raises(TaskRevokedError, match="terminated"):
            running.get(timeout=SOON)
        assert fleet.send("w.add", 1, 2).get(timeout=SOON) == 3

    def test_terminating_an_unknown_task_says_so(self, fleet):
        assert fleet.ask("revoke", task_id="nobody", terminate=True) == {"ok": "terminate: tasks unknown"}

    def test_an_unknown_signal_is_an_error(self, fleet):
        assert "SIGNOSE" in fleet.ask("revoke", task_id="x", terminate=True, signal="SIGNOSE")["error"]

    @pytest.mark.parametrize("revoked", [["r-1"], {"r-1": 12.5}])
    def test_workers_tell_each_other(self, fleet, revoked):
        """CTL-026."""
        fleet.ask("revoke", task_id="mine")
        answer = fleet.ask("hello", from_node="other@host", revoked=revoked)
        assert {"mine", "r-1"} <= set(answer["revoked"])
        assert answer["clock"] > 0
        assert fleet.ask("hello", from_node=fleet.node, revoked=[]) is None


def test_the_clock_is_wired_to_events(fleet):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = fleet.app.clock.value
        with fleet.app.events.default_dispatcher() as dispatcher:
            dispatcher.send("task-x")
        assert fleet.app.clock.value > before


def test_a_worker_that_is_killed_is_just_silent(fleet):
    if not fleet.kills:
        pytest.skip("it would be us")
    process = subprocess.Popen([sys.executable, "-c", WORKER + SERVE, *fleet.arguments[:3], "w2@host"])
    try:
        deadline = time.monotonic() + SOON
        while not fleet.app.control.ping(destination=["w2@host"], timeout=0.2):
            assert time.monotonic() < deadline
        os.kill(process.pid, signal.SIGKILL)
        process.wait(SOON)
        assert fleet.app.control.ping(destination=["w2@host"], timeout=0.3) == []
        assert fleet.ask("ping") == {"ok": "pong"}
    finally:
        process.kill()
        process.wait()


def test_a_second_worker_of_one_name_says_so_and_works_on(fleet, tmp_path):
    """RabbitMQ gives the mailbox to one of them (wire.md 2.2)."""
    if "amqp" not in fleet.arguments[0]:
        pytest.skip("only RabbitMQ keeps them apart")
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-c", WORKER + SERVE, *fleet.arguments], stderr=output)
    try:
        deadline = time.monotonic() + SOON
        while f"Remote control of {fleet.node} is off" not in log.read_text():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        results = [fleet.send("w.sleep", 0.3) for _ in range(2)]
        for result in results:
            assert result.get(timeout=SOON) is None
        assert fleet.ask("ping") == {"ok": "pong"}
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
