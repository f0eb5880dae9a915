"""``celery worker``: its options, its beginning and its end (CLI-021..057)."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

PROJECT = """
import sys, time
from celery import Celery, signals

app = Celery("proj", broker="sqlite:///{path}", backend="sqlite:///{path}")

def tell(signal, sender=None, instance=None, **kwargs):
    print("signal", signal.name, sender, instance and instance.hostname, file=sys.__stdout__, flush=True)

for each in (signals.celeryd_init, signals.celeryd_after_setup, signals.worker_init, signals.worker_shutting_down,
             signals.worker_shutdown):
    each.connect(tell, weak=False)

@app.task
def speak(text):
    print(text)

@app.task
def sleep(seconds):
    time.sleep(seconds)
"""
#: Seconds after which a program that says nothing has failed.
PATIENCE = 30


class WorkerProcess:
    """``python -m celery -A proj worker``, and what it says line by line."""

    def __init__(self, folder, *argv, before=(), **environment):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CELERY_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "proj", *before, "worker", "-l", "INFO", "-c", "1", *argv],
            cwd=folder, env={**inherited, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.lines = queue.SimpleQueue()
        self.said = []
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (self.process.stdout, self.process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream):
        for line in stream:
            self.lines.put(line.rstrip("\n"))

    def until(self, text):
        """Wait for a line with this text, and return it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                line = self.lines.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"never said {text!r}, but:\n" + "\n".join(self.said)) from None
            self.said.append(line)
            if text in line:
                return line

    def send(self, signum):
        self.process.send_signal(signum)

    def wait(self):
        """Return the exit status, and all it said."""
        status = self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        while not self.lines.empty():
            self.said.append(self.lines.get())
        return status, "\n".join(self.said)

    def close(self):
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(PATIENCE)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def project(tmp_path, sqlite_path):
    (tmp_path / "proj.py").write_text(PROJECT.format(path=sqlite_path), encoding="utf-8")
    return tmp_path


@pytest.fixture
def start(project):
    """Start a worker on the project; it is gone when the test is over."""
    started = []

    def start(*argv, **options):
        started.append(WorkerProcess(project, *argv, **options))
        return started[-1]

    yield start
    for worker in started:
        worker.close()


# -- as a process


def test_a_worker_shows_its_banner_runs_tasks_and_ends_with_status_0_on_term(start, project, app):
    worker = start("-n", "w1@%h", "--pidfile", "%n.pid")
    worker.until(" ready.")
    assert (project / "w1.pid").read_text() == f"{worker.process.pid}\n"
    title = Path(f"/proc/{worker.process.pid}/cmdline").read_text()
    assert re.match(r"\[celeryd: w1@.+:MainProcess\] -active- \(-A proj worker .*\)", title)
    app.send_task("proj.speak", ("Hello",))
    assert "WARNING/ForkPoolWorker-1] Hello" in worker.until("Hello")
    worker.until("succeeded in")
    worker.send(signal.SIGTERM)
    status, said = worker.wait()
    assert status == 0
    assert not (project / "w1.pid").exists()
    assert "v5.7.0 (collider)" in said
    assert "  . proj.speak" in said
    assert "worker: Warm shutdown (MainProcess)" in said
    node = next(line for line in worker.said if "celeryd_init" in line).split()[2]
    assert node.startswith("w1@")
    assert [line.split()[1] for line in worker.said if line.startswith("signal ")] == [
        "celeryd_init", "celeryd_after_setup", "worker_init", "worker_shutting_down", "worker_shutdown",
    ]  # fmt: skip
    assert f"signal celeryd_init {node} {node}" in said


def test_ctrl_c_ends_a_worker_with_status_1_and_a_second_one_ends_its_tasks(start, app):
    worker = start(before=["-q"])
    worker.until(" ready.")
    app.send_task("proj.sleep", (PATIENCE,))
    worker.until("received")
    worker.send(signal.SIGINT)
    worker.until("Hitting Ctrl+C again will initiate cold shutdown, terminating all running tasks!")
    worker.send(signal.SIGINT)
    status, said = worker.wait()
    assert status == 1
    assert "worker: Hitting Ctrl+C again will terminate all running tasks!" in said
    assert "[config]" not in said


