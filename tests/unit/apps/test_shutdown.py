"""What signals mean to a worker (CLI-050..056)."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from celery import Celery, signals
from celery.apps.shutdown import STEPS, ShutdownSignals, Stage
from celery.apps.stacks import all_stacks
from celery.exceptions import WorkerTerminate

WARM = "worker: Warm shutdown (MainProcess)"
AGAIN_COLD = "worker: Hitting Ctrl+C again will initiate cold shutdown, terminating all running tasks!"
AGAIN_HARD = "worker: Hitting Ctrl+C again will terminate all running tasks!"


class Asked:
    """A worker that notes what it is asked for."""

    hostname = "w1@h"

    def __init__(self, grace=0.0):
        self.app = Celery("proj", set_as_current=False, broker="memory://", worker_soft_shutdown_timeout=grace)
        self.stops = []

    def request_stop(self, how="warm", exitcode=0):
        self.stops.append((how, exitcode))

    def hurry(self):
        self.stops.append("hurry")


@pytest.fixture
def worker():
    return Asked()


def said(capfd):
    return [line for line in capfd.readouterr().out.splitlines() if line]


def test_term_is_a_warm_shutdown_with_status_0_and_more_terms_only_hurry_it(worker, capfd):
    handlers = ShutdownSignals(worker)
    for _ in range(3):
        handlers.on_signal("SIGTERM")
    assert worker.stops == [("warm", 0), "hurry", "hurry"]
    assert said(capfd) == [WARM] * 3


def test_the_first_int_is_warm_the_second_cold_the_third_hard(worker, capfd):
    handlers = ShutdownSignals(worker)
    handlers.on_signal("SIGINT")
    handlers.on_signal("SIGINT")
    assert worker.stops == [("warm", 1), ("cold", 1)]
    assert said(capfd) == [AGAIN_COLD, WARM, AGAIN_HARD]
    with pytest.raises(WorkerTerminate) as ended:
        handlers.on_signal("SIGINT")
    assert ended.value.code == 1


def test_quit_is_soft_where_running_tasks_are_granted_time(capfd):
    worker = Asked(grace=5)
    handlers = ShutdownSignals(worker)
    handlers.on_signal("SIGQUIT")
    handlers.on_signal("SIGQUIT")
    assert worker.stops == [("soft", 1), ("cold", 1)]
    assert said(capfd) == [AGAIN_HARD, "Waiting gracefully for cold shutdown to complete..."]
    with pytest.raises(WorkerTerminate):
        handlers.on_signal("SIGINT")


@pytest.mark.parametrize("stage", [Stage.SOFT, Stage.COLD])
def test_term_never_warms_up_a_colder_shutdown(worker, stage):
    handlers = ShutdownSignals(worker)
    handlers.stage = stage
    handlers.on_signal("SIGTERM")
    assert worker.stops == ["hurry"]
    assert handlers.stage is stage


def test_a_shutdown_only_gets_colder():
    order = list(Stage)
    assert all(order.index(step.to) > order.index(stage) for (stage, _), step in STEPS.items())


def test_receivers_hear_of_every_stage_on_a_thread_that_the_worker_does_not_wait_for(worker):
    heard = []
    let_go, both = threading.Event(), threading.Semaphore(0)

    @signals.worker_shutting_down.connect
    def slow(sender, sig, how, exitcode, **kwargs):
        assert let_go.wait(10)
        heard.append((sender, sig, how, exitcode))
        both.release()

    try:
        handlers = ShutdownSignals(worker)
        handlers.on_signal("SIGTERM")
        assert worker.stops == [("warm", 0)]
        handlers.on_signal("SIGQUIT")
        let_go.set()
        assert both.acquire(timeout=10)
        assert both.acquire(timeout=10)
    finally:
        signals.worker_shutting_down.disconnect(slow)
    assert sorted(heard) == [("w1@h", "SIGQUIT", "Cold", 1), ("w1@h", "SIGTERM", "Warm", 0)]


PROGRAM = """
import os, sys, time
from celery import Celery
from celery.apps.shutdown import ShutdownSignals, Stage

class Worker:
    hostname = "w1@h"
    app = Celery("proj", broker="memory://")
    def request_stop(self, how="warm", exitcode=0):
        print("stop", how, exitcode, handlers.restart_requested, flush=True)
        sys.exit(0)

handlers = ShutdownSignals(Worker(), "celery worker")
handlers.install()
if os.environ.get("OUTLIVED"):
    handlers.stage, handlers.over = Stage.COLD, True
print("installed", flush=True)
for _ in range(600):
    time.sleep(0.05)
"""


def run_and_signal(*signums, **environment):
    """Send signals to the program above; return its exit status, and what it printed to stdout and stderr."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    try:
        assert program.stdout.readline() == "installed\n"
        first_words = []
        for signum in signums:
            program.send_signal(signum)
            if signum == signal.SIGUSR1:
                first_words += iter(program.stderr.readline, "LOCAL VARIABLES\n")
        out, err = program.communicate(timeout=20)
        return program.returncode, out, "".join(first_words) + err
    finally:
        program.kill()
        program.wait()


@pytest.mark.parametrize(
    ("signum", "environment", "expected"),
    [
        (signal.SIGTERM, {}, "stop warm 0 False"),
        (signal.SIGINT, {}, "stop warm 1 False"),
        (signal.SIGQUIT, {}, "stop cold 1 False"),
        (signal.SIGTERM, {"REMAP_SIGTERM": "SIGQUIT"}, "stop cold 1 False"),
        (signal.SIGHUP, {}, "stop warm 0 True"),
    ],
)
def test_signals_reach_the_worker(signum, environment, expected):
    status, out, err = run_and_signal(signum, **environment)
    assert status == 0
    assert out.splitlines()[-1] == expected
    assert err == ""


def test_usr1_shows_where_every_thread_is_and_the_worker_goes_on():
    _, out, err = run_and_signal(signal.SIGUSR1, signal.SIGTERM)
    assert "stop warm 0 False" in out
    assert "MainThread" in err
    assert "in <module>" in err


def test_a_process_that_outlives_its_worker_is_ended_by_a_hard_shutdown():
    status, out, err = run_and_signal(signal.SIGINT, OUTLIVED="1")
    assert (status, out, err) == (1, "\nworker: Cold shutdown (MainProcess)\n", "")


def test_the_stacks_name_threads_functions_and_local_variables():
    go, ready = threading.Event(), threading.Event()

    def waiting_for_godot():
        act = 2
        ready.set()
        go.wait(10)
        return act

    thread = threading.Thread(target=waiting_for_godot, name="vladimir")
    thread.start()
    try:
        assert ready.wait(10)
        text = all_stacks()
    finally:
        go.set()
        thread.join()
    assert "vladimir" in text
    assert "in waiting_for_godot" in text
    assert "MainThread" in text
    assert "LOCAL VARIABLES" in text