def test_hup_starts_the_same_program_again_in_the_same_process(start, project):
    worker = start("--pidfile", "w.pid")
    worker.until(" ready.")
    worker.send(signal.SIGHUP)
    worker.until("Restarting celery worker")
    worker.until(" ready.")
    assert (project / "w.pid").read_text() == f"{worker.process.pid}\n"
    worker.send(signal.SIGTERM)
    assert worker.wait()[0] == 0


def test_a_pidfile_of_a_living_process_stops_the_worker_with_status_73(start, project):
    (project / "taken.pid").write_text(f"{os.getppid()}\n")
    status, said = start("--pidfile", "taken.pid").wait()
    assert status == 73
    assert "Seems we're already running? " in said


def test_the_log_goes_to_a_file_named_after_the_node(start, project):
    worker = start("-n", "w2@h", "-f", "%n%I.log", before=["-q"])
    worker.until("signal worker_init")
    worker.send(signal.SIGTERM)
    status, said = worker.wait()
    assert status == 0
    assert "INFO/MainProcess]" not in said
    assert (project / "w2.log").exists()


@pytest.mark.parametrize("option", ["--logfile", "--pidfile"])
def test_a_file_that_cannot_be_made_is_named_without_a_traceback(start, option):
    status, said = start(option, "nowhere/file").wait()
    assert status == 1
    assert "nowhere/file" in said
    assert "No such file or directory" in said
    assert "Traceback" not in said


@pytest.mark.skipif(os.getuid() != 0, reason="what root may not do")
def test_root_may_not_accept_pickle(start):
    status, said = start("--", 'accept_content=(json)["pickle"]').wait()
    assert status == 1
    assert "C_FORCE_ROOT" in said
    assert "Traceback" not in said


# -- options


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-c", "x"], "must be a non-negative integer or 'auto', got 'x'"),
        (["-c", "-1"], "must be a non-negative integer or 'auto', got '-1'"),
        (["-l", "loud"], "Invalid value for '-l'"),
        (["-P", "nope"], "Invalid value for '-P'"),
        (["--autoscale", "1,2,3"], "Expected two comma separated integers or one integer."),
        (["--autoscale", "many"], "Expected two comma separated integers or one integer."),
        (["--autoscale", "10,3"], "This version does not have --autoscale"),
        (["-B"], "This version does not have -B/--beat"),
        (["-D"], "This version does not have -D/--detach"),
        (["--", "worker.nonsense=1"], "there is no setting 'worker_nonsense'"),
        (["--", "worker.concurrency"], "'worker.concurrency' is not of the form setting=value"),
    ],
)
def test_what_makes_no_sense_or_is_not_there_yet_is_refused(invoke, argv, text):
    ended = invoke("worker", *argv)
    assert ended.exit_code == 2
    assert text in ended.output


@pytest.mark.filterwarnings("ignore::celery.exceptions.SecurityWarning")  # where the tests run as root
@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-Q", "nowhere"], "Trying to select queue 'nowhere', which is not in task_queues"),
        (["-P", "eventlet"], "The pool 'eventlet' is not in this version"),
        (["-P", "gevent"], "The pool 'gevent' is not in this version"),
        (["--", "worker.concurrency=many"], "worker_concurrency is 'many'"),
    ],
)
def test_what_the_settings_do_not_allow_is_told_without_a_traceback(invoke, app, argv, text):
    app.conf.task_create_missing_queues = False
    ended = invoke("worker", *argv)
    assert ended.exit_code == 1
    assert f"Error: {text}" in ended.output


def test_the_help_groups_the_options(invoke):
    text = invoke("worker", "--help").output
    headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == [
        "Worker Options:", "Pool Options:", "Queue Options:", "Features:", "Embedded Beat Options:",
        "Daemonization Options:", "Options:",
    ]  # fmt: skip
